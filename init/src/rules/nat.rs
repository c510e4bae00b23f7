//! The table that redirects.

use super::{Chain, Jump, Rules, Table, TableName, owners};
use crate::config::{Config, DNS_PORT, Family, Include, PROXY_SERVICE_PORTS};

/// Takes connections from outside.
pub(super) const INBOUND: &str = "OUTRIDER_INBOUND";
/// Takes connections that are made in the pod.
pub(crate) const OUTPUT: &str = "OUTRIDER_OUTPUT";
/// Redirects to the proxy's inbound port.
pub(crate) const TO_INBOUND: &str = "OUTRIDER_TO_INBOUND";
/// Redirects to the proxy's outbound port.
pub(crate) const TO_OUTBOUND: &str = "OUTRIDER_TO_OUTBOUND";

pub(super) fn redirects(config: &Config, family: Family) -> Table {
    let (to_inbound, to_outbound) = (config.inbound_port, config.outbound_port);
    Table {
        name: TableName::Nat,
        chains: vec![
            redirect(
                TO_INBOUND,
                "Hands a connection to the proxy as inbound",
                to_inbound,
            ),
            redirect(
                TO_OUTBOUND,
                "Hands a connection to the proxy as outbound",
                to_outbound,
            ),
            inbound(config),
            output(config, family),
        ],
    }
}

fn redirect(name: &'static str, comment: &'static str, port: u16) -> Chain {
    let mut rules = Rules::default();
    rules.add(
        format!("-p tcp -j REDIRECT --to-ports {port}"),
        format!("The proxy listens on {port} and asks the kernel for the original destination"),
    );
    Chain {
        name,
        comment,
        jump: None,
        rules: rules.0,
    }
}

fn inbound(config: &Config) -> Chain {
    let mut rules = Rules::default();
    for interface in &config.exclude_interfaces {
        rules.add(
            format!("-i {} -j RETURN", interface.as_str()),
            "Excluded interface",
        );
    }
    for port in PROXY_SERVICE_PORTS {
        rules.add(
            format!("-p tcp -m tcp --dport {port} -j RETURN"),
            "The proxy serves this port itself",
        );
    }
    for port in &config.exclude_inbound_ports {
        rules.add(
            format!("-p tcp -m tcp --dport {port} -j RETURN"),
            "Excluded inbound port",
        );
    }
    match &config.include_inbound_ports {
        Include::All => rules.add(
            format!("-p tcp -j {TO_INBOUND}"),
            "Every other port is captured",
        ),
        Include::Only(ports) => {
            for port in ports {
                rules.add(
                    format!("-p tcp -m tcp --dport {port} -j {TO_INBOUND}"),
                    "Included inbound port",
                );
            }
        }
    }
    Chain {
        name: INBOUND,
        comment: "Connections from outside",
        jump: Some(Jump {
            from: "PREROUTING",
            matches: "-p tcp ",
        }),
        rules: rules.0,
    }
}

fn output(config: &Config, family: Family) -> Chain {
    let loopback = family.loopback();
    // A proxy that asks a resolver on loopback over TCP must not meet its own inbound side.
    let not_dns = match config.dns_port {
        Some(_) => format!("-m tcp ! --dport {DNS_PORT} "),
        None => String::new(),
    };
    let mut rules = Rules::default();
    for interface in &config.exclude_interfaces {
        rules.add(
            format!("-o {} -j RETURN", interface.as_str()),
            "Excluded interface",
        );
    }
    for port in &config.exclude_outbound_ports {
        rules.add(
            format!("-p tcp -m tcp --dport {port} -j RETURN"),
            "Excluded outbound port",
        );
    }
    rules.add(
        format!("-s {} -o lo -j RETURN", family.inbound_source()),
        "The proxy's inbound side dials the app from this address",
    );
    for (word, owner) in owners(config) {
        rules.add(
            format!("! -d {loopback} -o lo -p tcp {not_dns}-m owner {owner} -j {TO_INBOUND}"),
            format!("The proxy ({word}) calls its own pod: back in, through mutual TLS and policy"),
        );
        rules.add(
            format!("-o lo -m owner ! {owner} -j RETURN"),
            format!("Programs of the pod talk over loopback ({word})"),
        );
        rules.add(
            format!("-m owner {owner} -j RETURN"),
            format!("The proxy's own connections ({word})"),
        );
    }
    if let Some(port) = config.dns_port {
        for protocol in ["udp", "tcp"] {
            rules.add(
                format!(
                    "-p {protocol} -m {protocol} --dport {DNS_PORT} -j REDIRECT --to-ports {port}"
                ),
                format!("DNS over {protocol} is answered by the proxy"),
            );
        }
    }
    rules.add(
        format!("-d {loopback} -j RETURN"),
        "Loopback is never captured, by whatever interface",
    );
    let in_family = |net: &&ipnet::IpNet| Family::of(net.addr()) == family;
    for net in config.exclude_cidrs.iter().filter(in_family) {
        rules.add(format!("-d {net} -j RETURN"), "Excluded destination");
    }
    // With every destination included, rules for single ports would never be reached.
    match &config.include_cidrs {
        Include::All => rules.add(
            format!("-p tcp -j {TO_OUTBOUND}"),
            "Every other connection is captured",
        ),
        Include::Only(nets) => {
            for port in &config.include_outbound_ports {
                rules.add(
                    format!("-p tcp -m tcp --dport {port} -j {TO_OUTBOUND}"),
                    "Included outbound port",
                );
            }
            for net in nets.iter().filter(in_family) {
                rules.add(
                    format!("-d {net} -p tcp -j {TO_OUTBOUND}"),
                    "Included destination",
                );
            }
        }
    }
    Chain {
        name: OUTPUT,
        comment: "Connections that are made in the pod",
        jump: Some(Jump {
            from: "OUTPUT",
            matches: "",
        }),
        rules: rules.0,
    }
}
