//! `lb_policy`, `common_lb_config`, and `load_balancing_policy`.

use envoy_types::pb::envoy::config::cluster::v3 as cluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::common_lb_config::LocalityConfigSpecifier;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{CommonLbConfig, LbConfig, LbPolicy};
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::load_balancing_policies::common::v3 as common;
use envoy_types::pb::envoy::extensions::load_balancing_policies::least_request::v3 as least_request;
use envoy_types::pb::envoy::extensions::load_balancing_policies::random::v3::Random;
use envoy_types::pb::envoy::extensions::load_balancing_policies::round_robin::v3::RoundRobin;
use envoy_types::pb::envoy::r#type::v3::Percent;
use envoy_types::pb::google::protobuf;

use super::extension::{Build, Extension, decode, resolve};
use super::fields::{
    Together as _, Within as _, bounded, duration, enumeration, flag, refuse, required, uint,
};
use crate::config::cluster::{LoadBalancer, LoadBalancing, SlowStart, ZoneAware};
use crate::config::error::{ConfigError, Result};
use crate::runtime_layer::{self, Double};

/// `choice_count` unless set.
const CHOICES: u32 = 2;

/// The runtime's say in how much of the traffic keeps to zones, and from how many endpoints on.
const ZONES_ENABLED: &str = "upstream.zone_routing.enabled";
const ZONES_SIZE: &str = "upstream.zone_routing.min_cluster_size";

/// What `load_balancing_policy.policies` may hold.
const POLICIES: &[Extension<Build<LoadBalancing>>] = &[
    Extension {
        type_name: "envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin",
        build: |bytes| {
            let proto: RoundRobin = decode(bytes)?;
            Ok(LoadBalancing {
                slow_start: newer_slow_start(&proto.slow_start_config)?,
                ..with_localities(LoadBalancer::RoundRobin, &proto.locality_lb_config)?
            })
        },
    },
    Extension {
        type_name: "envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest",
        build: |bytes| {
            let proto: least_request::LeastRequest = decode(bytes)?;
            Ok(LoadBalancing {
                slow_start: newer_slow_start(&proto.slow_start_config)?,
                ..with_localities(least_busy(&proto)?, &proto.locality_lb_config)?
            })
        },
    },
    Extension {
        type_name: "envoy.extensions.load_balancing_policies.random.v3.Random",
        build: |bytes| {
            let proto: Random = decode(bytes)?;
            with_localities(LoadBalancer::Random, &proto.locality_lb_config)
        },
    },
    Extension {
        type_name: "envoy.extensions.load_balancing_policies.cluster_provided.v3.ClusterProvided",
        build: |_| Ok(of(LoadBalancer::Provided)),
    },
];

/// How a cluster chooses its endpoints. `provided` says whether it finds them itself.
pub fn build(proto: &cluster::Cluster, provided: bool) -> Result<LoadBalancing> {
    let newer = proto.load_balancing_policy.as_ref().map(policies);
    let ((policy, older), newer) = (
        of_older_fields(proto),
        newer.transpose().within("load_balancing_policy"),
    )
        .together()?;
    let chosen = match (newer, policy) {
        (Some(newer), _) => LoadBalancing {
            // The newer field has no other place for it.
            panic_threshold: older.panic_threshold,
            ..newer
        },
        (None, Some(policy)) => LoadBalancing { policy, ..older },
        (None, None) => {
            return Err(ConfigError::new(
                "load_balancing_policy",
                "must be set where lb_policy is LOAD_BALANCING_POLICY_CONFIG",
            ));
        }
    };
    refuse(
        provided != matches!(chosen.policy, LoadBalancer::Provided),
        "lb_policy",
        "CLUSTER_PROVIDED goes with the type ORIGINAL_DST and with clusters of clusters, and those with \
         no other policy",
    )?;
    Ok(chosen)
}

fn of(policy: LoadBalancer) -> LoadBalancing {
    LoadBalancing {
        policy,
        ..LoadBalancing::default()
    }
}

/// The first policy counts: Envoy goes on to the next only where it does not know one, and there is
/// none here that it would not know.
fn policies(proto: &cluster::LoadBalancingPolicy) -> Result<LoadBalancing> {
    let first = proto
        .policies
        .first()
        .ok_or_else(|| ConfigError::new("policies", "must not be empty"))?;
    let field = "policies[0].typed_extension_config";
    let extension = required(&first.typed_extension_config, field)?;
    let any = required(&extension.typed_config, "typed_config").within(field)?;
    let row = resolve(POLICIES, "load balancing policy", any).within(field)?;
    (row.build)(&any.value).within(format_args!("{field}.typed_config"))
}

fn with_localities(
    policy: LoadBalancer,
    localities: &Option<common::LocalityLbConfig>,
) -> Result<LoadBalancing> {
    use common::locality_lb_config::LocalityConfigSpecifier as Specifier;
    let mut chosen = of(policy);
    chosen.zones = zones(&None, &None)?;
    let specifier = localities.as_ref();
    match specifier.and_then(|config| config.locality_config_specifier.as_ref()) {
        None => {}
        Some(Specifier::LocalityWeightedLbConfig(_)) => chosen.locality_weighted = true,
        Some(Specifier::ZoneAwareLbConfig(zone)) => {
            chosen.fail_on_panic = zone.fail_traffic_on_panic;
            let within = "locality_lb_config.zone_aware_lb_config";
            chosen.zones = newer_zones(zone).within(within)?;
        }
    }
    Ok(chosen)
}

fn newer_zones(zone: &common::locality_lb_config::ZoneAwareLbConfig) -> Result<ZoneAware> {
    use common::locality_lb_config::zone_aware_lb_config::LocalityBasis;
    let basis: LocalityBasis = enumeration(zone.locality_basis, "locality_basis")?;
    let size = |zone: &common::locality_lb_config::zone_aware_lb_config::ForceLocalZone| {
        uint(&zone.min_size).unwrap_or(1)
    };
    // The older form of the field.
    #[allow(deprecated)]
    let older = zone.force_locality_direct_routing.then_some(1);
    Ok(ZoneAware {
        force_local: zone.force_local_zone.as_ref().map(size).or(older),
        by_weight: basis == LocalityBasis::HealthyHostsWeight,
        ..zones(&zone.routing_enabled, &zone.min_cluster_size)?
    })
}

fn zones(
    enabled: &Option<Percent>,
    min_cluster_size: &Option<protobuf::UInt64Value>,
) -> Result<ZoneAware> {
    let enabled = percent(enabled, "routing_enabled")?.unwrap_or(100.0);
    let size = min_cluster_size.as_ref().map_or(6, |size| size.value);
    // No cluster has more endpoints than fit 32 bits.
    let size = u32::try_from(size).unwrap_or(u32::MAX);
    Ok(ZoneAware {
        // The bounds make the cast exact up to the fraction.
        enabled: Some(runtime_layer::fraction_at(
            ZONES_ENABLED,
            enabled.round() as u32,
            100,
        )),
        min_cluster_size: Some(runtime_layer::number_at(ZONES_SIZE, size)),
        ..ZoneAware::default()
    })
}

fn older_slow_start(
    proto: &Option<cluster::cluster::SlowStartConfig>,
) -> Result<Option<SlowStart>> {
    let Some(proto) = proto else {
        return Ok(None);
    };
    slow_start(
        &proto.slow_start_window,
        &proto.aggression,
        &proto.min_weight_percent,
    )
}

fn newer_slow_start(proto: &Option<common::SlowStartConfig>) -> Result<Option<SlowStart>> {
    let Some(proto) = proto else {
        return Ok(None);
    };
    slow_start(
        &proto.slow_start_window,
        &proto.aggression,
        &proto.min_weight_percent,
    )
}

fn slow_start(
    window: &Option<protobuf::Duration>,
    aggression: &Option<core::RuntimeDouble>,
    least: &Option<Percent>,
) -> Result<Option<SlowStart>> {
    let built = || {
        let window = duration(window, "slow_start_window")?.unwrap_or_default();
        let aggression = aggression.as_ref().map(|proto| {
            refuse(
                proto.default_value.is_nan() || proto.default_value <= 0.0,
                "default_value",
                "must be greater than 0",
            )?;
            runtime_layer::double(proto)
        });
        Ok(SlowStart {
            window,
            aggression: aggression.transpose().within("aggression")?,
            least: percent(least, "min_weight_percent")?.unwrap_or(10.0) / 100.0,
        })
    };
    let built = built().within("slow_start_config")?;
    // Without a window there is nothing to wait for.
    Ok(Some(built).filter(|built| !built.window.is_zero()))
}

fn percent(proto: &Option<Percent>, field: &str) -> Result<Option<f64>> {
    let value = proto.as_ref().map(|percent| percent.value);
    refuse(
        value.is_some_and(|value| !(0.0..=100.0).contains(&value)),
        field,
        "must be between 0 and 100",
    )?;
    Ok(value)
}

fn least_busy(proto: &least_request::LeastRequest) -> Result<LoadBalancer> {
    use least_request::least_request::SelectionMethod;
    let method: SelectionMethod = enumeration(proto.selection_method, "selection_method")?;
    let all = method == SelectionMethod::FullScan || flag(&proto.enable_full_scan) == Some(true);
    let choices = bounded(&proto.choice_count, 2..=u32::MAX, "choice_count")?;
    Ok(LoadBalancer::LeastRequest {
        choices: (!all).then_some(choices.unwrap_or(CHOICES)),
        bias: bias(&proto.active_request_bias)?,
    })
}

fn bias(proto: &Option<core::RuntimeDouble>) -> Result<Option<Double>> {
    let Some(proto) = proto else {
        return Ok(None);
    };
    let bias = runtime_layer::double(proto).within("active_request_bias")?;
    refuse(
        !proto.default_value.is_finite() || proto.default_value < 0.0,
        "active_request_bias.default_value",
        "must not be negative",
    )?;
    Ok(Some(bias))
}

/// The policy, and the rest as far as `common_lb_config` says it; the policy is in another field
/// where it is `None`.
fn of_older_fields(proto: &cluster::Cluster) -> Result<(Option<LoadBalancer>, LoadBalancing)> {
    let policy = older_policy(proto);
    let chosen = policy.as_ref().ok().and_then(Option::as_ref);
    let rest = common_settings(proto, chosen);
    (policy, rest).together()
}

fn older_policy(proto: &cluster::Cluster) -> Result<Option<LoadBalancer>> {
    let policy: LbPolicy = enumeration(proto.lb_policy, "lb_policy")?;
    let policy = match policy {
        LbPolicy::RoundRobin => Some(LoadBalancer::RoundRobin),
        LbPolicy::Random => Some(LoadBalancer::Random),
        LbPolicy::LeastRequest => Some(match &proto.lb_config {
            Some(LbConfig::LeastRequestLbConfig(config)) => {
                let field = "least_request_lb_config";
                let choices = bounded(&config.choice_count, 2..=u32::MAX, "choice_count");
                LoadBalancer::LeastRequest {
                    choices: Some(choices.within(field)?.unwrap_or(CHOICES)),
                    bias: bias(&config.active_request_bias).within(field)?,
                }
            }
            _ => LoadBalancer::LeastRequest {
                choices: Some(CHOICES),
                bias: None,
            },
        }),
        LbPolicy::ClusterProvided => Some(LoadBalancer::Provided),
        LbPolicy::LoadBalancingPolicyConfig => None,
        // It only counts where there is no newer field.
        _ if proto.load_balancing_policy.is_some() => None,
        LbPolicy::RingHash | LbPolicy::Maglev => {
            return Err(ConfigError::new(
                "lb_policy",
                format_args!(
                    "{} is not supported; supported: ROUND_ROBIN, LEAST_REQUEST, RANDOM, \
                     CLUSTER_PROVIDED",
                    policy.as_str_name()
                ),
            ));
        }
    };
    Ok(policy)
}

fn common_settings(
    proto: &cluster::Cluster,
    policy: Option<&LoadBalancer>,
) -> Result<LoadBalancing> {
    let common = proto.common_lb_config.as_ref();
    let mut rest = LoadBalancing {
        slow_start: match (policy, &proto.lb_config) {
            (Some(LoadBalancer::RoundRobin), Some(LbConfig::RoundRobinLbConfig(config))) => {
                older_slow_start(&config.slow_start_config).within("round_robin_lb_config")?
            }
            (
                Some(LoadBalancer::LeastRequest { .. }),
                Some(LbConfig::LeastRequestLbConfig(config)),
            ) => older_slow_start(&config.slow_start_config).within("least_request_lb_config")?,
            _ => None,
        },
        zones: zones(&None, &None)?,
        ..LoadBalancing::default()
    };
    let threshold = common.map_or(Ok(None), panic_threshold);
    if let Some(threshold) = threshold.within("common_lb_config")? {
        rest.panic_threshold = threshold;
    }
    match common.and_then(|common| common.locality_config_specifier.as_ref()) {
        None => {}
        Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => {
            rest.locality_weighted = true;
        }
        Some(LocalityConfigSpecifier::ZoneAwareLbConfig(zone)) => {
            rest.fail_on_panic = zone.fail_traffic_on_panic;
            rest.zones = zones(&zone.routing_enabled, &zone.min_cluster_size)
                .within("common_lb_config.zone_aware_lb_config")?;
        }
    }
    Ok(rest)
}

fn panic_threshold(proto: &CommonLbConfig) -> Result<Option<u8>> {
    let threshold = percent(&proto.healthy_panic_threshold, "healthy_panic_threshold")?;
    // The bounds make the cast exact up to the fraction.
    Ok(threshold.map(|threshold| threshold.round() as u8))
}
