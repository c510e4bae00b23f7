//! The router: which route takes a request and what it makes of it.

use outrider_testkit::servers;

use crate::harness::{Bootstrap, Pair, Proxy, bind, exchange};

const TABLE: &str = r"
route_config:
  name: table
  validate_clusters: false
  virtual_hosts:
  - name: exact
    domains: [exact.example, 'exact.example:8080', '[::1]']
    routes:
    - name: exact
      match: { path: /exact }
      route: { cluster: up }
    - name: prefix
      match: { prefix: /prefix/ }
      route: { cluster: up, prefix_rewrite: /new/ }
    - name: separated
      match: { path_separated_prefix: /sep }
      route: { cluster: up, prefix_rewrite: /SEP }
    - name: regex
      match: { safe_regex: { regex: '/re/[0-9]+/[a-z]*' } }
      route:
        cluster: up
        regex_rewrite: { pattern: { regex: '/re/([0-9]+)/([a-z]*)' }, substitution: '/\2/\1/x' }
    - name: insensitive
      match: { prefix: /CaSe, case_sensitive: false }
      route: { cluster: up, prefix_rewrite: / }
    - name: header-exact
      match: { prefix: /h, headers: [{ name: x-a, string_match: { exact: one } }] }
      route: { cluster: up }
    - name: header-prefix
      match: { prefix: /h, headers: [{ name: x-a, string_match: { prefix: Two, ignore_case: true } }] }
      route: { cluster: up }
    - name: header-suffix
      match: { prefix: /h, headers: [{ name: x-a, string_match: { suffix: three } }] }
      route: { cluster: up }
    - name: header-contains
      match: { prefix: /h, headers: [{ name: x-a, string_match: { contains: fo } }] }
      route: { cluster: up }
    - name: header-regex
      match: { prefix: /h, headers: [{ name: x-a, string_match: { safe_regex: { regex: 'v[0-9]{2}' } } }] }
      route: { cluster: up }
    - name: header-range
      match: { prefix: /h, headers: [{ name: x-n, range_match: { start: 10, end: 20 } }] }
      route: { cluster: up }
    - name: header-present
      match: { prefix: /h, headers: [{ name: x-p, present_match: true }] }
      route: { cluster: up }
    - name: header-absent
      match: { prefix: /habsent, headers: [{ name: x-q, present_match: false }] }
      route: { cluster: up }
    - name: header-inverted
      match: { prefix: /h, headers: [{ name: x-i, string_match: { exact: '1' }, invert_match: true }] }
      route: { cluster: up }
    - name: method
      match: { prefix: /m, headers: [{ name: ':method', string_match: { exact: PUT } }] }
      route: { cluster: up }
    - name: query-exact
      match: { prefix: /q, query_parameters: [{ name: k, string_match: { exact: v } }] }
      route: { cluster: up }
    - name: query-regex
      match: { prefix: /q, query_parameters: [{ name: k, string_match: { safe_regex: { regex: 'w+' } } }] }
      route: { cluster: up }
    - name: query-present
      match: { prefix: /q, query_parameters: [{ name: only, present_match: true }] }
      route: { cluster: up }
    - name: grpc
      match: { prefix: /grpc, grpc: {} }
      route: { cluster: up }
    - name: host-literal
      match: { prefix: /literal }
      route: { cluster: up, host_rewrite_literal: rewritten.example }
    - name: host-forwarded
      match: { prefix: /forwarded }
      route: { cluster: up, host_rewrite_literal: rewritten.example, append_x_forwarded_host: true }
    - name: host-header
      match: { prefix: /from-header }
      route: { cluster: up, host_rewrite_header: x-host }
    - name: auto-host
      match: { prefix: /auto }
      route: { cluster: up, auto_host_rewrite: true }
    - name: by-header
      match: { prefix: /by-header }
      route: { cluster_header: x-cluster }
    - name: missing
      match: { prefix: /missing }
      route: { cluster: nowhere, cluster_not_found_response_code: NOT_FOUND }
    - match: { prefix: /to-https }
      redirect: { https_redirect: true }
    - match: { prefix: /to-host }
      redirect: { host_redirect: other.example, port_redirect: 8443, response_code: FOUND }
    - match: { prefix: /to-path }
      redirect: { path_redirect: '/there?x=1', response_code: SEE_OTHER }
    - match: { prefix: /to-prefix }
      redirect: { prefix_rewrite: /moved, response_code: TEMPORARY_REDIRECT }
    - match: { prefix: /to-plain }
      redirect: { strip_query: true, scheme_redirect: https, response_code: PERMANENT_REDIRECT }
    - name: direct
      match: { prefix: /direct }
      direct_response: { status: 410, body: { inline_string: short and stout } }
    - match: { prefix: /empty }
      direct_response: { status: 200 }
  - name: suffix
    domains: ['*.suffix.example']
    routes: [{ name: suffix, match: { prefix: / }, route: { cluster: up } }]
  - name: longer-suffix
    domains: ['*.longer.suffix.example']
    routes: [{ name: longer-suffix, match: { prefix: / }, route: { cluster: up } }]
  - name: prefix
    domains: ['prefix.*']
    routes: [{ name: prefix-host, match: { prefix: / }, route: { cluster: up } }]
  - name: secure
    domains: [secure.example]
    require_tls: ALL
    routes: [{ match: { prefix: / }, route: { cluster: up } }]
";

#[test]
fn routes_match_and_rewrite_as_with_envoy() {
    let app = servers::http1::echo(bind(), "app").unwrap();
    let hostname = "load_assignment: { cluster_name: up, endpoints: [{ lb_endpoints: [{ endpoint: {
        hostname: endpoint.example, address: { socket_address: {
        address: 127.0.0.1, port_value: PORT } } } }] }] }"
        .replace("PORT", &app.address().port().to_string());
    let bootstrap = Bootstrap::http(TABLE).cluster("up", app.address(), &hostname);
    let mut pair = Pair::start(&bootstrap);
    let requests: &[(&str, &str, &str)] = &[
        ("exact.example", "/exact", ""),
        ("EXACT.example", "/exact", ""),
        ("exact.example:8080", "/exact?q=1", ""),
        ("exact.example:9999", "/exact", ""),
        ("[::1]", "/exact", ""),
        ("exact.example", "/exact/more", ""),
        ("exact.example", "/prefix/a/b?c", ""),
        ("exact.example", "/sep", ""),
        ("exact.example", "/sep/", ""),
        ("exact.example", "/sep?x", ""),
        ("exact.example", "/separate", ""),
        ("exact.example", "/re/12/ab?q=/re/1/a", ""),
        ("exact.example", "/re/12/ab/", ""),
        ("exact.example", "/cAsE/x", ""),
        ("exact.example", "/h", "x-a: one\r\n"),
        ("exact.example", "/h", "X-A: one\r\nx-a: two\r\n"),
        ("exact.example", "/h", "X-A: two\r\nx-a: one\r\n"),
        ("exact.example", "/h", "X-A: none\r\nx-a: one\r\n"),
        ("exact.example", "/h", "x-a: one,two\r\n"),
        ("exact.example", "/h", "x-n: 11\r\nx-n: 5\r\nx-i: 1\r\n"),
        ("exact.example", "/h", "x-i: 1\r\nx-i: 2\r\n"),
        ("exact.example", "/h", "x-i: 2\r\nx-i: 1\r\n"),
        ("exact.example", "/h", "x-a: tWO-more\r\n"),
        ("exact.example", "/h", "x-a: is-three\r\n"),
        ("exact.example", "/h", "x-a: a fox\r\n"),
        ("exact.example", "/h", "x-a: v12\r\n"),
        ("exact.example", "/h", "x-a: v123\r\n"),
        ("exact.example", "/h", "x-n: 10\r\nx-i: 1\r\n"),
        ("exact.example", "/h", "x-n: 20\r\nx-i: 1\r\n"),
        ("exact.example", "/h", "x-n: 1x\r\nx-i: 1\r\n"),
        ("exact.example", "/h", "x-p:\r\nx-i: 1\r\n"),
        ("exact.example", "/habsent", "x-i: 1\r\n"),
        ("exact.example", "/habsent", "x-i: 1\r\nx-q: 1\r\n"),
        ("exact.example", "/h", "x-i: 2\r\n"),
        ("exact.example", "/h", ""),
        ("exact.example", "/m", ""),
        ("exact.example", "/q?a=b&k=v", ""),
        ("exact.example", "/q?k=www", ""),
        ("exact.example", "/q?k=wwx", ""),
        ("exact.example", "/q?only", ""),
        ("exact.example", "/q?only=1&k", ""),
        ("exact.example", "/q?k=%76", ""),
        (
            "exact.example",
            "/grpc",
            "content-type: application/grpc+proto\r\n",
        ),
        (
            "exact.example",
            "/grpc",
            "content-type: application/json\r\n",
        ),
        ("exact.example", "/literal", ""),
        ("exact.example", "/forwarded", ""),
        (
            "exact.example",
            "/forwarded",
            "x-forwarded-host: first.example\r\n",
        ),
        ("exact.example", "/from-header", "x-host: h.example\r\n"),
        ("exact.example", "/from-header", ""),
        ("exact.example", "/auto", ""),
        ("exact.example", "/by-header", "x-cluster: up\r\n"),
        ("exact.example", "/by-header", "x-cluster: nowhere\r\n"),
        ("exact.example", "/by-header", ""),
        ("exact.example", "/missing", ""),
        ("exact.example", "/to-https?a=b", ""),
        ("exact.example:8080", "/to-https", ""),
        ("exact.example", "/to-host/x?y", ""),
        ("exact.example", "/to-path/x?y", ""),
        ("exact.example", "/to-prefix/x?y", ""),
        ("exact.example", "/to-plain/x?y", ""),
        ("exact.example", "/direct", ""),
        ("exact.example", "/empty", ""),
        ("exact.example", "/none", ""),
        ("a.suffix.example", "/", ""),
        (".suffix.example", "/", ""),
        ("suffix.example", "/", ""),
        ("a.longer.suffix.example", "/", ""),
        ("prefix.anything.example:1", "/", ""),
        ("secure.example", "/a?b", ""),
        ("unknown.example", "/", ""),
    ];
    for (host, path, headers) in requests {
        pair.check(&format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n"
        ));
    }
    pair.check("PUT /m HTTP/1.1\r\nHost: exact.example\r\nContent-Length: 0\r\n\r\n");
    pair.check("HEAD /direct HTTP/1.1\r\nHost: exact.example\r\n\r\n");
    // An answer of the proxy's own ends a connection whose body was not read.
    pair.check("POST /direct HTTP/1.1\r\nHost: exact.example\r\nContent-Length: 3\r\n\r\nabc");
    pair.same_stats(&[
        "http.in.downstream_rq_2xx",
        "http.in.downstream_rq_3xx",
        "http.in.downstream_rq_4xx",
        "http.in.downstream_rq_5xx",
        "http.in.downstream_rq_total",
        "http.in.downstream_rq_http1_total",
        "http.in.downstream_rq_completed",
        "http.in.no_route",
        "http.in.no_cluster",
        "http.in.rq_direct_response",
        "http.in.rq_redirect",
        "http.in.rq_total",
        "cluster.up.upstream_rq_total",
        "cluster.up.upstream_rq_200",
        "cluster.up.upstream_rq_2xx",
        "cluster.up.upstream_rq_completed",
    ]);
}

const REWRITES: &str = r#"
route_config:
  virtual_hosts:
  - name: all
    domains: ['*']
    routes:
    - { match: { prefix: /path }, route: { cluster: up, path_rewrite: "/x/%REQ(foo)%" } }
    - { match: { prefix: /host }, route: { cluster: up, host_rewrite_header: foo } }
    - { match: { prefix: /format }, route: { cluster: up, host_rewrite: "%REQ(foo)%" } }
    - match: { prefix: /pattern }
      route: { cluster: up, host_rewrite_path_regex: { pattern: { regex: '^/pattern/' }, substitution: '' } }
    - { match: { prefix: /moved }, redirect: { path_rewrite: "/x/%REQ(foo)%" } }
"#;

#[test]
fn what_a_rewrite_makes_of_a_header_cannot_say_another_request_line() {
    let app = servers::http1::echo(bind(), "app").unwrap();
    let bootstrap = Bootstrap::http(REWRITES).cluster("up", app.address(), "");
    let proxy = Proxy::ours(&bootstrap);
    let cases: [(&str, &[u8], u16); 15] = [
        ("/path", b"y?z", 200),
        ("/path", b"y HTTP/1.1\tz", 400),
        ("/path", b"y HTTP/1.1\t\x80z", 400),
        ("/path", b"y#z", 400),
        ("/host", b"good.example:80", 200),
        ("/host", b"evil host/x", 400),
        ("/host", b"evil/x", 400),
        ("/host", b"evil@host", 400),
        ("/format", b"good.example", 200),
        ("/format", b"evil host/x", 400),
        ("/format", b"evil\t", 200),
        ("/pattern/good.example", b"", 200),
        ("/pattern/evil/x", b"", 400),
        ("/moved", b"y", 301),
        ("/moved", b"y HTTP/1.1\tz", 400),
    ];
    for (path, foo, status) in cases {
        let mut request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nfoo: ").into_bytes();
        request.extend_from_slice(foo);
        request.extend_from_slice(b"\r\n\r\n");
        let outcome = exchange(proxy.listener(), &request);
        assert_eq!(outcome.status(), status, "{path} {}", foo.escape_ascii());
    }
    let reached = cases.iter().filter(|case| case.2 == 200).count();
    let sent = proxy.stat("cluster.up.upstream_rq_total");
    assert_eq!(sent, i64::try_from(reached).ok());
}

const LEVELS: &str = r"
via: mesh
route_config:
  most_specific_header_mutations_wins: WINS
  request_headers_to_add:
  - { header: { key: x-set, value: table }, append_action: OVERWRITE_IF_EXISTS_OR_ADD }
  - { header: { key: x-all, value: table } }
  request_headers_to_remove: [x-gone]
  response_headers_to_add:
  - { header: { key: x-set, value: table }, append_action: OVERWRITE_IF_EXISTS_OR_ADD }
  - { header: { key: x-all, value: table } }
  response_headers_to_remove: [x-gone]
  virtual_hosts:
  - name: all
    domains: ['*']
    include_request_attempt_count: true
    include_attempt_count_in_response: true
    request_headers_to_add:
    - { header: { key: x-set, value: host }, append_action: OVERWRITE_IF_EXISTS_OR_ADD }
    - { header: { key: x-all, value: host } }
    response_headers_to_add:
    - { header: { key: x-set, value: host }, append_action: OVERWRITE_IF_EXISTS_OR_ADD }
    - { header: { key: x-all, value: host } }
    routes:
    - match: { prefix: /direct }
      direct_response: { status: 200, body: { inline_string: direct } }
      response_headers_to_add: [{ header: { key: x-all, value: route } }]
    - match: { prefix: /gone }
      route: { cluster: gone }
      response_headers_to_add: [{ header: { key: x-all, value: route } }]
    - match: { prefix: / }
      route:
        weighted_clusters:
          clusters:
          - name: up
            weight: 1
            request_headers_to_add:
            - { header: { key: x-set, value: cluster }, append_action: OVERWRITE_IF_EXISTS_OR_ADD }
            - { header: { key: x-all, value: cluster } }
            response_headers_to_add:
            - { header: { key: x-set, value: cluster }, append_action: OVERWRITE_IF_EXISTS_OR_ADD }
            - { header: { key: x-all, value: cluster } }
      request_headers_to_add:
      - { header: { key: x-set, value: route }, append_action: OVERWRITE_IF_EXISTS_OR_ADD }
      - { header: { key: x-all, value: route } }
      - { header: { key: x-absent, value: new }, append_action: ADD_IF_ABSENT }
      - { header: { key: x-present, value: new }, append_action: ADD_IF_ABSENT }
      - { header: { key: x-over-absent, value: new }, append_action: OVERWRITE_IF_EXISTS }
      - { header: { key: x-over-present, value: new }, append_action: OVERWRITE_IF_EXISTS }
      - { header: { key: x-empty, value: '%REQ(X-NONE)%' } }
      - { header: { key: x-kept-empty, value: '' }, keep_empty_value: true }
      - { header: { key: x-method, value: 'm=%REQ(:METHOD)% p=%PROTOCOL% %%' } }
      request_headers_to_remove: [x-gone-too, x-all]
      response_headers_to_add:
      - { header: { key: x-set, value: route }, append_action: OVERWRITE_IF_EXISTS_OR_ADD }
      - { header: { key: x-all, value: route } }
      - { header: { key: x-code, value: '%RESPONSE_CODE%' } }
";

#[test]
fn header_changes_apply_at_all_levels_in_envoys_order() {
    let app = servers::http1::echo(bind(), "app").unwrap();
    for wins in ["false", "true"] {
        let bootstrap = Bootstrap::http(&LEVELS.replace("WINS", wins))
            .cluster("up", app.address(), "")
            .cluster("gone", crate::harness::closed_address(), "");
        let mut pair = Pair::start(&bootstrap);
        for path in [
            "/?header=x-all:app&header=x-set:app&header=x-gone:1",
            "/direct",
            "/gone",
        ] {
            pair.check(&format!(
                "GET {path} HTTP/1.1\r\nHost: a\r\nX-Gone: 1\r\nX-Gone-Too: 1\r\nX-All: client\r\n\
                 X-Present: old\r\nX-Over-Present: old\r\nX-Set: client\r\n\r\n"
            ));
        }
    }
}

#[test]
fn weights_are_shares() {
    let one = servers::http1::echo(bind(), "one").unwrap();
    let two = servers::http1::echo(bind(), "two").unwrap();
    let bootstrap = Bootstrap::http(
        "route_config: { virtual_hosts: [{ name: all, domains: ['*'], routes: [{
           match: { prefix: / }, route: { weighted_clusters: { clusters: [
             { name: one, weight: 90 }, { name: two, weight: 10 }] } } }] }] }",
    )
    .cluster("one", one.address(), "")
    .cluster("two", two.address(), "");
    let proxy = Proxy::ours(&bootstrap);
    let mut client = proxy.client();
    let mut second = 0;
    for _ in 0..1000 {
        let answer = client.get("a", "/").unwrap().json().unwrap();
        second += u32::from(answer["server"] == "two");
    }
    // Ten standard deviations are 95.
    assert!((20..=190).contains(&second), "{second} of 1000");
}

#[test]
fn paths_are_normalised_as_with_envoy() {
    let app = servers::http1::echo(bind(), "app").unwrap();
    let options = [
        "normalize_path: true",
        "{ normalize_path: true, merge_slashes: true }",
        "{ normalize_path: true, path_with_escaped_slashes_action: REJECT_REQUEST }",
        "{ normalize_path: true, path_with_escaped_slashes_action: UNESCAPE_AND_REDIRECT }",
        "{ normalize_path: true, path_with_escaped_slashes_action: UNESCAPE_AND_FORWARD }",
        "strip_any_host_port: true",
    ];
    for options in options {
        let mut pair = Pair::start(&Bootstrap::forward(app.address(), options));
        for path in [
            "/a/./b/../c",
            "/a//b",
            "/a/%2e%2E/b",
            "/..",
            "/a/..",
            "/a/b/.",
            "/%41%7e%2fx",
            "/a%2Fb?c=%2f",
            "/a%5cb",
            "/a\\b",
            "/a%00",
            "/a%zz",
            "/a%",
            "/%C3%A9",
            "/a?x=../y",
            "/.",
            "/a;x=1/../b",
            "/%25%32%65",
            "/a/%2f%2f/b",
            "/~a!$&'()*+,;=:@",
            "/a|b^c",
            "/a\"b<c>",
            "//",
        ] {
            pair.check(&format!("GET {path} HTTP/1.1\r\nHost: a:8080\r\n\r\n"));
        }
    }
}
