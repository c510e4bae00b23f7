//! The bootstrap that a case's setup means.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::file::{Protocol, Setup, merge};

const TYPE: &str = "type.googleapis.com/envoy.extensions";

/// How the access log of the short form tells what both must agree on.
pub(super) const LOG_FORMAT: &str = "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% \
    %PROTOCOL% %REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% route=%ROUTE_NAME% \
    cluster=%UPSTREAM_CLUSTER% host=%UPSTREAM_HOST% received=%BYTES_RECEIVED% sent=%BYTES_SENT%\n";

/// The bootstrap of a setup, with its placeholders, without an admin address.
///
/// # Errors
/// When `config` is no map.
pub(super) fn bootstrap(setup: &Setup) -> Result<Value> {
    let mut config = match &setup.config {
        Value::Null => json!({}),
        given => given.clone(),
    };
    let map = config.as_object_mut().context("config: not a map")?;
    map.entry("node")
        .or_insert_with(|| json!({ "id": "conform", "cluster": "conform" }));
    let resources = map.entry("static_resources").or_insert_with(|| json!({}));
    let resources = resources
        .as_object_mut()
        .context("config.static_resources: not a map")?;
    if let Some(manager) = &setup.http {
        let listeners = resources.entry("listeners").or_insert_with(|| json!([]));
        listeners
            .as_array_mut()
            .context("config.static_resources.listeners: not a list")?
            .push(http_listener(setup, manager));
    }
    let clusters = resources.entry("clusters").or_insert_with(|| json!([]));
    let clusters = clusters
        .as_array_mut()
        .context("config.static_resources.clusters: not a list")?;
    for (name, upstream) in &setup.upstreams {
        let more = setup.clusters.get(name);
        if more.is_some_and(Value::is_null) || clusters.iter().any(|known| known["name"] == **name)
        {
            continue;
        }
        clusters.push(cluster(name, upstream.protocol == Protocol::Http2, more));
    }
    for (name, fields) in &setup.clusters {
        if !setup.upstreams.contains_key(name) && !fields.is_null() {
            let mut base = json!({ "name": name, "connect_timeout": "5s" });
            merge(&mut base, fields.clone());
            clusters.push(base);
        }
    }
    Ok(config)
}

fn http_listener(setup: &Setup, manager: &Value) -> Value {
    let mut base = json!({
        "@type": format!("{TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "in",
        // Envoy's second would be waited for wherever a connection ends.
        "delayed_close_timeout": "0.01s",
        "access_log": [{
            "name": "file",
            "typed_config": {
                "@type": format!("{TYPE}.access_loggers.file.v3.FileAccessLog"),
                "path": "${log}",
                "log_format": { "text_format_source": { "inline_string": LOG_FORMAT } },
            },
        }],
        "http_filters": [{
            "name": "router",
            "typed_config": { "@type": format!("{TYPE}.filters.http.router.v3.Router") },
        }],
    });
    merge(&mut base, manager.clone());
    let filter = json!({ "name": "http", "typed_config": base });
    let mut chain = json!({ "filters": [filter] });
    if !setup.chain.is_null() {
        merge(&mut chain, setup.chain.clone());
    }
    let mut listener = json!({
        "name": "http",
        "address": { "socket_address": { "address": "127.0.0.1", "port_value": 0 } },
        "filter_chains": [chain],
    });
    if !setup.listener.is_null() {
        merge(&mut listener, setup.listener.clone());
    }
    listener
}

fn cluster(name: &str, http2: bool, more: Option<&Value>) -> Value {
    let address =
        json!({ "address": format!("${{{name}.address}}"), "port_value": format!("${{{name}}}") });
    let mut base = json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{ "lb_endpoints": [
                { "endpoint": { "address": { "socket_address": address } } }
            ] }],
        },
    });
    if http2 {
        let key = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
        base["typed_extension_protocol_options"] = json!({ key: {
            "@type": format!("type.googleapis.com/{key}"),
            "explicit_http_config": { "http2_protocol_options": {} },
        }});
    }
    if let Some(more) = more {
        merge(&mut base, more.clone());
    }
    base
}
