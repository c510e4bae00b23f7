//! WebSocket and other upgrades, where they are allowed and where not.

use outrider_testkit::clients::http1::Client;
use outrider_testkit::servers;

use crate::harness::{Bootstrap, Outcome, Pair, Proxy, bind, exchange};

const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

fn bootstrap(app: std::net::SocketAddr) -> Bootstrap {
    Bootstrap::http(
        "upgrade_configs: [{ upgrade_type: websocket }]
route_config: { virtual_hosts: [{ name: all, domains: ['*'], routes: [
  { match: { prefix: /off }, route: { cluster: up, upgrade_configs: [{ upgrade_type: websocket, enabled: false }] } },
  { match: { prefix: /on }, route: { cluster: up, upgrade_configs: [{ upgrade_type: spdy }] } },
  { match: { prefix: /idle }, route: { cluster: up, idle_timeout: 0.3s } },
  { match: { prefix: / }, route: { cluster: up } } ] }] }",
    )
    .cluster("up", app, "")
}

/// The response to an upgrade, and what comes back of bytes that were sent with it and after it.
fn tunnel(proxy: &mut Proxy, request: &str) -> (Outcome, String) {
    let mut client = Client::connect(proxy.listener()).unwrap();
    // Bytes behind the head, before the answer: they belong to the tunnel.
    client.send(format!("{request}early ")).unwrap();
    let mut outcome = Outcome::from(
        client
            .read_response(outrider_testkit::message::Kind::ResponseToHead)
            .unwrap(),
    );
    // Envoy writes `Upgrade` as upstream has it.
    outcome.ignore("connection");
    client.send("late").unwrap();
    let echoed = client.read(10).unwrap();
    (outcome, String::from_utf8_lossy(&echoed).into_owned())
}

#[test]
fn upgrades_that_are_allowed_become_tunnels() {
    let app = servers::http1::echo(bind(), "app").unwrap();
    let mut pair = Pair::start(&bootstrap(app.address()));
    for request in [
        UPGRADE.to_owned(),
        UPGRADE
            .replace("/chat", "/on")
            .replace("WebSocket\r\nSec", "SPDY\r\nSec"),
    ] {
        let (outcome, echoed) = pair.same(&request, |proxy| tunnel(proxy, &request));
        assert_eq!(outcome.status(), 101);
        assert_eq!(echoed, "early late");
        // The log comes at the end of the tunnel, with its bytes.
        // For Envoy a client that closes is gone; with ours each half of a tunnel ends by itself.
        pair.same("log", |proxy| {
            let line = proxy.log_line();
            line.replace(" - via_upstream ", " DC downstream_remote_disconnect ")
        });
    }
    pair.same_stats(&[
        "http.in.downstream_cx_upgrades_total",
        "http.in.downstream_cx_upgrades_active",
        "http.in.downstream_rq_active",
        "http.in.downstream_rq_1xx",
        "cluster.up.upstream_rq_101",
    ]);
}

#[test]
fn upgrades_that_are_not_allowed_are_refused() {
    let app = servers::http1::echo(bind(), "app").unwrap();
    let mut pair = Pair::start(&bootstrap(app.address()));
    for request in [
        UPGRADE.replace("/chat", "/off"),
        UPGRADE.replace("WebSocket\r\n", "other\r\n"),
        UPGRADE.replace("Connection: Upgrade\r\n", ""),
        "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n".to_owned(),
    ] {
        pair.check_with(&request, |outcome| {
            // Envoy names the cluster that it would have been.
            outcome.log = outcome.log.as_ref().map(|log| log.replace(" up", " -"));
        });
    }
    // RFC 9110, section 7.8: HTTP/1.0 has no upgrades; Envoy makes one of it.
    let request = UPGRADE.replace("HTTP/1.1", "HTTP/1.0");
    assert_eq!(
        exchange(pair.ours.listener(), request.as_bytes()).status(),
        200
    );
}

#[test]
fn an_upgrade_that_upstream_declines_is_a_plain_response() {
    let upstream = servers::Server::start(bind(), |connection| {
        use std::io::Write as _;
        let mut reader = std::io::BufReader::new(connection.try_clone()?);
        while outrider_testkit::message::read_head(&mut reader)?.is_some() {
            (&connection).write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")?;
        }
        Ok(())
    });
    let upstream = upstream.unwrap();
    let mut pair = Pair::start(&bootstrap(upstream.address()));
    let answer = pair.same("declined", |proxy| {
        exchange(proxy.listener(), UPGRADE.as_bytes())
    });
    assert_eq!((answer.status(), answer.body.as_str()), (403, Some("no")));
}

#[test]
fn a_tunnel_may_be_half_closed_and_ends_with_both_halves() {
    let upstream = servers::Server::start(bind(), |connection| {
        use std::io::{Read as _, Write as _};
        let mut reader = std::io::BufReader::new(connection.try_clone()?);
        outrider_testkit::message::read_head(&mut reader)?;
        let accept = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhello";
        (&connection).write_all(accept)?;
        let mut all = Vec::new();
        reader.read_to_end(&mut all)?;
        (&connection).write_all(all.len().to_string().as_bytes())?;
        Ok(())
    });
    let upstream = upstream.unwrap();
    let mut proxy = Proxy::ours(&bootstrap(upstream.address()));
    let mut client = proxy.client();
    client.send(UPGRADE).unwrap();
    assert_eq!(client.read_head().unwrap().status().unwrap(), 101);
    assert_eq!(client.read(5).unwrap(), b"hello");
    let large = vec![b'x'; 1_000_000];
    client.send(&large).unwrap();
    client.close_write().unwrap();
    assert_eq!(client.read_to_end().unwrap(), b"1000000");
    let log = proxy.log_line();
    assert!(
        log.starts_with("101 DC downstream_remote_disconnect 1000000 12 "),
        "{log}"
    );
    proxy.wait_for_stat("cluster.up.upstream_cx_active", 0);
}

#[test]
fn a_tunnel_that_rests_too_long_is_ended() {
    let app = servers::http1::echo(bind(), "app").unwrap();
    let mut proxy = Proxy::ours(&bootstrap(app.address()));
    let mut client = proxy.client();
    client.send(UPGRADE.replace("/chat", "/idle")).unwrap();
    assert_eq!(client.read_head().unwrap().status().unwrap(), 101);
    client.send("x").unwrap();
    assert_eq!(client.read(1).unwrap(), b"x");
    let _ = client.read_to_end();
    let log = proxy.log_line();
    assert!(log.starts_with("101 SI "), "{log}");
}

#[test]
fn a_websocket_over_http2_reaches_a_server_of_http1() {
    let app = servers::http1::echo(bind(), "app").unwrap();
    let bootstrap =
        bootstrap(app.address()).amend_manager("http2_protocol_options: { allow_connect: true }");
    let proxy = Proxy::ours(&bootstrap);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let connection = tokio::net::TcpStream::connect(proxy.listener())
            .await
            .unwrap();
        let (mut sender, connection) = h2::client::handshake(connection).await.unwrap();
        let driver = tokio::spawn(connection);
        sender = sender.ready().await.unwrap();
        // The server's settings come with its first frames.
        while !sender.is_extended_connect_protocol_enabled() {
            tokio::task::yield_now().await;
        }
        let mut request = http::Request::builder()
            .method("CONNECT")
            .uri("http://a/chat")
            .header("sec-websocket-version", "13")
            .body(())
            .unwrap();
        request
            .extensions_mut()
            .insert(h2::ext::Protocol::from_static("websocket"));
        let (response, mut stream) = sender.send_request(request, false).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), 200);
        stream.send_data("ping".into(), false).unwrap();
        let mut body = response.into_body();
        let data = body.data().await.unwrap().unwrap();
        assert_eq!(&data[..], b"ping");
        drop((stream, body, sender));
        driver.abort();
    });
}
