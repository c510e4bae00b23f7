//! HTTP between two workloads.

use std::net::SocketAddr;

use bytes::Bytes;
use futures_util::StreamExt as _;
use outrider_testkit::clients::{grpc, http1, http2};
use outrider_testkit::mesh::Sidecar;
use outrider_testkit::message::Kind;
use outrider_testkit::servers;
use outrider_testkit::servers::grpc::Echo;
use serde_json::{Value, json};

use super::{HOST, HTTP, HTTP2, Pair, for_pairs};
use crate::common::{SECRET, assert_encrypted, assert_source, header, listen};

for_pairs!(all: over_http1 over_http2 over_grpc self_call headless ipv6_only semantics);

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

/// A headless service has no address of its own: clients dial the very workload that they mean,
/// with mutual TLS, and it may be themselves.
fn headless(pair: Pair) {
    pair.mesh
        .write(
            "headless",
            &format!(
                "apiVersion: v1\nkind: Service\n\
                 metadata: {{name: stateful, namespace: bank}}\n\
                 spec: {{clusterIP: None, selector: {{app: server}}, \
                 ports: [{{name: http, port: {HTTP}}}]}}\n"
            ),
        )
        .unwrap();
    pair.mesh.mutual_tls("STRICT").unwrap();
    let pair = pair.start(&[]);
    let _app = pair.http_app();
    let sniffer = pair.sniffer();
    for address in pair.server.pod.addresses() {
        let mut client = http1::Client::connect_from(&pair.client.pod, (address, HTTP)).unwrap();
        let response = client.post("stateful", "/", SECRET.as_bytes()).unwrap();
        let seen = response.json().unwrap();
        assert_source(&seen, address);
        assert_caller(&seen, &pair.client.identity());
        // By its own address it never leaves the loopback interface.
        let mut client = http1::Client::connect_from(&pair.server.pod, (address, HTTP)).unwrap();
        let seen = client.get("stateful", "/").unwrap().json().unwrap();
        assert_eq!(header(&seen, "x-forwarded-client-cert"), None);
    }
    assert_encrypted(&sniffer);
}

/// A service of IPv6 alone is reached over IPv6, on the wire too.
fn ipv6_only(pair: Pair) {
    let address: std::net::Ipv6Addr = "fd96::1:1".parse().unwrap();
    pair.mesh
        .write(
            "ipv6",
            &format!(
                "apiVersion: v1\nkind: Service\n\
                 metadata: {{name: six, namespace: bank}}\n\
                 spec: {{clusterIP: \"{address}\", ipFamilies: [IPv6], selector: {{app: server}}, \
                 ports: [{{name: http, port: {HTTP}}}]}}\n"
            ),
        )
        .unwrap();
    let pair = pair.start(&[]);
    let _app = pair.http_app();
    let sniffer = pair.sniffer();
    let mut client = http1::Client::connect_from(&pair.client.pod, (address, HTTP)).unwrap();
    let response = client.post("six", "/", SECRET.as_bytes()).unwrap();
    let seen = response.json().unwrap();
    assert_source(&seen, address.into());
    assert_caller(&seen, &pair.client.identity());
    let target = SocketAddr::new(pair.server.pod.v6().into(), HTTP);
    assert!(sniffer.destinations().unwrap().contains(&target));
    assert_encrypted(&sniffer);
}

/// What HTTP/1 allows and programs rely on survives two sidecars.
fn semantics(pair: Pair) {
    let pair = pair.start(&[]);
    let _app = pair.http_app();
    let connect = || http1::Client::connect_from(&pair.client.pod, (HOST, HTTP)).unwrap();

    let mut client = connect();
    let chunked = "POST /?trailer=t:v HTTP/1.1\r\nHost: a\r\nX-Case: 1\r\n\
                   Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let response = client.exchange(chunked).unwrap();
    assert_eq!(response.trailers, [("t".to_owned(), "v".to_owned())]);
    let seen = response.json().unwrap();
    assert_eq!(seen["body_sha256"], servers::sha256(b"abc"));
    assert_eq!(header(&seen, "x-case"), Some("1"));
    if pair.sidecars == [Sidecar::Outrider; 2] {
        let headers = seen["headers"].as_array().unwrap();
        let names: Vec<_> = headers.iter().map(|header| &header[0]).collect();
        assert!(names.contains(&&json!("X-Case")), "{names:?}");
    }
    let head = client
        .exchange("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
        .unwrap();
    assert!(head.status().unwrap() == 200 && head.body.is_empty());
    // Two requests at once are answered in their order.
    client
        .send(
            "GET /?body=echo&status=201 HTTP/1.1\r\nHost: a\r\n\r\n\
             GET /?size=5 HTTP/1.1\r\nHost: a\r\n\r\n",
        )
        .unwrap();
    for status in [201, 200] {
        let response = client.read_response(Kind::Response).unwrap();
        assert_eq!(response.status().unwrap(), status);
    }

    let mut client = connect();
    let expecting = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\
                     Expect: 100-continue\r\n\r\n";
    client.send(expecting).unwrap();
    assert_eq!(client.read_head().unwrap().status().unwrap(), 100);
    assert_eq!(client.exchange("ok").unwrap().status().unwrap(), 200);

    // As with Envoy, HTTP/1.0 needs a host too.
    for (host, status) in [("Host: a\r\n", 200), ("", 400)] {
        let mut client = connect();
        let response = client.exchange(format!("GET / HTTP/1.0\r\n{host}\r\n"));
        assert_eq!(response.unwrap().status().unwrap(), status);
        assert!(client.read_to_end().unwrap().is_empty());
    }

    let mut client = connect();
    client
        .send(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .unwrap();
    let head = client.read_head().unwrap();
    assert_eq!(head.status().unwrap(), 101);
    let accept = servers::http1::websocket_accept("dGhlIHNhbXBsZSBub25jZQ==");
    assert_eq!(head.header("sec-websocket-accept"), Some(accept.as_str()));
    client.send("frames").unwrap();
    assert_eq!(client.read(6).unwrap(), b"frames");
}
