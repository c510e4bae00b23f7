//! Traffic between two pods whose apps know nothing of the mesh, for each pair of sidecars.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use outrider_testkit::clients::{grpc, http1, http2};
use outrider_testkit::mesh::Sidecar;
use outrider_testkit::netns::require_root;
use outrider_testkit::servers::grpc::Echo;
use outrider_testkit::{Sniffer, servers};
use serde_json::{Value, json};

use crate::bootstrap::{BANNER, HTTP1, HTTP2, SERVICE, TCP};
use crate::common::{SECRET, assert_encrypted, assert_source, header, listen};
use crate::mesh::Mesh;

/// Each test for each pair: client's sidecar, server's sidecar.
macro_rules! for_each_pair {
    ($($pair:ident: $client:ident, $server:ident;)*) => {$(
        mod $pair {
            use outrider_testkit::mesh::Sidecar;

            for_each_pair!(@tests $client, $server:
                http1 http2_and_grpc tcp server_first strict self_call nothing_listens);
        }
    )*};
    (@tests $client:ident, $server:ident: $($test:ident)*) => {$(
        #[test]
        fn $test() {
            if super::require_root() {
                super::$test(Sidecar::$client, Sidecar::$server);
            }
        }
    )*};
}

for_each_pair! {
    envoy_to_envoy: Envoy, Envoy;
    outrider_to_envoy: Outrider, Envoy;
    envoy_to_outrider: Envoy, Outrider;
    outrider_to_outrider: Outrider, Outrider;
}

fn http1(client: Sidecar, server: Sidecar) {
    let mesh = Mesh::start(client, server);
    let _app = servers::http1::echo(listen(&mesh.server.pod, HTTP1), "app").unwrap();
    let sniffer = Sniffer::start(&mesh.server.pod).unwrap();
    for address in mesh.server.pod.addresses() {
        let mut client = http1::Client::connect_from(&mesh.client.pod, (address, HTTP1)).unwrap();
        for _ in 0..3 {
            let response = client.post("app", "/path?q=1", SECRET.as_bytes()).unwrap();
            let seen = response.json().unwrap();
            assert_eq!(response.status().unwrap(), 200);
            assert_eq!(seen["path"], "/path?q=1");
            assert_eq!(seen["body_sha256"], servers::sha256(SECRET.as_bytes()));
            assert_source(&seen, address);
            let certificate = header(&seen, "x-forwarded-client-cert").unwrap();
            assert!(
                certificate.contains(&format!("URI={}", mesh.client.identity)),
                "{certificate}"
            );
        }
        let large = client.get("app", "/?size=3000000&framing=chunked").unwrap();
        assert_eq!(large.body, servers::pattern(3_000_000));
    }
    assert_encrypted(&sniffer);
}

fn http2_and_grpc(client: Sidecar, server: Sidecar) {
    let mesh = Mesh::start(client, server);
    let sniffer = Sniffer::start(&mesh.server.pod).unwrap();
    {
        let _app = servers::http2::echo(listen(&mesh.server.pod, HTTP2), "app").unwrap();
        for address in mesh.server.pod.addresses() {
            let target = SocketAddr::new(address, HTTP2);
            let work = || async {
                let client = http2::Client::connect(target).await?;
                let request = http::Request::post("http://app/path").body(())?;
                let body = Bytes::from(SECRET.repeat(10_000));
                let response = client.exchange(request, body, None).await?;
                let trailers = client.get("http://app/?size=300000&trailer=t:v").await?;
                anyhow::Ok((response, trailers))
            };
            let (response, trailers) = mesh.client.pod.block_on(work).unwrap().unwrap();
            let seen: Value = serde_json::from_slice(&response.body().body).unwrap();
            assert_eq!(seen["body_length"], SECRET.len() * 10_000);
            assert_eq!(seen["headers"][0], json!([":authority", "app"]));
            assert_source(&seen, address);
            assert_eq!(trailers.body().body, servers::pattern(300_000));
            assert_eq!(trailers.body().trailers["t"], "v");
        }
    }
    let _app = servers::grpc::echo(listen(&mesh.server.pod, HTTP2), "app").unwrap();
    for address in mesh.server.pod.addresses() {
        let url = format!("http://{}", SocketAddr::new(address, HTTP2));
        let work = || async move {
            let mut client = grpc::Client::connect(&url).await?;
            let message = Echo {
                text: SECRET.into(),
                ..Default::default()
            };
            let answer = client.unary(message.clone()).await?;
            assert_eq!(
                (answer.text.as_str(), answer.server.as_str()),
                (SECRET, "app")
            );
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
        mesh.client.pod.block_on(work).unwrap().unwrap();
    }
    assert_encrypted(&sniffer);
}

fn tcp(client: Sidecar, server: Sidecar) {
    let mesh = Mesh::start(client, server);
    let _app = servers::tcp::count(listen(&mesh.server.pod, TCP)).unwrap();
    let sniffer = Sniffer::start(&mesh.server.pod).unwrap();
    for address in mesh.server.pod.addresses() {
        let mut client = http1::Client::connect_from(&mesh.client.pod, (address, TCP)).unwrap();
        let text = SECRET.repeat(50_000);
        client.send(&text).unwrap();
        // The answer comes only after this, and only where the half-close was passed on.
        client.close_write().unwrap();
        assert_eq!(
            client.read_to_end().unwrap(),
            text.len().to_string().into_bytes()
        );
    }
    assert_encrypted(&sniffer);
}

fn server_first(client: Sidecar, server: Sidecar) {
    let mesh = Mesh::start(client, server);
    let greeting = format!("220 {SECRET}\r\n");
    let app = listen(&mesh.server.pod, BANNER);
    let _app = servers::tcp::banner(app, greeting.as_bytes()).unwrap();
    let sniffer = Sniffer::start(&mesh.server.pod).unwrap();
    for address in mesh.server.pod.addresses() {
        let mut client = http1::Client::connect_from(&mesh.client.pod, (address, BANNER)).unwrap();
        assert_eq!(client.read(greeting.len()).unwrap(), greeting.as_bytes());
        client.send("QUIT").unwrap();
        assert_eq!(client.read(4).unwrap(), b"QUIT");
    }
    assert_encrypted(&sniffer);
}

/// What comes from outside without TLS never reaches the app.
fn strict(client: Sidecar, server: Sidecar) {
    let mesh = Mesh::start(client, server);
    let app = servers::http1::echo(listen(&mesh.server.pod, HTTP1), "app").unwrap();
    for address in mesh.server.pod.addresses() {
        let mut client = http1::Client::connect_from(&mesh.outside, (address, HTTP1)).unwrap();
        let answer = client.get("app", "/");
        assert!(answer.is_err(), "{answer:?}");
    }
    assert_eq!(app.accepted(), 0);
}

/// A pod that calls itself by its service's address is called as by another; by its own address
/// the call never leaves the loopback interface, and is left alone.
fn self_call(client: Sidecar, server: Sidecar) {
    let mesh = Mesh::start(client, server);
    let pod = &mesh.server.pod;
    let _app = servers::http1::echo(listen(pod, HTTP1), "app").unwrap();
    let call = |address: IpAddr| {
        let mut client = http1::Client::connect_from(pod, (address, HTTP1)).unwrap();
        client.get("app", "/").unwrap().json().unwrap()
    };
    let seen = call(SERVICE.into());
    assert_source(&seen, SERVICE.into());
    let certificate = header(&seen, "x-forwarded-client-cert").unwrap();
    assert!(
        certificate.contains(&format!("URI={}", mesh.server.identity)),
        "{certificate}"
    );
    for address in pod.addresses() {
        let seen = call(address);
        let peer: SocketAddr = seen["peer"].as_str().unwrap().parse().unwrap();
        assert_eq!(peer.ip().to_canonical(), address);
        assert_eq!(header(&seen, "x-forwarded-client-cert"), None);
    }
}

/// Where no app listens, the client learns it at once.
fn nothing_listens(client: Sidecar, server: Sidecar) {
    let mesh = Mesh::start(client, server);
    for address in mesh.server.pod.addresses() {
        let began = std::time::Instant::now();
        let mut client = http1::Client::connect_from(&mesh.client.pod, (address, TCP)).unwrap();
        let _ = client.send("hello");
        if let Ok(bytes) = client.read_to_end() {
            assert!(bytes.is_empty());
        }
        let mut client = http1::Client::connect_from(&mesh.client.pod, (address, HTTP1)).unwrap();
        assert_eq!(client.get("app", "/").unwrap().status().unwrap(), 503);
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "{:?}",
            began.elapsed()
        );
    }
}
