//! Random heads and framings of HTTP/1, most of them wrong in one way or another.

use serde_json::{Value, json};

use super::World;
use super::random::Random;

const METHODS: [&str; 16] = [
    "GET", "GET", "GET", "POST", "POST", "HEAD", "PUT", "OPTIONS", "CONNECT", "TRACE", "get",
    "BREW", "M-SEARCH", "G ET", "PRI", "",
];
const TARGETS: [&str; 30] = [
    "/",
    "/",
    "/a/b",
    "/a//b",
    "/a/./b",
    "/a/../b",
    "/../..",
    "/a/%2e%2e/b",
    "/a%2Fb",
    "/a%5cb",
    "/a\\b",
    "/a%zz",
    "/a%00b",
    "/a?x=/../y",
    "/a#frag",
    "/a?b#c",
    "*",
    "a",
    "http://host.example/x",
    "http://host.example",
    "HTTP://Host.Example:80/x?y",
    "https://host.example/x",
    "ftp://host.example/x",
    "http:///x",
    "http://user@host.example/x",
    "host.example:80",
    "/\u{e9}",
    "/a b",
    "//host.example/x",
    "/a;b=c",
];
const VERSIONS: [&str; 12] = [
    "HTTP/1.1",
    "HTTP/1.1",
    "HTTP/1.1",
    "HTTP/1.1",
    "HTTP/1.1",
    "HTTP/1.0",
    "HTTP/1.2",
    "HTTP/2.0",
    "HTTP/0.9",
    "http/1.1",
    "HTTP/1.1 ",
    "",
];
const FIELDS: [&str; 44] = [
    "x-a: b",
    "X-Upper: Case",
    "x-empty:",
    "x-blank:   ",
    "x-tab:\tv\t",
    "x_under: v",
    "x-a : b",
    " x-fold: v",
    "x-fold: a\r\n b",
    ": nameless",
    "no colon",
    "x-high: \u{e9}",
    "x-nul: a\u{0}b",
    "x-cr: a\rb",
    "x-del: a\u{7f}b",
    "x-ctl: a\u{1}b",
    "x(y): v",
    "x\u{e9}: v",
    "host: other.example",
    "Host: a.example",
    "connection: keep-alive",
    "connection: x-a, close",
    "connection: upgrade",
    "upgrade: websocket",
    "upgrade: h2c",
    "keep-alive: timeout=5",
    "proxy-connection: keep-alive",
    "te: trailers",
    "te: gzip",
    "trailer: x-t",
    "expect: 100-continue",
    "expect: other",
    "date: now",
    "cookie: a=b",
    "cookie: c=d; e=f",
    "x-forwarded-for: 1.2.3.4",
    "x-forwarded-proto: https",
    "x-request-id: mine",
    "x-envoy-internal: true",
    "x-envoy-upstream-rq-timeout-ms: 9000",
    "via: 1.0 other",
    "authorization: Basic eA==",
    "content-type: application/grpc",
    "range: bytes=0-1",
];
/// Fields that a request may have.
const PROPER: [&str; 12] = [
    "x_under: v",
    "te: trailers",
    "cookie: a=b",
    "expect: 100-continue",
    "x-forwarded-for: 1.2.3.4",
    "x-forwarded-proto: https",
    "x-request-id: mine",
    "content-type: application/grpc",
    "accept-encoding: gzip",
    "user-agent: probe",
    "x-a: b",
    "x-empty:",
];
const LENGTHS: [&str; 12] = [
    "content-length: 3",
    "content-length: 0",
    "content-length: 3, 3",
    "content-length: 3\r\ncontent-length: 3",
    "content-length: 3\r\ncontent-length: 4",
    "content-length: +3",
    "content-length: -3",
    "content-length: 3x",
    "content-length: 0x3",
    "content-length:",
    "content-length: 03",
    "content-length: 99999999999999999999",
];
const CODINGS: [&str; 10] = [
    "transfer-encoding: chunked",
    "transfer-encoding: chunked",
    "transfer-encoding: Chunked",
    "transfer-encoding: gzip, chunked",
    "transfer-encoding: chunked, gzip",
    "transfer-encoding: identity",
    "transfer-encoding: chunked, chunked",
    "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
    "transfer-encoding: xchunked",
    "transfer-encoding:\tchunked",
];
const CHUNKS: [&str; 18] = [
    "3\r\nabc\r\n0\r\n\r\n",
    "3\r\nabc\r\n0\r\n\r\n",
    "0\r\n\r\n",
    "3;ext=1\r\nabc\r\n0\r\n\r\n",
    "3;ext=\"q\"\r\nabc\r\n0;last\r\n\r\n",
    "3 \r\nabc\r\n0\r\n\r\n",
    "003\r\nabc\r\n000\r\n\r\n",
    "A\r\n0123456789\r\n0\r\n\r\n",
    "a\r\n0123456789\r\n0\r\n\r\n",
    "3\r\nabc\r\n0\r\nx-t: v\r\n\r\n",
    "3\r\nabc\r\n0\r\ncontent-length: 5\r\n\r\n",
    "3\r\nabcd\r\n0\r\n\r\n",
    "3\nabc\n0\n\n",
    "0x3\r\nabc\r\n0\r\n\r\n",
    "-1\r\n\r\n",
    "x\r\n\r\n",
    "3\r\nab",
    "fffffffffffffffff\r\nabc",
];

/// Options of the manager, and connections.
pub(super) fn world(random: &mut Random, count: usize) -> World {
    let mut http = json!({ "route_config": { "virtual_hosts": [{
        "name": "all", "domains": ["*"],
        "routes": [
            { "match": { "prefix": "/a" }, "route": { "cluster": "up" } },
            { "match": { "prefix": "/2/" },
              "route": { "cluster": "second", "prefix_rewrite": "/" } },
            { "match": { "prefix": "/" }, "route": { "cluster": "up" } },
            { "match": { "connect_matcher": {} }, "direct_response": { "status": 405 } },
        ],
    }]}});
    super::add_log(&mut http);
    let mut codec = json!({});
    if random.chance(50) {
        codec["accept_http_10"] = json!(random.chance(70));
    }
    if random.chance(20) {
        codec["override_stream_error_on_invalid_http_message"] = json!(random.chance(50));
    }
    if random.chance(30) {
        codec["enable_trailers"] = json!(true);
    }
    if random.chance(15) {
        codec["allow_custom_methods"] = json!(true);
    }
    http["http_protocol_options"] = codec;
    if random.chance(30) {
        let action = random.pick(&["ALLOW", "REJECT_REQUEST", "DROP_HEADER"]);
        http["common_http_protocol_options"] = json!({ "headers_with_underscores_action": action });
    }
    if random.chance(20) {
        http["strip_any_host_port"] = json!(true);
    }
    if random.chance(20) {
        http["strip_trailing_host_dot"] = json!(true);
    }
    if random.chance(30) {
        http["upgrade_configs"] = json!([{ "upgrade_type": "websocket" }]);
    }
    if random.chance(20) {
        http["proxy_100_continue"] = json!(true);
    }
    if random.chance(50) {
        http["normalize_path"] = json!(random.chance(80));
    }
    if random.chance(30) {
        http["merge_slashes"] = json!(true);
    }
    if random.chance(30) {
        let action = random.pick(&[
            "KEEP_UNCHANGED",
            "REJECT_REQUEST",
            "UNESCAPE_AND_REDIRECT",
            "UNESCAPE_AND_FORWARD",
        ]);
        http["path_with_escaped_slashes_action"] = json!(action);
    }
    if random.chance(30) {
        http["use_remote_address"] = json!(true);
    }
    let probes = (0..count)
        .map(|index| match random.below(10) {
            0 | 1 => exchange(random, index),
            _ => connection(random, index),
        })
        .collect();
    let answers = json!([
        { "on": "/hint", "interim": ["103 Early Hints\nlink: x"], "echo": true },
        { "on": "/sum", "echo": true, "trailers": ["x-sum: 1"] },
        { "on": "/chunks", "body": "text", "chunked": true },
        { "on": "/large", "size": 100_000 },
        { "on": "/none", "status": 204 },
        { "on": "/same", "status": 304, "headers": ["etag: x"] },
        { "on": "/broken", "status": 500, "body": "broken" },
        { "echo": true },
    ]);
    World {
        area: "http",
        setup: json!({
            "upstreams": {
                "up": { "answers": answers },
                "second": { "protocol": "http2", "answers": answers },
            },
            "http": http,
        }),
        compare: json!({}),
        probes,
    }
}

/// A request that is as it should be, of either version, and an answer of any kind.
fn exchange(random: &mut Random, index: usize) -> Value {
    let server = random.pick(&["", "/2"]);
    let kind = random.pick(&[
        "/hint", "/sum", "/chunks", "/large", "/none", "/same", "/broken", "/a",
    ]);
    let method = random.pick(&["GET", "GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS"]);
    let host = random.pick(&["a.example", "a.example", "a.example:80", "a.example."]);
    let mut headers = vec![format!("x-case: {index}"), format!("host: {host}")];
    for _ in 0..random.below(3) {
        let field = random.pick(&PROPER);
        // One of each: Envoy joins some that are there twice.
        if !headers.contains(&field.to_owned()) {
            headers.push(field.to_owned());
        }
    }
    if random.chance(5) {
        let length = random.between(59_000, 63_000);
        headers.push(format!("x-long: {}", "x".repeat(length)));
    }
    if random.chance(3) {
        headers.extend((0..random.between(90, 104)).map(|number| format!("x-{number}: v")));
    }
    let mut step = json!({ "request": format!("{method} {server}{kind}?{index}") });
    if matches!(method, "POST" | "PUT") {
        step["body"] = json!(random.pick(&["", "x", "hello"]));
        if random.chance(30) {
            step["trailers"] = json!(["x-end: 1"]);
        }
    }
    if random.chance(40) {
        step["open"] = json!({ "http2": true });
    } else {
        headers.push("connection: close".to_owned());
    }
    step["headers"] = json!(headers);
    step
}

/// A head, its body, and a request behind it that ends the connection.
fn connection(random: &mut Random, index: usize) -> Value {
    let mut bytes = String::new();
    if random.chance(4) {
        bytes.push_str(random.pick(&["\r\n", "\n", "\r\n\r\n", " ", "\u{0}"]));
    }
    // Most are right in all but one or two places.
    let odd = |random: &mut Random, percent| random.chance(percent);
    let method = if odd(random, 25) {
        random.pick(&METHODS)
    } else {
        random.pick(&["GET", "POST"])
    };
    let target = if odd(random, 40) {
        random.pick(&TARGETS)
    } else {
        "/a"
    };
    let version = if odd(random, 12) {
        random.pick(&VERSIONS)
    } else {
        "HTTP/1.1"
    };
    let gap = if odd(random, 3) {
        random.pick(&["  ", "\t", ""])
    } else {
        " "
    };
    bytes.push_str(&format!("{method}{gap}{target} {version}"));
    let end = if odd(random, 4) {
        random.pick(&["\n", "\r\r\n", "\r"])
    } else {
        "\r\n"
    };
    bytes.push_str(end);
    let mut fields = Vec::new();
    if !odd(random, 8) {
        fields.push("host: a.example".to_owned());
    } else if odd(random, 60) {
        fields.push(
            random
                .pick(&[
                    "host:",
                    "host: a b",
                    "host: a,b",
                    "host: a.example:99999",
                    "host: [::1",
                ])
                .to_owned(),
        );
    }
    fields.push(format!("x-case: {index}"));
    for _ in 0..random.below(3) {
        if odd(random, 60) {
            fields.push(random.pick(&FIELDS).to_owned());
        }
    }
    let framed = random.below(10);
    let body = match framed {
        0..2 => {
            fields.push(random.pick(&LENGTHS).to_owned());
            "abc".to_owned()
        }
        2..4 => {
            fields.push("content-length: 3".to_owned());
            "abc".to_owned()
        }
        4..7 => {
            fields.push(random.pick(&CODINGS).to_owned());
            random.pick(&CHUNKS).to_owned()
        }
        7 if odd(random, 40) => {
            fields.push(random.pick(&CODINGS).to_owned());
            fields.push(random.pick(&LENGTHS).to_owned());
            random.pick(&CHUNKS).to_owned()
        }
        _ => String::new(),
    };
    let line_end = if odd(random, 3) { "\n" } else { "\r\n" };
    for field in fields {
        bytes.push_str(&field);
        bytes.push_str(line_end);
    }
    bytes.push_str(if odd(random, 2) { "\n" } else { "\r\n" });
    bytes.push_str(&body);
    bytes.push_str(&format!(
        "GET /last HTTP/1.1\r\nhost: last.example\r\nx-case: {index}\r\nconnection: close\r\n\r\n"
    ));
    json!({ "raw": bytes, "read": "end" })
}
