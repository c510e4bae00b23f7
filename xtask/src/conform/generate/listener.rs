//! Random filter chains, and connections that come near what they match.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};

use super::World;
use super::random::Random;
use crate::conform::file::ClientTls;
use crate::conform::tls::Certificates;

const NAMES: [&str; 8] = [
    "a.example",
    "*.example",
    "*.a.example",
    "b.a.example",
    "example",
    "a.test",
    "*.test",
    "x.y.example",
];
const SAID: [&str; 9] = [
    "a.example",
    "b.a.example",
    "c.b.a.example",
    "x.y.example",
    "example",
    "A.Example",
    "a.test",
    "x.a.test",
    "other.invalid",
];
/// Not 0.0.0.0/0: which of a chain with it and one without any range Envoy takes depends on the seed
/// of its hash tables, so on the process.
const RANGES: [(&str, u32); 8] = [
    ("127.0.0.0", 8),
    ("127.0.0.0", 30),
    ("127.0.0.2", 32),
    ("127.0.0.3", 32),
    ("127.0.1.0", 24),
    ("127.0.0.0", 16),
    ("10.0.0.0", 8),
    ("::1", 128),
];
const ADDRESSES: [&str; 6] = [
    "127.0.0.1",
    "127.0.0.2",
    "127.0.0.3",
    "127.0.0.5",
    "127.0.1.1",
    "127.0.2.1",
];

/// A listener and connections.
///
/// # Errors
/// When a hello of TLS cannot be made.
pub(super) fn world(random: &mut Random, count: usize) -> Result<World> {
    let mut upstreams = json!({});
    let mut chains = Vec::new();
    let mut seen = Vec::new();
    for index in 0..random.between(2, 10) {
        let fits = chain_match(random);
        // Two chains of the same match are refused.
        if seen.contains(&fits) {
            continue;
        }
        let name = format!("c{index}");
        chains.push(json!({
            "name": name,
            "filter_chain_match": fits,
            "filters": [filter(&name)],
        }));
        seen.push(fits);
        upstreams[&name] = server(&name);
    }
    let mut listener = json!({
        "name": "in",
        "address": { "socket_address": { "address": "0.0.0.0", "port_value": 0 } },
        "listener_filters": [{ "name": "tls", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
        }}],
        "filter_chains": chains,
    });
    if random.chance(50) {
        listener["default_filter_chain"] = json!({ "name": "rest", "filters": [filter("rest")] });
        upstreams["rest"] = server("rest");
    }
    let hellos = hellos()?;
    let probes = (0..count).map(|_| connection(random, &hellos)).collect();
    Ok(World {
        area: "listener",
        setup: json!({
            "upstreams": upstreams,
            "config": { "static_resources": { "listeners": [listener] } },
        }),
        // Whether a connection that no chain takes is closed or reset depends on what was read.
        compare: json!({ "without": ["connection"] }),
        probes,
    })
}

fn filter(cluster: &str) -> Value {
    json!({ "name": "tcp", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "t",
        "cluster": cluster,
    }})
}

fn server(name: &str) -> Value {
    json!({ "protocol": "tcp", "script": [{ "read": 1 }, { "say": name }, "half", "end"] })
}

fn chain_match(random: &mut Random) -> Value {
    let mut fits = json!({});
    if random.chance(40) {
        let names: Vec<&str> = (0..random.between(1, 2))
            .map(|_| random.pick(&NAMES))
            .collect();
        let mut names = names;
        names.dedup();
        fits["server_names"] = json!(names);
    }
    if random.chance(25) {
        fits["transport_protocol"] = json!(random.pick(&["tls", "raw_buffer"]));
    }
    if random.chance(20) {
        fits["application_protocols"] = json!([random.pick(&["h2", "http/1.1", "other"])]);
    }
    let range = |random: &mut Random| {
        let (address, length) = RANGES[random.below(RANGES.len())];
        json!([{ "address_prefix": address, "prefix_len": length }])
    };
    if random.chance(35) {
        fits["prefix_ranges"] = range(random);
    }
    if random.chance(30) {
        fits["source_prefix_ranges"] = range(random);
    }
    if random.chance(15) {
        fits["direct_source_prefix_ranges"] = range(random);
    }
    if random.chance(10) {
        fits["source_type"] = json!(random.pick(&["SAME_IP_OR_LOOPBACK", "EXTERNAL", "ANY"]));
    }
    if random.chance(8) {
        fits["destination_port"] = json!(random.pick(&[&443, &80]));
    }
    fits
}

/// Hellos of TLS, in hexadecimal, by what they say.
fn hellos() -> Result<Vec<String>> {
    let certificates = Certificates::new(&std::collections::BTreeMap::new())?;
    let mut hellos = Vec::new();
    let protocols: [&[&str]; 4] = [&[], &["h2", "http/1.1"], &["http/1.1"], &["other"]];
    for name in SAID.iter().map(Some).chain([None]) {
        for alpn in protocols {
            let tls = ClientTls {
                sni: name.map(|name| (*name).to_owned()),
                alpn: alpn.iter().map(|name| (*name).to_owned()).collect(),
                ..ClientTls::default()
            };
            let config = certificates.client(&tls)?;
            let server =
                ServerName::try_from(name.copied().unwrap_or("unnamed.example").to_owned())?;
            let mut connection = ClientConnection::new(Arc::clone(&config), server)?;
            let mut hello = Vec::new();
            connection.write_tls(&mut hello).context("make a hello")?;
            hellos.push(hello.iter().map(|byte| format!("{byte:02x}")).collect());
        }
    }
    Ok(hellos)
}

fn connection(random: &mut Random, hellos: &[String]) -> Value {
    let mut step = json!({ "read": "end", "open": {
        "from": random.pick(&ADDRESSES), "at": random.pick(&ADDRESSES),
    }});
    match random.below(4) {
        0 => step["raw"] = json!(random.pick(&["GET / HTTP/1.1\r\n\r\n", "x"])),
        _ => step["hex"] = json!(hellos[random.below(hellos.len())]),
    }
    step
}
