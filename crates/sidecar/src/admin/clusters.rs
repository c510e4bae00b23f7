//! `/clusters`

use std::fmt::Write;

use http::StatusCode;
use serde_json::{Value, json};

use super::query::Query;
use super::{answer, pattern};
use crate::config::address::Address;
use crate::discovery::dump::{Dump, Kind};
use crate::runtime::http_server::Page;
use crate::runtime::snapshot::Snapshot;

/// The page in the form that was asked for.
pub fn page(snapshot: &Snapshot, dump: &Dump, query: &Query<'_>) -> Page {
    let filter = match pattern(query, "filter") {
        Ok(filter) => filter,
        Err(refusal) => return *refusal,
    };
    let wanted = |name: &str| filter.as_ref().is_none_or(|filter| filter.is_match(name));
    if query.is("format", "json") {
        return answer::json(&json(snapshot, dump, &wanted));
    }
    answer::text(StatusCode::OK, text(snapshot, dump, &wanted))
}

fn text(snapshot: &Snapshot, dump: &Dump, wanted: &dyn Fn(&str) -> bool) -> String {
    let mut page = String::new();
    for (name, cluster) in snapshot.clusters.iter().filter(|(name, _)| wanted(name)) {
        let _ = writeln!(
            page,
            "{name}::observability_name::{}",
            cluster.config.stat_name
        );
        let priorities = ["default_priority", "high_priority"];
        for (priority, limits) in priorities.into_iter().zip(cluster.config.circuit_breakers) {
            for (limit, value) in [
                ("max_connections", limits.max_connections),
                ("max_pending_requests", limits.max_pending_requests),
                ("max_requests", limits.max_requests),
                ("max_retries", limits.max_retries),
            ] {
                let _ = writeln!(page, "{name}::{priority}::{limit}::{value}");
            }
        }
        let dynamic = !dump.is_static(Kind::Cluster, name);
        let _ = writeln!(page, "{name}::added_via_api::{dynamic}");
        for host in cluster.view().hosts {
            let mut line = |key: &str, value: &dyn std::fmt::Display| {
                let _ = writeln!(page, "{name}::{}::{key}::{value}", host.address);
            };
            for (counter, value) in host.totals.iter() {
                line(counter, &value);
            }
            line("hostname", &host.hostname);
            line("health_flags", &host.health_flags());
            line("weight", &host.weight);
            let mut parts = host.locality.split('/');
            for part in ["region", "zone", "sub_zone"] {
                line(part, &parts.next().unwrap_or_default());
            }
            line("canary", &false);
            line("priority", &host.priority);
            line("success_rate", &-1);
            line("local_origin_success_rate", &-1);
        }
    }
    page
}

/// `envoy.config.core.v3.Address`
fn address(address: &Address) -> Value {
    match address {
        Address::Socket(socket) => json!({"socket_address": {
            "address": socket.ip().to_string(), "port_value": socket.port(),
        }}),
        Address::Pipe(path) => json!({"pipe": {"path": path.display().to_string()}}),
    }
}

/// `envoy.config.core.v3.Locality`, from `region/zone/sub_zone`.
fn locality(text: &str) -> Value {
    let mut parts = text.split('/');
    let names = ["region", "zone", "sub_zone"].into_iter();
    let known = names.filter_map(|name| Some((name, parts.next()?)));
    let known = known.filter(|(_, part)| !part.is_empty());
    known
        .map(|(name, part)| (name.to_owned(), Value::from(part)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn json(snapshot: &Snapshot, dump: &Dump, wanted: &dyn Fn(&str) -> bool) -> Value {
    let clusters = snapshot.clusters.iter().filter(|(name, _)| wanted(name));
    let clusters = clusters.map(|(name, cluster)| {
        let hosts = cluster.view().hosts.into_iter().map(|host| {
            let stats = host
                .totals
                .iter()
                .map(|(name, value)| json!({"name": name, "value": value}));
            json!({
                "address": address(&host.address),
                "hostname": &*host.hostname,
                "weight": host.weight,
                "priority": host.priority,
                "locality": locality(&host.locality),
                "health_status": {"eds_health_status": host.health_status()},
                "stats": stats.collect::<Vec<_>>(),
            })
        });
        let mut status = json!({
            "name": &**name,
            "observability_name": &*cluster.config.stat_name,
            "host_statuses": hosts.collect::<Vec<_>>(),
        });
        if !dump.is_static(Kind::Cluster, name) {
            status["added_via_api"] = true.into();
        }
        status
    });
    let clusters: Vec<Value> = clusters.collect();
    if clusters.is_empty() {
        return json!({});
    }
    json!({ "cluster_statuses": clusters })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn localities_are_told_in_parts() {
        let whole = json!({"region": "r", "zone": "z", "sub_zone": "s"});
        assert_eq!(locality("r/z/s"), whole);
        assert_eq!(locality("r//"), json!({"region": "r"}));
        assert_eq!(locality(""), json!({}));
    }
}
