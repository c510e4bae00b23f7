//! From the configuration to the rules that are wanted: pure, and the one place that decides.
//!
//! The order of the rules is that of the mesh that users know, so what they know of it holds here.

use std::collections::BTreeSet;

use crate::config::{Config, DNS_PORT, Family, Include, Ipv6, PROXY_SERVICE_PORTS};

/// What the names of all of our chains start with; by it they are found again.
pub(crate) const PREFIX: &str = "OUTRIDER_";

/// Takes connections from outside.
const INBOUND: &str = "OUTRIDER_INBOUND";
/// Takes connections that are made in the pod.
pub(crate) const OUTPUT: &str = "OUTRIDER_OUTPUT";
/// Redirects to the proxy's inbound port.
pub(crate) const TO_INBOUND: &str = "OUTRIDER_TO_INBOUND";
/// Redirects to the proxy's outbound port.
pub(crate) const TO_OUTBOUND: &str = "OUTRIDER_TO_OUTBOUND";
const DNS_ARRIVING: &str = "OUTRIDER_DNS_ARRIVING";
const DNS_LEAVING: &str = "OUTRIDER_DNS_LEAVING";
const INVALID: &str = "OUTRIDER_INVALID";
const REFUSE_ARRIVING: &str = "OUTRIDER_REFUSE_ARRIVING";
const REFUSE_LEAVING: &str = "OUTRIDER_REFUSE_LEAVING";

/// The conntrack zone of the proxy's own DNS queries.
const PROXY_DNS_ZONE: u16 = 1;
/// The conntrack zone of the DNS queries that are redirected to the proxy.
const APP_DNS_ZONE: u16 = 2;

/// The tables that we use, in the order in which they are applied: `raw` before `nat`, so that no
/// query is redirected without its zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TableName {
    Raw,
    Nat,
    Filter,
}

impl TableName {
    pub(crate) const ALL: [Self; 3] = [Self::Raw, Self::Nat, Self::Filter];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Nat => "nat",
            Self::Filter => "filter",
        }
    }
}

/// One rule of a chain of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    /// What follows `-A CHAIN`, as `iptables-save` writes it.
    pub(crate) spec: String,
    /// Why it is there.
    pub(crate) comment: String,
}

/// The one rule outside of our chains that leads into one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Jump {
    /// The kernel's own chain.
    pub(crate) from: &'static str,
    /// What has to match, with a space behind it, or nothing.
    pub(crate) matches: &'static str,
}

/// A chain of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) name: &'static str,
    /// What it is for.
    pub(crate) comment: &'static str,
    /// None: only our own chains lead here.
    pub(crate) jump: Option<Jump>,
    pub(crate) rules: Vec<Rule>,
}

/// What we want of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) name: TableName,
    pub(crate) chains: Vec<Chain>,
}

/// What is wanted of both families. Tables are in the order of [`TableName`]; one that is not here
/// is wanted without any chain of ours.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct RuleSet {
    v4: Vec<Table>,
    v6: Vec<Table>,
}

impl RuleSet {
    pub(crate) fn family(&self, family: Family) -> &[Table] {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }
}

/// The rules that the configuration asks for.
pub(crate) fn rules(config: &Config) -> RuleSet {
    RuleSet {
        v4: capture(config, Family::V4),
        v6: match config.ipv6 {
            Ipv6::Capture => capture(config, Family::V6),
            Ipv6::Reject => vec![refuse(config)],
            Ipv6::Absent => Vec::new(),
        },
    }
}

fn capture(config: &Config, family: Family) -> Vec<Table> {
    let mut tables = Vec::new();
    if let Some(port) = config.dns_port {
        tables.push(Table {
            name: TableName::Raw,
            chains: vec![dns_leaving(config, port), dns_arriving()],
        });
    }
    tables.push(Table {
        name: TableName::Nat,
        // The targets come first, so that what jumps to them finds them.
        chains: vec![
            redirect(
                TO_INBOUND,
                "Hands a connection to the proxy as inbound",
                config.inbound_port,
            ),
            redirect(
                TO_OUTBOUND,
                "Hands a connection to the proxy as outbound",
                config.outbound_port,
            ),
            inbound(config),
            output(config, family),
        ],
    });
    if config.drop_invalid {
        tables.push(Table {
            name: TableName::Filter,
            chains: vec![invalid()],
        });
    }
    tables
}

/// Collects the rules of one chain.
#[derive(Default)]
struct Rules(Vec<Rule>);

impl Rules {
    fn add(&mut self, spec: impl Into<String>, comment: impl Into<String>) {
        self.0.push(Rule {
            spec: spec.into(),
            comment: comment.into(),
        });
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
    for (owner, id) in [("uid", config.proxy_uid), ("gid", config.proxy_gid)] {
        rules.add(
            format!("! -d {loopback} -o lo -p tcp {not_dns}-m owner --{owner}-owner {id} -j {TO_INBOUND}"),
            format!("The proxy ({owner}) calls its own pod: back in, through mutual TLS and policy"),
        );
        rules.add(
            format!("-o lo -m owner ! --{owner}-owner {id} -j RETURN"),
            format!("Programs of the pod talk over loopback ({owner})"),
        );
        rules.add(
            format!("-m owner --{owner}-owner {id} -j RETURN"),
            format!("The proxy's own connections ({owner})"),
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

/// Without zones, a query of the proxy from a source port that an app's query has just used would
/// find the app's conntrack entry, and be redirected to the proxy itself.
///
/// UDP only: conntrack gives a new TCP handshake a new entry by itself once the old connection has
/// closed, while the owner of a packet, which tells the two apart, is gone from the last packets
/// of a TCP connection, so that these would be looked up in the wrong zone.
///
/// `CT` does not end the walk through the chain, but a packet keeps the first zone it is given.
fn dns_leaving(config: &Config, dns_port: u16) -> Chain {
    let mut rules = Rules::default();
    rules.add(
        format!("-o lo -p udp -m udp --sport {dns_port} -j CT --zone {APP_DNS_ZONE}"),
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
    for (owner, id) in [("uid", config.proxy_uid), ("gid", config.proxy_gid)] {
        rules.add(
            format!("-p udp -m udp --dport {DNS_PORT} -m owner --{owner}-owner {id} -j CT --zone {PROXY_DNS_ZONE}"),
            format!("The proxy's own queries ({owner})"),
        );
    }
    rules.add(
        format!("-p udp -m udp --dport {DNS_PORT} -j CT --zone {APP_DNS_ZONE}"),
        "Queries that nat redirects to the proxy",
    );
    Chain {
        name: DNS_LEAVING,
        comment: "Conntrack zones of DNS packets that leave",
        jump: Some(Jump {
            from: "OUTPUT",
            matches: "-p udp ",
        }),
        rules: rules.0,
    }
}

fn dns_arriving() -> Chain {
    let mut rules = Rules::default();
    rules.add(
        format!("! -i lo -p udp -m udp --sport {DNS_PORT} -j CT --zone {PROXY_DNS_ZONE}"),
        "Answers to the proxy's own queries",
    );
    Chain {
        name: DNS_ARRIVING,
        comment: "Conntrack zones of DNS packets that arrive",
        jump: Some(Jump {
            from: "PREROUTING",
            matches: "-p udp ",
        }),
        rules: rules.0,
    }
}

fn invalid() -> Chain {
    let mut rules = Rules::default();
    rules.add(
        "-p tcp -m conntrack --ctstate INVALID -j DROP",
        "Not translated, so the kernel would reset the connection; the sender tries again instead",
    );
    Chain {
        name: INVALID,
        comment: "Packets that belong to no connection that is known",
        jump: Some(Jump {
            from: "INPUT",
            matches: "-p tcp ",
        }),
        rules: rules.0,
    }
}

/// IPv6 that is not captured must not be a way around the proxy.
fn refuse(config: &Config) -> Table {
    let established = "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN";
    let reset = "-p tcp -j REJECT --reject-with tcp-reset";
    let mut arriving = Rules::default();
    arriving.add("-i lo -j RETURN", "Loopback stays");
    arriving.add(
        established,
        "Answers to what the proxy sent, for nobody else gets to send anything",
    );
    let served: BTreeSet<u16> = PROXY_SERVICE_PORTS.into();
    for port in served {
        arriving.add(
            format!("-p tcp -m tcp --dport {port} -j RETURN"),
            "The proxy serves this port itself",
        );
    }
    arriving.add(reset, "Everything else is refused at once");
    let mut leaving = Rules::default();
    leaving.add("-o lo -j RETURN", "Loopback stays");
    for (owner, id) in [("uid", config.proxy_uid), ("gid", config.proxy_gid)] {
        leaving.add(
            format!("-m owner --{owner}-owner {id} -j RETURN"),
            format!("The proxy's own connections ({owner})"),
        );
    }
    leaving.add(
        established,
        "The last packets of the proxy's connections, which have no owner any more",
    );
    leaving.add(reset, "Everything else is refused at once");
    let chain = |name, comment, from, rules: Rules| Chain {
        name,
        comment,
        jump: Some(Jump {
            from,
            matches: "-p tcp ",
        }),
        rules: rules.0,
    };
    Table {
        name: TableName::Filter,
        chains: vec![
            chain(
                REFUSE_ARRIVING,
                "IPv6 is off: connections from outside",
                "INPUT",
                arriving,
            ),
            chain(
                REFUSE_LEAVING,
                "IPv6 is off: connections that are made in the pod",
                "OUTPUT",
                leaving,
            ),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::standard;

    fn chain<'a>(tables: &'a [Table], name: &str) -> Option<&'a Chain> {
        tables
            .iter()
            .flat_map(|table| &table.chains)
            .find(|chain| chain.name == name)
    }

    fn specs<'a>(tables: &'a [Table], name: &str) -> Vec<&'a str> {
        chain(tables, name)
            .map(|chain| chain.rules.iter().map(|rule| rule.spec.as_str()).collect())
            .unwrap_or_default()
    }

    #[test]
    fn outbound_rules_are_in_their_order() {
        let mut config = standard();
        config.proxy_gid = 1338;
        config.dns_port = Some(15053);
        config.exclude_outbound_ports = vec!["5000-5009".parse().unwrap()];
        config.exclude_cidrs = vec!["10.9.0.0/16".parse().unwrap(), "fd09::/16".parse().unwrap()];
        config.exclude_interfaces = vec!["net1".parse().unwrap()];
        let set = rules(&config);
        assert_eq!(
            specs(set.family(Family::V4), OUTPUT),
            [
                "-o net1 -j RETURN",
                "-p tcp -m tcp --dport 5000:5009 -j RETURN",
                "-s 127.0.0.6/32 -o lo -j RETURN",
                "! -d 127.0.0.1/32 -o lo -p tcp -m tcp ! --dport 53 -m owner --uid-owner 1337 -j OUTRIDER_TO_INBOUND",
                "-o lo -m owner ! --uid-owner 1337 -j RETURN",
                "-m owner --uid-owner 1337 -j RETURN",
                "! -d 127.0.0.1/32 -o lo -p tcp -m tcp ! --dport 53 -m owner --gid-owner 1338 -j OUTRIDER_TO_INBOUND",
                "-o lo -m owner ! --gid-owner 1338 -j RETURN",
                "-m owner --gid-owner 1338 -j RETURN",
                "-p udp -m udp --dport 53 -j REDIRECT --to-ports 15053",
                "-p tcp -m tcp --dport 53 -j REDIRECT --to-ports 15053",
                "-d 127.0.0.1/32 -j RETURN",
                "-d 10.9.0.0/16 -j RETURN",
                "-p tcp -j OUTRIDER_TO_OUTBOUND",
            ]
        );
        let v6 = specs(set.family(Family::V6), OUTPUT);
        assert!(v6.contains(&"-s ::6/128 -o lo -j RETURN"), "{v6:?}");
        assert!(v6.contains(&"-d fd09::/16 -j RETURN"), "{v6:?}");
        assert!(!v6.iter().any(|spec| spec.contains("10.9.0.0")), "{v6:?}");
        let raw = &set.family(Family::V4)[0];
        assert_eq!(raw.name, TableName::Raw);
    }

    #[test]
    fn what_is_included_is_all_that_is_captured() {
        let mut config = standard();
        config.include_inbound_ports = Include::Only(vec![80.into()]);
        config.include_cidrs = Include::Only(vec!["10.0.0.0/8".parse().unwrap()]);
        config.include_outbound_ports = vec![25.into()];
        config.drop_invalid = false;
        let set = rules(&config);
        let inbound = specs(set.family(Family::V4), INBOUND);
        assert_eq!(
            inbound[4..],
            ["-p tcp -m tcp --dport 80 -j OUTRIDER_TO_INBOUND"]
        );
        let tail = |family| {
            let rules = specs(set.family(family), OUTPUT);
            let end = rules
                .iter()
                .position(|spec| spec.starts_with("-d"))
                .unwrap();
            rules[end + 1..].join("; ")
        };
        let port = "-p tcp -m tcp --dport 25 -j OUTRIDER_TO_OUTBOUND";
        let net = "-d 10.0.0.0/8 -p tcp -j OUTRIDER_TO_OUTBOUND";
        assert_eq!(tail(Family::V4), format!("{port}; {net}"));
        assert_eq!(tail(Family::V6), port);
        assert!(chain(set.family(Family::V4), INVALID).is_none());
    }

    #[test]
    fn ipv6_that_is_off_is_refused_and_not_redirected() {
        let mut config = standard();
        config.ipv6 = Ipv6::Reject;
        let set = rules(&config);
        let tables: Vec<_> = set
            .family(Family::V6)
            .iter()
            .map(|table| table.name)
            .collect();
        assert_eq!(tables, [TableName::Filter]);
        for name in [REFUSE_ARRIVING, REFUSE_LEAVING] {
            let specs = specs(set.family(Family::V6), name);
            assert_eq!(
                specs.last(),
                Some(&"-p tcp -j REJECT --reject-with tcp-reset")
            );
        }
        assert_eq!(
            set.family(Family::V4),
            rules(&standard()).family(Family::V4)
        );
        config.ipv6 = Ipv6::Absent;
        assert!(rules(&config).family(Family::V6).is_empty());
    }

    #[test]
    fn every_rule_says_why_and_every_name_is_ours() {
        let mut config = standard();
        config.dns_port = Some(15053);
        for ipv6 in [Ipv6::Capture, Ipv6::Reject] {
            config.ipv6 = ipv6;
            let set = rules(&config);
            let tables = Family::BOTH.map(|family| set.family(family)).concat();
            for chain in tables.iter().flat_map(|table| &table.chains) {
                // 28 is the longest name of a chain that iptables takes.
                assert!(chain.name.starts_with(PREFIX) && chain.name.len() <= 28);
                assert!(!chain.comment.is_empty());
                for rule in &chain.rules {
                    assert!(
                        !rule.comment.is_empty() && !rule.comment.contains('\n'),
                        "{rule:?}"
                    );
                }
            }
        }
    }
}
