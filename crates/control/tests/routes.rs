//! What HTTPRoutes become.
#![allow(
    clippy::unwrap_used,
    reason = "the exemption for tests does not reach their helpers"
)]

mod common;

use common::{ROUTED, cart, decode, mesh, proxy};
use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use outrider_control::mesh::MeshState;
use outrider_control::translate::translate;

fn route(mesh: &MeshState, namespace: &str) -> Vec<(String, Action)> {
    let resources = translate(mesh, &proxy(namespace, "cart", &["10.0.0.9"]));
    let table: RouteConfiguration = decode(&resources.routes["web.shop.svc.cluster.local:80"]);
    let routes = table.virtual_hosts[0].routes.iter();
    let path = |path: Option<PathSpecifier>| match path.unwrap() {
        PathSpecifier::Path(path) => format!("={path}"),
        PathSpecifier::Prefix(path) => format!("{path}*"),
        PathSpecifier::PathSeparatedPrefix(path) => format!("{path}/*"),
        PathSpecifier::SafeRegex(path) => format!("~{}", path.regex),
        other => panic!("{other:?}"),
    };
    routes
        .map(|route| {
            let matches = route.r#match.clone().unwrap();
            let conditions = matches.headers.len() + matches.query_parameters.len();
            let text = format!("{}+{conditions}", path(matches.path_specifier));
            (text, route.action.clone().unwrap())
        })
        .collect()
}

#[test]
fn routes_are_tried_by_the_gateway_api_s_precedence() {
    let mesh = mesh(&format!("{ROUTED}
route r: {{parentRefs: [{{group: '', kind: Service, name: web}}], rules: [
  {{backendRefs: [{{name: v1, port: 80, weight: 90}}, {{name: v2, port: 80, weight: 10}}],
    timeouts: {{request: 10s, backendRequest: 1500ms}}}},
  {{matches: [{{path: {{value: /a}}}}, {{path: {{value: /a/b/}}, headers: [{{name: X-A, value: b}}]}},
    {{path: {{type: Exact, value: /a}}, method: GET, queryParams: [{{name: q, value: v}}]}},
    {{path: {{type: RegularExpression, value: '/r.*'}}}}, {{path: {{value: /a/b}}, method: PUT}}],
    backendRefs: [{{name: v2, port: 80}}]}},
  {{matches: [{{path: {{value: /gone}}}}], backendRefs: [{{name: v3, port: 80}}]}}]}}
"));
    let routes = route(&mesh, "shop");
    let order: Vec<&str> = routes.iter().map(|(text, _)| text.as_str()).collect();
    assert_eq!(
        order,
        [
            "=/a+2",
            "~/r.*+0",
            "/a/b/*+1",
            "/gone/*+0",
            "/a/b/*+1",
            "/a/*+0",
            "/*+0"
        ]
    );
    let Action::DirectResponse(gone) = &routes[3].1 else {
        panic!("{:?}", routes[3].1)
    };
    assert_eq!(gone.status, 500);
    let Action::Route(split) = &routes[6].1 else {
        panic!()
    };
    let timeout = split.timeout.unwrap();
    assert_eq!((timeout.seconds, timeout.nanos), (1, 500_000_000));
    let text = format!("{split:?}");
    assert!(
        text.contains("outbound|80||v1.shop.svc.cluster.local"),
        "{text}"
    );
    assert!(
        text.contains("value: 90") && text.contains("value: 10"),
        "{text}"
    );
    let warnings: Vec<String> = mesh.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0].contains("spec.rules[2].backendRefs[0]") && warnings[0].contains("shop/v3")
    );
}

#[test]
fn a_route_of_the_client_s_own_namespace_holds_for_it_alone() {
    let parent = "parentRefs: [{group: '', kind: Service, name: web, namespace: shop}]";
    let backend =
        |name: &str| format!("backendRefs: [{{name: {name}, namespace: shop, port: 80}}]");
    let mut text = format!(
        "{ROUTED}\nroute producer: {{{parent}, rules: [{{{}}}]}}",
        backend("v1")
    );
    text += &format!(
        "\nroute consumer other: {{{parent}, rules: [{{{}}}]}}\n",
        backend("v2")
    );
    let mesh = mesh(&text);
    for (namespace, cluster) in [("shop", "v1"), ("third", "v1"), ("other", "v2")] {
        let routes = format!("{:?}", route(&mesh, namespace));
        assert!(
            routes.contains(&format!("||{cluster}.shop")),
            "{namespace}: {routes}"
        );
    }
}

#[test]
fn rewrites_and_redirects() {
    let rules = |filter: &str, path: &str| {
        let backend = if filter.contains("Redirect") {
            ""
        } else {
            "backendRefs: [{name: v1, port: 80}],"
        };
        let mesh = mesh(&format!(
            "{ROUTED}
route r: {{parentRefs: [{{group: '', kind: Service, name: web}}], rules: [
  {{matches: [{{path: {path}}}], {backend} filters: [{filter}]}}]}}
"
        ));
        route(&mesh, "shop")
    };
    let replace = |to: &str| {
        format!(
            "{{type: URLRewrite, urlRewrite: {{hostname: h.example, \
             path: {{type: ReplacePrefixMatch, replacePrefixMatch: {to}}}}}}}"
        )
    };
    let rewrites = |to: &str, path: &str| -> Vec<(String, String)> {
        let routes = rules(&replace(to), path);
        let rewrite = |action: Action| match action {
            Action::Route(action) => action.prefix_rewrite,
            other => panic!("{other:?}"),
        };
        routes
            .into_iter()
            .map(|(path, action)| (path, rewrite(action)))
            .collect()
    };
    let pair = |path: &str, to: &str| (format!("{path}+0"), to.to_owned());
    assert_eq!(rewrites("/b", "{value: /a}"), [pair("/a/*", "/b")]);
    assert_eq!(rewrites("/b/", "{value: /}"), [pair("/*", "/b/")]);
    assert_eq!(
        rewrites("/", "{value: /a}"),
        [pair("=/a", "/"), pair("/a/*", "/")]
    );

    let full =
        "{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: /x}}}";
    let Action::Route(action) = &rules(full, "{value: /a}")[0].1 else {
        panic!()
    };
    assert_eq!(action.regex_rewrite.as_ref().unwrap().substitution, "/x");

    let redirect = "{type: RequestRedirect, requestRedirect: {scheme: https, hostname: h.example,
        port: 8443, statusCode: 308, path: {type: ReplaceFullPath, replaceFullPath: /x}}}";
    let Action::Redirect(action) = &rules(redirect, "{value: /a}")[0].1 else {
        panic!()
    };
    assert_eq!(
        (action.host_redirect.as_str(), action.port_redirect),
        ("h.example", 8443)
    );
    assert_eq!(action.response_code, 4);

    let headers =
        "{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: a, value: '1%'}],
        add: [{name: b, value: x}], remove: [c]}}";
    let mesh = mesh(&format!(
        "{ROUTED}
route r: {{parentRefs: [{{group: '', kind: Service, name: web}}], rules: [
  {{backendRefs: [{{name: v1, port: 80}}], filters: [{headers}]}}]}}
"
    ));
    let resources = translate(&mesh, &cart(&["10.0.0.9"]));
    let table: RouteConfiguration = decode(&resources.routes["web.shop.svc.cluster.local:80"]);
    let route = &table.virtual_hosts[0].routes[0];
    let added: Vec<_> = route
        .request_headers_to_add
        .iter()
        .map(|option| {
            (
                option.header.as_ref().unwrap().value.as_str(),
                option.append_action,
            )
        })
        .collect();
    assert_eq!(added, [("1%%", 2), ("x", 0)]);
    assert_eq!(route.request_headers_to_remove, ["c"]);
}
