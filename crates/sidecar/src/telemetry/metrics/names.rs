//! From a stat to its two names: Envoy's dotted one, and Prometheus's with the variable parts as
//! labels.

use super::registry::Family;

impl Family {
    /// The first part of dotted names.
    pub const fn prefix(self) -> &'static str {
        match self {
            Family::Cluster => "cluster",
            Family::Http | Family::HttpRoutes => "http",
            Family::Tcp => "tcp",
            Family::Listener | Family::ListenerWorker => "listener",
            Family::Server => "server",
            Family::Runtime => "runtime",
            Family::Overload => "overload",
            Family::ListenerManager => "listener_manager",
            Family::ClusterManager => "cluster_manager",
            Family::ControlPlane => "control_plane",
            Family::Sds => "sds",
            Family::AccessLog => "access_log",
            Family::ConnectionLimit => "connection_limit",
            Family::LocalRateLimit => "local_rate_limit",
            Family::Rbac => "rbac",
            Family::VirtualCluster | Family::Route => "vhost",
            Family::ProxyProtocol => "proxy_proto",
            Family::ListenerRateLimit => "listener_local_ratelimit",
            Family::TlsInspector => "tls_inspector",
            Family::HttpInspector => "http_inspector",
            Family::Filesystem => "filesystem",
            Family::Udp => "udp",
        }
    }

    /// The label that carries the subject in Prometheus's form.
    pub const fn label(self) -> Option<&'static str> {
        match self {
            Family::Cluster => Some("envoy_cluster_name"),
            Family::Http => Some("envoy_http_conn_manager_prefix"),
            Family::Tcp => Some("envoy_tcp_prefix"),
            Family::Listener | Family::ListenerWorker => Some("envoy_listener_address"),
            Family::Sds => Some("envoy_secret"),
            Family::Udp => Some("envoy_udp_prefix"),
            Family::ConnectionLimit => Some("envoy_connection_limit_prefix"),
            Family::LocalRateLimit => Some("envoy_local_network_ratelimit_prefix"),
            Family::ListenerRateLimit => Some("envoy_local_listener_ratelimit_prefix"),
            Family::ProxyProtocol => Some("envoy_proxy_protocol_prefix"),
            _ => None,
        }
    }
}

/// Envoy's name: `cluster.<subject>.<stat>`.
pub fn dotted(family: Family, subject: &str, stat: &str) -> String {
    if subject.is_empty() {
        return format!("{}.{stat}", family.prefix());
    }
    if family == Family::Rbac {
        return format!("{subject}.{stat}");
    }
    // Envoy's separator is the dot, and a colon ends a name in the text form.
    format!(
        "{}.{}.{stat}",
        family.prefix(),
        subject.replace("::", ".").replace(':', "_")
    )
}

/// Prometheus's name and its labels, ready to print.
pub struct Sample {
    /// For example `envoy_cluster_upstream_rq_xx`.
    pub name: String,
    /// For example `envoy_response_code_class="2",envoy_cluster_name="a"`; may be empty.
    pub labels: String,
}

impl Sample {
    /// Adds labels of the configuration: as with Envoy after the response's code, which has no comma
    /// in it, and before all others.
    pub fn add(&mut self, more: &str) {
        if more.is_empty() {
            return;
        }
        let labels = &self.labels;
        let (code, others) = match labels.starts_with("envoy_response_code") {
            true => labels.split_at(labels.find(',').unwrap_or(labels.len())),
            false => ("", labels.as_str()),
        };
        let parts = [code, more, others.trim_start_matches(',')];
        let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        self.labels = parts.join(",");
    }
}

/// Adds a label to others.
pub fn add_label(labels: &mut String, label: &str, value: &str) {
    if !labels.is_empty() {
        labels.push(',');
    }
    let value = value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n");
    labels.push_str(&format!("{label}=\"{value}\""));
}

/// Prometheus's form of a stat.
pub fn prometheus(family: Family, subject: &str, stat: &str) -> Sample {
    if let (Family::ListenerWorker, Some((address, worker))) =
        (family, subject.rsplit_once(".worker_"))
    {
        let of_all = prometheus(Family::Listener, address, stat);
        return Sample {
            name: of_all.name.replacen("listener_", "listener_worker_", 1),
            labels: format!("envoy_worker_id=\"{worker}\",{}", of_all.labels),
        };
    }
    if let (Family::Cluster | Family::Listener, Some((subject, certificate))) =
        (family, subject.split_once(".ssl.certificate."))
    {
        let of_all = prometheus(family, subject, &format!("ssl_certificate_{stat}"));
        let mut labels = String::new();
        add_label(&mut labels, "envoy_tls_certificate", certificate);
        labels.push(',');
        return Sample {
            labels: labels + &of_all.labels,
            ..of_all
        };
    }
    let version = ["versions.v1.", "versions.v2."]
        .iter()
        .find_map(|of_version| Some((&of_version[10..11], stat.strip_prefix(of_version)?)));
    if let (Family::ProxyProtocol, Some((version, stat))) = (family, version) {
        let of_both = prometheus(family, subject, stat);
        let comma = if of_both.labels.is_empty() { "" } else { "," };
        return Sample {
            name: of_both.name,
            labels: format!(
                "{}{comma}envoy_proxy_protocol_version=\"{version}\"",
                of_both.labels
            ),
        };
    }
    let (stat, code) = split_code(stat);
    // The one family whose subject has two parts.
    let parts = match family {
        Family::VirtualCluster => subject.split_once(".vcluster."),
        Family::Route => subject.split_once(".route."),
        Family::HttpRoutes => subject.split_once(".rds."),
        _ => None,
    };
    let kind = match family {
        Family::VirtualCluster => "_vcluster",
        Family::Route => "_route",
        Family::HttpRoutes => "_rds",
        _ => "",
    };
    let mut name = match family {
        Family::Rbac => format!("envoy_{subject}_{stat}"),
        _ => format!("envoy_{}{kind}_{stat}", family.prefix()),
    };
    name = name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '_' {
                c
            } else {
                '_'
            }
        })
        .collect();
    let mut labels = String::new();
    if let Some((label, value)) = code {
        labels = format!("{label}=\"{value}\"");
    }
    let mut label = |label: &str, value: &str| add_label(&mut labels, label, value);
    if let Some(name) = family.label().filter(|_| !subject.is_empty()) {
        label(name, subject);
    }
    match (family, parts) {
        (Family::VirtualCluster, Some((host, cluster))) => {
            label("envoy_virtual_cluster", cluster);
            label("envoy_virtual_host", host);
        }
        (Family::Route, Some((host, route))) => {
            label("envoy_virtual_host", host);
            label("envoy_route", route);
        }
        (Family::HttpRoutes, Some((manager, routes))) => {
            label("envoy_rds_route_config", routes);
            label("envoy_http_conn_manager_prefix", manager);
        }
        _ => {}
    }
    Sample { name, labels }
}

/// `upstream_rq_2xx` is `upstream_rq_xx` with a class, `upstream_rq_200` is `upstream_rq` with a code.
fn split_code(stat: &str) -> (String, Option<(&'static str, &str)>) {
    if let Some((stem, last)) = stat.rsplit_once('_')
        && last.len() == 3
        && last.as_bytes()[0].is_ascii_digit()
    {
        if last.ends_with("xx") {
            return (
                format!("{stem}_xx"),
                Some(("envoy_response_code_class", &last[..1])),
            );
        }
        if last.bytes().all(|b| b.is_ascii_digit()) {
            return (stem.to_owned(), Some(("envoy_response_code", last)));
        }
    }
    (stat.to_owned(), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_envoys() {
        let cases = [
            (
                Family::Cluster,
                "a",
                "upstream_cx_total",
                "cluster.a.upstream_cx_total",
                "envoy_cluster_upstream_cx_total",
                "envoy_cluster_name=\"a\"",
            ),
            (
                Family::Cluster,
                "outbound|80||a",
                "upstream_rq_2xx",
                "cluster.outbound|80||a.upstream_rq_2xx",
                "envoy_cluster_upstream_rq_xx",
                "envoy_response_code_class=\"2\",envoy_cluster_name=\"outbound|80||a\"",
            ),
            (
                Family::Cluster,
                "a",
                "upstream_rq_503",
                "cluster.a.upstream_rq_503",
                "envoy_cluster_upstream_rq",
                "envoy_response_code=\"503\",envoy_cluster_name=\"a\"",
            ),
            (
                Family::Cluster,
                "a",
                "circuit_breakers.default.cx_open",
                "cluster.a.circuit_breakers.default.cx_open",
                "envoy_cluster_circuit_breakers_default_cx_open",
                "envoy_cluster_name=\"a\"",
            ),
            (
                Family::Listener,
                "0.0.0.0_15001",
                "downstream_cx_total",
                "listener.0.0.0.0_15001.downstream_cx_total",
                "envoy_listener_downstream_cx_total",
                "envoy_listener_address=\"0.0.0.0_15001\"",
            ),
            (
                Family::ListenerWorker,
                "127.0.0.1_80.worker_3",
                "downstream_cx_total",
                "listener.127.0.0.1_80.worker_3.downstream_cx_total",
                "envoy_listener_worker_downstream_cx_total",
                "envoy_worker_id=\"3\",envoy_listener_address=\"127.0.0.1_80\"",
            ),
            (
                Family::ProxyProtocol,
                "foo",
                "versions.v2.found",
                "proxy_proto.foo.versions.v2.found",
                "envoy_proxy_proto_found",
                "envoy_proxy_protocol_prefix=\"foo\",envoy_proxy_protocol_version=\"2\"",
            ),
            (
                Family::HttpRoutes,
                "in.rds.local",
                "update_success",
                "http.in.rds.local.update_success",
                "envoy_http_rds_update_success",
                "envoy_rds_route_config=\"local\",envoy_http_conn_manager_prefix=\"in\"",
            ),
            (
                Family::Server,
                "",
                "live",
                "server.live",
                "envoy_server_live",
                "",
            ),
        ];
        for (family, subject, stat, text, name, labels) in cases {
            assert_eq!(dotted(family, subject, stat), text);
            let sample = prometheus(family, subject, stat);
            assert_eq!((&sample.name[..], &sample.labels[..]), (name, labels));
        }
    }
}
