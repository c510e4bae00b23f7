//! Heads and bodies that two readers could take in two ways: answered with 400 and closed, and not a
//! byte of them goes upstream.

use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use outrider_testkit::servers::Server;

use crate::harness::{Bootstrap, Pair, Proxy, bind};

/// Requests that are refused before anything of them goes upstream. `%H` stands for a host line.
const REFUSED: &[&str] = &[
    // Two lengths, in every guise (RFC 9112, section 6.3).
    "POST / HTTP/1.1\r\n%HContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\n%HTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\n%HContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "POST / HTTP/1.1\r\n%HContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "POST / HTTP/1.1\r\n%HContent-Length: 3, 3\r\n\r\nabc",
    "POST / HTTP/1.1\r\n%HContent-Length: +3\r\n\r\nabc",
    "POST / HTTP/1.1\r\n%HContent-Length: -1\r\n\r\n",
    "POST / HTTP/1.1\r\n%HContent-Length: 0x3\r\n\r\nabc",
    "POST / HTTP/1.1\r\n%HContent-Length: 3 3\r\n\r\nabc",
    "POST / HTTP/1.1\r\n%HContent-Length:\r\n\r\n",
    "POST / HTTP/1.1\r\n%HContent-Length: 99999999999999999999\r\n\r\n",
    "POST / HTTP/1.1\r\n%HContent-Length : 3\r\n\r\nabc",
    "POST / HTTP/1.1\r\n%HContent_Length: 3\r\nContent-Length: x\r\n\r\nabc",
    // Transfer codings that are not exactly `chunked`, once.
    "POST / HTTP/1.1\r\n%HTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\n%HTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\n%HTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\n%HTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\n%HTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\n%HTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\n%HTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\n%HTransfer-Encoding: chunked;x\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\n%HTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\n%HTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\n%HTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.0\r\n%HTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    // Lines that do not end with CRLF.
    "GET / HTTP/1.1\n%H\r\n",
    "GET / HTTP/1.1\r\n%HX: y\n\r\n",
    "GET / HTTP/1.1\r\n%HX: y\r\n\n",
    "GET / HTTP/1.1\r\n%HX: y\rZ: w\r\n\r\n",
    "GET / HTTP/1.1\r%H\r\n\r\n",
    // Folded, empty, and otherwise broken fields.
    "GET / HTTP/1.1\r\n%HX: y\r\n folded\r\n\r\n",
    "GET / HTTP/1.1\r\n%HX: y\r\n\tfolded\r\n\r\n",
    "GET / HTTP/1.1\r\n folded: first\r\n%H\r\n",
    "GET / HTTP/1.1\r\n%HX\r\n\r\n",
    "GET / HTTP/1.1\r\n%H: empty\r\n\r\n",
    "GET / HTTP/1.1\r\n%HX y: z\r\n\r\n",
    "GET / HTTP/1.1\r\n%HX: a\0b\r\n\r\n",
    "GET / HTTP/1.1\r\n%HX: a\x01b\r\n\r\n",
    "GET / HTTP/1.1\r\n%HX(y): z\r\n\r\n",
    // The host.
    "GET / HTTP/1.1\r\nX: y\r\n\r\n",
    "GET / HTTP/1.1\r\n%H%H\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: user@a\r\n\r\n",
    "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
    // Request lines.
    "GET  / HTTP/1.1\r\n%H\r\n",
    "GET /  HTTP/1.1\r\n%H\r\n",
    "GET\t/ HTTP/1.1\r\n%H\r\n",
    " GET / HTTP/1.1\r\n%H\r\n",
    "GET / a HTTP/1.1\r\n%H\r\n",
    "GET /\x01 HTTP/1.1\r\n%H\r\n",
    "GET /#fragment HTTP/1.1\r\n%H\r\n",
    "GET / HTTP/1.1 \r\n%H\r\n",
    "GET / http/1.1\r\n%H\r\n",
    "GET / HTTP/1.2x\r\n%H\r\n",
    "GET / HTTP/2.0\r\n%H\r\n",
    "GET /\r\n%H\r\n",
    "G(T / HTTP/1.1\r\n%H\r\n",
    "GET relative HTTP/1.1\r\n%H\r\n",
    "GET ftp://a/ HTTP/1.1\r\n%H\r\n",
    "GET * HTTP/1.1\r\n%H\r\n",
    "CONNECT / HTTP/1.1\r\n%H\r\n",
];

/// An upstream that counts what reaches it.
fn witness() -> (Server, Arc<AtomicUsize>) {
    let bytes = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&bytes);
    let server = Server::start(bind(), move |mut connection| {
        let mut buffer = [0; 4096];
        loop {
            let length = connection.read(&mut buffer)?;
            if length == 0 {
                return Ok(());
            }
            seen.fetch_add(length, Ordering::AcqRel);
        }
    });
    (server.unwrap(), bytes)
}

#[test]
fn ambiguous_heads_are_refused_and_the_connection_closed() {
    let (upstream, bytes) = witness();
    let mut proxy = Proxy::ours(&Bootstrap::forward(upstream.address(), ""));
    for request in REFUSED {
        let mut client = proxy.client();
        // What would be taken for a second request if the first one were read another way.
        let text =
            request.replace("%H", "Host: a\r\n") + "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
        client.send(&text).unwrap();
        let answer = client.read_response(outrider_testkit::message::Kind::Response);
        let answer = answer.unwrap_or_else(|error| panic!("{request:?}: {error:#}"));
        let status = answer.status().unwrap();
        assert!(matches!(status, 400 | 501 | 505), "{request:?}: {status}");
        assert_eq!(
            answer.head.header("connection"),
            Some("close"),
            "{request:?}"
        );
        let rest = client.read_to_end();
        assert!(
            rest.as_ref().is_ok_and(Vec::is_empty),
            "{request:?}: {rest:?}"
        );
        let log = proxy.log_line();
        assert!(
            [
                "DPE http",
                "- missing_host_header ",
                "- path_normalization_failed "
            ]
            .iter()
            .any(|reason| log.starts_with(&format!("{status} {reason}"))),
            "{request:?}: {log}"
        );
    }
    assert_eq!(bytes.load(Ordering::Acquire), 0, "bytes went upstream");
    assert_eq!(upstream.accepted(), 0);
    let refused = proxy.stat("http.in.downstream_cx_protocol_error").unwrap();
    // A missing host and a fragment are refused by the connection manager, not by the codec.
    assert_eq!(refused as usize, REFUSED.len() - 2);
}

/// Bodies that turn out broken when their head has gone upstream already: no response of upstream
/// may be taken for the client's, and nothing behind them may be taken for a request.
#[test]
fn broken_bodies_end_both_connections() {
    let bodies = [
        "5\r\nhelloX\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "-1\r\nhello\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        "5;a\rb\r\nhello\r\n0\r\n\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "0\r\nX y: z\r\n\r\n",
        "0\r\nX: y\r\n z\r\n\r\n",
        "0\r\nX: y\n\r\n",
    ];
    let (upstream, _) = witness();
    let proxy = Proxy::ours(&Bootstrap::forward(upstream.address(), ""));
    for body in bodies {
        let mut client = proxy.client();
        client
            .send(format!(
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}\
                 GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
            ))
            .unwrap();
        let answer = client.read_to_end().unwrap();
        let text = String::from_utf8_lossy(&answer);
        assert!(text.starts_with("HTTP/1.1 400 "), "{body:?}: {text}");
        assert_eq!(text.matches("HTTP/1.1").count(), 1, "{body:?}: {text}");
    }
    assert_eq!(
        proxy.stat("http.in.downstream_rq_total"),
        Some(bodies.len() as i64)
    );
    // None of those connections is used again.
    proxy.wait_for_stat("cluster.up.upstream_cx_active", 0);
}

#[test]
fn what_upstream_gets_wrong_is_not_passed_on() {
    use outrider_testkit::servers::script::{Script, Step};
    for response in [
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        "HTTP/1.1 200 OK\r\nX: y\r\n folded\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 99 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nraw",
        "SSH-2.0-OpenSSH_9.9\r\n",
    ] {
        let script = vec![Step::read_head(), Step::write(response), Step::ReadToEnd];
        let server = Script::start(bind(), script).unwrap();
        let mut proxy = Proxy::ours(&Bootstrap::forward(server.server().address(), ""));
        let answer = proxy.client().get("a", "/").unwrap();
        assert_eq!(answer.status().unwrap(), 502, "{response:?}");
        let log = proxy.log_line();
        let expected = "502 UPE upstream_reset_before_response_started{protocol_error}";
        assert!(log.starts_with(expected), "{response:?}: {log}");
    }
}

#[test]
fn limits_on_heads_are_envoys() {
    let app = outrider_testkit::servers::http1::echo(bind(), "app").unwrap();
    let manager =
        "{ max_request_headers_kb: 8, common_http_protocol_options: { max_headers_count: 20 } }";
    let mut pair = Pair::start(&Bootstrap::forward(app.address(), manager));
    let fields = |count: usize| -> String {
        (0..count)
            .map(|index| format!("x-{index}: y\r\n"))
            .collect()
    };
    let requests = [
        format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", fields(10)),
        format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", fields(40)),
        format!(
            "GET / HTTP/1.1\r\nHost: a\r\nx: {}\r\n\r\n",
            "y".repeat(7000)
        ),
        format!(
            "GET / HTTP/1.1\r\nHost: a\r\nx: {}\r\n\r\n",
            "y".repeat(9000)
        ),
        format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "y".repeat(9000)),
    ];
    for request in requests {
        pair.check_with(&request, |outcome| {
            // Ours tells what was wrong.
            if outcome.status() == 431 {
                outcome.body = serde_json::Value::Null;
                outcome.ignore("content-type");
                outcome.log = outcome
                    .log
                    .as_ref()
                    .map(|log| log.split(' ').take(3).collect::<Vec<_>>().join(" "));
            }
        });
    }
}
