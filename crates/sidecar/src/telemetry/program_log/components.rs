//! Envoy's names of the parts of a proxy, and which of our modules do their work.

/// A name, and the modules below `outrider_sidecar` (or crates) whose messages it stands for. Those
/// of parts that do not exist here stand for none.
pub const COMPONENTS: &[(&str, &[&str])] = &[
    ("a2a", &[]),
    (
        "admin",
        &[
            "outrider_sidecar::admin",
            "outrider_sidecar::runtime::http_server",
        ],
    ),
    ("ai_protocol_manager", &[]),
    ("alternate_protocols_cache", &[]),
    ("aws", &[]),
    ("assert", &[]),
    ("backtrace", &[]),
    ("basic_auth", &[]),
    ("cache_filter", &[]),
    ("client", &["outrider_sidecar::upstream::exchange"]),
    (
        "config",
        &[
            "outrider_sidecar::config",
            "outrider_sidecar::discovery",
            "outrider_xds",
        ],
    ),
    ("connection", &["outrider_sidecar::tls", "rustls"]),
    ("conn_handler", &["outrider_sidecar::listener"]),
    ("compression", &[]),
    ("credential_injector", &[]),
    ("decompression", &[]),
    (
        "dns",
        &["outrider_sidecar::discovery::resolve", "hickory_resolver"],
    ),
    ("dubbo", &[]),
    ("envoy_bug", &[]),
    ("ext_authz", &[]),
    ("ext_proc", &[]),
    ("rocketmq", &[]),
    ("file", &["outrider_sidecar::discovery::files", "notify"]),
    ("filter", &["outrider_sidecar::network"]),
    ("forward_proxy", &[]),
    ("geolocation", &[]),
    ("grpc", &["tonic"]),
    ("happy_eyeballs", &[]),
    ("hc", &[]),
    ("health_checker", &[]),
    ("http", &["outrider_sidecar::http", "hyper"]),
    ("http2", &["outrider_sidecar::http::h2", "h2"]),
    ("hystrix", &[]),
    ("init", &[]),
    ("io", &[]),
    ("jwt", &[]),
    ("json_rpc", &[]),
    ("kafka", &[]),
    ("key_value_store", &["outrider_sidecar::discovery::disk"]),
    ("lua", &[]),
    ("local_rate_limit", &[]),
    (
        "main",
        &[
            "outrider_sidecar::app",
            "outrider_sidecar::runtime",
            "outrider_sidecar::bootstrap",
        ],
    ),
    ("matcher", &["outrider_sidecar::matching"]),
    ("mcp", &[]),
    ("misc", &["outrider_sidecar::pod"]),
    ("mongo", &[]),
    ("multi_connection", &[]),
    ("notification", &[]),
    ("oauth2", &[]),
    ("quic", &[]),
    ("quic_stream", &[]),
    ("pool", &["outrider_sidecar::upstream::pool"]),
    ("rate_limit_quota", &[]),
    ("rbac", &[]),
    ("rds", &[]),
    ("redis", &[]),
    (
        "router",
        &[
            "outrider_sidecar::http::router",
            "outrider_sidecar::http::route",
        ],
    ),
    ("runtime", &["outrider_sidecar::runtime_layer"]),
    ("stats", &["outrider_sidecar::telemetry"]),
    (
        "secret",
        &[
            "outrider_sidecar::discovery::builtin",
            "outrider_sidecar::discovery::sds_socket",
        ],
    ),
    ("sse", &[]),
    ("tap", &[]),
    ("testing", &[]),
    ("thrift", &[]),
    ("tracing", &[]),
    ("upstream", &["outrider_sidecar::upstream"]),
    ("udp", &[]),
    ("wasm", &[]),
    ("websocket", &[]),
    ("golang", &[]),
    ("stats_sinks", &[]),
    ("dynamic_modules", &[]),
    ("ip_tagging", &[]),
];

/// The component of a message's target: that with the longest module.
pub fn of_target(target: &str) -> &'static str {
    let modules = COMPONENTS
        .iter()
        .flat_map(|(name, modules)| modules.iter().map(move |module| (*name, *module)));
    modules
        .filter(|(_, module)| {
            let rest = target.strip_prefix(module);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        })
        .max_by_key(|(_, module)| module.len())
        .map_or("misc", |(name, _)| name)
}
