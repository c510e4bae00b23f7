//! The admin API beside Envoy's.

use std::collections::BTreeSet;
use std::time::Duration;

use outrider_testkit::servers;

use crate::harness::tls::Certificates;
use crate::harness::{Bootstrap, Pair, Proxy, bind};

#[test]
fn pages_are_envoys() {
    let app = servers::http1::echo(bind(), "app").unwrap();
    let mut pair = Pair::start(&Bootstrap::forward(app.address(), ""));
    pair.check("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    pair.same("/ready", |proxy| proxy.admin("GET", "/ready"));
    pair.same("/server_info", |proxy| {
        let info = proxy.admin_json("/server_info");
        let options = &info["command_line_options"];
        (
            info["state"].clone(),
            info["node"]["id"].clone(),
            options["concurrency"].clone(),
        )
    });
    pair.same("/clusters", |proxy| {
        let (_, page) = proxy.admin("GET", "/clusters");
        let wanted = [
            "rq_total",
            "rq_success",
            "cx_total",
            "health_flags",
            "weight",
            "hostname",
        ];
        let known = |line: &&str| {
            wanted
                .iter()
                .any(|name| line.contains(&format!("::{name}::")))
        };
        page.lines()
            .filter(known)
            .map(str::to_owned)
            .collect::<BTreeSet<_>>()
    });
    pair.same("/clusters?format=json", |proxy| {
        let page = proxy.admin_json("/clusters?format=json");
        let cluster = &page["cluster_statuses"][0];
        let host = &cluster["host_statuses"][0];
        (
            cluster["name"].clone(),
            host["address"].clone(),
            host["health_status"].clone(),
            host["weight"].clone(),
        )
    });
    pair.same("/listeners", |proxy| {
        let (_, page) = proxy.admin("GET", "/listeners");
        page.replace(&proxy.listener().to_string(), "ADDRESS")
    });
    pair.same("methods", |proxy| {
        let pages = [
            "/healthcheck/fail",
            "/healthcheck/ok",
            "/drain_listeners",
            "/quitquitquit",
        ];
        pages.map(|page| proxy.admin("GET", page).0)
    });
    pair.same("unknown", |proxy| proxy.admin("GET", "/nonesuch").0);
    pair.same("failing", |proxy| {
        let failed = proxy.admin("POST", "/healthcheck/fail");
        let ready = proxy.admin("GET", "/ready");
        let state = proxy.admin_json("/server_info")["state"].clone();
        let passed = proxy.admin("POST", "/healthcheck/ok");
        (failed, ready, state, passed, proxy.admin("GET", "/ready"))
    });
    pair.same("/config_dump", |proxy| {
        let dump = proxy.admin_json("/config_dump");
        let kinds = dump["configs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|config| config["@type"].clone());
        let kinds: Vec<_> = kinds
            .map(|kind| kind.as_str().unwrap().to_owned())
            .collect();
        let wanted = [
            "BootstrapConfigDump",
            "ClustersConfigDump",
            "ListenersConfigDump",
        ];
        wanted.map(|name| kinds.iter().any(|kind| kind.ends_with(name)))
    });
    pair.same("/stats", |proxy| {
        let (_, page) = proxy.admin("GET", "/stats?usedonly&filter=^http.in.downstream_(rq|cx)_");
        // Envoy shows a gauge that was used and is 0 again; and it tells bytes on the wire.
        let counters = page.lines().filter(|line| {
            !line.ends_with(": 0") && !line.contains("P0(") && !line.contains("bytes")
        });
        counters.map(str::to_owned).collect::<Vec<_>>()
    });
}

/// `name{label="value",...} number`, each preceded by the type of its family.
fn parse_prometheus(page: &str) -> BTreeSet<String> {
    let mut families = BTreeSet::new();
    let mut series = BTreeSet::new();
    for line in page.lines().filter(|line| !line.is_empty()) {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(families.insert(name.to_owned()), "{name} comes twice");
            continue;
        }
        if line.starts_with('#') {
            continue;
        }
        let (key, value) = line.rsplit_once(' ').unwrap();
        value.parse::<f64>().unwrap_or_else(|_| panic!("{line}"));
        let name = key.split('{').next().unwrap();
        let family = ["_bucket", "_sum", "_count", ""].iter().find_map(|suffix| {
            name.strip_suffix(suffix)
                .filter(|name| families.contains(*name))
        });
        assert!(family.is_some(), "{line} has no type");
        if let Some(labels) = key.strip_prefix(name).filter(|labels| !labels.is_empty()) {
            assert!(labels.starts_with('{') && labels.ends_with('}'), "{line}");
            let balanced = labels.matches('"').count() % 2 == 0;
            assert!(
                balanced && (labels == "{}" || labels.contains('=')),
                "{line}"
            );
        }
        assert!(series.insert(key.to_owned()), "{key} comes twice");
    }
    series
}

#[test]
fn prometheus_sees_envoys_names_and_labels() {
    let app = servers::http1::echo(bind(), "app").unwrap();
    let mut pair = Pair::start(&Bootstrap::forward(app.address(), ""));
    pair.check("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let (_, page) = pair.ours.admin("GET", "/stats/prometheus");
    let ours = parse_prometheus(&page);
    let (_, page) = pair.envoy.admin("GET", "/stats/prometheus");
    let envoy = parse_prometheus(&page);
    for name in [
        "envoy_http_downstream_rq_total{envoy_http_conn_manager_prefix=\"in\"}",
        "envoy_http_downstream_rq_xx{envoy_response_code_class=\"2\",envoy_http_conn_manager_prefix=\"in\"}",
        "envoy_cluster_upstream_rq_total{envoy_cluster_name=\"up\"}",
        "envoy_cluster_upstream_rq_xx{envoy_response_code_class=\"2\",envoy_cluster_name=\"up\"}",
        "envoy_cluster_upstream_rq{envoy_response_code=\"200\",envoy_cluster_name=\"up\"}",
        "envoy_cluster_upstream_cx_active{envoy_cluster_name=\"up\"}",
        "envoy_http_downstream_rq_time_count{envoy_http_conn_manager_prefix=\"in\"}",
        "envoy_http_downstream_rq_time_bucket{envoy_http_conn_manager_prefix=\"in\",le=\"+Inf\"}",
    ] {
        assert!(envoy.contains(name), "Envoy has no {name}: {envoy:#?}");
        assert!(ours.contains(name), "ours has no {name}: {ours:#?}");
    }
}

#[test]
fn private_keys_are_shown_nowhere() {
    let certificates = Certificates::new();
    let app = servers::http1::echo(bind(), "app").unwrap();
    let tls = certificates.socket("DownstreamTlsContext", Some(&certificates.server), "");
    let up = certificates.socket("UpstreamTlsContext", Some(&certificates.client), "");
    let bootstrap = Bootstrap::forward(app.address(), "")
        .amend_chain(&tls)
        .amend_cluster(&up);
    let proxy = Proxy::ours(&bootstrap);
    let secrets: Vec<String> = [&certificates.server, &certificates.client]
        .iter()
        .map(|leaf| leaf.key.lines().nth(1).unwrap().to_owned())
        .collect();
    for page in [
        "/config_dump",
        "/certs",
        "/server_info",
        "/clusters?format=json",
        "/stats",
    ] {
        let (status, text) = proxy.admin("GET", page);
        assert_eq!(status, 200, "{page}");
        assert!(!text.contains("PRIVATE KEY"), "{page}");
        assert!(
            secrets.iter().all(|secret| !text.contains(secret)),
            "{page}"
        );
    }
    let dump = proxy.admin_json("/config_dump").to_string();
    assert!(
        dump.contains("BEGIN CERTIFICATE"),
        "certificates are no secret"
    );
    let certs = proxy.admin_json("/certs");
    assert!(
        certs
            .to_string()
            .contains("spiffe://cluster.local/ns/test/sa/server"),
        "{certs}"
    );
    let output = proxy.process.output();
    assert!(secrets.iter().all(|secret| !output.contains(secret)));
}

#[test]
fn commands_drain_and_end() {
    let app = servers::http1::echo(bind(), "app").unwrap();
    let manager = "drain_timeout: 0.2s";
    let mut proxy = Proxy::spawn_with(
        crate::harness::Kind::Ours,
        &Bootstrap::forward(app.address(), manager),
        &["--drain-time-s", "10"],
    )
    .ready();
    let mut client = proxy.client();
    assert_eq!(
        client.get("a", "/").unwrap().head.header("connection"),
        None
    );
    assert_eq!(proxy.admin("POST", "/drain_listeners").0, 200);
    let answer = client.get("a", "/").unwrap();
    assert_eq!(answer.head.header("connection"), Some("close"));
    assert_eq!(proxy.admin("GET", "/ready").0, 200);
    assert_eq!(proxy.admin("POST", "/quitquitquit").0, 200);
    let status = proxy.process.wait(Duration::from_secs(5)).unwrap();
    assert!(status.success(), "{status}");
}
