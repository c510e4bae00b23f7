//! Clusters whose endpoints are names: STRICT_DNS, LOGICAL_DNS and their extension, beside Envoy with
//! the same DNS server.

use std::net::{IpAddr, SocketAddr, TcpListener};

use anyhow::ensure;
use outrider_testkit::eventually;
use outrider_testkit::servers::dns::{Dns, Mood};
use outrider_testkit::servers::{self, Server};

use crate::harness::{Bootstrap, Kind, PATIENCE, Pair, Proxy, ROUTES_TO_UP, closed_address};

const RESOLVER: &str =
    "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig";

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// An echo server on all addresses.
fn echo() -> Server {
    servers::http1::echo(TcpListener::bind("0.0.0.0:0").unwrap(), "up").unwrap()
}

/// `{name: c-ares, ...}` for a DNS server of the test.
fn resolver(dns: SocketAddr, more: &str) -> String {
    format!(
        "{{name: envoy.network.dns_resolver.cares, typed_config: {{'@type': {RESOLVER}, resolvers: \
         [{{socket_address: {{address: {}, port_value: {}}}}}], {more}}}}}",
        dns.ip(),
        dns.port()
    )
}

fn endpoint(host: &str, port: u16) -> String {
    format!(
        "{{endpoint: {{address: {{socket_address: {{address: '{host}', port_value: {port}}}}}}}}}"
    )
}

/// One route to the cluster `up` of the given type, with one name.
fn bootstrap(host: &str, port: u16, dns: SocketAddr, more: &str) -> Bootstrap {
    let cluster = format!(
        "load_assignment: {{cluster_name: up, endpoints: [{{lb_endpoints: [{}]}}]}}\n\
         dns_refresh_rate: 0.2s\n\
         typed_dns_resolver_config: {}\n{more}",
        endpoint(host, port),
        resolver(dns, "query_timeout_seconds: 1, query_tries: 1"),
    );
    Bootstrap::http(ROUTES_TO_UP).cluster("up", closed_address(), &cluster)
}

/// The endpoints of a cluster.
fn addresses(proxy: &Proxy, cluster: &str) -> Vec<String> {
    let clusters = proxy.admin_json("/clusters?format=json");
    let statuses = clusters["cluster_statuses"].as_array().unwrap();
    let status = statuses.iter().find(|status| status["name"] == cluster);
    let hosts = status.and_then(|status| status["host_statuses"].as_array());
    let mut addresses: Vec<String> = hosts
        .into_iter()
        .flatten()
        .map(|host| host["address"]["socket_address"]["address"].to_string())
        .collect();
    addresses.sort();
    addresses
}

/// Waits until both have that many endpoints.
#[track_caller]
fn members(pair: &Pair, expected: usize) {
    for proxy in [&pair.ours, &pair.envoy] {
        let members = eventually(PATIENCE, || {
            let members = addresses(proxy, "up");
            ensure!(members.len() == expected, "{members:?}, not {expected}");
            Ok(())
        });
        members.unwrap_or_else(|error| panic!("{:?}: {error:#}", proxy.kind));
    }
}

/// Waits until both have counted at least one more of a stat.
#[track_caller]
fn counts_on(pair: &Pair, stat: &str) {
    for proxy in [&pair.ours, &pair.envoy] {
        let before = proxy.stat(stat).unwrap_or(0);
        let counted = eventually(PATIENCE, || {
            let now = proxy.stat(stat).unwrap_or(0);
            ensure!(now > before, "{stat} stays at {now}");
            Ok(())
        });
        counted.unwrap_or_else(|error| panic!("{:?}: {error:#}", proxy.kind));
    }
}

const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";

#[test]
fn a_strict_name_has_an_endpoint_for_each_address() {
    let (up, dns) = (echo(), Dns::start().unwrap());
    dns.set("up.test", &ips(&["127.0.0.1", "127.0.0.2"]), 1);
    let bootstrap = bootstrap(
        "up.test",
        up.address().port(),
        dns.address(),
        "type: STRICT_DNS",
    );
    let mut pair = Pair::start(&bootstrap);
    members(&pair, 2);
    assert_eq!(pair.check(GET).status(), 200);
    dns.set(
        "up.test",
        &ips(&["127.0.0.1", "127.0.0.2", "127.0.0.3", "::1"]),
        1,
    );
    // IPv6 comes first where there is one, and then alone.
    members(&pair, 1);
    dns.set("up.test", &ips(&["127.0.0.3", "127.0.0.4", "127.0.0.5"]), 1);
    members(&pair, 3);
    // A server that fails or is silent changes nothing.
    for mood in [Mood::Fails, Mood::Silent] {
        dns.set_mood(mood);
        counts_on(&pair, "cluster.up.update_failure");
        members(&pair, 3);
    }
    dns.set_mood(Mood::Answers);
    counts_on(&pair, "cluster.up.update_success");
    assert_eq!(pair.check(GET).status(), 200);
    // A server that says that there is no such name does.
    dns.remove("up.test");
    members(&pair, 0);
    assert_eq!(pair.check(GET).status(), 503);
    counts_on(&pair, "cluster.up.update_no_rebuild");
    dns.set("up.test", &ips(&["127.0.0.1"]), 1);
    members(&pair, 1);
    assert_eq!(pair.check(GET).status(), 200);
}

#[test]
fn a_logical_name_is_one_endpoint_that_stays() {
    let (up, dns) = (echo(), Dns::start().unwrap());
    dns.set("up.test", &ips(&["127.0.0.1", "127.0.0.2"]), 1);
    let bootstrap = bootstrap(
        "up.test",
        up.address().port(),
        dns.address(),
        "type: LOGICAL_DNS",
    );
    let mut pair = Pair::start(&bootstrap);
    members(&pair, 1);
    assert_eq!(pair.check(GET).status(), 200);
    dns.remove("up.test");
    counts_on(&pair, "cluster.up.update_failure");
    members(&pair, 1);
    assert_eq!(pair.check(GET).status(), 200);
}

#[test]
fn families_are_chosen_as_configured() {
    let dns = Dns::start().unwrap();
    dns.set("both.test", &ips(&["127.0.0.1", "127.0.0.2", "::1"]), 1);
    dns.set("four.test", &ips(&["127.0.0.1"]), 1);
    dns.set("six.test", &ips(&["::1"]), 1);
    let mut bootstrap = Bootstrap::http(ROUTES_TO_UP).cluster("up", closed_address(), "");
    let mut names = Vec::new();
    for family in ["AUTO", "V4_ONLY", "V6_ONLY", "V4_PREFERRED", "ALL"] {
        for host in ["both.test", "four.test", "six.test", "none.test"] {
            let name = format!("{family}-{}", host.trim_end_matches(".test"));
            let cluster = format!(
                "type: STRICT_DNS\ndns_lookup_family: {family}\n\
                 load_assignment: {{cluster_name: c, endpoints: [{{lb_endpoints: [{}]}}]}}\n\
                 typed_dns_resolver_config: {}",
                endpoint(host, 9),
                resolver(dns.address(), "")
            );
            bootstrap = bootstrap.cluster(&name, closed_address(), &cluster);
            names.push(name);
        }
    }
    let mut pair = Pair::start(&bootstrap);
    let first = pair.same("the endpoints", |proxy| -> Vec<_> {
        let of = |name: &String| (name.clone(), addresses(proxy, name));
        names.iter().map(of).collect()
    });
    let count = |name: &str| {
        first
            .iter()
            .find(|(known, _)| known == name)
            .unwrap()
            .1
            .len()
    };
    assert_eq!((count("AUTO-both"), count("ALL-both")), (1, 3));
}

#[test]
fn names_need_no_server_where_the_machine_knows_them() {
    let (up, dns) = (echo(), Dns::start().unwrap());
    for host in ["127.0.0.1", "localhost"] {
        for kind in ["STRICT_DNS", "LOGICAL_DNS"] {
            let more = format!("type: {kind}\ndns_lookup_family: V4_ONLY");
            let bootstrap = bootstrap(host, up.address().port(), dns.address(), &more);
            let mut pair = Pair::start(&bootstrap);
            assert_eq!(pair.check(GET).status(), 200, "{host} {kind}");
        }
    }
}

#[test]
fn the_extension_says_the_same_in_one_message() {
    let (up, dns) = (echo(), Dns::start().unwrap());
    dns.set("up.test", &ips(&["127.0.0.1", "127.0.0.2"]), 1);
    for (single, expected) in [(false, 2), (true, 1)] {
        let own = format!(
            "{{'@type': type.googleapis.com/envoy.extensions.clusters.dns.v3.DnsCluster, \
             dns_refresh_rate: 100s, respect_dns_ttl: true, dns_lookup_family: V4_ONLY, \
             all_addresses_in_single_endpoint: {single}, typed_dns_resolver_config: {}}}",
            resolver(dns.address(), "")
        );
        let cluster = format!(
            "type: null\ncluster_type: {{name: envoy.cluster.dns, typed_config: {own}}}\n\
             load_assignment: {{cluster_name: up, endpoints: [{{lb_endpoints: [{}]}}]}}",
            endpoint("up.test", up.address().port())
        );
        let bootstrap = Bootstrap::http(ROUTES_TO_UP).cluster("up", closed_address(), &cluster);
        let mut pair = Pair::start(&bootstrap);
        members(&pair, expected);
        assert_eq!(pair.check(GET).status(), 200);
        // The answer is good for a second, and the rate is far off.
        counts_on(&pair, "cluster.up.update_success");
    }
}

#[test]
fn several_names_share_the_load_by_priority() {
    let (up, dns) = (echo(), Dns::start().unwrap());
    dns.set("one.test", &ips(&["127.0.0.1"]), 1);
    dns.set("two.test", &ips(&["127.0.0.2", "127.0.0.3"]), 1);
    let port = up.address().port();
    let assignment = format!(
        "type: STRICT_DNS\nload_assignment: {{cluster_name: up, endpoints: [{{priority: 1, lb_endpoints: \
         [{}, {}]}}, {{lb_endpoints: [{}]}}]}}",
        endpoint("two.test", port),
        endpoint("127.0.0.9", port),
        endpoint("one.test", port)
    );
    let bootstrap = bootstrap("one.test", port, dns.address(), "").amend_cluster(&assignment);
    let mut pair = Pair::start(&bootstrap);
    members(&pair, 4);
    assert_eq!(pair.check(GET).status(), 200);
    // Nothing is left of the first priority, so that the second takes over.
    dns.remove("one.test");
    members(&pair, 3);
    assert_eq!(pair.check(GET).status(), 200);
}

#[test]
fn questions_go_over_tcp_where_that_is_asked_for() {
    let (up, dns) = (echo(), Dns::start().unwrap());
    dns.set("up.test", &ips(&["127.0.0.1"]), 1);
    let options = "dns_resolver_options: {use_tcp_for_dns_lookups: true}";
    let more = format!(
        "type: STRICT_DNS\ntyped_dns_resolver_config: {}",
        resolver(dns.address(), options)
    );
    let bootstrap = bootstrap("up.test", up.address().port(), dns.address(), "");
    let proxy = Proxy::ours(&bootstrap.amend_cluster(&more));
    assert_eq!(addresses(&proxy, "up"), ["\"127.0.0.1\""]);
    assert!(dns.connections() > 0);
}

#[test]
fn a_cluster_is_warm_with_the_first_answer_good_or_bad() {
    let (up, dns) = (echo(), Dns::start().unwrap());
    dns.set("up.test", &ips(&["127.0.0.1"]), 1);
    dns.set_mood(Mood::Silent);
    for wait in [true, false] {
        let more = format!("type: STRICT_DNS\nwait_for_warm_on_init: {wait}");
        let bootstrap = bootstrap("up.test", up.address().port(), dns.address(), &more);
        // Both get ready, if only after the second that a question may take.
        let mut pair = Pair::start(&bootstrap);
        assert_eq!(pair.check(GET).status(), 503);
        dns.set_mood(Mood::Answers);
        members(&pair, 1);
        assert_eq!(pair.check(GET).status(), 200);
        dns.set_mood(Mood::Silent);
    }
}

#[test]
fn the_bootstraps_resolver_is_that_of_clusters_which_name_none() {
    let (up, dns) = (echo(), Dns::start().unwrap());
    dns.set("up.test", &ips(&["127.0.0.1"]), 1);
    let address = dns.address();
    let bootstrap = bootstrap("up.test", up.address().port(), address, "type: STRICT_DNS");
    let bootstrap = bootstrap.amend_cluster("typed_dns_resolver_config: null");
    let top = format!("{{typed_dns_resolver_config: {}}}", resolver(address, ""));
    let proxy = Proxy::spawn_with(Kind::Ours, &bootstrap, &["--config-yaml", &top]).ready();
    assert_eq!(addresses(&proxy, "up"), ["\"127.0.0.1\""]);
    assert!(dns.questions("up.test") > 0);
}
