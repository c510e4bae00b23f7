use std::time::Duration;

use super::*;
use crate::config::listener::{DownstreamTransport, FilterChainMatch, NetworkFilter};
use crate::config::tcp_proxy::TcpProxy;

fn chain(name: &str, matcher: FilterChainMatch) -> Arc<FilterChain> {
    Arc::new(FilterChain {
        name: name.into(),
        matcher,
        transport: DownstreamTransport::Plain,
        transport_timeout: Duration::from_secs(15),
        filters: Box::default(),
        filter: NetworkFilter::TcpProxy(Arc::new(TcpProxy::to("c"))),
        fingerprint: 0,
    })
}

/// A match in short: `port 80`, `to 10.0.0.0/8`, `name x`, `tls`, `alpn h2`, `from`, `direct`,
/// `local`, `external`, `sport`.
fn matcher(text: &str) -> FilterChainMatch {
    let mut out = FilterChainMatch::default();
    let mut words = text.split_whitespace();
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap();
        match word {
            "port" => out.destination_port = Some(value().parse().unwrap()),
            "to" => out.destinations.push(value().parse().unwrap()),
            "name" => out.server_names.push(value().into()),
            "tls" | "raw_buffer" => out.transport_protocol = word.into(),
            "alpn" => out.application_protocols.push(value().as_bytes().into()),
            "direct" => out.direct_sources.push(value().parse().unwrap()),
            "local" => out.source_type = SourceType::SameIpOrLoopback,
            "external" => out.source_type = SourceType::External,
            "from" => out.sources.push(value().parse().unwrap()),
            "sport" => out.source_ports.push(value().parse().unwrap()),
            other => panic!("{other}"),
        }
    }
    out
}

struct Case {
    to: &'static str,
    name: &'static str,
    transport: &'static str,
    alpn: &'static [&'static str],
    from: &'static str,
    expect: &'static str,
}

const ANY: Case = Case {
    to: "10.1.2.3:80",
    name: "",
    transport: "",
    alpn: &[],
    from: "10.9.9.9:5555",
    expect: "",
};

fn check(chains: &[(&str, &str)], default: bool, cases: &[Case]) {
    let chains: Vec<_> = chains
        .iter()
        .map(|(name, text)| chain(name, matcher(text)))
        .collect();
    let default = default.then(|| chain("default", FilterChainMatch::default()));
    let index = FilterChainIndex::new(&chains, default).unwrap();
    for case in cases {
        let source = Some(case.from.parse().unwrap());
        let found = index.find(&MatchInput {
            destination: Some(case.to.parse().unwrap()),
            server_name: (!case.name.is_empty()).then_some(case.name),
            transport_protocol: case.transport,
            application_protocols: case.alpn,
            direct_source: source,
            source,
        });
        let found = found.map_or("none", |chain| &chain.name);
        assert_eq!(
            found, case.expect,
            "to {} name {} {} {:?} from {}",
            case.to, case.name, case.transport, case.alpn, case.from
        );
    }
}

#[test]
fn a_port_that_is_named_shuts_out_the_chains_without_one() {
    let chains = [("80", "port 80 tls"), ("any", "")];
    check(
        &chains,
        true,
        &[
            Case {
                transport: "tls",
                expect: "80",
                ..ANY
            },
            // No way back to `any` once port 80 was chosen.
            Case {
                expect: "default",
                ..ANY
            },
            Case {
                to: "10.1.2.3:81",
                expect: "any",
                ..ANY
            },
        ],
    );
    check(
        &chains,
        false,
        &[Case {
            expect: "none",
            ..ANY
        }],
    );
}

#[test]
fn the_longest_prefix_wins_in_both_families() {
    check(
        &[
            ("8", "to 10.0.0.0/8"),
            ("24", "to 10.1.2.0/24 to fd00:1::/32"),
            ("all", "to 0.0.0.0/0"),
            ("v6", "to ::/0"),
            ("local", "local to 127.0.0.1/32"),
        ],
        false,
        &[
            Case {
                expect: "24",
                ..ANY
            },
            Case {
                to: "10.2.2.3:80",
                expect: "8",
                ..ANY
            },
            Case {
                to: "[::ffff:10.2.2.3]:80",
                expect: "8",
                ..ANY
            },
            Case {
                to: "192.168.0.1:80",
                expect: "all",
                ..ANY
            },
            Case {
                to: "[fd00:1::5]:80",
                from: "[fd00::1]:1",
                expect: "24",
                ..ANY
            },
            Case {
                to: "[fd01::5]:80",
                from: "[fd00::1]:1",
                expect: "v6",
                ..ANY
            },
            Case {
                to: "127.0.0.1:80",
                from: "127.0.0.1:1",
                expect: "local",
                ..ANY
            },
            Case {
                to: "127.0.0.1:80",
                expect: "none",
                ..ANY
            },
        ],
    );
}

#[test]
fn server_names_match_exactly_then_by_the_longest_wildcard() {
    check(
        &[
            ("exact", "name www.example.com tls"),
            ("wild", "name .example.com"),
            ("com", "name .com"),
            ("none", ""),
        ],
        true,
        &[
            Case {
                name: "www.example.com",
                transport: "tls",
                expect: "exact",
                ..ANY
            },
            Case {
                name: "WWW.Example.com",
                transport: "tls",
                expect: "exact",
                ..ANY
            },
            // The exact name was chosen, its transport does not fit, and there is no way back.
            Case {
                name: "www.example.com",
                transport: "raw_buffer",
                expect: "default",
                ..ANY
            },
            Case {
                name: "a.b.example.com",
                expect: "wild",
                ..ANY
            },
            Case {
                name: "example.com",
                expect: "com",
                ..ANY
            },
            Case {
                name: "example.org",
                expect: "none",
                ..ANY
            },
            Case {
                expect: "none",
                ..ANY
            },
        ],
    );
}

#[test]
fn transport_then_alpn_in_the_clients_order() {
    check(
        &[
            ("mesh", "tls alpn outrider alpn istio"),
            ("h2", "tls alpn h2"),
            ("tls", "tls"),
            ("h2c", "raw_buffer alpn h2c"),
            ("plain", ""),
        ],
        false,
        &[
            Case {
                transport: "tls",
                alpn: &["h2", "istio"],
                expect: "h2",
                ..ANY
            },
            Case {
                transport: "tls",
                alpn: &["istio", "h2"],
                expect: "mesh",
                ..ANY
            },
            Case {
                transport: "tls",
                alpn: &["http/1.1"],
                expect: "tls",
                ..ANY
            },
            Case {
                transport: "raw_buffer",
                alpn: &["h2c"],
                expect: "h2c",
                ..ANY
            },
            // raw_buffer is named by a chain, and that chain wants h2c.
            Case {
                transport: "raw_buffer",
                alpn: &["http/1.1"],
                expect: "none",
                ..ANY
            },
            Case {
                expect: "plain",
                ..ANY
            },
        ],
    );
}

#[test]
fn sources_by_kind_prefix_and_port() {
    check(
        &[
            ("local", "local"),
            ("lab", "external from 10.9.0.0/16"),
            ("lab port", "external from 10.9.0.0/16 sport 7 sport 8"),
            ("direct", "direct 172.16.0.0/12"),
        ],
        true,
        &[
            Case {
                from: "127.0.0.1:1",
                expect: "local",
                ..ANY
            },
            Case {
                from: "10.1.2.3:1",
                expect: "local",
                ..ANY
            },
            Case {
                expect: "lab",
                ..ANY
            },
            Case {
                from: "10.9.1.1:8",
                expect: "lab port",
                ..ANY
            },
            Case {
                from: "10.8.1.1:8",
                expect: "default",
                ..ANY
            },
            Case {
                from: "172.16.5.5:1",
                expect: "direct",
                ..ANY
            },
        ],
    );
}

#[test]
fn two_chains_for_the_same_connections_are_named() {
    let chains = [
        chain("a", matcher("port 80")),
        chain("b", matcher("to 10.0.0.0/8 name x")),
        chain("c", matcher("to 10.3.0.0/8 to 11.0.0.0/8 name y name x")),
    ];
    assert_eq!(
        FilterChainIndex::new(&chains, None).unwrap_err(),
        Conflict { chain: 2, with: 1 }
    );
}
