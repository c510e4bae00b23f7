use super::*;
use crate::config::build::testing::route_table;
use crate::config::route::Action;
use crate::http::message::BodyLength;
use crate::telemetry::access_log::format::Format;

fn request(method: &str, authority: &str, path: &str, headers: &[(&str, &str)]) -> RequestHead {
    let mut request = RequestHead::new();
    request.method = method.into();
    request.authority = authority.into();
    request.path = path.into();
    for (name, value) in headers {
        request.headers.push(name.as_bytes(), value.as_bytes());
    }
    request
}

fn facts<'a>(request: &'a RequestHead, random: u64, state: &'a ConnectionState) -> Facts<'a> {
    Facts {
        request,
        random,
        certificate: ClientCertificate::default(),
        state,
    }
}

fn render(format: &Format, out: &mut Vec<u8>) {
    out.extend_from_slice(format.as_literal().unwrap());
}

fn route_name<'a>(table: &'a RouteTable, request: &RequestHead, random: u64) -> &'a str {
    match table.route(&facts(request, random, &ConnectionState::default())) {
        RouteMatchResult::Found { route, .. } => &route.name,
        RouteMatchResult::NeedsTls => "(tls)",
        RouteMatchResult::NotFound => "(none)",
    }
}

#[test]
fn virtual_hosts_by_authority() {
    let hosts = |ignore_port: bool| {
        let host = |name: &str, domains: &str| {
            format!(
                "- {{name: {name}, domains: [{domains}], routes: [{{name: {name}, match: {{prefix: ''}}, direct_response: {{status: 200}}}}]}}\n"
            )
        };
        route_table(&format!(
            "ignore_port_in_host_matching: {ignore_port}\nvirtual_hosts:\n{}{}{}{}{}{}",
            host("any", "'*'"),
            host("com", "'*.com', 'Exact.example.com:80'"),
            host("example", "'*.example.com'"),
            host("dash", "'*-x.example.com'"),
            host("prefix", "'foo.*', '10.0.0.1'"),
            host("longer", "'foo.bar.*', '[::1]'"),
        ))
    };
    for (ignore_port, authority, expect) in [
        (false, "exact.example.COM:80", "com"),
        (false, "exact.example.com", "example"),
        (false, "a-x.example.com", "dash"),
        (false, "-x.example.com", "example"),
        (false, ".com", "any"),
        (false, "example.com", "com"),
        (false, "foo.org", "prefix"),
        (false, "foo.bar.org", "longer"),
        (false, "foo.com", "com"),
        (false, "10.0.0.1:8080", "any"),
        (true, "10.0.0.1:8080", "prefix"),
        (true, "[::1]:8080", "longer"),
        (true, "[::1]", "longer"),
        (true, "::1", "any"),
        (true, "A.Example.com:1", "example"),
        (false, "", "any"),
    ] {
        let table = hosts(ignore_port);
        let found = table
            .virtual_host(&request("GET", authority, "/", &[]))
            .unwrap();
        assert_eq!(&*found.routes[0].name, expect, "{authority} {ignore_port}");
    }
    assert!(
        route_table("virtual_hosts: [{name: a, domains: [a]}]")
            .virtual_host(&request("GET", "b", "/", &[]))
            .is_none()
    );
}

#[test]
fn routes_in_order() {
    let table = route_table(
        r#"
ignore_path_parameters_in_path_matching: true
virtual_hosts:
- name: a
  domains: ['*']
  routes:
  - {name: exact, match: {path: /exact}, route: {cluster: c}}
  - {name: folded, match: {path: /folded, case_sensitive: false}, route: {cluster: c}}
  - {name: separated, match: {path_separated_prefix: /sep}, route: {cluster: c}}
  - {name: regex, match: {safe_regex: {regex: '/r/\d+'}}, route: {cluster: c}}
  - {name: grpc, match: {prefix: /grpc, grpc: {}}, route: {cluster: c}}
  - {name: post, match: {prefix: /m, headers: [{name: ':method', string_match: {exact: POST}}]}, route: {cluster: c}}
  - {name: many, match: {prefix: /h, headers: [{name: x-many, string_match: {exact: b}}]}, route: {cluster: c}}
  - {name: range, match: {prefix: /h, headers: [{name: x-n, range_match: {start: -1, end: 5}}]}, route: {cluster: c}}
  - {name: absent, match: {prefix: /h, headers: [{name: x-n, present_match: false}, {name: x-q}]}, route: {cluster: c}}
  - {name: inverted, match: {prefix: /h, headers: [{name: x-n, string_match: {prefix: '1'}, invert_match: true}]}, route: {cluster: c}}
  - {name: as empty, match: {prefix: /y, headers: [{name: x-n, string_match: {prefix: '1'}, invert_match: true, treat_missing_header_as_empty: true}]}, route: {cluster: c}}
  - {name: length, match: {prefix: /l, headers: [{name: content-length, range_match: {start: 0, end: 10}}]}, route: {cluster: c}}
  - {name: query, match: {prefix: /q, query_parameters: [{name: a, string_match: {exact: '1'}}, {name: b}, {name: d, present_match: false}]}, route: {cluster: c}}
  - {name: some, match: {prefix: /f, runtime_fraction: {default_value: {numerator: 25}}}, route: {cluster: c}}
  - {name: connect, match: {connect_matcher: {}}, route: {cluster: c}}
"#,
    );
    let get = |path: &str, headers: &[(&str, &str)]| request("GET", "h", path, headers);
    let mut sized = get("/l", &[]);
    sized.body = BodyLength::Sized(9);
    for (request, random, expect) in [
        (get("/exact?x=y", &[]), 0, "exact"),
        (get("/exact;v=1", &[]), 0, "exact"),
        (get("/exact/", &[]), 0, "(none)"),
        (get("/FOLDED", &[]), 0, "folded"),
        (get("/sep", &[]), 0, "separated"),
        (get("/sep/x?y", &[]), 0, "separated"),
        (get("/separate", &[]), 0, "(none)"),
        (get("/r/12?z", &[]), 0, "regex"),
        (get("/r/12/", &[]), 0, "(none)"),
        (
            get("/grpc", &[("content-type", "application/grpc+proto")]),
            0,
            "grpc",
        ),
        (
            get("/grpc", &[("content-type", "application/grpc-web")]),
            0,
            "(none)",
        ),
        (request("POST", "h", "/m", &[]), 0, "post"),
        (get("/m", &[]), 0, "(none)"),
        (get("/h", &[("X-Many", "a"), ("x-many", "b")]), 0, "many"),
        (get("/h", &[("x-n", " 4")]), 0, "range"),
        (get("/h", &[("x-n", "5")]), 0, "inverted"),
        (get("/h", &[("x-n", "10")]), 0, "(none)"),
        (get("/h", &[("x-q", "")]), 0, "absent"),
        // Nothing to look at, so an inverted condition does not hold either.
        (get("/h", &[]), 0, "(none)"),
        (get("/y", &[]), 0, "as empty"),
        (sized, 0, "length"),
        (get("/q?b&a=1&a=2", &[]), 0, "query"),
        (get("/q?a=2&a=1&b", &[]), 0, "(none)"),
        (get("/q?a=1&b=&d", &[]), 0, "(none)"),
        (get("/q?a=1&bb", &[]), 0, "(none)"),
        (get("/f", &[]), 24, "some"),
        (get("/f", &[]), 25, "(none)"),
        (get("/f", &[]), 1_000_000, "some"),
        (request("CONNECT", "h:443", "", &[]), 0, "connect"),
    ] {
        let path = String::from_utf8_lossy(&request.path).into_owned();
        assert_eq!(
            route_name(&table, &request, random),
            expect,
            "{path} {random}"
        );
    }
}

#[test]
fn clusters_by_weight_and_header() {
    let table = route_table(
        "virtual_hosts: [{name: a, domains: ['*'], routes: [\
         {match: {prefix: /w}, route: {weighted_clusters: {clusters: [{name: a, weight: 3}, {name: b, weight: 1}]}}},\
         {match: {prefix: /h}, route: {cluster_header: X-To}}]}]",
    );
    let chosen = |request: &RequestHead, random| {
        let RouteMatchResult::Found { route, .. } =
            table.route(&facts(request, random, &ConnectionState::default()))
        else {
            panic!()
        };
        let Action::Forward(forward) = &route.action else {
            panic!()
        };
        let chosen = forward.choose(request, random, || None);
        forward.cluster_of(&chosen).map(str::to_owned)
    };
    let weighted = request("GET", "h", "/w", &[]);
    let picks: Vec<_> = (0..8)
        .map(|random| chosen(&weighted, random).unwrap())
        .collect();
    assert_eq!(picks, ["a", "a", "a", "b", "a", "a", "a", "b"]);
    assert_eq!(
        chosen(&request("GET", "h", "/h", &[("x-to", "z")]), 0).unwrap(),
        "z"
    );
    assert_eq!(chosen(&request("GET", "h", "/h", &[]), 0), None);
}

#[test]
fn tls_can_be_required() {
    let table = |require: &str| {
        route_table(&format!(
            "virtual_hosts: [{{name: a, domains: ['*'], require_tls: {require}, routes: [{{name: r, match: {{prefix: /}}, route: {{cluster: c}}}}]}}]"
        ))
    };
    let outside = request("GET", "h:80", "/p?q", &[]);
    let inside = request("GET", "h", "/", &[("x-envoy-internal", "true")]);
    assert_eq!(route_name(&table("ALL"), &inside, 0), "(tls)");
    assert_eq!(route_name(&table("EXTERNAL_ONLY"), &outside, 0), "(tls)");
    assert_eq!(route_name(&table("EXTERNAL_ONLY"), &inside, 0), "r");
    let over_tls = request("GET", "h", "/", &[("x-forwarded-proto", "https")]);
    assert!(matches!(
        table("ALL").route(&facts(&over_tls, 0, &ConnectionState::default())),
        RouteMatchResult::Found { .. }
    ));
    let mut out = Vec::new();
    write_https_location(&outside, &mut out);
    assert_eq!(out, b"https://h:80/p?q");
}

#[test]
fn paths_are_rewritten() {
    for (matcher, rewrite, path, expect) in [
        ("{prefix: /a}", "prefix_rewrite: /b", "/a/c?d=e", "/b/c?d=e"),
        ("{prefix: /a/}", "prefix_rewrite: /", "/a/c", "/c"),
        ("{path: /a}", "prefix_rewrite: /b/c", "/a?q", "/b/c?q"),
        (
            "{path_separated_prefix: /a}",
            "prefix_rewrite: /b",
            "/a/x",
            "/b/x",
        ),
        (
            "{prefix: /A, case_sensitive: false}",
            "prefix_rewrite: /b",
            "/a/x",
            "/b/x",
        ),
        (
            "{safe_regex: {regex: '/a.*'}}",
            "prefix_rewrite: /b",
            "/abc?q",
            "/b?q",
        ),
        ("{prefix: /a}", "prefix_rewrite: b", "/a/x", "/b/x"),
        (
            "{prefix: /}",
            r"regex_rewrite: {pattern: {regex: '^/service/([^/]+)(/.*)$'}, substitution: '\2/instance/\1'}",
            "/service/foo/v1/api?a=/service/x/y",
            "/v1/api/instance/foo?a=/service/x/y",
        ),
        (
            "{prefix: /}",
            "regex_rewrite: {pattern: {regex: one}, substitution: two}",
            "/xxx/one/yyy/one/zzz",
            "/xxx/two/yyy/two/zzz",
        ),
        (
            "{prefix: /}",
            "regex_rewrite: {pattern: {regex: '.*'}, substitution: ''}",
            "/x?q",
            "/x?q",
        ),
    ] {
        let table = route_table(&format!(
            "virtual_hosts: [{{name: a, domains: ['*'], routes: [{{match: {matcher}, route: {{cluster: c, {rewrite}}}}}]}}]"
        ));
        let request = request("GET", "h", path, &[]);
        let RouteMatchResult::Found { route, .. } =
            table.route(&facts(&request, 0, &ConnectionState::default()))
        else {
            panic!("{path}")
        };
        let Action::Forward(forward) = &route.action else {
            panic!()
        };
        let mut out = Vec::new();
        rewrite_path(
            forward.rewrite.as_deref().unwrap(),
            &route.matcher,
            path.as_bytes(),
            render,
            &mut out,
        );
        assert_eq!(
            String::from_utf8(out).unwrap(),
            expect,
            "{matcher} {rewrite} {path}"
        );
    }
}

#[test]
fn redirects_go_where_envoys_go() {
    for (redirect, scheme, authority, path, expect) in [
        (
            "{https_redirect: true}",
            "http",
            "h",
            "/a?b",
            "https://h/a?b",
        ),
        ("{https_redirect: true}", "http", "h:80", "/", "https://h/"),
        (
            "{https_redirect: true}",
            "http",
            "h:8080",
            "/",
            "https://h:8080/",
        ),
        (
            "{https_redirect: true}",
            "http",
            "[::1]:80",
            "/",
            "https://[::1]/",
        ),
        (
            "{https_redirect: true, port_redirect: 8443}",
            "http",
            "h:8080",
            "/",
            "https://h:8443/",
        ),
        (
            "{scheme_redirect: HTTP}",
            "https",
            "h:443",
            "/",
            "HTTP://h/",
        ),
        (
            "{host_redirect: other}",
            "http",
            "h:80",
            "/a",
            "http://other/a",
        ),
        ("{path_redirect: /x}", "http", "h", "/a?b", "http://h/x?b"),
        (
            "{path_redirect: /x, strip_query: true}",
            "http",
            "h",
            "/a?b",
            "http://h/x",
        ),
        (
            "{path_redirect: '/x?y', strip_query: true}",
            "http",
            "h",
            "/a?b",
            "http://h/x?y",
        ),
        (
            "{prefix_rewrite: /x}",
            "http",
            "h",
            "/a/c?b",
            "http://h/x/c?b",
        ),
        (
            "{regex_rewrite: {pattern: {regex: a}, substitution: z}, strip_query: true}",
            "http",
            "h",
            "/a?a",
            "http://h/z",
        ),
        ("{response_code: FOUND}", "http", "h", "/a", "http://h/a"),
    ] {
        let table = route_table(&format!(
            "virtual_hosts: [{{name: a, domains: ['*'], routes: [{{match: {{prefix: /a}}, redirect: {redirect}}}, {{match: {{prefix: /}}, redirect: {redirect}}}]}}]"
        ));
        let mut request = request("GET", authority, path, &[]);
        request.scheme = scheme;
        let RouteMatchResult::Found { route, .. } =
            table.route(&facts(&request, 0, &ConnectionState::default()))
        else {
            panic!()
        };
        let Action::Redirect(redirect_to) = &route.action else {
            panic!()
        };
        let mut out = Vec::new();
        write_location(redirect_to, &route.matcher, &request, render, &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            expect,
            "{redirect} {authority}{path}"
        );
    }
}
