//! Every statistic that Envoy shows for one bootstrap has its like here, or a reason to be absent.

use std::collections::BTreeSet;

use outrider_testkit::servers;
use regex::Regex;
use serde_json::json;

use crate::harness::{Bootstrap, Pair, ROUTES_TO_UP, bind, http_filter};

/// Names that only Envoy has: a pattern, and why. Each stands for something.
const ABSENT: &[(&str, &str)] = &[
    // What there is not, so nothing could be counted.
    (r"http3|0_?rtt", "there is no HTTP/3"),
    (
        r"^(server\.)?(main_thread|workers|worker_\d)\.watchdog_",
        "the worker threads share no lock that a watchdog would have to break",
    ),
    (
        r"^thread_local_cluster_manager\.",
        "a worker's part of a cluster is made with its first use",
    ),
    (
        r"^server\.(parent_connections|hot_restart_generation)$",
        "a process never takes over from another",
    ),
    (
        r"^server\.(debug_assertion_failures|envoy_bug_failures|envoy_notifications|wip_protos|compilation_settings\.fips_mode)$",
        "they are about how Envoy is built",
    ),
    (
        r"^server\.(static|dynamic)_unknown_fields$",
        "unknown fields are refused, and listed with --ignore-unknown-dynamic-fields",
    ),
    (
        r"^server\.dropped_stat_flushes$|^server\.stats_recent_lookups$",
        "nothing is flushed, and no name is looked up by requests",
    ),
    (
        r"^runtime\.(deprecated_feature|override_dir)",
        "a deprecated field is refused or works; overriding directories are of the old runtime",
    ),
    (
        r"cluster_updated|update_merge_cancelled|update_out_of_merge_window|update_no_rebuild|update_empty",
        "updates of endpoints are not gathered: each costs one cluster",
    ),
    (
        r"overload_actions\.reset_high_memory_stream|^overload\.refresh_interval_delay$",
        "that action is refused by name; a late look at a resource is not counted",
    ),
    (
        r"extension_config_missing$",
        "filters come with their listener: ECDS is refused",
    ),
    (r"\.tracing\.", "tracing is refused by name"),
    (r"\.lb_subsets_", "subsets are refused by name"),
    (r"\.assignment_", "endpoints are not kept by leases"),
    (
        r"\.max_host_weight$|\.warming_state$",
        "they tell of Envoy's own tables",
    ),
    (
        r"\.default\.total_match_count$",
        "it counts choices by transport_socket_matches, which are not counted",
    ),
    (
        r"^(cluster\.[^.]+\.)?http1\.",
        "what a codec refuses is counted by the connection manager or the cluster",
    ),
    (
        r"passthrough_internal_redirect|internal_redirect_",
        "the outcome of a redirect is told by the access log",
    ),
    // What is there, and not counted.
    (
        r"^(http|listener)\.admin\.|^http\.async-client\.",
        "requests to the admin port and of the proxy itself are not counted",
    ),
    (
        r"^listener\.127\.0\.0\.1_PORT\.http\.",
        "responses are counted by stat prefix",
    ),
    (
        r"_bytes_buffered$|_flow_control_|_flush_(active|total)$",
        "buffers are bounded, and their levels are not counted",
    ),
    (
        r"update_duration$",
        "how long an update takes is not measured",
    ),
    (
        r"^listener_manager\.(listener_stopped|total_.*_draining|workers_pinned)$",
        "what drains is each worker's own",
    ),
    (
        r"\.external\.upstream_rq_",
        "responses are not counted apart by where the request came from",
    ),
    (
        r"^tcp\.[^.]+\.(downstream_cx_overload_close|route_delayed_total)$",
        "connections are turned away by the listener, before tcp_proxy",
    ),
    (
        r"^server\.(days_until_first_cert_expiring|seconds_until_first_ocsp_response_expiring)$",
        "told by /certs",
    ),
    (
        r"^cluster\.up\.version$",
        "endpoints that do not come by EDS have no version",
    ),
    (
        r"^cluster\.unused\.",
        "those of a cluster come with its first use",
    ),
    (
        r"^cluster\.[^.]+\.(circuit_breakers\.[a-z]+\.cx_pool_open|membership_excluded|retry_or_shadow_abandoned|lb_(local_cluster_not_ok|recalculate_zone_structures|zone_.*)|upstream_cx_(close_notify|destroy_.*|pool_overflow|preconnect_skipped|protocol_error)|upstream_queue_overloaded|upstream_rq_(maintenance_mode|max_duration_reached|per_cx|per_try_(idle_)?timeout|retry_(backoff_.*|limit_exceeded)|rx_reset_no_error)|update_.*)$",
        "not counted on its own; the access log tells of it for each request",
    ),
    (
        r"^http\.[^.]+\.(downstream_cx_(delayed_close_timeout|destroy_(local_|remote_)?active_rq|http1_soft_drain|[rt]x_bytes_total)|downstream_rq_(failed_path_normalization|redirected_with_normalized_path|rejected_via_ip_detection|too_large|too_many_premature_resets)|rq_(overload_local_reply|reset_after_downstream_response_started)|rs_too_large)$",
        "not counted on its own; the access log tells of it for each request",
    ),
];

/// Names that only ours has.
const OURS: &[(&str, &str)] = &[
    (r"^access_log\.", "lines that a slow disk lost are counted"),
    (
        r"\.remaining_",
        "Envoy shows them with track_remaining alone",
    ),
    (
        r"\.upstream_rq_[1345]xx$",
        "Envoy shows them from the first one on",
    ),
    (r"^control_plane\.", "Envoy shows them with a server alone"),
    (
        r"rq_mirror_dropped$",
        "copies that were too many are counted",
    ),
    (
        r"\.downstream_cx_direct$",
        "connections past the redirect are counted, for they are refused",
    ),
];

#[test]
fn every_statistic_of_envoy_is_here_or_has_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let app = servers::http1::echo(bind(), "app").unwrap();
    let source = |name: &str, resource: serde_json::Value| {
        let path = folder.path().join(name);
        std::fs::write(&path, json!({ "resources": [resource] }).to_string()).unwrap();
        json!({ "resource_api_version": "V3", "path_config_source": { "path": path } })
    };
    let routes = source(
        "rds.json",
        json!({
            "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            "name": "discovered",
            "virtual_hosts": [{
                "name": "all", "domains": ["*"],
                "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "eds" } }],
            }],
        }),
    );
    let address = app.address();
    let socket = json!({ "address": address.ip().to_string(), "port_value": address.port() });
    let endpoints = source(
        "eds.json",
        json!({
            "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            "cluster_name": "eds",
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": { "socket_address": socket } } }] }],
        }),
    );
    let rds = json!({ "rds": { "route_config_name": "discovered", "config_source": routes } });
    let eds = json!({
        "type": "EDS", "load_assignment": null, "eds_cluster_config": { "eds_config": endpoints },
    });
    let tcp = json!({ "filters": [{
        "name": "tcp",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": "raw", "cluster": "up",
        },
    }] });
    let discovered = json!({ "filters": [http_filter(&rds.to_string())] });
    let bootstrap = Bootstrap::http(ROUTES_TO_UP)
        .listener("discovered", vec![discovered], "")
        .listener("raw", vec![tcp], "")
        .cluster("up", address, "")
        .cluster("eds", address, &eds.to_string())
        .cluster("unused", address, "");
    let mut pair = Pair::start(&bootstrap);
    for listener in ["http", "discovered", "raw"] {
        pair.same("a request", |proxy| {
            let request = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
            crate::harness::exchange(proxy.listener_named(listener), request).status()
        });
    }
    let (ours, envoys) = (names(&pair.ours), names(&pair.envoy));
    let unexplained = |names: Vec<&String>, reasons: &[(&str, &str)]| {
        let patterns: Vec<Regex> = reasons
            .iter()
            .map(|(p, _)| Regex::new(p).unwrap())
            .collect();
        let open: Vec<_> = names
            .iter()
            .filter(|name| !patterns.iter().any(|pattern| pattern.is_match(name)))
            .collect();
        assert!(open.is_empty(), "no reason is known: {open:#?}");
        let is_used = |pattern: &&Regex| names.iter().any(|name| pattern.is_match(name));
        let stale: Vec<_> = patterns.iter().filter(|p| !is_used(p)).collect();
        assert!(
            stale.is_empty(),
            "they stand for nothing any more: {stale:#?}"
        );
    };
    unexplained(envoys.difference(&ours).collect(), ABSENT);
    unexplained(ours.difference(&envoys).collect(), OURS);
}

/// The names of all statistics, with ports left out.
fn names(proxy: &crate::harness::Proxy) -> BTreeSet<String> {
    let port = Regex::new(r"127\.0\.0\.1_\d+").unwrap();
    let (_, page) = proxy.admin("GET", "/stats");
    let names = page.lines().filter_map(|line| line.split_once(": "));
    names
        .map(|(name, _)| port.replace(name, "127.0.0.1_PORT").into_owned())
        .collect()
}
