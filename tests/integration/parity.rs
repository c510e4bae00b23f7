//! The same bootstrap given to Envoy and to the sidecar, the same requests sent to both: the same
//! answers, the same requests upstream, the same access log.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use outrider_testkit::poll::eventually;
use outrider_testkit::{Process, bins, envoy};

use crate::harness::closed_address;

const LIMIT: Duration = Duration::from_secs(20);

/// One request: method, host, path, further header lines, body.
type Request = (
    &'static str,
    &'static str,
    &'static str,
    &'static [&'static str],
    &'static str,
);

/// Virtual hosts of the common configuration. `@up` is an upstream that answers with the head that
/// it got, `@dead` one that refuses connections.
const ROUTES: &str = r#"
            validate_clusters: false
            ignore_port_in_host_matching: true
            request_headers_to_add: [{header: {key: x-level, value: table}}]
            response_headers_to_add: [{header: {key: x-protocol, value: '%PROTOCOL%'}}]
            response_headers_to_remove: [x-gone]
            virtual_hosts:
            - name: matching
              domains: [match, 'match.*', '*.match']
              routes:
              - {match: {path: /exact}, direct_response: {status: 200, body: {inline_string: exact}}}
              - {match: {path: /Folded, case_sensitive: false}, direct_response: {status: 200, body: {inline_string: folded}}}
              - {match: {path_separated_prefix: /sep}, direct_response: {status: 200, body: {inline_string: separated}}}
              - {match: {safe_regex: {regex: '/r/\d+'}}, direct_response: {status: 200, body: {inline_string: regex}}}
              - {match: {prefix: /m, headers: [{name: ':method', string_match: {exact: POST}}]}, direct_response: {status: 200, body: {inline_string: post}}}
              - {match: {prefix: /h, headers: [{name: x-many, string_match: {exact: b}}]}, direct_response: {status: 200, body: {inline_string: many}}}
              - {match: {prefix: /h, headers: [{name: x-n, range_match: {start: -1, end: 5}}]}, direct_response: {status: 200, body: {inline_string: range}}}
              - {match: {prefix: /h, headers: [{name: x-n, present_match: false}, {name: x-q}]}, direct_response: {status: 200, body: {inline_string: absent}}}
              - {match: {prefix: /h, headers: [{name: x-n, string_match: {prefix: '1'}, invert_match: true}]}, direct_response: {status: 200, body: {inline_string: inverted}}}
              - {match: {prefix: /y, headers: [{name: x-n, string_match: {prefix: '1'}, invert_match: true, treat_missing_header_as_empty: true}]}, direct_response: {status: 200, body: {inline_string: as empty}}}
              - {match: {prefix: /s, headers: [{name: x-n, string_match: {contains: aB, ignore_case: true}}]}, direct_response: {status: 200, body: {inline_string: contains}}}
              - {match: {prefix: /s, headers: [{name: x-n, string_match: {suffix: z}}]}, direct_response: {status: 200, body: {inline_string: suffix}}}
              - {match: {prefix: /q, query_parameters: [{name: a, string_match: {exact: '1'}}, {name: b}, {name: d, present_match: false}]}, direct_response: {status: 200, body: {inline_string: query}}}
            - name: rewriting
              domains: [rewrite]
              routes:
              - {match: {prefix: /a/}, route: {cluster: up, prefix_rewrite: /}}
              - {match: {path: /one}, route: {cluster: up, prefix_rewrite: /two/three}}
              - {match: {path_separated_prefix: /sep}, route: {cluster: up, prefix_rewrite: /new}}
              - {match: {prefix: /CASE, case_sensitive: false}, route: {cluster: up, prefix_rewrite: /case}}
              - {match: {prefix: /service}, route: {cluster: up, regex_rewrite: {pattern: {regex: '^/service/([^/]+)(/.*)$'}, substitution: '\2/instance/\1'}}}
              - {match: {prefix: /many}, route: {cluster: up, regex_rewrite: {pattern: {regex: '(a+)(x*)'}, substitution: '\2$\1'}}}
              - {match: {prefix: /none}, route: {cluster: up, regex_rewrite: {pattern: {regex: '.*'}, substitution: ''}}}
              - {match: {prefix: /literal}, route: {cluster: up, host_rewrite_literal: other.example, append_x_forwarded_host: true}}
              - {match: {prefix: /header}, route: {cluster: up, host_rewrite_header: x-to}}
            - name: redirects
              domains: [redirect, '[::1]']
              routes:
              - {match: {prefix: /https}, redirect: {https_redirect: true, response_code: FOUND}}
              - {match: {prefix: /port}, redirect: {https_redirect: true, port_redirect: 8443}}
              - {match: {prefix: /host}, redirect: {host_redirect: other, strip_query: true}}
              - {match: {prefix: /path}, redirect: {path_redirect: /x}}
              - {match: {prefix: /query}, redirect: {path_redirect: '/x?y', strip_query: true}}
              - {match: {prefix: /prefix}, redirect: {prefix_rewrite: /x, response_code: PERMANENT_REDIRECT}}
              - {match: {prefix: /regex}, redirect: {regex_rewrite: {pattern: {regex: e}, substitution: E}}}
            - name: needs tls
              domains: [tls]
              require_tls: ALL
              routes: [{match: {prefix: /}, route: {cluster: up}}]
            - name: headers
              domains: [headers]
              include_request_attempt_count: true
              include_attempt_count_in_response: true
              request_headers_to_add: [{header: {key: x-level, value: host}}]
              routes:
              - name: changes
                match: {prefix: /changes}
                route: {cluster: up}
                request_headers_to_add:
                - {header: {key: x-level, value: route}}
                - {header: {key: x-overwrite, value: new}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}
                - {header: {key: x-absent, value: new}, append_action: ADD_IF_ABSENT}
                - {header: {key: x-exists, value: new}, append_action: OVERWRITE_IF_EXISTS}
                - {header: {key: x-empty, value: '%REQ(nope)%'}}
                - {header: {key: x-kept, value: '%REQ(nope)%'}, keep_empty_value: true}
                - {header: {key: x-host, value: '%REQ(:AUTHORITY)%%%'}}
                request_headers_to_remove: [x-remove]
                response_headers_to_add: [{header: {key: x-code, value: '%RESPONSE_CODE% %RESPONSE_FLAGS%'}}]
              - {name: plain, match: {prefix: /plain}, route: {cluster: up}}
              - {name: by header, match: {prefix: /by-header}, route: {cluster_header: x-to}}
              - {name: unknown, match: {prefix: /unknown}, route: {cluster: nowhere}}
              - {name: not found, match: {prefix: /not-found}, route: {cluster: nowhere, cluster_not_found_response_code: NOT_FOUND}}
              - {name: empty, match: {prefix: /empty}, route: {cluster: empty}}
              - {name: tea, match: {prefix: /tea}, direct_response: {status: 403, body: {inline_string: tea}}}
"#;

const REQUESTS: &[Request] = &[
    ("GET", "match", "/exact?x=y", &[], ""),
    ("GET", "MATCH:81", "/exact/", &[], ""),
    ("GET", "a.match", "/FOLDED", &[], ""),
    ("GET", "match.org", "/sep", &[], ""),
    ("GET", "match", "/sep/x?y", &[], ""),
    ("GET", "match", "/separate", &[], ""),
    ("GET", "match", "/r/12?z", &[], ""),
    ("GET", "match", "/r/12/", &[], ""),
    ("POST", "match", "/m", &["content-length: 0"], ""),
    ("GET", "match", "/m", &[], ""),
    ("GET", "match", "/h", &["X-Many: a", "x-many: b"], ""),
    ("GET", "match", "/h", &["x-n: 4"], ""),
    ("GET", "match", "/h", &["x-n: 5"], ""),
    ("GET", "match", "/h", &["x-n: 5", "x-n: 10"], ""),
    ("GET", "match", "/h", &["x-q:"], ""),
    ("GET", "match", "/h", &[], ""),
    ("GET", "match", "/y", &[], ""),
    ("GET", "match", "/s", &["x-n: xAbx"], ""),
    ("GET", "match", "/s", &["x-n: xZ", "x-n: z"], ""),
    ("GET", "match", "/q?b&a=1&a=2", &[], ""),
    ("GET", "match", "/q?a=2&a=1&b", &[], ""),
    ("GET", "match", "/q?a=1&b=&d", &[], ""),
    ("GET", "match", "/q?a=%31&b", &[], ""),
    ("GET", "nobody", "/", &[], ""),
    ("GET", "rewrite", "/a/c?d=e", &[], ""),
    ("GET", "rewrite", "/one?q", &[], ""),
    ("GET", "rewrite", "/sep/x", &[], ""),
    ("GET", "rewrite", "/case/X", &[], ""),
    (
        "GET",
        "rewrite",
        "/service/foo/v1/api?a=/service/x/y",
        &[],
        "",
    ),
    ("GET", "rewrite", "/many/axxbaaax?a", &[], ""),
    ("GET", "rewrite", "/none?q", &[], ""),
    (
        "GET",
        "rewrite",
        "/literal",
        &["x-forwarded-host: before"],
        "",
    ),
    ("GET", "rewrite", "/header", &["x-to: to.example"], ""),
    ("GET", "rewrite", "/header", &[], ""),
    ("GET", "redirect", "/https?a", &[], ""),
    ("GET", "redirect:80", "/https", &[], ""),
    ("GET", "redirect:8080", "/https", &[], ""),
    ("GET", "[::1]:80", "/https", &[], ""),
    ("GET", "redirect:8080", "/port", &[], ""),
    ("GET", "redirect:80", "/host?a=b", &[], ""),
    ("GET", "redirect", "/path?a", &[], ""),
    ("GET", "redirect", "/query?a", &[], ""),
    ("GET", "redirect", "/prefix/a?b", &[], ""),
    ("GET", "redirect", "/regex/e?e", &[], ""),
    ("GET", "tls:80", "/p?q", &[], ""),
    (
        "GET",
        "headers",
        "/changes",
        &[
            "x-overwrite: a",
            "x-overwrite: b",
            "x-exists: z",
            "X-Remove: 1",
        ],
        "",
    ),
    (
        "GET",
        "headers",
        "/changes",
        &["x-absent: a", "X-Case: Kept"],
        "",
    ),
    ("POST", "headers", "/plain", &["content-length: 3"], "abc"),
    (
        "POST",
        "headers",
        "/plain",
        &["transfer-encoding: chunked"],
        "3\r\nabc\r\n0\r\n\r\n",
    ),
    (
        "GET",
        "headers",
        "/plain",
        &[
            "x-forwarded-for: 1.2.3.4",
            "x-forwarded-proto: https",
            "x-request-id: mine",
        ],
        "",
    ),
    (
        "GET",
        "headers",
        "/plain",
        &["x-forwarded-for: 1.2.3.4, ::9"],
        "",
    ),
    (
        "GET",
        "headers",
        "/plain",
        &["te: trailers", "keep-alive: x", "proxy-connection: close"],
        "",
    ),
    (
        "GET",
        "headers",
        "/plain",
        &[
            "x-envoy-internal: true",
            "x-envoy-upstream-rq-timeout-ms: 50",
            "x-envoy-attempt-count: 9",
        ],
        "",
    ),
    (
        "GET",
        "headers",
        "/plain",
        &["connection: x-hop", "x-hop: 1"],
        "",
    ),
    ("GET", "headers", "/plain", &["upgrade: websocket"], ""),
    (
        "GET",
        "headers",
        "/plain",
        &[
            "x-forwarded-client-cert: By=x",
            "cookie: a=b",
            "cookie: c=d",
        ],
        "",
    ),
    ("GET", "headers", "http://headers/plain?absolute", &[], ""),
    ("GET", "headers", "/plain/../x", &[], ""),
    ("GET", "headers", "/by-header", &["x-to: up"], ""),
    ("GET", "headers", "/by-header", &[], ""),
    ("GET", "headers", "/unknown", &[], ""),
    ("GET", "headers", "/not-found", &[], ""),
    ("GET", "headers", "/empty", &[], ""),
    (
        "POST",
        "headers",
        "/empty",
        &["content-type: application/grpc", "content-length: 0"],
        "",
    ),
    ("GET", "headers", "/tea", &[], ""),
    ("HEAD", "headers", "/tea", &[], ""),
];

const LOG: &str = "%REQ(:METHOD)% %REQ(:AUTHORITY)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL% \
                   %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %BYTES_RECEIVED% \
                   %BYTES_SENT% %UPSTREAM_CLUSTER% %ROUTE_NAME% %UPSTREAM_REQUEST_ATTEMPT_COUNT% \
                   %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %REQ(user-agent):2%\\n";

fn bootstrap(port: u16, upstream: SocketAddr, log: &Path) -> String {
    let types = "'@type': type.googleapis.com/envoy.extensions";
    format!(
        "
static_resources:
  clusters:
  - name: up
    load_assignment: {{cluster_name: up, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {upstream}}}}}}}}}]}}]}}
  - {{name: empty, load_assignment: {{cluster_name: empty}}}}
  listeners:
  - name: in
    address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          {types}.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          delayed_close_timeout: 0.01s
          access_log: [{{name: f, typed_config: {{{types}.access_loggers.file.v3.FileAccessLog, path: '{log}', log_format: {{text_format_source: {{inline_string: \"{LOG}\"}}}}}}}}]
          http_filters: [{{name: router, typed_config: {{{types}.filters.http.router.v3.Router}}}}]
          route_config: {ROUTES}
",
        upstream = upstream.port(),
        log = log.display(),
    )
}

/// An upstream that answers every request with its head, the header lines sorted.
fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream));
        }
    });
    address
}

fn answer(mut stream: TcpStream) -> Option<()> {
    let mut read = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
                break end;
            }
            let mut buffer = [0; 4096];
            match stream.read(&mut buffer).ok()? {
                0 => return None,
                count => read.extend_from_slice(&buffer[..count]),
            }
        };
        let head = String::from_utf8_lossy(&read[..end]).into_owned();
        // Bodies are short and come with their head; what follows is not looked at.
        read.clear();
        let mut lines: Vec<&str> = head.split("\r\n").collect();
        lines[1..].sort_unstable();
        let body = lines.join("\n");
        let response = format!(
            "HTTP/1.1 200 OK\r\nX-Gone: 1\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(response.as_bytes()).ok()?;
    }
}

/// Sends one request and reads to the end: the status line, and all other lines sorted.
fn exchange(port: u16, request: &Request) -> BTreeSet<String> {
    let (method, host, path, headers, body) = request;
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: test\r\n");
    for header in *headers {
        head.push_str(header);
        head.push_str("\r\n");
    }
    head.push_str("Connection: close\r\n\r\n");
    head.push_str(body);
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    let mut response = Vec::new();
    stream.read_to_end(&mut response).unwrap();
    let text = String::from_utf8(response).unwrap();
    text.split(['\r', '\n'])
        .filter(|line| !line.is_empty())
        .map(steady)
        .collect()
}

/// A line without what differs from one exchange to the next.
fn steady(line: &str) -> String {
    let Some((name, value)) = line.split_once(": ") else {
        return line.to_owned();
    };
    let name = name.to_ascii_lowercase();
    let value = match name.as_str() {
        "date" | "x-envoy-upstream-service-time" => "*",
        "x-request-id" if value.len() == 36 => "*",
        _ => value,
    };
    format!("{name}: {value}")
}

struct Proxy {
    _process: Process,
    port: u16,
    _folder: tempfile::TempDir,
    log: std::path::PathBuf,
}

fn start(name: &str, upstream: SocketAddr) -> Proxy {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let port = closed_address().port();
    let file = folder.path().join("bootstrap.yaml");
    std::fs::write(&file, bootstrap(port, upstream, &log)).unwrap();
    let mut command = match name {
        "envoy" => {
            let mut command = Command::new(envoy::binary().unwrap());
            command.args(["--use-dynamic-base-id", "--log-level", "warn"]);
            // Log lines are written at least so often, milliseconds.
            command.args(["--file-flush-interval-msec", "100"]);
            command
        }
        program => Command::new(bins::path(program).unwrap()),
    };
    command.arg("-c").arg(&file).args(["--concurrency", "1"]);
    let process = Process::start(name, command).unwrap();
    let connected = eventually(LIMIT, || Ok(TcpStream::connect(("127.0.0.1", port))?));
    assert!(connected.is_ok(), "{name}: {}", process.output());
    Proxy {
        _process: process,
        port,
        _folder: folder,
        log,
    }
}

#[test]
fn routes_headers_and_logs_are_as_envoys() {
    let upstream = upstream();
    let envoy = start("envoy", upstream);
    let ours = start("outrider-sidecar", upstream);
    let mut differences = Vec::new();
    for request in REQUESTS {
        let expected = exchange(envoy.port, request);
        let got = exchange(ours.port, request);
        for line in expected.difference(&got) {
            differences.push(format!("{request:?}\n   envoy only: {line}"));
        }
        for line in got.difference(&expected) {
            differences.push(format!("{request:?}\n   ours only:  {line}"));
        }
    }
    let lines = |proxy: &Proxy| {
        eventually(LIMIT, || {
            let text = std::fs::read_to_string(&proxy.log)?;
            let lines: Vec<String> = text.lines().map(str::to_owned).collect();
            anyhow::ensure!(lines.len() >= REQUESTS.len(), "{} lines", lines.len());
            Ok(lines)
        })
        .unwrap()
    };
    for (expected, got) in lines(&envoy).into_iter().zip(lines(&ours)) {
        if expected != got {
            differences.push(format!("log\n   envoy: {expected}\n   ours:  {got}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
