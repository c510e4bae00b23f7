//! `/clusters`

use std::fmt::Write;

use serde_json::{Value, json};

use crate::runtime::snapshot::Snapshot;

pub fn text(snapshot: &Snapshot) -> String {
    let mut page = String::new();
    for (name, cluster) in snapshot.clusters.iter() {
        let limits = cluster.config.circuit_breakers;
        let _ = writeln!(
            page,
            "{name}::observability_name::{}",
            cluster.config.stat_name
        );
        for (limit, value) in [
            ("max_connections", limits.max_connections),
            ("max_pending_requests", limits.max_pending_requests),
            ("max_requests", limits.max_requests),
            ("max_retries", limits.max_retries),
        ] {
            let _ = writeln!(page, "{name}::default_priority::{limit}::{value}");
        }
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
            line("locality", &host.locality);
            line("priority", &host.priority);
        }
    }
    page
}

pub fn json(snapshot: &Snapshot) -> Value {
    let clusters = snapshot.clusters.iter().map(|(name, cluster)| {
        let hosts = cluster.view().hosts.into_iter().map(|host| {
            let stats = host
                .totals
                .iter()
                .map(|(name, value)| json!({"name": name, "value": value}));
            json!({
                "address": host.address.to_string(),
                "hostname": &*host.hostname,
                "weight": host.weight,
                "priority": host.priority,
                "health_status": {"flags": host.health_flags()},
                "stats": stats.collect::<Vec<_>>(),
            })
        });
        json!({"name": &**name, "host_statuses": hosts.collect::<Vec<_>>()})
    });
    json!({ "cluster_statuses": clusters.collect::<Vec<_>>() })
}
