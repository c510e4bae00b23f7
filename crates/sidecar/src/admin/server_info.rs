//! `/server_info`

use serde_json::{Value, json};

use super::Admin;

/// Flags and node as they are in force.
pub struct Options {
    /// Worker threads.
    pub concurrency: usize,
    /// `--drain-time-s`
    pub drain_seconds: u64,
    /// `-c`
    pub config_path: String,
    /// `node.id`
    pub node_id: String,
    /// `node.cluster`
    pub node_cluster: String,
}

pub fn page(admin: &Admin) -> Value {
    let uptime = admin.started.elapsed().map_or(0, |uptime| uptime.as_secs());
    let options = &admin.options;
    json!({
        "version": concat!("outrider-sidecar/", env!("CARGO_PKG_VERSION")),
        "state": admin.lifecycle.stage().as_str(),
        "uptime_current_epoch": format!("{uptime}s"),
        "uptime_all_epochs": format!("{uptime}s"),
        "node": {"id": options.node_id, "cluster": options.node_cluster},
        "command_line_options": {
            "concurrency": options.concurrency,
            "config_path": options.config_path,
            "drain_time": format!("{}s", options.drain_seconds),
        },
    })
}
