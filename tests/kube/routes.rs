//! Routes of the Gateway API, and what their status says. The conformance suite looks at neither
//! the status nor at where a redirect leads nor at the path that a rewrite makes; this does.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use outrider_testkit::eventually;
use serde_json::{Value, json};

use crate::harness::{PATIENCE, Place, client, seen_header, server};

/// An HTTPRoute of the service `shop` with these rules.
pub fn route(name: &str, rules: Value) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": name},
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": "shop", "port": 80}],
            "rules": rules,
        },
    })
}

/// Waits until the first parent's condition of that type has this status and reason, for the
/// route's present generation.
fn wait_for_condition(place: &Place, name: &str, wanted: (&str, &str, &str)) -> Result<Value> {
    let (kind, status, reason) = wanted;
    eventually(PATIENCE, || {
        let route = place.get(&format!("httproute/{name}"))?;
        let parent = &route["status"]["parents"][0];
        ensure!(
            parent["controllerName"] == "outrider.dev/mesh",
            "{}",
            route["status"]
        );
        let conditions = parent["conditions"].as_array().context("no conditions")?;
        let found = conditions
            .iter()
            .find(|condition| condition["type"] == kind);
        let found = found.with_context(|| format!("no {kind}: {}", route["status"]))?;
        let is = found["status"] == status && found["reason"] == reason;
        let generation = &route["metadata"]["generation"];
        ensure!(is && found["observedGeneration"] == *generation, "{found}");
        Ok(found.clone())
    })
}

/// The shop with two versions behind it.
fn shop(label: &str) -> Option<Place> {
    let place = Place::meshed(label)?;
    place
        .run(&[
            server("shop"),
            server("one"),
            server("two"),
            client("client"),
        ])
        .unwrap();
    Some(place)
}

/// Nine in ten requests go to the one, one in ten to the other; the status says that the route is
/// in force.
#[test]
fn a_route_splits_nine_to_one_and_says_that_it_is_in_force() {
    let Some(place) = shop("split") else { return };
    let rules = json!([{"backendRefs": [
        {"name": "one", "port": 80, "weight": 90},
        {"name": "two", "port": 80, "weight": 10},
    ]}]);
    place.apply(&[route("split", rules)]).unwrap();
    for kind in ["Accepted", "ResolvedRefs"] {
        wait_for_condition(&place, "split", (kind, "True", kind)).unwrap();
    }
    let url = format!("http://{}/", place.host("shop"));
    eventually(PATIENCE, || {
        let seen = place.request("client", &url, &[])?.seen()?;
        let server = seen["server"].as_str().unwrap_or_default();
        ensure!(
            !server.starts_with("shop"),
            "the route is not in force: {server}"
        );
        Ok(())
    })
    .unwrap();
    let arguments = [
        "load",
        &url,
        "--seconds",
        "0",
        "--requests",
        "2000",
        "--connections",
        "4",
    ];
    let report = place.exec("deployment/client", &arguments).unwrap();
    let report: Value = serde_json::from_str(report.trim()).unwrap();
    let servers: BTreeMap<String, f64> = serde_json::from_value(report["servers"].clone()).unwrap();
    let share = |name: &str| {
        let of = servers
            .iter()
            .filter(|(server, _)| server.starts_with(name));
        of.map(|(_, count)| count).sum::<f64>() / report["requests"].as_f64().unwrap()
    };
    // Three times the deviation of so many throws.
    assert!((share("two-") - 0.1).abs() < 0.02, "{servers:?}");
    assert!((share("one-") - 0.9).abs() < 0.02, "{servers:?}");
}

/// Where redirects lead, by their Location alone.
#[test]
fn a_redirect_leads_where_the_specification_says() {
    let Some(place) = shop("redirects") else {
        return;
    };
    let host = place.host("shop");
    // The filter's fields, the request's path, the status, and the Location.
    let cases = [
        (
            json!({"hostname": "example.org"}),
            "/host/a?b=c",
            302,
            "http://example.org/host/a?b=c".to_owned(),
        ),
        (
            json!({"scheme": "https", "statusCode": 301}),
            "/scheme/a",
            301,
            format!("https://{host}/scheme/a"),
        ),
        (
            json!({"port": 8083}),
            "/port/a",
            302,
            format!("http://{host}:8083/port/a"),
        ),
        (
            json!({"path": {"type": "ReplaceFullPath", "replaceFullPath": "/full"}}),
            "/replace-full/a?q=1",
            302,
            format!("http://{host}/full?q=1"),
        ),
        (
            json!({"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/new"}}),
            "/replace-prefix/a/b",
            302,
            format!("http://{host}/new/a/b"),
        ),
    ];
    let rules: Vec<Value> = cases
        .iter()
        .map(|(filter, path, ..)| {
            let prefix = format!("/{}", path.split('/').nth(1).unwrap());
            json!({
                "matches": [{"path": {"type": "PathPrefix", "value": prefix}}],
                "filters": [{"type": "RequestRedirect", "requestRedirect": filter}],
            })
        })
        .collect();
    place.apply(&[route("redirects", json!(rules))]).unwrap();
    wait_for_condition(&place, "redirects", ("Accepted", "True", "Accepted")).unwrap();
    for (filter, path, status, location) in cases {
        eventually(PATIENCE, || {
            let answer = place.request("client", &format!("http://{host}{path}"), &[])?;
            ensure!(answer.status == status, "{filter}: {answer:?}");
            ensure!(
                answer.header("location") == Some(&location),
                "{filter}: {:?} instead of {location}",
                answer.header("location")
            );
            Ok(())
        })
        .unwrap();
    }
    // What no rule matches is not found, although the service has endpoints.
    let answer = place
        .request("client", &format!("http://{host}/else"), &[])
        .unwrap();
    assert_eq!(answer.status, 404, "{answer:?}");
}

/// The path and the host that the app sees after a rewrite, and the headers after their changes.
#[test]
fn a_rewrite_is_what_the_app_sees() {
    let Some(place) = shop("rewrites") else {
        return;
    };
    let host = place.host("shop");
    let rule = |prefix: &str, filters: Value| {
        json!({
            "matches": [{"path": {"type": "PathPrefix", "value": prefix}}],
            "filters": filters,
            "backendRefs": [{"name": "one", "port": 80}],
        })
    };
    let rewrite = |fields: Value| json!([{"type": "URLRewrite", "urlRewrite": fields}]);
    let prefix = |to: &str| {
        rewrite(json!({"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": to}}))
    };
    let headers = json!([{"type": "RequestHeaderModifier", "requestHeaderModifier": {
        "set": [{"name": "x-set", "value": "new"}],
        "add": [{"name": "x-add", "value": "more"}],
        "remove": ["x-remove"],
    }}]);
    let rules = json!([
        rule("/prefix", prefix("/new")),
        rule("/root", prefix("/")),
        rule(
            "/full",
            rewrite(json!({"path": {"type": "ReplaceFullPath", "replaceFullPath": "/one"}}))
        ),
        rule("/host", rewrite(json!({"hostname": "one.example"}))),
        rule("/headers", headers),
    ]);
    place.apply(&[route("rewrites", rules)]).unwrap();
    wait_for_condition(&place, "rewrites", ("Accepted", "True", "Accepted")).unwrap();
    let seen = |path: &str| {
        let sent = ["x-set: old", "x-add: first", "x-remove: gone"];
        eventually(PATIENCE, || {
            let answer = place.request("client", &format!("http://{host}{path}"), &sent)?;
            ensure!(answer.status == 200, "{answer:?}");
            answer.seen()
        })
        .unwrap()
    };
    for (asked, path) in [
        ("/prefix/a?q=1", "/new/a?q=1"),
        ("/prefix", "/new"),
        ("/root/a", "/a"),
        ("/root", "/"),
        ("/full/a?q=1", "/one?q=1"),
    ] {
        assert_eq!(seen(asked)["path"], path, "{asked}");
    }
    let rewritten = seen("/host/a");
    assert_eq!(
        seen_header(&rewritten, "host"),
        Some("one.example"),
        "{rewritten}"
    );
    let changed = seen("/headers");
    assert_eq!(seen_header(&changed, "x-set"), Some("new"), "{changed}");
    assert_eq!(seen_header(&changed, "x-remove"), None, "{changed}");
    let added = changed["headers"].to_string();
    assert!(added.contains("first") && added.contains("more"), "{added}");
}

/// What is wrong with a route is in its status, by the specification's words, with the rest of the
/// mesh unharmed; and what leads nowhere answers 500.
#[test]
fn a_route_that_leads_nowhere_says_so() {
    let Some(place) = shop("nowhere") else { return };
    let host = place.host("shop");
    let to = |backend: Value| {
        json!([
            {
                "matches": [{"path": {"type": "PathPrefix", "value": "/lost"}}],
                "backendRefs": [backend],
            },
            {"backendRefs": [{"name": "one", "port": 80}]},
        ])
    };
    let cases = [
        (json!({"name": "absent", "port": 80}), "BackendNotFound"),
        (
            json!({"group": "example.org", "kind": "Bucket", "name": "one"}),
            "InvalidKind",
        ),
        (
            json!({"name": "kubernetes", "namespace": "default", "port": 443}),
            "UnsupportedProtocol",
        ),
    ];
    for (backend, reason) in cases {
        place.apply(&[route("nowhere", to(backend))]).unwrap();
        let wanted = ("ResolvedRefs", "False", reason);
        let found = wait_for_condition(&place, "nowhere", wanted).unwrap();
        assert!(
            !found["message"].as_str().unwrap_or_default().is_empty(),
            "{found}"
        );
        eventually(PATIENCE, || {
            let answer = place.request("client", &format!("http://{host}/lost"), &[])?;
            ensure!(answer.status == 500, "{reason}: {answer:?}");
            Ok(())
        })
        .unwrap();
        place
            .request_until_ok("client", &format!("http://{host}/found"))
            .unwrap();
    }
    // A port that the parent does not have.
    let mut other = route(
        "elsewhere",
        json!([{"backendRefs": [{"name": "one", "port": 80}]}]),
    );
    other["spec"]["parentRefs"][0]["port"] = json!(81);
    place.apply(&[other]).unwrap();
    wait_for_condition(
        &place,
        "elsewhere",
        ("Accepted", "False", "NoMatchingParent"),
    )
    .unwrap();
}
