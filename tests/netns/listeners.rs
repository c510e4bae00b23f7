//! Listeners and connections to endpoints that need the kernel's help: addresses that are not ours.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use outrider_testkit::clients::http1::Client;
use outrider_testkit::netns::{Network, Pod, require_root};
use outrider_testkit::{Process, bins, eventually, servers};

use crate::common::listen;

/// Where the app listens, in the sidecar's pod.
const APP: u16 = 9000;
/// Where the sidecar does.
const LISTENER: u16 = 8000;
/// An address that nobody has.
const FAR: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

/// A sidecar whose listener has these fields, and relays bytes to the app.
fn start(pod: &Pod, folder: &Path, fields: &str) -> Process {
    let config = format!(
        r#"
static_resources:
  listeners:
  - name: l
    address: {{ socket_address: {{ address: 0.0.0.0, port_value: {LISTENER} }} }}
    {fields}
    filter_chains:
    - filters:
      - name: tcp
        typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: app }}
  clusters:
  - name: app
    type: STATIC
    load_assignment: {{ cluster_name: app, endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {{ socket_address: {{ address: {}, port_value: {APP} }} }} }} }}] }}] }}
"#,
        pod.v4()
    );
    let file = folder.join("bootstrap.yaml");
    std::fs::write(&file, config).unwrap();
    let mut command = pod.command(bins::path("outrider-sidecar").unwrap());
    command.arg("-c").arg(file).args(["--concurrency", "1"]);
    Process::start("sidecar", command).unwrap()
}

/// What bears this mark is for this pod, whatever its destination.
fn route_to_us(pod: &Pod, mark: &str) {
    for arguments in [
        ["rule", "add", "fwmark", mark, "lookup", "100"].as_slice(),
        &[
            "route",
            "add",
            "local",
            "0.0.0.0/0",
            "dev",
            "lo",
            "table",
            "100",
        ],
    ] {
        pod.output("ip", arguments).unwrap();
    }
}

fn mangle(pod: &Pod, rule: &str) {
    let arguments: Vec<&str> = ["-w", "-t", "mangle", "-A"]
        .into_iter()
        .chain(rule.split(' '))
        .collect();
    pod.output("iptables", &arguments).unwrap();
}

#[test]
fn an_endpoint_sees_the_address_of_the_client() {
    if !require_root() {
        return;
    }
    let network = Network::new("source").unwrap();
    let (client, pod) = (network.pod("client").unwrap(), network.pod("app").unwrap());
    let folder = tempfile::tempdir().unwrap();
    let _app = servers::http1::echo(listen(&pod, APP), "app").unwrap();
    // What goes to the endpoint bears the mark; what comes back is given it again, so that it does
    // not leave for the client past the sidecar.
    mangle(&pod, "OUTPUT -m mark --mark 123 -j CONNMARK --save-mark");
    mangle(
        &pod,
        "OUTPUT -m connmark --mark 123 -j CONNMARK --restore-mark",
    );
    route_to_us(&pod, "123");
    let _sidecar = start(
        &pod,
        folder.path(),
        r#"listener_filters: [{ name: source, typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.listener.original_src.v3.OriginalSrc, mark: 123 } }]"#,
    );
    let seen = eventually(Duration::from_secs(20), || {
        let mut http = Client::connect_from(&client, (pod.v4(), LISTENER))?;
        http.get("app", "/")?.json()
    })
    .unwrap();
    let peer = seen["peer"].as_str().unwrap();
    let peer: std::net::SocketAddr = peer.parse().unwrap();
    assert_eq!(peer.ip().to_canonical(), client.v4());
}

#[test]
fn a_transparent_listener_takes_connections_to_any_address() {
    if !require_root() {
        return;
    }
    let network = Network::new("transparent").unwrap();
    let (client, pod) = (network.pod("client").unwrap(), network.pod("app").unwrap());
    let folder = tempfile::tempdir().unwrap();
    let _app = servers::http1::echo(listen(&pod, APP), "app").unwrap();
    let (far, via) = (FAR.to_string(), pod.v4().to_string());
    let route = ["route", "add", &far, "via", &via];
    client.output("ip", &route).unwrap();
    let tproxy =
        format!("PREROUTING -p tcp -d {far} -j TPROXY --on-port {LISTENER} --tproxy-mark 1");
    mangle(&pod, &tproxy);
    route_to_us(&pod, "1");
    let _sidecar = start(&pod, folder.path(), "transparent: true");
    let seen = eventually(Duration::from_secs(20), || {
        let mut http = Client::connect_from(&client, (FAR, LISTENER))?;
        http.get("app", "/")?.json()
    })
    .unwrap();
    assert_eq!(seen["path"], "/");
}
