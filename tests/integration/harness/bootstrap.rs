//! Bootstrap files made of YAML fragments.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};

/// How the access log tells what both proxies must agree on.
const LOG_FORMAT: &str = "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% \
                          %BYTES_RECEIVED% %BYTES_SENT% %PROTOCOL% %ROUTE_NAME% %UPSTREAM_CLUSTER%\n";
const LOG_FILE: &str = "@LOG@";
const TYPE: &str = "type.googleapis.com/envoy.extensions";

/// A bootstrap with static resources.
#[derive(Clone, Default)]
pub struct Bootstrap {
    listeners: Vec<Value>,
    clusters: Vec<Value>,
}

/// Reads YAML as JSON.
pub(super) fn yaml(text: &str) -> Value {
    match serde_norway::from_str(text) {
        Ok(Value::Null) => json!({}),
        Ok(value) => value,
        Err(error) => panic!("{error} in\n{text}"),
    }
}

/// Puts the fields of `more` over those of `base`, maps within maps likewise.
pub(super) fn merge(base: &mut Value, more: Value) {
    match (base, more) {
        (Value::Object(base), Value::Object(more)) => {
            for (key, value) in more {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, more) => *base = more,
    }
}

impl Bootstrap {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// One listener on a free port whose connection manager has these fields besides what every
    /// test needs (stat prefix `in`, access log, router).
    pub fn http(manager: &str) -> Self {
        Self::new().http_listener("http", manager, "")
    }

    /// The same with nothing but one route of everything to the cluster `up` at `address`.
    pub fn forward(address: SocketAddr, manager: &str) -> Self {
        Self::http(ROUTES_TO_UP)
            .amend_manager(manager)
            .cluster("up", address, "")
    }

    /// One more HTTP listener. `listener` changes it as a whole.
    pub fn http_listener(self, name: &str, manager: &str, listener: &str) -> Self {
        let chain = json!({ "filters": [http_filter(manager)] });
        self.listener(name, vec![chain], listener)
    }

    /// One more listener with these filter chains.
    pub fn listener(mut self, name: &str, chains: Vec<Value>, more: &str) -> Self {
        let mut base = json!({
            "name": name,
            "address": { "socket_address": { "address": "127.0.0.1", "port_value": 0 } },
            "filter_chains": chains,
        });
        merge(&mut base, yaml(more));
        self.listeners.push(base);
        self
    }

    /// Changes the connection manager of the first listener's first chain.
    pub fn amend_manager(mut self, manager: &str) -> Self {
        let filter = &mut self.listeners[0]["filter_chains"][0]["filters"][0];
        merge(&mut filter["typed_config"], yaml(manager));
        self
    }

    /// Changes the first listener's first filter chain.
    pub fn amend_chain(mut self, chain: &str) -> Self {
        merge(&mut self.listeners[0]["filter_chains"][0], yaml(chain));
        self
    }

    /// Changes the first cluster.
    pub fn amend_cluster(mut self, cluster: &str) -> Self {
        merge(&mut self.clusters[0], yaml(cluster));
        self
    }

    /// A static cluster of one endpoint.
    pub fn cluster(mut self, name: &str, address: SocketAddr, more: &str) -> Self {
        let socket = json!({ "address": address.ip().to_string(), "port_value": address.port() });
        let endpoint = json!({ "endpoint": { "address": { "socket_address": socket } } });
        let mut base = json!({
            "name": name,
            "type": "STATIC",
            "connect_timeout": "5s",
            "load_assignment": {
                "cluster_name": name,
                "endpoints": [{ "lb_endpoints": [endpoint] }],
            },
        });
        merge(&mut base, yaml(more));
        self.clusters.push(base);
        self
    }

    /// The file.
    pub(super) fn text(&self, admin: SocketAddr, log: &Path) -> String {
        let bootstrap = json!({
            "node": { "id": "test", "cluster": "test" },
            "admin": { "address": { "socket_address": {
                "address": admin.ip().to_string(), "port_value": admin.port(),
            }}},
            "static_resources": { "listeners": self.listeners, "clusters": self.clusters },
        });
        format!("{bootstrap:#}").replace(LOG_FILE, log.to_str().unwrap())
    }
}

/// A connection manager with these fields besides what every test needs.
pub fn http_filter(manager: &str) -> Value {
    let mut base = json!({
        "@type": format!("{TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "in",
        "access_log": [{
            "name": "envoy.access_loggers.file",
            "typed_config": {
                "@type": format!("{TYPE}.access_loggers.file.v3.FileAccessLog"),
                "path": LOG_FILE,
                "log_format": { "text_format_source": { "inline_string": LOG_FORMAT } },
            },
        }],
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": { "@type": format!("{TYPE}.filters.http.router.v3.Router") },
        }],
        // What else there is of HTTP/1 is in the cases of `conform`.
        "http_protocol_options": { "accept_http_10": true },
    });
    merge(&mut base, yaml(manager));
    json!({ "name": "envoy.filters.network.http_connection_manager", "typed_config": base })
}

/// One route of everything to the cluster `up`.
pub const ROUTES_TO_UP: &str = "
route_config:
  virtual_hosts:
  - { name: all, domains: ['*'], routes: [{ match: { prefix: / }, route: { cluster: up } }] }
";
