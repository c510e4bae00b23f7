//! Routes of each kind between workloads.

use std::collections::BTreeMap;
use std::io::BufReader;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::ensure;
use outrider_testkit::clients::{grpc, http1};
use outrider_testkit::eventually;
use outrider_testkit::mesh::{Sidecar, Workload};
use outrider_testkit::message::{Head, read_head};
use outrider_testkit::servers::grpc::Echo;
use outrider_testkit::servers::{self, Server};

use super::{HOST, HTTP, HTTP2, Pair, TCP, for_pairs};
use crate::common::listen;

for_pairs!(server: calls_one_by_one connections_by_name connections_by_weight copies);

/// The pair with one more workload behind a service of its own, and a route of the server's
/// service: its kind, what it has beside its parent, and the port.
fn routed(mut pair: Pair, kind: &str, port: u16, rest: &str) -> (Pair, Workload) {
    let ports = [("http", HTTP), ("http2", HTTP2), ("tcp", TCP)];
    pair.mesh.service("bank", "backend", &ports).unwrap();
    let mut backend = pair.mesh.workload("bank", "backend").unwrap();
    let route = format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\n\
         metadata: {{name: routed, namespace: bank}}\n\
         spec: {{parentRefs: [{{group: '', kind: Service, name: server, port: {port}}}], {rest}}}\n"
    );
    pair.mesh.write("routed", &route).unwrap();
    let pair = pair.start(&[]);
    pair.mesh.inject(&mut backend, Sidecar::Outrider).unwrap();
    (pair, backend)
}

/// The calls of one connection go to both servers, by weight.
fn calls_one_by_one(pair: Pair) {
    let rules = format!(
        "rules: [{{backendRefs: [{{name: server, port: {HTTP2}, weight: 70}},
          {{name: backend, port: {HTTP2}, weight: 30}}, {{name: gone, port: {HTTP2}, weight: 0}}]}},
          {{matches: [{{method: {{service: outrider.test.Echo, method: Stream}}}}],
            backendRefs: [{{name: gone, port: {HTTP2}}}]}}]"
    );
    let (pair, backend) = routed(pair, "GRPCRoute", HTTP2, &rules);
    let _server = servers::grpc::echo(listen(&pair.server.pod, HTTP2), "server").unwrap();
    let _backend = servers::grpc::echo(listen(&backend.pod, HTTP2), "backend").unwrap();
    let url = format!("http://{}", SocketAddr::new(pair.service.v4.into(), HTTP2));
    let work = || async move {
        let mut client = grpc::Client::connect(&url).await?;
        let mut seen = BTreeMap::<String, u32>::new();
        for _ in 0..300 {
            let answer = client.unary(Echo::default()).await?;
            *seen.entry(answer.server).or_default() += 1;
        }
        let messages = futures_util::stream::iter([Echo::default()]);
        let status = client.stream(messages).await.unwrap_err();
        anyhow::Ok((seen, status.code() as i32))
    };
    let (seen, gone) = pair.client.pod.block_on(work).unwrap().unwrap();
    // Five deviations of so many throws.
    let of = |name: &str| seen.get(name).copied().unwrap_or_default();
    assert!((50..=130).contains(&of("backend")), "{seen:?}");
    assert_eq!(of("backend") + of("server"), 300, "{seen:?}");
    assert_eq!(gone, 14, "UNAVAILABLE is the answer of no backend");
}

/// The first bytes of a TLS client that asks for a server's name.
fn client_hello(name: &'static str) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = name.try_into().unwrap();
    let mut connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).unwrap();
    bytes
}

/// TLS goes by the server's name, unread; names of no route lead nowhere.
fn connections_by_name(pair: Pair) {
    let rest = format!(
        "hostnames: [a.example, '*.b.example'], rules: [{{backendRefs: [{{name: backend, port: {TCP}}}]}}]"
    );
    let (pair, backend) = routed(pair, "TLSRoute", TCP, &rest);
    let _backend = servers::tcp::echo(listen(&backend.pod, TCP)).unwrap();
    let _server = servers::tcp::echo(listen(&pair.server.pod, TCP)).unwrap();
    let connect = || http1::Client::connect_from(&pair.client.pod, (HOST, TCP)).unwrap();
    for name in ["a.example", "x.b.example"] {
        let hello = client_hello(name);
        let mut client = connect();
        client.send(&hello).unwrap();
        assert_eq!(client.read(hello.len()).unwrap(), hello, "{name}");
    }
    for name in ["other.example", "b.example"] {
        let mut client = connect();
        client.send(client_hello(name)).unwrap();
        // Closed or reset, but without a byte.
        let answer = client.read_to_end().unwrap_or_default();
        assert_eq!(answer, b"", "{name}");
    }
}

/// Connections go by weight; the share of a backend that does not exist is refused.
fn connections_by_weight(pair: Pair) {
    let rest = format!(
        "rules: [{{backendRefs: [{{name: server, port: {TCP}}}, {{name: backend, port: {TCP}}},
          {{name: gone, port: {TCP}}}]}}]"
    );
    let (pair, backend) = routed(pair, "TCPRoute", TCP, &rest);
    let _server = servers::tcp::banner(listen(&pair.server.pod, TCP), b"server.").unwrap();
    let _backend = servers::tcp::banner(listen(&backend.pod, TCP), b"backend").unwrap();
    let mut seen = BTreeMap::<String, u32>::new();
    for _ in 0..60 {
        let mut client = http1::Client::connect_from(&pair.client.pod, (HOST, TCP)).unwrap();
        let greeting = client.read(7).unwrap_or_default();
        let who = String::from_utf8(greeting).unwrap();
        *seen.entry(who).or_default() += 1;
    }
    // A share of a third is under 4 of 60 once in ten million runs.
    for who in ["server.", "backend", ""] {
        assert!(seen.get(who).is_some_and(|count| *count >= 4), "{seen:?}");
    }
    assert_eq!(seen.len(), 3, "{seen:?}");
}

/// A copy of each request goes to another service, as the same request.
fn copies(pair: Pair) {
    let rest = format!(
        "rules: [{{filters: [{{type: RequestMirror, requestMirror: {{backendRef: {{name: backend, port: {HTTP}}}}}}}],
          backendRefs: [{{name: server, port: {HTTP}}}]}}]"
    );
    let (pair, backend) = routed(pair, "HTTPRoute", HTTP, &rest);
    let _app = pair.http_app();
    let copies = Arc::<Mutex<Vec<Head>>>::default();
    let notes = Arc::clone(&copies);
    // It never answers, which nobody minds.
    let _backend = Server::start(listen(&backend.pod, HTTP), move |connection| {
        let mut reader = BufReader::new(connection);
        while let Some(head) = read_head(&mut reader)? {
            notes.lock().unwrap().push(head);
        }
        Ok(())
    });
    let mut client = http1::Client::connect_from(&pair.client.pod, (HOST, HTTP)).unwrap();
    for _ in 0..5 {
        let answer = client.get(HOST, "/copied?q=1").unwrap();
        assert_eq!(answer.json().unwrap()["server"], "app");
    }
    eventually(Duration::from_secs(10), || {
        let seen = copies.lock().unwrap().len();
        ensure!(seen == 5, "{seen} copies");
        Ok(())
    })
    .unwrap();
    for head in copies.lock().unwrap().iter() {
        assert_eq!(head.start, "GET /copied?q=1 HTTP/1.1");
        assert_eq!(head.header("host"), Some(HOST));
    }
}
