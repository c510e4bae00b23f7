use super::super::context::Detached;
use super::super::testing::{assert_error, message, route_table};
use super::build;
use crate::config::route::{Action, AppendAction, ClusterChoice, Forward, GrpcTimeout};
use std::time::Duration;

/// A table of one virtual host with one route of this `match` and action.
fn one_route(route: &str) -> String {
    format!("virtual_hosts: [{{name: a, domains: ['*'], routes: [{route}]}}]")
}

fn forward(action: &str) -> Forward {
    let proto = message(&one_route(&format!(
        "{{match: {{prefix: /}}, route: {action}}}"
    )));
    let mut table = build(&proto, 0, &Detached, false).unwrap();
    let host = std::sync::Arc::into_inner(table.virtual_hosts.remove(0)).unwrap();
    let route = host.routes.into_iter().next().unwrap();
    match std::sync::Arc::into_inner(route).unwrap().action {
        Action::Forward(forward) => *forward,
        _ => panic!(),
    }
}

#[test]
fn defaults_are_envoys() {
    let action = forward("{cluster: c}");
    assert_eq!(action.timeout, Some(Duration::from_secs(15)));
    assert_eq!(action.not_found_status, 503);
    assert_eq!(action.idle_timeout, None);
    assert_eq!(action.grpc_timeout, None);
    let action = forward(
        "{cluster: c, timeout: 0s, idle_timeout: 0s, max_stream_duration: {max_stream_duration: 0s, \
         grpc_timeout_header_max: 0s}, cluster_not_found_response_code: NOT_FOUND}",
    );
    assert_eq!(action.timeout, None);
    assert_eq!(action.idle_timeout, Some(None));
    assert_eq!(action.max_stream_duration, None);
    let grpc = GrpcTimeout {
        max: None,
        offset: Duration::ZERO,
    };
    assert_eq!(action.grpc_timeout, Some(grpc));
    assert_eq!(action.not_found_status, 404);
    let action =
        forward("{weighted_clusters: {clusters: [{name: a, weight: 9}, {name: b, weight: 1}]}}");
    let ClusterChoice::Weighted(weighted) = action.cluster else {
        panic!()
    };
    let weights = weighted.parts.iter().map(|part| part.weight.get());
    assert_eq!(weights.collect::<Vec<_>>(), [9, 1]);
}

#[test]
fn header_additions_take_both_forms_of_append() {
    let table = route_table(
        "request_headers_to_add: [{header: {key: X-A, value: '%PROTOCOL%'}, append: false}, \
         {header: {key: x-b, value: b}, append_action: ADD_IF_ABSENT}, \
         {header: {key: x-c, value: c}, append_action: OVERWRITE_IF_EXISTS}, \
         {header: {key: x-d, value: 100%%}}]",
    );
    let changes = table.headers.request().unwrap();
    let add: Vec<_> = changes
        .add
        .iter()
        .map(|add| (std::str::from_utf8(&add.name).unwrap(), add.action))
        .collect();
    assert_eq!(
        add,
        [
            ("x-a", AppendAction::Overwrite),
            ("x-b", AppendAction::AddIfAbsent),
            ("x-c", AppendAction::OverwriteIfExists),
            ("x-d", AppendAction::Append),
        ]
    );
    assert_eq!(changes.add[3].value.as_literal(), Some(&b"100%"[..]));
}

#[test]
fn errors_name_the_field() {
    let hosts = |hosts: &str| format!("virtual_hosts: [{hosts}]");
    let action = |action: &str| one_route(&format!("{{match: {{prefix: /}}, {action}}}"));
    let matcher =
        |matcher: &str| one_route(&format!("{{match: {matcher}, route: {{cluster: c}}}}"));
    for (yaml, expect) in [
        (
            hosts("{name: a, domains: [x, 'X']}"),
            "virtual_hosts[0].domains[1]: `X` is a domain of virtual_hosts[0] (`a`) too",
        ),
        (
            hosts("{name: a, domains: ['*']}, {name: b, domains: [y, '*']}"),
            "virtual_hosts[1].domains[1]: `*` is a domain of virtual_hosts[0] (`a`) too",
        ),
        (
            hosts("{name: a, domains: ['*.x']}, {name: b, domains: ['*.x']}"),
            "virtual_hosts[1].domains[0]: `*.x`",
        ),
        (
            hosts("{name: a, domains: ['a*b']}"),
            "virtual_hosts[0].domains[0]: a * can only be the first or the last",
        ),
        (hosts("{name: a}"), "virtual_hosts[0].domains: must name"),
        (
            hosts("{name: a, domains: [a]}, {name: a, domains: [b]}"),
            "virtual_hosts[1].name: virtual_hosts[0] has the name `a` too",
        ),
        (
            matcher("{safe_regex: {regex: '('}}"),
            "virtual_hosts[0].routes[0].match.safe_regex.regex: not a regular expression",
        ),
        (
            matcher("{prefix: '/a?b'}"),
            "virtual_hosts[0].routes[0].match.prefix: must not hold ? or #",
        ),
        (
            matcher("{path_separated_prefix: /a/}"),
            "virtual_hosts[0].routes[0].match.path_separated_prefix: must begin",
        ),
        (
            matcher("{prefix: /, headers: [{name: 'a b'}]}"),
            "virtual_hosts[0].routes[0].match.headers[0].name: `a b` is not the name of a header",
        ),
        (
            matcher("{prefix: /, headers: [{name: a, range_match: {start: 2, end: 2}}]}"),
            "virtual_hosts[0].routes[0].match.headers[0].range_match: is empty",
        ),
        (
            one_route("{match: {}, route: {cluster: c}}"),
            "virtual_hosts[0].routes[0].match: set one of prefix, path, ",
        ),
        (
            action("route: {cluster: ''}"),
            "virtual_hosts[0].routes[0].route.cluster: must not be empty",
        ),
        (
            action("route: {weighted_clusters: {clusters: [{name: a, weight: 0}]}}"),
            "virtual_hosts[0].routes[0].route.weighted_clusters.clusters: the weights add up to nothing",
        ),
        (
            action("route: {cluster: c, timeout: -1s}"),
            "virtual_hosts[0].routes[0].route.timeout: `-1` must not be negative",
        ),
        (
            action("route: {cluster: c, prefix_rewrite: /a, regex_rewrite: {pattern: {regex: a}}}"),
            "virtual_hosts[0].routes[0].route.regex_rewrite: prefix_rewrite is set too",
        ),
        (
            action("direct_response: {status: 99}"),
            "virtual_hosts[0].routes[0].direct_response.status: 99 is not between",
        ),
        (
            action(&format!(
                "direct_response: {{status: 200, body: {{inline_string: {}}}}}",
                "x".repeat(4097)
            )),
            "virtual_hosts[0].routes[0].direct_response.body: has 4097 bytes",
        ),
        (
            action("redirect: {path_redirect: x}"),
            "virtual_hosts[0].routes[0].redirect.path_redirect: must begin with a slash",
        ),
        (
            "request_headers_to_add: [{header: {key: ':path', value: x}}]".into(),
            "request_headers_to_add[0].header.key: pseudo-headers cannot be changed",
        ),
        (
            "response_headers_to_remove: [Transfer-Encoding]".into(),
            "response_headers_to_remove[0]: this header cannot be changed",
        ),
        (
            "response_headers_to_add: [{header: {key: a, value: '%NOPE%'}}]".into(),
            "response_headers_to_add[0].header.value: unknown operator %NOPE%",
        ),
        (
            "request_headers_to_add: [{header: {key: a, value: \"a\\r\\nb: c\"}}]".into(),
            "request_headers_to_add[0].header.value: must not hold control characters",
        ),
    ] {
        assert_error(build(&message(&yaml), 0, &Detached, false), expect);
    }
}

#[test]
fn mirrors_of_the_narrowest_level_hold() {
    let table = route_table(
        "request_mirror_policies: [{cluster: table}]\nvirtual_hosts: [\
         {name: a, domains: [a], routes: [{match: {prefix: /}, route: {cluster: c}}]}, \
         {name: b, domains: [b], request_mirror_policies: [{cluster: host}], routes: [\
          {match: {prefix: /}, route: {cluster: c}}, \
          {match: {prefix: /}, route: {cluster: c, request_mirror_policies: [{cluster: one, \
           runtime_fraction: {default_value: {numerator: 5, denominator: TEN_THOUSAND}}}, \
           {cluster_header: X-To, host_rewrite_literal: h.example}]}}]}]",
    );
    let routes = table.virtual_hosts.iter().flat_map(|host| &host.routes);
    let mirrors: Vec<String> = routes
        .map(|route| match &route.action {
            Action::Forward(forward) => format!("{:?}", forward.mirrors),
            _ => panic!(),
        })
        .collect();
    for (text, part) in mirrors.iter().zip([
        &["Named(\"table\")", "fraction: None", "marks_host: true"][..],
        &["Named(\"host\")"],
        &[
            "Named(\"one\")",
            "Some(5/10000)",
            "Header(",
            "marks_host: false",
        ],
    ]) {
        assert!(part.iter().all(|part| text.contains(part)), "{text}");
    }
    let policy = |policy: &str| {
        one_route(&format!(
            "{{match: {{prefix: /}}, route: {{cluster: c, request_mirror_policies: [{policy}]}}}}"
        ))
    };
    for (text, field) in [
        ("{}", "cluster"),
        ("{cluster: a, cluster_header: b}", "cluster_header"),
        (
            "{cluster: a, runtime_fraction: {}}",
            "runtime_fraction.default_value",
        ),
    ] {
        let path = format!("virtual_hosts[0].routes[0].route.request_mirror_policies[0].{field}");
        assert_error(build(&message(&policy(text)), 0, &Detached, false), &path);
    }
}
