//! HTTP between two workloads.

use std::net::SocketAddr;

use bytes::Bytes;
use futures_util::StreamExt as _;
use outrider_testkit::clients::{grpc, http1, http2};
use outrider_testkit::servers;
use outrider_testkit::servers::grpc::Echo;
use serde_json::{Value, json};

use super::{HOST, HTTP, HTTP2, Pair, for_pairs};
use crate::common::{SECRET, assert_encrypted, assert_source, header, listen};

for_pairs!(all: over_http1 over_http2 over_grpc self_call);

/// The app was called by this identity, as its sidecar tells it.
fn assert_caller(seen: &Value, identity: &str) {
    let certificate = header(seen, "x-forwarded-client-cert").unwrap();
    assert!(
        certificate.contains(&format!("URI={identity}")),
        "{certificate}"
    );
}

fn over_http1(pair: Pair) {
    let pair = pair.start(&[]);
    let _app = pair.http_app();
    let sniffer = pair.sniffer();
    let mut clients = vec![http1::Client::connect_from(&pair.client.pod, (HOST, HTTP)).unwrap()];
    for address in pair.service.addresses() {
        clients.push(http1::Client::connect_from(&pair.client.pod, (address, HTTP)).unwrap());
    }
    for mut client in clients {
        for _ in 0..3 {
            let response = client.post(HOST, "/path?q=1", SECRET.as_bytes()).unwrap();
            let seen = response.json().unwrap();
            assert_eq!(response.status().unwrap(), 200, "{seen}");
            assert_eq!(seen["path"], "/path?q=1");
            assert_eq!(header(&seen, "host"), Some(HOST));
            assert_eq!(seen["body_sha256"], servers::sha256(SECRET.as_bytes()));
            assert_source(&seen, pair.service.v4.into());
            assert_caller(&seen, &pair.client.identity());
        }
        let large = client.get(HOST, "/?size=3000000&framing=chunked").unwrap();
        assert_eq!(large.body, servers::pattern(3_000_000));
    }
    assert_encrypted(&sniffer);
}

fn over_http2(pair: Pair) {
    let pair = pair.start(&[]);
    let sniffer = pair.sniffer();
    let _app = servers::http2::echo(listen(&pair.server.pod, HTTP2), "app").unwrap();
    for address in pair.service.addresses() {
        let target = SocketAddr::new(address, HTTP2);
        let work = || async {
            let client = http2::Client::connect(target).await?;
            let request = ::http::Request::post("http://app/path").body(())?;
            let body = Bytes::from(SECRET.repeat(10_000));
            let response = client.exchange(request, body, None).await?;
            let trailers = client.get("http://app/?size=300000&trailer=t:v").await?;
            anyhow::Ok((response, trailers))
        };
        let (response, trailers) = pair.client.pod.block_on(work).unwrap().unwrap();
        let seen: Value = serde_json::from_slice(&response.body().body).unwrap();
        assert_eq!(seen["body_length"], SECRET.len() * 10_000);
        assert_eq!(seen["headers"][0], json!([":authority", "app"]));
        assert_source(&seen, pair.service.v4.into());
        assert_caller(&seen, &pair.client.identity());
        assert_eq!(trailers.body().body, servers::pattern(300_000));
        assert_eq!(trailers.body().trailers["t"], "v");
    }
    assert_encrypted(&sniffer);
}

fn over_grpc(pair: Pair) {
    let pair = pair.start(&[]);
    let sniffer = pair.sniffer();
    let _app = servers::grpc::echo(listen(&pair.server.pod, HTTP2), "app").unwrap();
    for address in pair.service.addresses() {
        let url = format!("http://{}", SocketAddr::new(address, HTTP2));
        let identity = pair.client.identity();
        let work = || async move {
            let mut client = grpc::Client::connect(&url).await?;
            let message = Echo {
                text: SECRET.into(),
                ..Default::default()
            };
            let answer = client.unary(message.clone()).await?;
            assert_eq!(answer.text, SECRET);
            let metadata = answer.metadata.join("\n");
            assert!(metadata.contains(&format!("URI={identity}")), "{metadata}");
            let failing = Echo {
                fail: 9,
                ..message.clone()
            };
            let status = client.unary(failing).await.unwrap_err();
            assert_eq!(status.code(), tonic::Code::FailedPrecondition);

            // Both ways at once: each message is sent only after the answer to the last.
            let (sender, receiver) = tokio::sync::mpsc::channel(1);
            let messages = futures_util::stream::unfold(receiver, |mut receiver| async {
                receiver.recv().await.map(|message| (message, receiver))
            });
            sender.send(message.clone()).await?;
            let mut answers = client.stream(messages).await?;
            for _ in 0..5 {
                assert_eq!(answers.next().await.unwrap()?.text, SECRET);
                sender.send(message.clone()).await?;
            }
            drop(sender);
            assert_eq!(answers.next().await.unwrap()?.text, SECRET);
            assert!(answers.next().await.is_none());
            anyhow::Ok(())
        };
        pair.client.pod.block_on(work).unwrap().unwrap();
    }
    assert_encrypted(&sniffer);
}

/// A workload that calls itself by its service's address is called as by another: with mutual TLS,
/// under policy, and not in a loop. By its own address the call never leaves the loopback
/// interface, and is left alone.
fn self_call(pair: Pair) {
    pair.mesh.mutual_tls("STRICT").unwrap();
    let pair = pair.start(&[]);
    let app = pair.http_app();
    let pod = &pair.server.pod;
    let call = |address| {
        let mut client = http1::Client::connect_from(pod, (address, HTTP)).unwrap();
        client.get(HOST, "/").unwrap().json().unwrap()
    };
    for address in pair.service.addresses() {
        let seen = call(address);
        assert_source(&seen, pair.service.v4.into());
        assert_caller(&seen, &pair.server.identity());
    }
    for address in pod.addresses() {
        let seen = call(address);
        let peer: SocketAddr = seen["peer"].as_str().unwrap().parse().unwrap();
        assert_eq!(peer.ip().to_canonical(), address);
        assert_eq!(header(&seen, "x-forwarded-client-cert"), None);
    }
    // One connection for each call at most: nothing looped.
    assert!(app.accepted() <= 4, "{}", app.accepted());
}
