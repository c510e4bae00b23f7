//! What is said of routes: the Gateway API's conditions.
#![allow(
    clippy::unwrap_used,
    reason = "the exemption for tests does not reach their helpers"
)]

mod common;

use common::lenient_mesh;
use outrider_control::mesh::{Finding, Findings, MeshState, ParentFindings};

const SERVICES: &str = "
service web: {clusterIP: 10.96.0.1, ports: [{name: http, port: 80}, {name: grpc, port: 90}]}
service odd: {clusterIP: 10.96.0.2, ports: [{name: one, port: 80}, {name: tcp, port: 81}]}
service v1: {clusterIP: 10.96.0.3, ports: [{name: http, port: 80}, {name: tcp, port: 81}]}
service head: {clusterIP: None, ports: [{name: http, port: 80}]}
service far other: {clusterIP: 10.96.0.4, ports: [{name: http, port: 80}]}
";

fn findings(mesh: &MeshState, kind: &str, name: &str) -> Vec<ParentFindings> {
    let found = mesh.verdicts().iter();
    let mut found = found.filter(|(object, _)| object.kind == kind && object.name.name == name);
    let (_, verdict) = found
        .next()
        .unwrap_or_else(|| panic!("no verdict on {kind} {name}"));
    match &verdict.findings {
        Findings::Route(parents) => parents.clone(),
        Findings::Object(_) => panic!("a route has parents"),
    }
}

fn short(finding: &Finding) -> String {
    let sign = if finding.holds { '+' } else { '-' };
    format!("{sign}{}", finding.reason)
}

const WEB: &str = "{group: '', kind: Service, name: web}";

#[test]
fn conditions_of_http_routes() {
    let to = |backend: &str| format!("rules: [{{backendRefs: [{backend}]}}]");
    let v1 = to("{name: v1, port: 80}");
    let filtered = |filter: &str| {
        format!("rules: [{{filters: [{filter}], backendRefs: [{{name: v1, port: 80}}]}}]")
    };
    let web = |rest: &str| format!("parentRefs: [{WEB}], {rest}");
    let parent =
        |fields: &str| format!("parentRefs: [{{group: '', kind: Service, {fields}}}], {v1}");
    // The spec, Accepted, ResolvedRefs, and what a message says.
    let cases: &[(String, &str, &str, &str)] = &[
        (web(&v1), "+Accepted", "+ResolvedRefs", "in force"),
        (
            web(&format!("hostnames: [a.example], {v1}")),
            "+Accepted",
            "+ResolvedRefs",
            "spec.hostnames",
        ),
        (
            parent("name: web, port: 80"),
            "+Accepted",
            "+ResolvedRefs",
            "",
        ),
        (
            parent("name: web, sectionName: http"),
            "+Accepted",
            "+ResolvedRefs",
            "",
        ),
        (
            parent("name: far, namespace: other"),
            "+Accepted",
            "+ResolvedRefs",
            "",
        ),
        (
            parent("name: web, port: 81"),
            "-NoMatchingParent",
            "+ResolvedRefs",
            "spec.parentRefs[0]",
        ),
        (
            parent("name: web, sectionName: x"),
            "-NoMatchingParent",
            "+ResolvedRefs",
            "\"x\"",
        ),
        (
            parent("name: web, sectionName: http, port: 90"),
            "-NoMatchingParent",
            "+ResolvedRefs",
            "",
        ),
        (
            parent("name: gone"),
            "-NoMatchingParent",
            "+ResolvedRefs",
            "shop/gone",
        ),
        (
            parent("name: head"),
            "-NoMatchingParent",
            "+ResolvedRefs",
            "headless",
        ),
        (
            parent("name: odd, port: 81"),
            "-NoMatchingParent",
            "+ResolvedRefs",
            "appProtocol",
        ),
        (
            parent("name: odd, port: 80"),
            "+Accepted",
            "+ResolvedRefs",
            "",
        ),
        (
            web(&to("{name: v9, port: 80}")),
            "+Accepted",
            "-BackendNotFound",
            "spec.rules[0].backendRefs[0]: there is no Service shop/v9",
        ),
        (
            web(&to("{name: v9, port: 80, weight: 0}")),
            "+Accepted",
            "-BackendNotFound",
            "",
        ),
        (
            web(&to("{name: v1, port: 82}")),
            "+Accepted",
            "-BackendNotFound",
            "port 82",
        ),
        (
            web(&to("{name: v1, port: 81}")),
            "+Accepted",
            "-UnsupportedProtocol",
            "port 81",
        ),
        (
            web(&to("{kind: Bucket, group: x.example, name: v1}")),
            "+Accepted",
            "-InvalidKind",
            "Bucket of group \"x.example\"",
        ),
        // Without a ReferenceGrant (GEP-1294).
        (
            web(&to("{name: far, namespace: other, port: 80}")),
            "+Accepted",
            "+ResolvedRefs",
            "",
        ),
        (
            web(&filtered(
                "{type: RequestMirror, requestMirror: {backendRef: {name: v9, port: 80}}}",
            )),
            "+Accepted",
            "-BackendNotFound",
            "spec.rules[0].filters[0].requestMirror.backendRef",
        ),
        (
            web(&filtered(
                "{type: ExtensionRef, extensionRef: {group: g, kind: k, name: n}}",
            )),
            "-UnsupportedValue",
            "+ResolvedRefs",
            "spec.rules[0].filters[0].type",
        ),
        (
            web(&filtered("{type: CORS, cors: {}}")),
            "-UnsupportedValue",
            "+ResolvedRefs",
            "filters[0].type",
        ),
        (
            web(&filtered("{type: Sparkle}")),
            "-UnsupportedValue",
            "+ResolvedRefs",
            "filters[0].type",
        ),
        (
            web("rules: [{matches: [{path: {type: Fuzzy, value: /a}}]}]"),
            "-UnsupportedValue",
            "+ResolvedRefs",
            "matches[0].path.type",
        ),
        (
            web("rules: [{matches: [{path: {type: RegularExpression, value: '('}}]}]"),
            "-UnsupportedValue",
            "+ResolvedRefs",
            "matches[0].path.value",
        ),
        (
            web("rules: [{matches: [{method: BREW}]}]"),
            "-UnsupportedValue",
            "+ResolvedRefs",
            "matches[0].method",
        ),
        (
            web("rules: [{retry: {attempts: 2}}]"),
            "-UnsupportedValue",
            "+ResolvedRefs",
            "spec.rules[0].retry",
        ),
        (
            web(
                "rules: [{filters: [{type: RequestRedirect, requestRedirect: {}}, {type: URLRewrite, urlRewrite: {}}]}]",
            ),
            "-IncompatibleFilters",
            "+ResolvedRefs",
            "spec.rules[0].filters",
        ),
    ];
    for (spec, accepted, resolved, part) in cases {
        let mesh = lenient_mesh(&format!("{SERVICES}route r: {{{spec}}}\n"));
        let found = findings(&mesh, "HTTPRoute", "r");
        assert_eq!(found.len(), 1, "{spec}");
        let conditions = (short(&found[0].accepted), short(&found[0].resolved_refs));
        assert_eq!(
            conditions,
            ((*accepted).to_owned(), (*resolved).to_owned()),
            "{spec}"
        );
        let messages = format!(
            "{} {}",
            found[0].accepted.message, found[0].resolved_refs.message
        );
        assert!(
            messages.contains(part),
            "{messages:?} should contain {part:?}"
        );
        assert_eq!(found[0].partially_invalid, None, "{spec}");
    }
}

#[test]
fn only_services_are_our_parents() {
    let mesh = lenient_mesh(&format!(
        "{SERVICES}route r: {{parentRefs: [{{name: gate}}, {WEB}, {{kind: Service, name: web}}]}}\n"
    ));
    let found = findings(&mesh, "HTTPRoute", "r");
    assert_eq!(found.len(), 1);
    assert!(found[0].parent.is_service());
}

#[test]
fn a_wrong_rule_does_not_take_the_others_with_it() {
    let mesh = lenient_mesh(&format!(
        "{SERVICES}route r: {{parentRefs: [{WEB}], rules: [{{backendRefs: [{{name: v1, port: 80}}]}},
  {{retry: {{}}}}, {{filters: [{{type: ExtensionRef}}]}}]}}\n"
    ));
    let found = findings(&mesh, "HTTPRoute", "r");
    assert_eq!(short(&found[0].accepted), "+Accepted");
    let partially = found[0].partially_invalid.clone().unwrap();
    assert_eq!(short(&partially), "+UnsupportedValue");
    assert!(
        partially.message.starts_with("Dropped Rule"),
        "{}",
        partially.message
    );
    for part in ["spec.rules[1].retry", "spec.rules[2].filters[0].type"] {
        assert!(partially.message.contains(part), "{}", partially.message);
    }
}

#[test]
fn of_several_kinds_on_one_port_the_most_specific_wins() {
    let backend = "rules: [{backendRefs: [{name: v1, port: 80}]}]";
    let at = |port: &str| {
        format!("parentRefs: [{{group: '', kind: Service, name: web{port}}}], {backend}")
    };
    let mesh = lenient_mesh(&format!(
        "{SERVICES}
grpc-route g: {{{}}}
route everywhere: {{{}}}
route beaten: {{{}}}
route consumer other: {{parentRefs: [{{group: '', kind: Service, name: web, namespace: shop, port: 90}}]}}
tcp-route first: {{parentRefs: [{{group: '', kind: Service, name: odd}}], {backend}}}
tcp-route second: {{parentRefs: [{{group: '', kind: Service, name: odd}}], {backend}}}
",
        at(", port: 90"),
        at(""),
        at(", port: 90")
    ));
    for (kind, name, expected) in [
        ("GRPCRoute", "g", "+Accepted"),
        ("HTTPRoute", "everywhere", "+Accepted"),
        ("HTTPRoute", "beaten", "-Conflicted"),
        // Routes of clients are a group of their own.
        ("HTTPRoute", "consumer", "+Accepted"),
        ("TCPRoute", "first", "+Accepted"),
        ("TCPRoute", "second", "-Conflicted"),
    ] {
        let found = findings(&mesh, kind, name);
        assert_eq!(
            short(&found[0].accepted),
            expected,
            "{kind} {name}: {found:?}"
        );
    }
    let beaten = &findings(&mesh, "HTTPRoute", "beaten")[0].accepted.message;
    assert!(beaten.contains("GRPCRoute shop/g"), "{beaten}");
}
