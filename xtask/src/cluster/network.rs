//! The node's network: one namespace, in which the node is and every pod has a cable.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use outrider_testkit::cluster::{NAMESPACE, NETWORK, STATE};
use serde_json::{Value, json};

use crate::shell;

/// The node's addresses.
pub(super) const NODE: [&str; 2] = ["172.30.0.10", "fd30::10"];
/// What Services' addresses are taken from.
pub(super) const SERVICES: [&str; 2] = ["10.96.0.0/16", "fd10:96::/112"];
/// The API server's address as a Service: the first of each range.
pub(super) const API_SERVICE: [&str; 2] = ["10.96.0.1", "fd10:96::1"];
/// The resolver's address.
pub(super) const RESOLVER: &str = "10.96.0.10";
/// What the addresses of all nodes' pods are taken from.
pub(super) const PODS: [&str; 2] = ["10.244.0.0/16", "fd10:244::/56"];
/// The part of it that is this node's.
const NODE_PODS: [&str; 2] = ["10.244.0.0/24", "fd10:244::/64"];

/// Makes the namespace, if it is not there.
///
/// # Errors
/// `ip` is missing or refuses.
pub(super) fn make() -> Result<()> {
    if Path::new(NAMESPACE).exists() {
        return Ok(());
    }
    let name = name();
    ip(&["netns", "add", name])?;
    let [v4, v6] = NODE;
    let inside = [
        "link set lo up".to_owned(),
        // A bridge without ports: not every kernel has dummy devices.
        "link add node0 type bridge".to_owned(),
        format!("address add {v4}/24 dev node0"),
        format!("address add {v6}/64 dev node0 nodad"),
        "link set node0 up".to_owned(),
        // Nobody answers there; but without a route a Service's address is unreachable before
        // kube-proxy's rules are asked.
        "route add default via 172.30.0.1 dev node0".to_owned(),
        "-6 route add default via fd30::1 dev node0".to_owned(),
    ];
    for command in inside {
        let mut arguments = vec!["-n", name];
        arguments.extend(command.split(' '));
        ip(&arguments)?;
    }
    let mut forward = Command::new("ip");
    forward.args(["netns", "exec", name, "sh", "-ec"]).arg(
        "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding",
    );
    shell::output(forward).context("let the node forward")?;
    Ok(())
}

/// Removes the namespace with everything in it.
///
/// # Errors
/// `ip` refuses.
pub(super) fn remove() -> Result<()> {
    if Path::new(NAMESPACE).exists() {
        ip(&["netns", "delete", name()])?;
    }
    Ok(())
}

/// Writes how pods are connected into the folder that containerd looks in.
///
/// # Errors
/// The folder cannot be written.
pub(super) fn write_plugins(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    let file = folder.join("10-pods.conflist");
    let text = serde_json::to_string_pretty(&plugins())?;
    fs::write(&file, text).with_context(|| format!("write {}", file.display()))
}

fn plugins() -> Value {
    let [v4, v6] = NODE_PODS;
    json!({
        "cniVersion": "1.0.0",
        "name": NETWORK,
        "plugins": [
            {
                // A cable of its own for each pod, so that all goes through the node's rules. On a
                // bridge the answers of a Service would pass them by, unless the kernel filters
                // bridges.
                "type": "ptp",
                "ipam": {
                    "type": "host-local",
                    "dataDir": format!("{STATE}/network/addresses"),
                    "ranges": [[{"subnet": v4}], [{"subnet": v6}]],
                    "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
}

fn name() -> &'static str {
    NAMESPACE.rsplit('/').next().unwrap_or(NAMESPACE)
}

fn ip(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(arguments);
    shell::output(command)
        .map(drop)
        .with_context(|| format!("ip {}", arguments.join(" ")))
}
