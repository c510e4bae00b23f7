//! The tables of pages that were recorded from a sidecar of ours under our control plane.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::{
    certs, clusters, config, dump, endpoints, listeners, own_certificate, place, routes, stats,
};
use crate::output::{Table, parse_rfc3339};

fn recorded(name: &str) -> Value {
    let path = format!("{}/tests/recorded/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Half an hour after the recording.
fn now() -> SystemTime {
    parse_rfc3339("2026-11-24T09:15:27Z").unwrap()
}

#[test]
fn tables_are_golden() {
    type View = fn(&Value, SystemTime) -> Table;
    let views: [(&str, &str, View); 7] = [
        ("config", "config_dump", config::table),
        ("clusters", "config_dump", clusters::table),
        ("routes", "config_dump", routes::table),
        ("listeners", "config_dump", listeners::table),
        ("endpoints", "clusters", endpoints::table),
        ("certs", "certs", certs::table),
        ("stats", "stats", stats::table),
    ];
    let mut changed = Vec::new();
    for (name, page, view) in views {
        let mut table = view(&recorded(page), now());
        if name == "stats" {
            table.retain("http.");
        }
        let table = table.render("Nothing.");
        let path = format!("{}/tests/golden/{name}.txt", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &table).unwrap();
        }
        if std::fs::read_to_string(&path).unwrap_or_default() != table {
            changed.push(format!("{path}\n{table}"));
        }
    }
    assert!(
        changed.is_empty(),
        "changed (UPDATE_GOLDEN=1 takes them):\n{}",
        changed.join("\n")
    );
}

#[test]
fn what_was_refused_comes_first_with_its_reason() {
    // The first as we write it, the second as Envoy does.
    let dump = json!({"configs": [
        {"@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump",
         "dynamic_active_clusters": [{"version_info": "1", "cluster": {"name": "good"}}],
         "dynamic_warming_clusters": [{"name": "bad", "version_info": "2",
            "error_state": {"details": "no such field", "last_update_attempt": ""}}]},
        {"@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump",
         "dynamic_listeners": [{"name": "both",
            "active_state": {"version_info": "1", "listener": {"name": "both"}},
            "error_state": {"version_info": "3", "details": "port taken"}}]},
    ]});
    let table = config::table(&dump, now()).render("");
    let lines: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        lines[1],
        ["cluster", "bad", "REFUSED", "2", "-", "no", "such", "field"]
    );
    assert_eq!(
        lines[2],
        ["listener", "both", "REFUSED", "3", "-", "port", "taken"]
    );
    assert_eq!(lines[3][..3], ["cluster", "good", "active"]);
    assert_eq!(lines[4][..3], ["listener", "both", "active"]);
    for view in [clusters::table, listeners::table] {
        assert!(view(&dump, now()).render("").contains("REFUSED: "));
    }
}

#[test]
fn envoy_leaves_zeros_out_and_tells_health_by_flags() {
    let page = json!({"cluster_statuses": [{"name": "c", "host_statuses": [{
        "address": {"socket_address": {"address": "::1", "port_value": 80}},
        "stats": [{"name": "cx_active"}, {"name": "rq_total", "value": "7"}],
        "health_status": {"eds_health_status": "HEALTHY", "failed_outlier_check": true},
        "weight": 3, "locality": {"region": "r", "zone": "z"}}]}]});
    let table = endpoints::table(&page, now()).render("");
    let row = table.lines().nth(1).unwrap();
    let expected = "c        [::1]:80  UNHEALTHY (ejected as outlier)  3       0         r/z       0            7         0";
    assert_eq!(row, expected);
}

#[test]
fn the_own_certificate_is_told_from_the_authorities() {
    let certificate = own_certificate(&recorded("certs")).unwrap();
    assert_eq!(
        certificate.identity,
        "spiffe://cluster.local/ns/web/sa/frontend"
    );
    assert_eq!(certificate.expires, "2026-11-25T08:45:27Z");
    assert_eq!(own_certificate(&json!({"certificates": []})), None);
    let expired = now() + Duration::from_secs(48 * 3600);
    let table = certs::table(&recorded("certs"), expired).render("");
    assert!(table.contains("expired 1d0h ago"), "{table}");
}

#[test]
fn programs_get_only_the_sections_that_they_asked_for() {
    let part = dump::only(recorded("config_dump"), &["Clusters"]);
    let sections = part["configs"].as_array().unwrap();
    assert_eq!(sections.len(), 1);
    assert!(sections[0]["dynamic_active_clusters"].is_array());
}

#[test]
fn a_pod_is_named_with_or_without_its_namespace() {
    let pair = |(namespace, pod): (String, String)| format!("{namespace} {pod}");
    assert_eq!(pair(place("web-0.shop", None, "default")), "shop web-0");
    assert_eq!(pair(place("web-0", None, "default")), "default web-0");
    assert_eq!(pair(place("web-0", Some("shop"), "default")), "shop web-0");
    assert_eq!(pair(place("a.b", Some("shop"), "default")), "shop a.b");
}
