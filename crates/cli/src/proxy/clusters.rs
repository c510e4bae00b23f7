//! `outrider proxy clusters`

use std::time::SystemTime;

use serde_json::Value;

use super::dump::{Resource, State, list, resources, text};
use crate::output::Table;

/// One row a cluster.
pub(super) fn table(dump: &Value, _: SystemTime) -> Table {
    let mut table = Table::new(&["CLUSTER", "TYPE", "BALANCING", "SPEAKS", "TO", "STATE"]);
    for resource in resources(dump, "Clusters") {
        if resource.state == State::Refused {
            let name = resource.name.to_owned();
            let state = format!("REFUSED: {}", resource.refusal);
            table.row([
                name,
                String::new(),
                String::new(),
                String::new(),
                String::new(),
                state,
            ]);
            continue;
        }
        let (speaks, to) = transport(&resource);
        table.row([
            resource.name.to_owned(),
            kind(resource.body).to_owned(),
            match text(resource.body, "/lb_policy") {
                "" => "ROUND_ROBIN".to_owned(),
                policy => policy.to_owned(),
            },
            speaks.to_owned(),
            to,
            resource.state.name().to_owned(),
        ]);
    }
    table
}

fn kind(cluster: &Value) -> &str {
    match (text(cluster, "/type"), text(cluster, "/cluster_type/name")) {
        ("", "") => "STATIC",
        ("", custom) => custom,
        (kind, _) => kind,
    }
}

/// How it speaks to its endpoints, and who they must be.
fn transport(cluster: &Resource<'_>) -> (&'static str, String) {
    let body = cluster.body;
    let matches = list(body, "/transport_socket_matches").iter();
    // The endpoints that are marked as plaintext are the exception; the rule comes with the rest.
    let sockets = matches
        .filter_map(|each| each.get("transport_socket"))
        .chain(body.get("transport_socket"));
    let mut kinds = Vec::new();
    for socket in sockets {
        let context = &socket["typed_config"];
        if !text(context, "/@type").ends_with("UpstreamTlsContext") {
            kinds.push(("plaintext", String::new()));
            continue;
        }
        let common = &context["common_tls_context"];
        let presents = ["tls_certificate_sds_secret_configs", "tls_certificates"];
        let mutual = presents.iter().any(|field| common.get(field).is_some());
        kinds.push((if mutual { "mutual TLS" } else { "TLS" }, peers(common)));
    }
    let tls = kinds.iter().find(|(kind, _)| *kind != "plaintext");
    match tls {
        Some((kind, to)) => {
            let mixed = kinds.iter().any(|(kind, _)| *kind == "plaintext");
            let kind = match (*kind, mixed) {
                ("mutual TLS", true) => "mutual TLS or plaintext",
                ("TLS", true) => "TLS or plaintext",
                (kind, _) => kind,
            };
            (kind, to.clone())
        }
        None => ("plaintext", String::new()),
    }
}

fn peers(common: &Value) -> String {
    let contexts = [
        "/combined_validation_context/default_validation_context",
        "/validation_context",
    ];
    let names = contexts.iter().flat_map(|context| {
        ["match_typed_subject_alt_names", "match_subject_alt_names"].map(|field| (context, field))
    });
    let mut peers: Vec<String> = Vec::new();
    for (context, field) in names {
        for matcher in list(common, &format!("{context}/{field}")) {
            let matcher = matcher.get("matcher").unwrap_or(matcher);
            peers.push(super::matches::string(matcher));
        }
    }
    match peers.as_slice() {
        [first, second, rest @ ..] if !rest.is_empty() => {
            format!("{first}, {second} and {} more", rest.len())
        }
        _ => peers.join(", "),
    }
}
