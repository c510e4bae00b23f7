//! `/clusters`

use std::fmt::Write;

use http::StatusCode;
use serde_json::{Value, json};

use super::query::Query;
use super::{answer, pattern};
use crate::config::address::Address;
use crate::config::cluster::Thresholds;
use crate::discovery::dump::{Dump, Kind};
use crate::runtime::http_server::Page;
use crate::runtime::snapshot::Snapshot;
use crate::upstream::shared::HostTotals;

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

/// `SimpleMetric`s: counters before gauges, and no value where it is 0.
fn metrics(totals: &HostTotals) -> Vec<Value> {
    let (gauges, counters): (Vec<_>, Vec<_>) = totals
        .iter()
        .partition(|(name, _)| name.ends_with("_active"));
    let metric = |kind: Option<&str>, (name, value): (&str, u64)| {
        let mut metric = json!({"name": name});
        if let Some(kind) = kind {
            metric["type"] = kind.into();
        }
        if value > 0 {
            // JSON of protobuf has 64 bits as text.
            metric["value"] = value.to_string().into();
        }
        metric
    };
    let counters = counters.into_iter().map(|counter| metric(None, counter));
    let gauges = gauges.into_iter().map(|gauge| metric(Some("GAUGE"), gauge));
    counters.chain(gauges).collect()
}

fn thresholds(both: &[Thresholds; 2]) -> [Value; 2] {
    let told = |limits: &Thresholds| {
        json!({
            "max_connections": limits.max_connections,
            "max_pending_requests": limits.max_pending_requests,
            "max_requests": limits.max_requests,
            "max_retries": limits.max_retries,
        })
    };
    let [default, mut high] = [&both[0], &both[1]].map(told);
    high["priority"] = "HIGH".into();
    [default, high]
}

fn json(snapshot: &Snapshot, dump: &Dump, wanted: &dyn Fn(&str) -> bool) -> Value {
    let clusters = snapshot.clusters.iter().filter(|(name, _)| wanted(name));
    let clusters = clusters.map(|(name, cluster)| {
        let hosts = cluster.view().hosts.into_iter().map(|host| {
            let mut status = json!({
                "address": address(&host.address),
                "weight": host.weight,
                "locality": locality(&host.locality),
                "health_status": {"eds_health_status": host.health_status()},
                "stats": metrics(&host.totals),
            });
            if host.priority > 0 {
                status["priority"] = host.priority.into();
            }
            if !host.hostname.is_empty() {
                status["hostname"] = (*host.hostname).into();
            }
            status
        });
        let hosts: Vec<_> = hosts.collect();
        let mut status = json!({
            "name": &**name,
            "observability_name": &*cluster.config.stat_name,
            "circuit_breakers": {"thresholds": thresholds(&cluster.config.circuit_breakers)},
        });
        if !hosts.is_empty() {
            status["host_statuses"] = hosts.into();
        }
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
