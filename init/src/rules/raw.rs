//! The conntrack zones that keep the proxy's DNS queries and the app's apart.

use super::{Chain, Jump, Rules, Table, TableName, owners};
use crate::config::{Config, DNS_PORT};

const ARRIVING: &str = "OUTRIDER_DNS_ARRIVING";
const LEAVING: &str = "OUTRIDER_DNS_LEAVING";

/// The zone of the proxy's own queries.
const PROXY_ZONE: u16 = 1;
/// The zone of the queries that are redirected to the proxy.
const APP_ZONE: u16 = 2;

/// Nothing, if DNS is not captured.
pub(super) fn zones(config: &Config) -> Option<Table> {
    let port = config.dns_port?;
    Some(Table {
        name: TableName::Raw,
        chains: vec![leaving(config, port), arriving()],
    })
}

/// Without zones, a query of the proxy from a source port that an app's query has just used would
/// find the app's conntrack entry, and be redirected to the proxy itself.
///
/// UDP only: conntrack gives a new TCP handshake a new entry by itself once the old connection has
/// closed, while the owner of a packet, which tells the two apart, is gone from the last packets
/// of a TCP connection, so that these would be looked up in the wrong zone.
///
/// `CT` does not end the walk through the chain, but a packet keeps the first zone it is given.
fn leaving(config: &Config, dns_port: u16) -> Chain {
    let mut rules = Rules::default();
    rules.add(
        format!("-o lo -p udp -m udp --sport {dns_port} -j CT --zone {APP_ZONE}"),
        "The proxy's answers to redirected queries",
    );
    rules.add(
        "-o lo -j RETURN",
        "Other DNS over loopback is not redirected, so it needs no zone",
    );
    for interface in &config.exclude_interfaces {
        rules.add(
            format!("-o {} -j RETURN", interface.as_str()),
            "Excluded interface",
        );
    }
    for (word, owner) in owners(config) {
        rules.add(
            format!("-p udp -m udp --dport {DNS_PORT} -m owner {owner} -j CT --zone {PROXY_ZONE}"),
            format!("The proxy's own queries ({word})"),
        );
    }
    rules.add(
        format!("-p udp -m udp --dport {DNS_PORT} -j CT --zone {APP_ZONE}"),
        "Queries that nat redirects to the proxy",
    );
    Chain {
        name: LEAVING,
        comment: "Conntrack zones of DNS packets that leave",
        jump: Some(Jump {
            from: "OUTPUT",
            matches: "-p udp ",
        }),
        rules: rules.0,
    }
}

fn arriving() -> Chain {
    let mut rules = Rules::default();
    rules.add(
        format!("! -i lo -p udp -m udp --sport {DNS_PORT} -j CT --zone {PROXY_ZONE}"),
        "Answers to the proxy's own queries",
    );
    Chain {
        name: ARRIVING,
        comment: "Conntrack zones of DNS packets that arrive",
        jump: Some(Jump {
            from: "PREROUTING",
            matches: "-p udp ",
        }),
        rules: rules.0,
    }
}
