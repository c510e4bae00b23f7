//! Copies of requests, as Envoy sends them.

use std::io::{BufReader, Write as _};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};

use outrider_testkit::message::{Kind, read_body, read_head};
use outrider_testkit::servers::{self, Server};

use crate::harness::{Bootstrap, PATIENCE, Pair, Proxy, bind, closed_address};

/// What the copies' endpoint saw of one request: its start line, its headers sorted, and the length
/// of its body.
type Seen = (String, Vec<String>, usize);

/// Answers everything with `answer`, and tells what it saw.
fn watched(answer: &'static str) -> (Server, Receiver<Seen>) {
    let (sender, receiver) = channel();
    let sender = Mutex::new(sender);
    let server = Server::start(bind(), move |connection: TcpStream| {
        let mut reader = BufReader::new(connection.try_clone()?);
        while let Some(head) = read_head(&mut reader)? {
            let message = read_body(&mut reader, head.clone(), Kind::Request)?;
            let mut headers: Vec<String> = head
                .headers
                .iter()
                .map(|(name, value)| format!("{}: {value}", name.to_ascii_lowercase()))
                .filter(|line| !line.starts_with("x-request-id"))
                // Envoy adds an address of its machine; ours leaves the client's as it is.
                .filter(|line| !line.starts_with("x-forwarded-for"))
                .collect();
            headers.sort_unstable();
            let seen = (head.start.clone(), headers, message.body.len());
            let _ = sender.lock().unwrap().send(seen);
            (&connection).write_all(answer.as_bytes())?;
        }
        Ok(())
    });
    (server.unwrap(), receiver)
}

const FINE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nunseen";

fn route(mirrors: &str) -> String {
    format!(
        "route_config: {{ validate_clusters: false, virtual_hosts: [{{ name: all, domains: ['*'],
  routes: [{{ match: {{ prefix: / }},
    request_headers_to_add: [{{ header: {{ key: x-added, value: a }} }}],
    route: {{ cluster: up, prefix_rewrite: /new/, {mirrors} }} }}] }}] }}"
    )
}

#[test]
fn copies_are_as_envoys() {
    let app = servers::http1::echo(bind(), "app").unwrap();
    let policies = [
        "{ cluster: copy }",
        "{ cluster: copy, disable_shadow_host_suffix_append: true }",
        "{ cluster_header: x-copy }",
        "{ cluster: copy, runtime_fraction: { default_value: { numerator: 100 } } }",
    ];
    for policy in policies {
        let (mirror, seen) = watched(FINE);
        let seen = Arc::new(Mutex::new(seen));
        let manager = route(&format!("request_mirror_policies: [{policy}]"));
        let bootstrap = Bootstrap::http(&manager)
            .cluster("up", app.address(), "")
            .cluster("copy", mirror.address(), "");
        let mut pair = Pair::start(&bootstrap);
        for (method, host, body) in [
            ("GET", "a.example", ""),
            ("GET", "a.example:8080", ""),
            ("POST", "a.example", "0123456789"),
        ] {
            let request = format!(
                "{method} /x?y HTTP/1.1\r\nHost: {host}\r\nX-Copy: copy\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            let what = format!("{policy} {method} {host}");
            let copy = pair.same(&what, |proxy| {
                let answer = proxy.client().exchange(&request).unwrap();
                assert_eq!(answer.status().unwrap(), 200);
                seen.lock().unwrap().recv_timeout(PATIENCE).unwrap()
            });
            assert_eq!(
                (copy.0, copy.2),
                (format!("{method} /new/x?y HTTP/1.1"), body.len())
            );
        }
        pair.same_stats(&[
            "cluster.copy.upstream_rq_total",
            "cluster.copy.upstream_rq_completed",
            "cluster.copy.upstream_rq_200",
            "cluster.copy.upstream_rq_2xx",
            "cluster.copy.upstream_rq_active",
            "cluster.up.upstream_rq_total",
            "http.in.downstream_rq_total",
        ]);
    }
}

#[test]
fn what_becomes_of_a_copy_concerns_nobody() {
    let app = servers::http1::echo(bind(), "app").unwrap();
    let (second, seen) = watched("HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\nno");
    let manager = route(
        "request_mirror_policies: [{ cluster: closed }, { cluster: nowhere }, { cluster: second },
          { cluster: second, runtime_fraction: { default_value: { numerator: 0 } } }]",
    );
    let bootstrap = Bootstrap::http(&manager)
        .cluster("up", app.address(), "")
        .cluster("closed", closed_address(), "")
        .cluster("second", second.address(), "");
    let mut pair = Pair::start(&bootstrap);
    for _ in 0..3 {
        pair.check("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    pair.same_stats(&[
        "cluster.closed.upstream_rq_503",
        "cluster.closed.upstream_cx_connect_fail",
        "cluster.second.upstream_rq_total",
        "cluster.second.upstream_rq_500",
    ]);
    drop(pair);
    let proxies_and_probes = seen.try_iter().count();
    assert!(proxies_and_probes >= 6, "{proxies_and_probes}");
}

#[test]
fn a_copy_that_lags_is_given_up_and_its_request_goes_on() {
    let app = servers::http1::echo(bind(), "app").unwrap();
    // It accepts, and reads nothing.
    let stuck = servers::tcp::silent(bind()).unwrap();
    let manager = route("request_mirror_policies: [{ cluster: stuck }], timeout: 0s");
    let bootstrap = Bootstrap::http(&manager)
        .cluster("up", app.address(), "")
        .cluster("stuck", stuck.address(), "");
    let proxy = Proxy::ours(&bootstrap);
    let body = "x".repeat(32 * 1024 * 1024);
    let request = format!(
        "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = proxy.client().exchange(&request).unwrap();
    assert_eq!(answer.status().unwrap(), 200);
    assert_eq!(answer.json().unwrap()["body_length"], body.len());
    proxy.wait_for_stat("http.in.rq_mirror_dropped", 1);
    proxy.wait_for_stat("cluster.stuck.upstream_rq_active", 0);
}

#[test]
fn a_weighted_cluster_can_have_a_host_of_its_own() {
    let app = servers::http1::echo(bind(), "app").unwrap();
    for route in [
        "",
        "host_rewrite_literal: route.example, append_x_forwarded_host: true,",
        "append_x_forwarded_host: true,",
    ] {
        let manager = format!(
            "route_config: {{ virtual_hosts: [{{ name: all, domains: ['*'], routes: [
  {{ match: {{ prefix: / }}, route: {{ {route} weighted_clusters: {{ clusters: [
    {{ name: up, weight: 1, host_rewrite_literal: share.example }}] }} }} }}] }}] }}"
        );
        let bootstrap = Bootstrap::http(&manager).cluster("up", app.address(), "");
        Pair::start(&bootstrap).check("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
}

#[test]
fn copies_share_a_budget_of_memory() {
    let app = servers::http1::echo(bind(), "app").unwrap();
    // It takes one connection, so that the other copies wait with their bodies.
    let stuck = servers::tcp::silent(bind()).unwrap();
    let manager = route("request_mirror_policies: [{ cluster: stuck }], timeout: 0s");
    let one = "circuit_breakers: { thresholds: [{ max_connections: 1 }] }";
    let bootstrap = Bootstrap::http(&manager)
        .cluster("up", app.address(), "")
        .cluster("stuck", stuck.address(), one);
    let proxy = Proxy::ours(&bootstrap);
    let body = "x".repeat(1_000_000);
    let request = format!(
        "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    // All on the worker of one connection. 16 of those that wait fit, and a part of one more.
    let mut client = proxy.client();
    for _ in 0..24 {
        let answer = client.exchange(&request).unwrap();
        assert_eq!(answer.status().unwrap(), 200);
        assert_eq!(answer.json().unwrap()["body_length"], body.len());
    }
    let dropped = proxy.stat("http.in.rq_mirror_dropped").unwrap();
    assert!((7..=9).contains(&dropped), "{dropped}");
}
