//! `OverloadManager`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use envoy_types::pb::envoy::config::overload::v3 as proto;
use envoy_types::pb::envoy::config::overload::v3::resource_monitor::ConfigType;
use envoy_types::pb::envoy::config::overload::v3::trigger::TriggerOneof;
use envoy_types::pb::envoy::extensions::resource_monitors as monitors;

use super::{Action, ShedPoint};
use crate::config::build::Within as _;
use crate::config::build::extension::{Build, Extension, decode, resolve};
use crate::config::build::fields::{
    Together as _, each, named, one_of, positive, refuse, required,
};
use crate::config::error::{ConfigError, Result};

/// How often resources are looked at, unless it is set.
const REFRESH: Duration = Duration::from_secs(1);

/// The overload manager.
#[derive(Debug)]
pub struct Overload {
    /// `refresh_interval`
    pub refresh: Duration,
    /// By name.
    pub monitors: Vec<(String, Monitor)>,
    /// In their order.
    pub actions: Vec<Triggered<Action>>,
    /// `loadshed_points`
    pub points: Vec<Triggered<ShedPoint>>,
}

/// What is looked at.
#[derive(Clone, Debug, PartialEq)]
pub enum Monitor {
    /// `fixed_heap`: the memory of the process against so many bytes.
    Heap(u64),
    /// `cgroup_memory`: that of the cgroup against its limit, or so many bytes if they are fewer.
    Cgroup(Option<u64>),
    /// `global_downstream_max_connections`: so many, which is looked at as each one comes.
    Connections(u64),
    /// `injected_resource`: a file with a number from 0 to 1.
    Injected(PathBuf),
}

/// An action or a load shed point, and when it is done.
#[derive(Debug)]
pub struct Triggered<A> {
    /// Its name in the file.
    pub name: String,
    /// It.
    pub action: A,
    /// The greatest counts.
    pub triggers: Vec<Trigger>,
}

/// A resource whose pressure counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Trigger {
    /// The index of its monitor.
    pub monitor: usize,
    /// From this pressure on the level rises from 0,
    pub scaling: f64,
    /// and at this one it is 1. Both are the same for a `threshold`.
    pub saturation: f64,
}

impl Trigger {
    /// The level at a pressure.
    pub fn level(&self, pressure: f64) -> f64 {
        if pressure >= self.saturation {
            1.0
        } else if pressure <= self.scaling {
            0.0
        } else {
            (pressure - self.scaling) / (self.saturation - self.scaling)
        }
    }
}

const MONITORS: &[Extension<Build<Monitor>>] = &[
    Extension {
        type_name: "envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig",
        build: |bytes| {
            let proto = decode::<monitors::fixed_heap::v3::FixedHeapConfig>(bytes)?;
            let most = proto.max_heap_size_bytes;
            refuse(most == 0, "max_heap_size_bytes", "must be above zero")?;
            Ok(Monitor::Heap(most))
        },
    },
    Extension {
        type_name: "envoy.extensions.resource_monitors.cgroup_memory.v3.CgroupMemoryConfig",
        build: |bytes| {
            let proto = decode::<monitors::cgroup_memory::v3::CgroupMemoryConfig>(bytes)?;
            let most = proto.max_memory_bytes;
            Ok(Monitor::Cgroup((most > 0).then_some(most)))
        },
    },
    Extension {
        type_name: "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
        build: |bytes| {
            let proto =
                decode::<monitors::downstream_connections::v3::DownstreamConnectionsConfig>(bytes)?;
            let most = u64::try_from(proto.max_active_downstream_connections);
            let most = most.ok().filter(|most| *most > 0);
            let field = "max_active_downstream_connections";
            most.map(Monitor::Connections)
                .ok_or_else(|| ConfigError::new(field, "must be above zero"))
        },
    },
    Extension {
        type_name: "envoy.extensions.resource_monitors.injected_resource.v3.InjectedResourceConfig",
        build: |bytes| {
            let proto = decode::<monitors::injected_resource::v3::InjectedResourceConfig>(bytes)?;
            named(&proto.filename, "filename").map(|path| Monitor::Injected(path.into()))
        },
    },
];

/// `overload_manager`
///
/// # Errors
/// What is not valid, or cannot be done here.
pub fn build(proto: &proto::OverloadManager) -> Result<Overload> {
    let mut seen = BTreeSet::new();
    let monitors = each("resource_monitors", &proto.resource_monitors, |monitor| {
        once(&mut seen, &monitor.name)?;
        let ConfigType::TypedConfig(any) = required(&monitor.config_type, "typed_config")?;
        let kind = resolve(MONITORS, "resource monitor", any)?;
        let built = (kind.build)(&any.value).within("typed_config")?;
        Ok((named(&monitor.name, "name")?.to_owned(), built))
    });
    let names: Vec<&str> = proto
        .resource_monitors
        .iter()
        .map(|m| m.name.as_str())
        .collect();
    let refresh = positive(&proto.refresh_interval, "refresh_interval");
    let mut seen = BTreeSet::new();
    let actions = each("actions", &proto.actions, |action| {
        once(&mut seen, &action.name)?;
        triggered(&action.name, &action.triggers, &names, action_of)
    });
    let mut seen = BTreeSet::new();
    let points = each("loadshed_points", &proto.loadshed_points, |point| {
        once(&mut seen, &point.name)?;
        triggered(&point.name, &point.triggers, &names, point_of)
    });
    let (monitors, actions, points, refresh) = (monitors, actions, points, refresh).together()?;
    Ok(Overload {
        refresh: refresh.unwrap_or(REFRESH),
        monitors,
        actions,
        points,
    })
}

/// Two of one name would undo each other.
fn once<'a>(seen: &mut BTreeSet<&'a str>, name: &'a str) -> Result<()> {
    refuse(!seen.insert(name), "name", "is there already")
}

fn action_of(name: &str) -> Result<Action> {
    Ok(match name.strip_prefix("envoy.overload_actions.") {
        Some("stop_accepting_requests") => Action::StopRequests,
        Some("disable_http_keepalive") => Action::DisableKeepalive,
        Some("stop_accepting_connections") => Action::StopConnections,
        Some("reject_incoming_connections") => Action::RejectConnections,
        Some("shrink_heap") => Action::ShrinkHeap,
        Some("reduce_timeouts") => {
            let reason = "timers are not scaled: set the timeouts so short that they do under \
                          pressure too, or use disable_http_keepalive, which ends connections";
            return Err(ConfigError::new("name", reason));
        }
        Some("reset_high_memory_stream") => {
            let reason = "streams are not reset for the memory that they hold: bound it with \
                          per_connection_buffer_limit_bytes and initial_stream_window_size";
            return Err(ConfigError::new("name", reason));
        }
        _ => {
            let reason = format_args!(
                "`{name}` is not an action here; those are envoy.overload_actions. followed by \
                 stop_accepting_requests, disable_http_keepalive, stop_accepting_connections, \
                 reject_incoming_connections or shrink_heap"
            );
            return Err(ConfigError::new("name", reason));
        }
    })
}

fn point_of(name: &str) -> Result<ShedPoint> {
    match name.strip_prefix("envoy.load_shed_points.") {
        Some("tcp_listener_accept") => Ok(ShedPoint::Accept),
        Some("http_connection_manager_decode_headers") => Ok(ShedPoint::DecodeHeaders),
        _ => {
            let reason = format_args!(
                "`{name}` is not a point here; those are envoy.load_shed_points. followed by \
                 tcp_listener_accept or http_connection_manager_decode_headers, which turn away \
                 connections and requests as they come"
            );
            Err(ConfigError::new("name", reason))
        }
    }
}

fn triggered<A>(
    name: &str,
    triggers: &[proto::Trigger],
    monitors: &[&str],
    action_of: impl FnOnce(&str) -> Result<A>,
) -> Result<Triggered<A>> {
    let name = named(name, "name")?;
    let action = action_of(name)?;
    let mut seen = BTreeSet::new();
    let triggers = each("triggers", triggers, |trigger| {
        once(&mut seen, &trigger.name)?;
        let monitor = monitors.iter().position(|name| *name == trigger.name);
        let monitor = monitor.ok_or_else(|| {
            let reason = format_args!("there is no resource monitor `{}`", trigger.name);
            ConfigError::new("name", reason)
        })?;
        let (scaling, saturation, field) =
            match one_of::<proto::Trigger, _>(&trigger.trigger_oneof, "threshold")? {
                TriggerOneof::Threshold(threshold) => {
                    (threshold.value, threshold.value, "threshold")
                }
                TriggerOneof::Scaled(scaled) => (
                    scaled.scaling_threshold,
                    scaled.saturation_threshold,
                    "scaled",
                ),
            };
        let valid = |value: f64| (0.0..=1.0).contains(&value);
        let fits =
            valid(scaling) && valid(saturation) && (field == "threshold" || scaling < saturation);
        refuse(!fits, field, "must be between 0 and 1, and rise")?;
        Ok(Trigger {
            monitor,
            scaling,
            saturation,
        })
    })?;
    refuse(triggers.is_empty(), "triggers", "must hold at least one")?;
    Ok(Triggered {
        name: name.to_owned(),
        action,
        triggers,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::build::testing::message;

    const HEAP: &str = "resource_monitors: [{name: heap, typed_config: {'@type': \
        type.googleapis.com/envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig, \
        max_heap_size_bytes: 1000}}]";

    #[test]
    fn levels_rise_between_the_thresholds() {
        let yaml = format!(
            "{HEAP}\nactions: [{{name: envoy.overload_actions.stop_accepting_requests, triggers: [\
             {{name: heap, scaled: {{scaling_threshold: 0.5, saturation_threshold: 0.9}}}}]}}]"
        );
        let overload = build(&message(&yaml)).unwrap();
        assert_eq!(overload.monitors[0].1, Monitor::Heap(1000));
        let trigger = &overload.actions[0].triggers[0];
        assert_eq!((trigger.level(0.5), trigger.level(0.9)), (0.0, 1.0));
        assert!((trigger.level(0.7) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let shrink = "name: envoy.overload_actions.shrink_heap, triggers: [{name: heap, threshold: {value: 1}}";
        let twice = format!("[{{{shrink}]}}, {{{shrink}]}}]");
        let two_triggers = format!("[{{{shrink}, {{name: heap, threshold: {{value: 1}}}}]}}]");
        for (actions, path) in [
            (twice.as_str(), "actions[1].name"),
            (&two_triggers, "actions[0].triggers[1].name"),
            (
                "[{name: envoy.overload_actions.reduce_timeouts}]",
                "actions[0].name",
            ),
            (
                "[]\nloadshed_points: [{name: envoy.load_shed_points.none}]",
                "loadshed_points[0].name",
            ),
            ("[{name: nothing}]", "actions[0].name"),
            (
                "[{name: envoy.overload_actions.shrink_heap}]",
                "actions[0].triggers",
            ),
            (
                "[{name: envoy.overload_actions.shrink_heap, triggers: [{name: x, threshold: {value: 1}}]}]",
                "actions[0].triggers[0].name",
            ),
            (
                "[{name: envoy.overload_actions.shrink_heap, triggers: [{name: heap, threshold: {value: 2}}]}]",
                "actions[0].triggers[0].threshold",
            ),
        ] {
            let error = build(&message(&format!("{HEAP}\nactions: {actions}"))).unwrap_err();
            assert_eq!(error.problems()[0].path, path);
        }
    }
}
