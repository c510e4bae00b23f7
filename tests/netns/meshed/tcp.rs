//! Bytes between two workloads.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use outrider_testkit::clients::http1::Client;
use outrider_testkit::mesh::Sidecar;
use outrider_testkit::{eventually, servers};

use super::{AUTO, HOST, HTTP, Pair, TCP, for_pairs};
use crate::common::{SECRET, assert_encrypted, listen};

for_pairs!(all: bytes server_first pod_ip_only refused_and_reset);

fn bytes(pair: Pair) {
    let pair = pair.start(&[]);
    let _apps =
        [TCP, AUTO].map(|port| servers::tcp::count(listen(&pair.server.pod, port)).unwrap());
    let sniffer = pair.sniffer();
    for address in pair.service.addresses() {
        for port in [TCP, AUTO] {
            let mut client = Client::connect_from(&pair.client.pod, (address, port)).unwrap();
            // Lines, for Envoy's HTTP inspector resets what has none in its first 64 KiB.
            let text = format!("{SECRET}\n").repeat(50_000);
            client.send(&text).unwrap();
            // The answer comes only after this, and only where the half-close was passed on.
            client.close_write().unwrap();
            let answer = client.read_to_end().unwrap();
            assert_eq!(answer, text.len().to_string().into_bytes(), "port {port}");
        }
    }
    assert_encrypted(&sniffer);
}

/// The client waits for the server's first bytes; they come at once where the port is known to
/// carry bytes. Where it is not, ours waits 10 ms for the client's word before the server has its
/// own; Envoy waits for the time of detection.
fn server_first(pair: Pair) {
    let pair = pair.start(&[]);
    let greeting = format!("220 {SECRET}\r\n");
    let app =
        |port| servers::tcp::banner(listen(&pair.server.pod, port), greeting.as_bytes()).unwrap();
    let _apps = [TCP, AUTO].map(app);
    let sniffer = pair.sniffer();
    let greet = |address, port| {
        let began = Instant::now();
        let mut client = Client::connect_from(&pair.client.pod, (address, port)).unwrap();
        assert_eq!(client.read(greeting.len()).unwrap(), greeting.as_bytes());
        let took = began.elapsed();
        client.send("QUIT").unwrap();
        assert_eq!(client.read(4).unwrap(), b"QUIT");
        took
    };
    for address in pair.service.addresses() {
        for port in [TCP, AUTO] {
            // The quickest of some: the machine may have other work.
            let took = (0..5).map(|_| greet(address, port)).min().unwrap();
            let most = if port == AUTO && pair.sidecars[0] == Sidecar::Envoy {
                Duration::from_secs(2)
            } else {
                Duration::from_millis(30)
            };
            assert!(took < most, "port {port}: {took:?}");
        }
    }
    assert_encrypted(&sniffer);
}

/// An app that listens on its pod's address alone is reached.
fn pod_ip_only(pair: Pair) {
    let pair = pair.start(&[]);
    let pod = &pair.server.pod;
    let listener = pod.run(|| TcpListener::bind((pod.v4(), HTTP))).unwrap();
    let _app = servers::http1::echo(listener.unwrap(), "app").unwrap();
    let mut client = Client::connect_from(&pair.client.pod, (HOST, HTTP)).unwrap();
    assert_eq!(client.get(HOST, "/").unwrap().status().unwrap(), 200);
}

/// How a connection ended after the client had spoken.
fn ending(mut client: Client) -> Option<std::io::ErrorKind> {
    let end = client.send("hello").and_then(|()| client.read_to_end());
    match end {
        Ok(bytes) => {
            assert!(bytes.is_empty());
            None
        }
        Err(error) => Some(error.root_cause().downcast_ref::<std::io::Error>()?.kind()),
    }
}

/// Where no app listens, and where it resets, the client learns it at once: by a reset, where both
/// sidecars are ours.
fn refused_and_reset(pair: Pair) {
    let pair = pair.start(&[]);
    let reset = Some(std::io::ErrorKind::ConnectionReset);
    let exact = pair.sidecars == [Sidecar::Outrider; 2];
    let began = Instant::now();
    let connect = |port| Client::connect_from(&pair.client.pod, (HOST, port)).unwrap();
    for port in [TCP, AUTO] {
        let refused = ending(connect(port));
        assert!(!exact || refused == reset, "port {port}: {refused:?}");
    }
    assert_eq!(connect(HTTP).get(HOST, "/").unwrap().status().unwrap(), 503);

    let app = servers::tcp::resets(listen(&pair.server.pod, TCP), true).unwrap();
    let end = ending(connect(TCP));
    assert!(!exact || end == reset, "{end:?}");
    eventually(Duration::from_secs(1), || {
        anyhow::ensure!(app.accepted() == 1);
        Ok(())
    })
    .unwrap();
    let took = began.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
}
