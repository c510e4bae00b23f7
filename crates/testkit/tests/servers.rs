//! The fake servers and the clients, against each other.
#![allow(clippy::unwrap_used)] // The helpers below are tests too.

use std::net::TcpListener;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{HeaderMap, HeaderValue, Request};
use outrider_testkit::clients::{grpc, http1, http2};
use outrider_testkit::load::{Load, Options};
use outrider_testkit::message::Kind;
use outrider_testkit::servers::script::{Script, Step};
use outrider_testkit::{Sniffer, eventually, netns, servers};

fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

#[test]
fn the_http1_app_tells_what_it_saw() {
    let server = servers::http1::echo(listener(), "cart").unwrap();
    let mut client = http1::Client::connect(server.address()).unwrap();
    let request = "PUT /a?b=c HTTP/1.1\r\nHost: x\r\nX-UP: 1\r\nx-low: 2\r\n\
                   Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: v\r\n\r\n";
    let seen = client.exchange(request).unwrap().json().unwrap();
    assert_eq!(seen["server"], "cart");
    assert_eq!(seen["path"], "/a?b=c");
    assert_eq!(seen["headers"][1], serde_json::json!(["X-UP", "1"]));
    assert_eq!(seen["headers"][2], serde_json::json!(["x-low", "2"]));
    assert_eq!(seen["body_length"], 3);
    assert_eq!(seen["body_sha256"], servers::sha256(b"abc"));
    assert_eq!(seen["trailers"], serde_json::json!([["T", "v"]]));

    let response = client
        .get("x", "/?size=100000&framing=chunked&trailer=T:v")
        .unwrap();
    assert_eq!(response.body, servers::pattern(100_000));
    assert_eq!(response.trailers, [("T".to_owned(), "v".to_owned())]);
    assert_eq!(
        client.get("x", "/?status=503").unwrap().status().unwrap(),
        503
    );
    client.send("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert!(
        client
            .read_response(Kind::ResponseToHead)
            .unwrap()
            .body
            .is_empty()
    );
    assert_eq!(
        client.post("x", "/?body=echo", b"mirror").unwrap().text(),
        "mirror"
    );
    assert_eq!(server.accepted(), 1);

    for hangup in ["before", "head", "body"] {
        let mut client = http1::Client::connect(server.address()).unwrap();
        assert!(
            client.get("x", &format!("/?hangup={hangup}")).is_err(),
            "{hangup}"
        );
    }
    let mut client = http1::Client::connect(server.address()).unwrap();
    client
        .send("GET /?hangup=before&reset=1 HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    assert_reset(&mut client);

    let mut client = http1::Client::connect(server.address()).unwrap();
    client
        .send("GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n")
        .unwrap();
    assert_eq!(client.read_head().unwrap().status().unwrap(), 101);
    client.send("raw").unwrap();
    assert_eq!(client.read(3).unwrap(), b"raw");
}

fn assert_reset(client: &mut http1::Client) {
    let error = client.read_to_end().unwrap_err();
    let error = error.root_cause().downcast_ref::<std::io::Error>().unwrap();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn tcp_servers_behave_as_named() {
    let server = servers::tcp::count(listener()).unwrap();
    let mut client = http1::Client::connect(server.address()).unwrap();
    client.send("12345").unwrap();
    client.close_write().unwrap();
    assert_eq!(client.read_to_end().unwrap(), b"5");

    let server = servers::tcp::banner(listener(), b"220 hi\r\n").unwrap();
    let mut client = http1::Client::connect(server.address()).unwrap();
    assert_eq!(client.read(8).unwrap(), b"220 hi\r\n");

    let server = servers::tcp::resets(listener(), true).unwrap();
    let mut client = http1::Client::connect(server.address()).unwrap();
    client.send("x").unwrap();
    assert_reset(&mut client);

    let steps = vec![
        Step::read_head(),
        Step::write("HTTP/1.1 200 OK\r\n"),
        Step::CloseWrite,
    ];
    let script = Script::start(listener(), steps).unwrap();
    let mut client = http1::Client::connect(script.server().address()).unwrap();
    client.send("GET / HTTP/1.0\r\n\r\nrest").unwrap();
    assert_eq!(client.read_to_end().unwrap(), b"HTTP/1.1 200 OK\r\n");
    eventually(Duration::from_secs(5), || {
        anyhow::ensure!(script.received() == [b"GET / HTTP/1.0\r\n\r\n".to_vec()]);
        Ok(())
    })
    .unwrap();

    // A server that is dropped takes its connections along, and its port refuses.
    let server = servers::tcp::silent(listener()).unwrap();
    let address = server.address();
    let mut client = http1::Client::connect(address).unwrap();
    eventually(Duration::from_secs(5), || {
        anyhow::ensure!(server.accepted() == 1);
        Ok(())
    })
    .unwrap();
    drop(server);
    assert!(client.read_to_end().unwrap().is_empty());
    assert!(http1::Client::connect(address).is_err());
}

#[tokio::test]
async fn http2_and_grpc_echo() {
    let server = servers::http2::echo(listener(), "cart").unwrap();
    let client = http2::Client::connect(server.address()).await.unwrap();
    let request = Request::post("http://cart/a?b=c")
        .header("x-a", "1")
        .body(())
        .unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("t", HeaderValue::from_static("v"));
    let body = Bytes::from(servers::pattern(1 << 20));
    let response = client
        .exchange(request, body.clone(), Some(trailers))
        .await
        .unwrap();
    let seen: serde_json::Value = serde_json::from_slice(&response.body().body).unwrap();
    assert_eq!(seen["body_sha256"], servers::sha256(&body));
    assert_eq!(
        seen["headers"][0],
        serde_json::json!([":authority", "cart"])
    );
    assert_eq!(seen["trailers"], serde_json::json!([["t", "v"]]));
    let response = client
        .get("http://cart/?size=300000&trailer=T:v")
        .await
        .unwrap();
    assert_eq!(response.body().body.len(), 300_000);
    assert_eq!(response.body().trailers["t"], "v");
    assert!(client.get("http://cart/?hangup=body").await.is_err());

    let server = servers::grpc::echo(listener(), "pay").unwrap();
    let mut client = grpc::Client::connect(&format!("http://{}", server.address()))
        .await
        .unwrap();
    let hello = servers::grpc::Echo {
        text: "hello".into(),
        ..Default::default()
    };
    let answer = client.unary(hello.clone()).await.unwrap();
    assert_eq!(
        (answer.text.as_str(), answer.server.as_str()),
        ("hello", "pay")
    );
    let failing = servers::grpc::Echo {
        fail: 14,
        ..hello.clone()
    };
    assert_eq!(
        client.unary(failing.clone()).await.unwrap_err().code(),
        tonic::Code::Unavailable
    );
    let messages = futures_util::stream::iter([hello.clone(), hello, failing]);
    let answers: Vec<_> = client.stream(messages).await.unwrap().collect().await;
    assert_eq!(answers.len(), 3);
    assert_eq!(
        answers[2].as_ref().unwrap_err().code(),
        tonic::Code::Unavailable
    );
}

#[test]
fn the_sniffer_sees_what_passes_across_packets() {
    if !netns::require_root() {
        return;
    }
    let network = netns::Network::new("sniff").unwrap();
    let (client, server) = (
        network.pod("client").unwrap(),
        network.pod("server").unwrap(),
    );
    for address in server.addresses() {
        let sniffer = Sniffer::start(&client).unwrap();
        let listener = server
            .run(|| TcpListener::bind((address, 0)))
            .unwrap()
            .unwrap();
        let echo = servers::tcp::echo(listener).unwrap();
        let mut connection = http1::Client::connect_from(&client, echo.address()).unwrap();
        for part in ["plain", "text in ", "parts"] {
            connection.send(part).unwrap();
            connection.read(part.len()).unwrap();
        }
        sniffer
            .wait_for("plaintext in parts", Duration::from_secs(5))
            .unwrap();
        assert!(!sniffer.contains("something else").unwrap());
        assert!(sniffer.destinations().unwrap().contains(&echo.address()));
        eventually(Duration::from_secs(5), || {
            anyhow::ensure!(sniffer.bytes()? == 36, "{} bytes", sniffer.bytes()?);
            Ok(())
        })
        .unwrap();
    }
}

#[test]
fn load_counts_every_failure() {
    let server = servers::http1::echo(listener(), "cart").unwrap();
    let url = format!("http://{}/", server.address());
    let load = Load::start(&Options::new(&url, 3)).unwrap();
    eventually(Duration::from_secs(10), || {
        anyhow::ensure!(load.requests() > 30);
        Ok(())
    })
    .unwrap();
    let report = load.stop();
    assert_eq!(
        (report.failed(), report.servers["cart"]),
        (0, report.requests)
    );
    assert_eq!(server.accepted(), 3);

    let load = Load::start(&Options::new(&format!("{url}?status=500"), 1)).unwrap();
    eventually(Duration::from_secs(10), || {
        anyhow::ensure!(load.requests() > 0);
        Ok(())
    })
    .unwrap();
    let report = load.stop();
    assert_eq!(report.failed(), report.requests);
}
