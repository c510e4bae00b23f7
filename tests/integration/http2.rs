//! HTTP/2 with prior knowledge, on either side or both, and gRPC.

use bytes::Bytes;
use http::{HeaderMap, Request};
use outrider_testkit::clients::{grpc, http2};
use outrider_testkit::servers::grpc::Echo;
use outrider_testkit::{clients::http1, servers};
use serde_json::{Value, json};

use crate::harness::{Bootstrap, Pair, Proxy, bind, closed_address, comparable, seen_headers};

const HTTP2_UPSTREAM: &str = "typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
    explicit_http_config: { http2_protocol_options: {} }";
/// Envoy passes trailers on over HTTP/1 only where it is told to, ours always.
const HTTP1_TRAILERS: &str = "typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
    explicit_http_config: { http_protocol_options: { enable_trailers: true } }";
const AS_DOWNSTREAM: &str = "typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
    use_downstream_protocol_config: { http_protocol_options: {}, http2_protocol_options: {} }";

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

/// A response made comparable, as `Outcome` is for HTTP/1.
fn exchange(
    proxy: &mut Proxy,
    request: Request<()>,
    body: &str,
    trailers: &[(&str, &str)],
) -> Value {
    let mut map = HeaderMap::new();
    for (name, value) in trailers {
        map.insert(
            http::HeaderName::from_bytes(name.as_bytes()).unwrap(),
            value.parse().unwrap(),
        );
    }
    let trailers = (!trailers.is_empty()).then_some(map);
    let body = Bytes::copy_from_slice(body.as_bytes());
    let address = proxy.listener();
    let answer = runtime().block_on(async {
        let client = http2::Client::connect(address).await.unwrap();
        client.exchange(request, body, trailers).await
    });
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return json!({ "error": format!("{error:#}"), "log": proxy.log_line() }),
    };
    let text = String::from_utf8_lossy(&answer.body().body).into_owned();
    let echo = serde_json::from_str(&text).map(seen_headers);
    let has_echo = echo.is_ok();
    let mut log = proxy.log_line();
    if has_echo {
        log = log.split(' ').take(4).collect::<Vec<_>>().join(" ");
    }
    json!({
        "status": answer.status().as_u16(),
        "headers": comparable(&pairs(answer.headers())),
        "trailers": comparable(&pairs(&answer.body().trailers)),
        "body": echo.unwrap_or(Value::String(text)),
        "log": log,
    })
}

fn pairs(map: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    map.iter()
        .map(|(name, value)| (name.to_string(), text(value)))
        .collect()
}

fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::builder()
        .method(method)
        .uri(format!("http://a{path}"))
        .version(http::Version::HTTP_2);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap()
}

type Case = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static str,
    &'static [(&'static str, &'static str)],
);

const CASES: &[Case] = &[
    ("GET", "/a?b", &[], "", &[]),
    ("HEAD", "/", &[], "", &[]),
    (
        "POST",
        "/?body=echo",
        &[("content-length", "5")],
        "hello",
        &[],
    ),
    ("POST", "/?body=echo", &[], "hello", &[]),
    (
        "POST",
        "/",
        &[],
        "hello",
        &[("x-sum", "1"), ("grpc-status", "0")],
    ),
    (
        "GET",
        "/?trailer=x-sum:1&trailer=grpc-status:0",
        &[],
        "",
        &[],
    ),
    ("GET", "/?status=204", &[], "", &[]),
    ("GET", "/?status=304", &[], "", &[]),
    ("GET", "/?size=200000", &[], "", &[]),
    // Crumbs are one cookie again (RFC 9113, section 8.2.3).
    (
        "GET",
        "/",
        &[
            ("cookie", "a=1"),
            ("cookie", "b=2"),
            ("cookie", "c=3"),
            ("te", "trailers"),
        ],
        "",
        &[],
    ),
    (
        "POST",
        "/",
        &[("expect", "100-continue"), ("content-length", "2")],
        "hi",
        &[],
    ),
    ("GET", "/?hangup=before", &[], "", &[]),
    ("GET", "/?delay=1000", &[("x-short", "1")], "", &[]),
    ("GET", "/refused", &[], "", &[]),
    (
        "POST",
        "/refused",
        &[("content-type", "application/grpc")],
        "",
        &[],
    ),
    (
        "POST",
        "/?delay=1000",
        &[("x-short", "1"), ("content-type", "application/grpc+proto")],
        "x",
        &[],
    ),
    (
        "POST",
        "/none",
        &[("content-type", "application/grpc"), ("x-none", "1")],
        "x",
        &[],
    ),
    ("GET", "/none", &[("x-none", "1")], "", &[]),
    ("POST", "/direct", &[], "hello", &[]),
];

const ROUTES: &str = "route_config: { virtual_hosts: [{ name: all, domains: ['*'], routes: [
   { match: { prefix: /refused }, route: { cluster: refused } },
   { match: { prefix: /direct }, direct_response: { status: 403, body: { inline_string: no } } },
   { match: { prefix: /, headers: [{ name: x-short, present_match: true }] }, route: { cluster: up, timeout: 0.2s } },
   { match: { prefix: /, headers: [{ name: x-none, present_match: false }] }, route: { cluster: up } } ] }] }";

fn compare(address: std::net::SocketAddr, cluster: &str) {
    let bootstrap = Bootstrap::http(ROUTES)
        .cluster("up", address, cluster)
        .cluster("refused", closed_address(), "");
    let mut pair = Pair::start(&bootstrap);
    for (method, path, headers, body, trailers) in CASES {
        pair.same(&format!("{method} {path} {headers:?}"), |proxy| {
            exchange(proxy, request(method, path, headers), body, trailers)
        });
    }
    pair.same_stats(&[
        "http.in.downstream_cx_http2_total",
        "http.in.downstream_rq_http2_total",
        "http.in.downstream_rq_2xx",
        "http.in.downstream_rq_4xx",
        "http.in.downstream_rq_5xx",
        "cluster.up.upstream_rq_200",
        "cluster.up.upstream_rq_503",
        "cluster.up.upstream_rq_504",
        "cluster.up.upstream_rq_timeout",
        "cluster.up.upstream_rq_rx_reset",
        "cluster.up.upstream_rq_tx_reset",
    ]);
}

#[test]
fn clients_of_http2_before_servers_of_http1() {
    let app = servers::http1::echo(bind(), "app").unwrap();
    compare(app.address(), HTTP1_TRAILERS);
}

#[test]
fn clients_of_http2_before_servers_of_http2() {
    let app = servers::http2::echo(bind(), "app").unwrap();
    compare(app.address(), HTTP2_UPSTREAM);
}

#[test]
fn clients_of_http1_before_servers_of_http2() {
    let app = servers::http2::echo(bind(), "app").unwrap();
    let mut pair =
        Pair::start(&Bootstrap::forward(app.address(), "").amend_cluster(HTTP2_UPSTREAM));
    for request in [
        "GET /a?b HTTP/1.1\r\nHost: example.com\r\nX-Case: Kept\r\n\r\n",
        "HEAD / HTTP/1.1\r\nHost: example.com\r\n\r\n",
        "POST /?body=echo HTTP/1.1\r\nHost: example.com\r\nContent-Length: 5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "GET /?status=204 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /?size=200000 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /?hangup=before HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, x-mine\r\nX-Mine: 1\r\nTE: trailers\r\n\
         Keep-Alive: x\r\nCookie: a=1\r\nCookie: b=2\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: a\r\n\r\n",
    ] {
        pair.check_with(request, |outcome| {
            // Envoy says how it would have framed the body that an answer to HEAD has not.
            if request.starts_with("HEAD") {
                outcome.ignore("transfer-encoding");
            }
        });
    }
    pair.same_stats(&[
        "cluster.up.upstream_cx_http2_total",
        "cluster.up.upstream_rq_total",
    ]);
}

#[test]
fn the_upstream_protocol_can_follow_the_clients() {
    let app1 = servers::http1::echo(bind(), "one").unwrap();
    let app2 = servers::http2::echo(bind(), "two").unwrap();
    for (address, over_http2) in [(app1.address(), false), (app2.address(), true)] {
        let bootstrap = Bootstrap::forward(address, "").amend_cluster(AS_DOWNSTREAM);
        let mut pair = Pair::start(&bootstrap);
        if over_http2 {
            let answer = pair.same("HTTP/2", |proxy| {
                exchange(proxy, request("GET", "/", &[]), "", &[])
            });
            assert_eq!(answer["body"]["version"], "HTTP/2");
        } else {
            let answer = pair.check("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(answer.body["version"], "HTTP/1.1");
        }
    }
}

#[test]
fn grpc_calls_pass_with_their_trailers() {
    let app = servers::grpc::echo(bind(), "app").unwrap();
    let proxy = Proxy::ours(&Bootstrap::forward(app.address(), "").amend_cluster(HTTP2_UPSTREAM));
    runtime().block_on(async {
        let uri = format!("http://{}", proxy.listener());
        let mut client = grpc::Client::connect(&uri).await.unwrap();
        let message = |text: &str, fail| Echo {
            text: text.to_owned(),
            fail,
            ..Echo::default()
        };
        assert_eq!(client.unary(message("hi", 0)).await.unwrap().text, "hi");
        let status = client.unary(message("no", 9)).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::FailedPrecondition);
        assert_eq!(status.message(), "app fails");

        // Each message is answered before the next one is sent.
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let messages = futures_util::stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|message| (message, receiver))
        });
        sender.send(message("0", 0)).await.unwrap();
        let mut answers = client.stream(messages).await.unwrap();
        for number in 1..100 {
            let answer = answers.message().await.unwrap().unwrap();
            assert_eq!(answer.text, (number - 1).to_string());
            sender.send(message(&number.to_string(), 0)).await.unwrap();
        }
        drop(sender);
        assert_eq!(answers.message().await.unwrap().unwrap().text, "99");
        assert!(answers.message().await.unwrap().is_none());
        assert!(answers.trailers().await.unwrap().is_some());
    });
}

#[test]
fn a_body_of_exactly_the_window_ends() {
    let app = servers::http2::echo(bind(), "app").unwrap();
    let proxy = Proxy::ours(&Bootstrap::forward(app.address(), "").amend_cluster(HTTP2_UPSTREAM));
    // The initial window of a stream that the server announces (RFC 9113, section 6.9.2).
    for length in [65_535, 65_536, 65_534, 200_000] {
        let body = "x".repeat(length);
        let mut client = proxy.client();
        let answer = client
            .post("a", "/", body.as_bytes())
            .unwrap()
            .json()
            .unwrap();
        assert_eq!(answer["body_length"], length);
        let answer = client.get("a", &format!("/?size={length}")).unwrap();
        assert_eq!(answer.body.len(), length);
    }
}

#[test]
fn http1_and_http2_share_a_listener() {
    let app = servers::http1::echo(bind(), "app").unwrap();
    let proxy = Proxy::ours(&Bootstrap::forward(app.address(), ""));
    let mut slow = http1::Client::connect(proxy.listener()).unwrap();
    // Byte by byte, up to where the two preludes differ and beyond.
    for byte in b"PRI / HTTP/1.1\r\nHost: a\r\n\r\n" {
        slow.send([*byte]).unwrap();
    }
    // Read as HTTP/1, where there is no such method.
    let answer = slow.read_response(outrider_testkit::message::Kind::Response);
    assert_eq!(answer.unwrap().status().unwrap(), 400);
    runtime().block_on(async {
        let client = http2::Client::connect(proxy.listener()).await.unwrap();
        let answer = client.get("http://a/").await.unwrap();
        assert_eq!(answer.status(), 200);
    });
}

#[test]
fn many_streams_share_few_connections() {
    let app = servers::http2::echo(bind(), "app").unwrap();
    let proxy = Proxy::ours(&Bootstrap::forward(app.address(), "").amend_cluster(HTTP2_UPSTREAM));
    runtime().block_on(async {
        let client = http2::Client::connect(proxy.listener()).await.unwrap();
        let calls = (0..100).map(|_| client.get("http://a/?delay=50&size=1000"));
        for answer in futures_util::future::join_all(calls).await {
            assert_eq!(answer.unwrap().body().body.len(), 1000);
        }
    });
    assert_eq!(proxy.stat("cluster.up.upstream_cx_http2_total"), Some(1));
    assert_eq!(proxy.stat("http.in.downstream_rq_http2_total"), Some(100));
}

/// A client that answers no ping is dead, or as good as: its connection is not kept. One that does
/// is kept for longer than it takes to find that out.
#[test]
fn pings_tell_a_dead_client_from_a_quiet_one() {
    use std::io::{ErrorKind, Read as _, Write as _};
    use std::time::{Duration, Instant};

    const PING: u8 = 6;
    let app = servers::http1::echo(bind(), "app").unwrap();
    let options = "http2_protocol_options:
  connection_keepalive: { interval: 0.1s, timeout: 0.3s, interval_jitter: { value: 0 } }";
    let mut pair = Pair::start(&Bootstrap::forward(app.address(), options));
    for answers in [false, true] {
        let fate = |proxy: &mut Proxy| {
            let mut client = std::net::TcpStream::connect(proxy.listener()).unwrap();
            client
                .set_read_timeout(Some(Duration::from_secs(10)))
                .unwrap();
            // The preface, and empty settings.
            client
                .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
                .unwrap();
            let began = Instant::now();
            let mut answered = 0;
            let mut head = [0; 9];
            while answered < 10 {
                match client.read_exact(&mut head) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                        assert!(began.elapsed() >= Duration::from_millis(300));
                        return "closed";
                    }
                    Err(error) => panic!("{error}"),
                }
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
                let mut payload = vec![0; length as usize];
                client.read_exact(&mut payload).unwrap();
                if head[3] == PING && answers {
                    // The same with the flag ACK.
                    let answer = [&[0, 0, 8, PING, 1, 0, 0, 0, 0], &payload[..]].concat();
                    client.write_all(&answer).unwrap();
                    answered += 1;
                }
            }
            "kept"
        };
        assert_eq!(
            pair.same("fate", fate),
            if answers { "kept" } else { "closed" }
        );
    }
}
