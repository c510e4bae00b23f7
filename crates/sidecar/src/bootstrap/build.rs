//! From the proto of a bootstrap to what the process uses, all that is wrong with it told at once.

use std::sync::Arc;

use outrider_xds::pb::envoy::config::bootstrap::v3 as proto;
use outrider_xds::pb::envoy::config::bootstrap::v3::bootstrap::ApplicationLogConfig;
use outrider_xds::pb::envoy::config::bootstrap::v3::bootstrap::application_log_config::log_format::LogFormat;
use outrider_xds::pb::envoy::config::core::v3::node::UserAgentVersionType;
use outrider_xds::pb::envoy::config::core::v3::{
    Address as ProtoAddress, ConfigSource, Node, address,
};
use outrider_xds::pb::envoy::config::metrics::v3::StatsConfig;
use outrider_xds::pb::envoy::config::metrics::v3::stats_matcher::StatsMatcher;
use outrider_xds::pb::envoy::config::metrics::v3::tag_specifier::TagValue;
use outrider_xds::pb::envoy::r#type::matcher::v3::StringMatcher as ProtoMatcher;
use prost::Message;

use super::options::Options;
use super::{Admin, Bootstrap, StaticResource};
use crate::config::address::Address;
use crate::config::build::fields::Together as _;
use crate::config::build::resource::checked_and;
use crate::config::build::struct_value;
use crate::config::build::{self, Within as _, fields};
use crate::config::error::{ConfigError, Problems, Result};
use crate::config::matcher::StringMatcher;
use crate::config::source::{Origin, ResourceSource};
use crate::runtime::overload;
use crate::runtime_layer::layers;
use crate::telemetry::metrics::{Keep, StatsRules, Tag};
use crate::telemetry::program_log::Pattern;

/// Builds what can be built; what is wrong is kept in `problems`.
pub fn build(bytes: Vec<u8>, options: &Options, problems: &mut Problems) -> Bootstrap {
    let mut bootstrap = None;
    let built = checked_and(&bytes, |mut proto: proto::Bootstrap| {
        // Merged from two texts, it is encoded anew, so that the dump has one of each field.
        let bytes = proto.encode_to_vec().into();
        let node = proto.node.take().unwrap_or_default();
        let mut found = Problems::default();
        let mut built = Bootstrap {
            node: self::node(node, options),
            bytes,
            ..Bootstrap::default()
        };
        fill(&mut built, proto, options, &mut found);
        bootstrap = Some(built);
        found.into_error()
    });
    problems.take(built);
    bootstrap.unwrap_or_default()
}

fn fill(into: &mut Bootstrap, proto: proto::Bootstrap, options: &Options, problems: &mut Problems) {
    let fixed = proto.static_resources.unwrap_or_default();
    into.secrets = resources("secrets", fixed.secrets, |secret| &secret.name, problems);
    into.clusters = resources(
        "clusters",
        fixed.clusters,
        |cluster| &cluster.name,
        problems,
    );
    into.listeners = resources("listeners", fixed.listeners, |l| &l.name, problems);
    let dynamic = proto.dynamic_resources.unwrap_or_default();
    let ads = dynamic.ads_config.as_ref().map(build::source::grpc);
    into.ads = problems.take(ads.transpose().within("dynamic_resources.ads_config"));
    let mut origin = |source: Option<ConfigSource>, field: &str| {
        let has_ads = dynamic.ads_config.is_some();
        let origin = source
            .map(|source| collection(&source, has_ads))
            .transpose();
        problems.take(origin.within(field).within("dynamic_resources"))
    };
    into.cds = origin(dynamic.cds_config.clone(), "cds_config");
    into.lds = origin(dynamic.lds_config.clone(), "lds_config");
    let admin = proto.admin.map(|proto| admin(&proto, options)).transpose();
    into.admin = problems.take(admin.within("admin")).unwrap_or_default();
    let manager = proto.cluster_manager.unwrap_or_default();
    into.local_cluster =
        Some(manager.local_cluster_name.as_str().into()).filter(|name: &Arc<str>| !name.is_empty());
    let bind = manager.upstream_bind_config;
    let bind = bind
        .map(|bind| build::connection_options::bind_config(&bind, None))
        .transpose();
    into.default_bind = problems.take(bind.within("cluster_manager.upstream_bind_config"));
    // The older fields still mean what they meant.
    #[allow(deprecated)]
    let lookup = build::dns::resolver(
        proto.typed_dns_resolver_config.as_ref(),
        proto.dns_resolution_config.as_ref(),
        &[],
        proto.use_tcp_for_dns_lookups,
    );
    into.default_lookup = problems.take(lookup).unwrap_or_default();
    let has_ads = dynamic.ads_config.is_some();
    let runtime = layers::build(proto.layered_runtime.as_ref(), &into.node.cluster, has_ads);
    into.runtime = problems.take(runtime.within("layered_runtime"));
    let pattern = proto
        .application_log_config
        .map(|log| log_pattern(&log, options))
        .transpose();
    into.log_pattern = problems
        .take(pattern.within("application_log_config"))
        .flatten();
    let overload = proto.overload_manager.as_ref().map(overload::config::build);
    into.overload = problems.take(overload.transpose().within("overload_manager"));
    let rules = proto
        .stats_config
        .map(|proto| stats_rules(&proto))
        .transpose();
    into.stats_rules = problems.take(rules.within("stats_config"));
    into.server_version = proto
        .stats_server_version_override
        .map(|version| version.value);
}

/// Who we are: the command line knows better than the file.
fn node(mut node: Node, options: &Options) -> Node {
    if let Some(id) = &options.service_node {
        node.id.clone_from(id);
    }
    if let Some(cluster) = &options.service_cluster {
        node.cluster.clone_from(cluster);
    }
    if let Some(zone) = &options.service_zone {
        node.locality.get_or_insert_default().zone.clone_from(zone);
    }
    node.user_agent_name = "outrider-sidecar".into();
    let version = env!("CARGO_PKG_VERSION").to_owned();
    node.user_agent_version_type = Some(UserAgentVersionType::UserAgentVersion(version));
    node
}

/// `cds_config` and `lds_config`.
fn collection(source: &ConfigSource, has_ads: bool) -> Result<ResourceSource> {
    let source = build::source::build(source)?;
    match source.origin {
        Origin::Ads if !has_ads => {
            Err(ConfigError::new("", "is `ads`, but there is no ads_config"))
        }
        Origin::Grpc(_) => {
            let reason = "a stream of its own is not supported: use `ads`";
            Err(ConfigError::new("", reason))
        }
        _ => Ok(source),
    }
}

fn admin(proto: &proto::Admin, options: &Options) -> Result<Admin> {
    let address = proto.address.as_ref().map(|a| admin_address(a, options));
    let paths = fields::each("allow_paths", &proto.allow_paths, build::matcher::string);
    let (address, allow_paths) = (address.transpose().within("address"), paths).together()?;
    Ok(Admin {
        address,
        allow_paths,
    })
}

fn admin_address(proto: &ProtoAddress, options: &Options) -> Result<Address> {
    let address = match &proto.address {
        // Port 0 is for those who read the port from --admin-address-path.
        Some(address::Address::SocketAddress(socket)) => {
            let address = fields::socket_address(socket, true).within("socket_address")?;
            Address::Socket(address)
        }
        _ => build::address(&Some(proto.clone()), "")?,
    };
    let is_local = address.ip().is_none_or(|ip| ip.is_loopback());
    if !is_local && !options.allow_remote_admin {
        let reason = format_args!(
            "{address} is not on loopback, and whoever reaches the admin API commands the proxy: \
             use 127.0.0.1 or ::1, or add --allow-remote-admin"
        );
        return Err(ConfigError::new("", reason));
    }
    Ok(address)
}

fn log_pattern(proto: &ApplicationLogConfig, options: &Options) -> Result<Option<Pattern>> {
    let format = proto.log_format.as_ref();
    let Some(format) = format.and_then(|format| format.log_format.as_ref()) else {
        return Ok(None);
    };
    let (field, pattern) = match format {
        LogFormat::TextFormat(text) => ("text_format", text.clone()),
        LogFormat::JsonFormat(fields) => {
            let fields = serde_json::Value::Object(struct_value::object(fields));
            ("json_format", fields.to_string())
        }
    };
    let field = format_args!("log_format.{field}");
    if options.log_format.is_some() {
        return Err(ConfigError::new(field, "--log-format is set too"));
    }
    let pattern = Pattern::parse(&pattern, options.log_format_escaped);
    pattern
        .map(Some)
        .map_err(|error| ConfigError::new(field, error))
}

/// `StatsConfig`.
fn stats_rules(proto: &StatsConfig) -> Result<StatsRules> {
    let tags = fields::each("stats_tags", &proto.stats_tags, |tag| {
        let name = fields::named(&tag.tag_name, "tag_name")?.to_owned();
        Ok(match &tag.tag_value {
            Some(TagValue::FixedValue(value)) => Tag::Fixed(name, value.clone()),
            Some(TagValue::Regex(pattern)) if !pattern.is_empty() => {
                let built = regex::RegexBuilder::new(pattern)
                    .size_limit(1 << 20)
                    .build();
                let pattern = built.map_err(|error| ConfigError::new("regex", error))?;
                if pattern.captures_len() < 2 {
                    let reason = "must have a group: what is taken out of the name";
                    return Err(ConfigError::new("regex", reason));
                }
                Tag::Matched(name, pattern)
            }
            // Without a value it names one of the default tags.
            _ => Tag::Default,
        })
    });
    let matcher = match &proto.stats_matcher {
        None => Ok(Keep::All),
        Some(matcher) => match &matcher.stats_matcher {
            None | Some(StatsMatcher::RejectAll(false)) => Ok(Keep::All),
            Some(StatsMatcher::RejectAll(true)) => Ok(Keep::None),
            Some(StatsMatcher::ExclusionList(list)) => strings(&list.patterns)
                .within("exclusion_list")
                .map(Keep::Without),
            Some(StatsMatcher::InclusionList(list)) => strings(&list.patterns)
                .within("inclusion_list")
                .map(Keep::Only),
        },
    };
    let (tags, keep) = (tags, matcher.within("stats_matcher")).together()?;
    Ok(StatsRules::new(keep, tags))
}

fn strings(patterns: &[ProtoMatcher]) -> Result<Vec<StringMatcher>> {
    fields::each("patterns", patterns, build::matcher::string)
}

/// Encodes each resource; one without a name (a listener may have none) is named by its place.
fn resources<M: Message>(
    kind: &str,
    resources: Vec<M>,
    name: impl Fn(&M) -> &String,
    problems: &mut Problems,
) -> Vec<StaticResource> {
    let mut built: Vec<StaticResource> = Vec::with_capacity(resources.len());
    for (index, resource) in resources.iter().enumerate() {
        let path = format!("static_resources.{kind}[{index}]");
        let name: Arc<str> = match name(resource).as_str() {
            "" => path.as_str().into(),
            name => name.into(),
        };
        if let Some(other) = built.iter().find(|other| other.name == name) {
            let reason = format!("{} has the name `{name}` too", other.path);
            problems.add(ConfigError::new(format_args!("{path}.name"), reason));
            continue;
        }
        built.push(StaticResource {
            name,
            path,
            bytes: resource.encode_to_vec().into(),
        });
    }
    built
}
