//! The access log's default format.

use outrider_testkit::servers;

use crate::harness::{Bootstrap, Pair, bind, closed_address, exchange};

/// Takes out of a line what differs from run to run: times, durations and ids.
fn steady(line: &str) -> String {
    let (time, rest) = line.split_once("] ").unwrap();
    assert!(
        time.starts_with("[20") && time.ends_with('Z') && time.len() == 25,
        "{line}"
    );
    let rest = rest.replace("\"quoted\"", "quoted");
    let mut fields: Vec<String> = rest.split('"').map(str::to_owned).collect();
    // ` STATUS FLAGS RECEIVED SENT DURATION SERVICE-TIME `
    let mut numbers: Vec<&str> = fields[2].trim().split(' ').collect();
    numbers[4] = "ms";
    if numbers[5] != "-" {
        numbers[5] = "ms";
    }
    // Behind an echo its length depends on what it saw, and ours tells what was malformed.
    if numbers[0] == "200" || numbers[1] == "DPE" {
        numbers[3] = "length";
    }
    fields[2] = numbers.join(" ");
    if fields[7].len() == 36 {
        fields[7] = "id".to_owned();
    }
    fields.join("|")
}

#[test]
fn lines_are_envoys() {
    let app = servers::http1::echo(bind(), "app").unwrap();
    let log = "access_log: [{ name: file, typed_config: { \
        '@type': type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: '@LOG@' } }]";
    let routes = "route_config: { virtual_hosts: [{ name: all, domains: ['*'], routes: [
        { match: { prefix: /refused }, route: { cluster: refused } },
        { match: { prefix: /slow }, route: { cluster: up, timeout: 0.1s } },
        { match: { prefix: /old }, route: { cluster: up, prefix_rewrite: /new } },
        { match: { prefix: /ok }, route: { cluster: up } } ] }] }";
    let bootstrap = Bootstrap::http(routes)
        .amend_manager(log)
        .cluster("up", app.address(), "")
        .cluster("refused", closed_address(), "");
    let mut pair = Pair::start(&bootstrap);
    for request in [
        "GET /ok?a=b HTTP/1.1\r\nHost: a.example\r\nUser-Agent: test/1.0 (\"quoted\")\r\n\r\n",
        "POST /ok HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nX-Forwarded-For: 9.9.9.9\r\n\r\nhello",
        "GET /old/x HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /refused HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /slow?delay=500 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /none HTTP/1.0\r\nHost: a\r\n\r\n",
        "GET /ok HTTP/1.1\r\nHost: a\r\nBroken\r\n\r\n",
    ] {
        pair.same(request, |proxy| {
            let kept = exchange(proxy.listener(), request.as_bytes()).kept;
            let line = proxy.log_line();
            if kept {
                proxy.log_line();
            }
            steady(&line)
        });
    }
}
