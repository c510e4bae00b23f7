//! `outrider proxy endpoints`

use std::time::SystemTime;

use serde_json::Value;

use super::dump::{address, list, number, text};
use crate::output::Table;

/// One row an endpoint of a cluster.
pub(super) fn table(page: &Value, _: SystemTime) -> Table {
    let mut table = Table::new(&[
        "CLUSTER",
        "ENDPOINT",
        "HEALTH",
        "WEIGHT",
        "PRIORITY",
        "LOCALITY",
        "CONNECTIONS",
        "REQUESTS",
        "FAILED",
    ]);
    for cluster in list(page, "/cluster_statuses") {
        for host in list(cluster, "/host_statuses") {
            let stat = |name: &str| {
                let stats = list(host, "/stats").iter();
                let mut named = stats.filter(|stat| text(stat, "/name") == name);
                let found = named.next().and_then(|stat| number(stat, "/value"));
                // Envoy leaves a zero out.
                found.unwrap_or_else(|| "0".to_owned())
            };
            table.row([
                text(cluster, "/name").to_owned(),
                address(&host["address"]),
                health(&host["health_status"]),
                number(host, "/weight").unwrap_or_default(),
                number(host, "/priority").unwrap_or_else(|| "0".to_owned()),
                locality(&host["locality"]),
                stat("cx_active"),
                stat("rq_total"),
                stat("rq_error"),
            ]);
        }
    }
    table
}

fn health(status: &Value) -> String {
    let reasons = [
        ("failed_active_health_check", "health check"),
        ("failed_outlier_check", "ejected as outlier"),
        ("pending_dynamic_removal", "being removed"),
        ("excluded_via_immediate_hc_fail", "told so itself"),
    ];
    let reasons = reasons.iter().filter(|(flag, _)| status[*flag] == true);
    let reasons: Vec<&str> = reasons.map(|(_, words)| *words).collect();
    let told = text(status, "/eds_health_status");
    match (reasons.is_empty(), told) {
        (true, "") => "HEALTHY".to_owned(),
        (true, told) => told.to_owned(),
        (false, _) => format!("UNHEALTHY ({})", reasons.join(", ")),
    }
}

fn locality(locality: &Value) -> String {
    let parts = ["/region", "/zone", "/sub_zone"].map(|part| text(locality, part));
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    parts.join("/")
}
