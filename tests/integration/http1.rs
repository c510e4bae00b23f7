//! HTTP/1 both ways: framing, persistence, and what the next hop is told.

use outrider_testkit::message::Kind;
use outrider_testkit::servers;
use outrider_testkit::servers::script::{Script, Step};

use crate::harness::{Bootstrap, Outcome, Pair, Proxy, bind};

#[test]
fn bodies_and_connections_are_those_of_envoy() {
    let app = servers::http1::echo(bind(), "app").unwrap();
    let mut pair = Pair::start(&Bootstrap::forward(app.address(), ""));
    for request in [
        "GET /a?b=c HTTP/1.1\r\nHost: example.com\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: example.com\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: example.com\r\nConnection: keep-alive\r\n\r\n",
        "GET /?framing=chunked HTTP/1.0\r\nHost: example.com\r\n\r\n",
        "HEAD / HTTP/1.1\r\nHost: example.com\r\n\r\n",
        "POST /?body=echo HTTP/1.1\r\nHost: example.com\r\nContent-Length: 5\r\n\r\nhello",
        "POST /?body=echo HTTP/1.1\r\nHost: example.com\r\nContent-Length: 0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: example.com\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: example.com\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "POST /?framing=chunked&body=echo HTTP/1.1\r\nHost: example.com\r\n\
         Transfer-Encoding: Chunked\r\n\r\n5;x=y\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
        "GET /?framing=chunked&size=100000 HTTP/1.1\r\nHost: example.com\r\n\r\n",
        "GET /?framing=close&size=100000 HTTP/1.1\r\nHost: example.com\r\n\r\n",
        "GET /?size=100000 HTTP/1.1\r\nHost: example.com\r\n\r\n",
        "GET /?status=204 HTTP/1.1\r\nHost: example.com\r\n\r\n",
        "GET /?status=304 HTTP/1.1\r\nHost: example.com\r\n\r\n",
        "GET /?status=500&size=3 HTTP/1.1\r\nHost: example.com\r\n\r\n",
        "PURGE /cache HTTP/1.1\r\nHost: example.com\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: example.com\r\n\r\n",
        "GET http://other.example/x HTTP/1.1\r\nHost: example.com\r\n\r\n",
        // Leave to send the body is ours to give, and upstream hears nothing of it.
        "POST /?body=echo HTTP/1.1\r\nHost: example.com\r\nExpect: 100-continue\r\n\
         Content-Length: 5\r\n\r\nhello",
        // What concerns one hop alone stays there.
        "GET / HTTP/1.1\r\nHost: example.com\r\nConnection: keep-alive, X-Mine\r\nX-Mine: 1\r\n\
         Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTE: trailers\r\n\
         Upgrade: h2c\r\nX-Kept: 1\r\n\r\n",
        "GET /?header=keep-alive:timeout=5&header=proxy-connection:x&header=x-kept:1 HTTP/1.1\r\n\
         Host: example.com\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: example.com\r\nTE: gzip\r\nCookie: a=1\r\nCookie: b=2\r\n\r\n",
    ] {
        pair.check(request);
    }
}

/// Envoy passes trailers on over HTTP/1 only where it is told to, ours always.
#[test]
fn trailers_pass_both_ways() {
    let app = servers::http1::echo(bind(), "app").unwrap();
    let cluster = "typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
    explicit_http_config: { http_protocol_options: { enable_trailers: true } }";
    let manager = "http_protocol_options: { enable_trailers: true }";
    let bootstrap = Bootstrap::forward(app.address(), manager).amend_cluster(cluster);
    let mut pair = Pair::start(&bootstrap);
    let chunks = "5\r\nhello\r\n0\r\nX-Sum: 1\r\nx-more:  2 \r\n\r\n";
    let answer = pair.check(&format!(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n{chunks}"
    ));
    assert_eq!(answer.body["trailers"].as_array().map(Vec::len), Some(2));
    let answer = pair.check(
        "GET /?trailer=x-sum:1&trailer=x-more:2 HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n",
    );
    assert_eq!(answer.trailers.len(), 2);
}

#[test]
fn requests_may_be_sent_ahead() {
    let app = servers::http1::echo(bind(), "app").unwrap();
    let mut pair = Pair::start(&Bootstrap::forward(app.address(), ""));
    let ahead = "GET /1?delay=100 HTTP/1.1\r\nHost: a\r\n\r\n\
        POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello\
        POST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n\
        HEAD /4 HTTP/1.1\r\nHost: a\r\n\r\n\
        GET /5 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n\
        GET /6 HTTP/1.1\r\nHost: a\r\n\r\n";
    pair.same("sent ahead", |proxy| {
        let mut client = proxy.client();
        client.send(ahead).unwrap();
        let mut answers = Vec::new();
        for kind in [
            Kind::Response,
            Kind::Response,
            Kind::Response,
            Kind::ResponseToHead,
            Kind::Response,
        ] {
            let outcome = Outcome::from(client.read_response(kind).unwrap());
            answers.push((outcome.status(), outcome.body["path"].clone()));
        }
        // What was sent behind the request to close is not answered.
        let rest = client.read_to_end().unwrap_or_default();
        (answers, rest)
    });
    assert_eq!(pair.ours.stat("cluster.up.upstream_rq_total"), Some(5));
}

#[test]
fn leave_to_send_a_body_comes_from_the_proxy_or_from_upstream() {
    let app = servers::http1::echo(bind(), "app").unwrap();
    for manager in ["", "proxy_100_continue: true"] {
        let mut pair = Pair::start(&Bootstrap::forward(app.address(), manager));
        pair.same(manager, |proxy| {
            let mut client = proxy.client();
            client
                .send("POST /?body=echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
                .unwrap();
            let interim = client.read_head().unwrap();
            client.send("hello").unwrap();
            let head = client.read_head().unwrap();
            let answer = client.read_body(head).unwrap();
            (interim, Outcome::from(answer))
        });
    }
}

#[test]
fn hints_before_the_answer_reach_the_client_once() {
    let script = vec![
        Step::read_head(),
        Step::write(
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: x\r\n\r\n",
        ),
        Step::write("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"),
    ];
    let server = Script::start(bind(), script).unwrap();
    let proxy = Proxy::ours(&Bootstrap::forward(server.server().address(), ""));
    // RFC 9110, section 15.2: a proxy forwards them, but those that it asked for itself. Envoy
    // forwards none of them unless it also forwards `expect`.
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let hint = client.read_head().unwrap();
    assert_eq!(hint.start, "HTTP/1.1 103 Early Hints");
    assert_eq!(hint.headers, [("Link".to_owned(), "</a>".to_owned())]);
    assert_eq!(client.read_head().unwrap().status().unwrap(), 200);
    // HTTP/1.0 knows no such thing.
    let mut client = proxy.client();
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(client.read_head().unwrap().start, "HTTP/1.0 200 OK");
}

#[test]
fn names_keep_their_case_and_order() {
    let app = servers::http1::echo(bind(), "app").unwrap();
    let proxy = Proxy::ours(&Bootstrap::forward(app.address(), ""));
    // Envoy writes all names in lower case; there are servers that know them only as they were.
    let answer = proxy
        .client()
        .exchange(
            "GET /?header=X-Answer:1 HTTP/1.1\r\nX-b: 1\r\nHost: a\r\nX-A: 2\r\nx-B: 3\r\n\r\n",
        )
        .unwrap();
    let seen = answer.json().unwrap();
    let names: Vec<_> = seen["headers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|field| field[0].clone())
        .collect();
    let ours: Vec<_> = names
        .iter()
        .filter_map(|name| name.as_str())
        .filter(|name| name.to_lowercase().starts_with("x-a") || name.to_lowercase() == "x-b")
        .collect();
    assert_eq!(ours, ["X-b", "X-A", "x-B"]);
    assert!(
        answer
            .head
            .headers
            .iter()
            .any(|(name, _)| name == "X-Answer")
    );
}

#[test]
fn connections_end_after_their_last_request() {
    let app = servers::http1::echo(bind(), "app").unwrap();
    let manager = "common_http_protocol_options: { max_requests_per_connection: 2 }";
    let mut pair = Pair::start(&Bootstrap::forward(app.address(), manager));
    pair.same("two requests", |proxy| {
        let mut client = proxy.client();
        let mut told = || {
            let answer = client.get("a", "/").unwrap();
            answer.head.header("connection").map(str::to_owned)
        };
        let told = [told(), told()];
        (told, client.read_to_end().unwrap_or_default())
    });
    pair.same_stats(&["http.in.downstream_cx_max_requests_reached"]);
}

/// Neither takes HTTP/1.0 unless told to, and then a host can be given to requests without one.
#[test]
fn http10_is_taken_where_it_is_allowed() {
    let app = servers::http1::echo(bind(), "app").unwrap();
    for options in [
        "http_protocol_options: { accept_http_10: false }",
        "http_protocol_options: { accept_http_10: true, default_host_for_http_10: old.example }",
    ] {
        let mut pair = Pair::start(&Bootstrap::forward(app.address(), options));
        for request in [
            "GET / HTTP/1.0\r\nHost: example.com\r\n\r\n",
            "GET / HTTP/1.0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n",
        ] {
            pair.check_with(request, |outcome| {
                // The text of a refusal is ours.
                if outcome.status() == 426 {
                    outcome.body = outcome.body.as_str().map(|_| "").into();
                    outcome.ignore("content-length");
                    outcome.log = None;
                }
            });
        }
    }
}

/// Names in proper case, both ways, compared as they were written.
#[test]
fn names_are_written_in_proper_case_where_that_is_asked() {
    let style = "http_protocol_options: { header_key_format: { proper_case_words: {} } }";
    let cluster = format!(
        "typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
    explicit_http_config: {{ {style} }}"
    );
    let app = servers::http1::echo(bind(), "app").unwrap();
    let bootstrap = Bootstrap::forward(app.address(), style).amend_cluster(&cluster);
    let mut pair = Pair::start(&bootstrap);
    let request = "POST /?header=x-lower-CASE_name:1&header=ETAG:2 HTTP/1.1\r\nhost: example.com\r\n\
                   x-one: 1\r\nX-TWO_three.four: 2\r\ncontent-length: 2\r\n\r\nok";
    pair.same("names", |proxy| {
        let mut client = proxy.client();
        client.send(request).unwrap();
        let response = client.read_response(Kind::Response).unwrap();
        let names = |fields: &[(String, String)]| {
            let mut names: Vec<String> = fields.iter().map(|(name, _)| name.clone()).collect();
            names.sort();
            names
        };
        let echo: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
        let mut seen: Vec<String> = echo["headers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|field| field[0].as_str().unwrap().to_owned())
            .collect();
        seen.sort();
        (names(&response.head.headers), seen)
    });
}
