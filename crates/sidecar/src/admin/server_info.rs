//! `/server_info`

use serde_json::{Value, json};

use super::Admin;
use crate::bootstrap::options::{DrainStrategy, IpVersion, Mode, Options as CommandLine};

/// Flags and node as they are in force.
pub struct Options {
    /// Worker threads.
    pub concurrency: usize,
    /// What was asked for.
    pub command_line: CommandLine,
    /// `node`, encoded.
    pub node: Vec<u8>,
}

/// `envoy.admin.v3.ServerInfo`
pub fn page(admin: &Admin) -> Value {
    let uptime = admin.started.elapsed().map_or(0, |uptime| uptime.as_secs());
    let node =
        outrider_xds::transcode::proto_to_json("envoy.config.core.v3.Node", &admin.options.node);
    json!({
        "version": concat!("outrider-sidecar/", env!("CARGO_PKG_VERSION")),
        "state": admin.lifecycle.stage().as_str(),
        "uptime_current_epoch": format!("{uptime}s"),
        "uptime_all_epochs": format!("{uptime}s"),
        "hot_restart_version": "disabled",
        "command_line_options": command_line(&admin.options),
        "node": node.unwrap_or_else(|error| json!({"error": error.to_string()})),
    })
}

/// `envoy.admin.v3.CommandLineOptions`
fn command_line(options: &Options) -> Value {
    let given = &options.command_line;
    let path = |path: &Option<std::path::PathBuf>| {
        path.as_ref()
            .map(|path| path.display().to_string())
            .unwrap_or_default()
    };
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    json!({
        "base_id": given.own_base_id().to_string(),
        "use_dynamic_base_id": given.use_dynamic_base_id,
        "base_id_path": path(&given.base_id_path),
        "concurrency": options.concurrency,
        "config_path": path(&given.config_path),
        "config_yaml": text(&given.config_yaml),
        "allow_unknown_static_fields": given.allow_unknown_static_fields,
        "reject_unknown_dynamic_fields": !given.ignore_unknown_dynamic_fields,
        "ignore_unknown_dynamic_fields": given.ignore_unknown_dynamic_fields,
        "admin_address_path": path(&given.admin_address_path),
        "local_address_ip_version": match given.local_address_ip_version {
            IpVersion::V4 => "v4",
            IpVersion::V6 => "v6",
        },
        "log_level": given.log_level,
        "component_log_level": text(&given.component_log_level),
        "log_format": text(&given.log_format),
        "log_format_escaped": given.log_format_escaped,
        "log_path": path(&given.log_path),
        "service_cluster": text(&given.service_cluster),
        "service_node": text(&given.service_node),
        "service_zone": text(&given.service_zone),
        "drain_time": format!("{}s", given.drain_time_s),
        "drain_strategy": match given.drain_strategy {
            DrainStrategy::Gradual => "Gradual",
            DrainStrategy::Immediate => "Immediate",
        },
        "parent_shutdown_time": format!("{}s", given.parent_shutdown_time_s),
        "mode": match given.mode {
            Mode::Serve => "Serve",
            Mode::Validate => "Validate",
            Mode::InitOnly => "InitOnly",
        },
        "disable_hot_restart": true,
        "restart_epoch": given.restart_epoch,
        "cpuset_threads": true,
        "stats_tag": given.stats_tag,
        "skip_hot_restart_on_no_parent": given.skip_hot_restart_on_no_parent,
    })
}
