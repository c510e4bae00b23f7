use super::filter::{INVALID, REFUSE_ARRIVING, REFUSE_LEAVING};
use super::nat::INBOUND;
use super::*;
use crate::config::{Include, tests::standard};

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
