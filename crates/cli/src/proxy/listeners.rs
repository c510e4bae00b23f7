//! `outrider proxy listeners`

use std::time::SystemTime;

use serde_json::Value;

use super::dump::{State, address, chains, list, number, resources, text};
use crate::output::Table;

/// One row a filter chain, in the listener's order.
pub(super) fn table(dump: &Value, _: SystemTime) -> Table {
    let mut table = Table::new(&["LISTENER", "ADDRESS", "WHEN", "SPEAKS", "GOES TO", "STATE"]);
    for resource in resources(dump, "Listeners") {
        let name = resource.name.to_owned();
        if resource.state == State::Refused {
            let refusal = format!("REFUSED: {}", resource.refusal);
            table.row([
                name,
                String::new(),
                String::new(),
                String::new(),
                String::new(),
                refusal,
            ]);
            continue;
        }
        let additional = list(resource.body, "/additional_addresses").iter();
        let addresses: Vec<String> = std::iter::once(&resource.body["address"])
            .chain(additional.map(|each| &each["address"]))
            .map(address)
            .collect();
        let default = resource.body.get("default_filter_chain");
        for chain in chains(resource.body) {
            let is_default = default.is_some_and(|default| std::ptr::eq(default, chain));
            table.row([
                name.clone(),
                addresses.join(","),
                if is_default {
                    "nothing else".to_owned()
                } else {
                    condition(&chain["filter_chain_match"])
                },
                transport(chain).to_owned(),
                destination(chain),
                resource.state.name().to_owned(),
            ]);
        }
    }
    table
}

/// `envoy.config.listener.v3.FilterChainMatch`
fn condition(value: &Value) -> String {
    let mut words = Vec::new();
    if let Some(port) = number(value, "/destination_port") {
        words.push(format!("port {port}"));
    }
    for (field, before) in [("/prefix_ranges", "to"), ("/source_prefix_ranges", "from")] {
        let ranges: Vec<String> = list(value, field)
            .iter()
            .map(|range| {
                let length = number(range, "/prefix_len").unwrap_or_else(|| "0".to_owned());
                format!("{}/{length}", text(range, "/address_prefix"))
            })
            .collect();
        if !ranges.is_empty() {
            words.push(format!("{before} {}", ranges.join(",")));
        }
    }
    match text(value, "/transport_protocol") {
        "" => {}
        "tls" => words.push("TLS".to_owned()),
        "raw_buffer" => words.push("plaintext".to_owned()),
        other => words.push(other.to_owned()),
    }
    let texts = |field| -> Vec<&str> {
        list(value, field)
            .iter()
            .filter_map(Value::as_str)
            .collect()
    };
    let names = texts("/server_names");
    if let [first, rest @ ..] = names.as_slice() {
        let more = match rest.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        words.push(format!("name {first}{more}"));
    }
    let protocols = texts("/application_protocols");
    if !protocols.is_empty() {
        words.push(format!("protocol {}", protocols.join(",")));
    }
    if words.is_empty() {
        "always".to_owned()
    } else {
        words.join(", ")
    }
}

fn transport(chain: &Value) -> &'static str {
    let socket = &chain["transport_socket"]["typed_config"];
    if !text(socket, "/@type").ends_with("DownstreamTlsContext") {
        return "plaintext";
    }
    if socket["require_client_certificate"] == true {
        "mutual TLS"
    } else {
        "TLS"
    }
}

fn destination(chain: &Value) -> String {
    let mut destinations = Vec::new();
    for filter in list(chain, "/filters") {
        let config = &filter["typed_config"];
        let kind = text(config, "/@type")
            .rsplit('.')
            .next()
            .unwrap_or_default();
        match kind {
            "HttpConnectionManager" => {
                let table = match text(config, "/rds/route_config_name") {
                    "" => text(config, "/route_config/name"),
                    shared => shared,
                };
                destinations.push(format!("HTTP, routes {table}"));
            }
            "TcpProxy" => {
                let weighted = list(config, "/weighted_clusters/clusters").iter();
                let weighted: Vec<String> = weighted
                    .map(|cluster| {
                        let weight = number(cluster, "/weight").unwrap_or_default();
                        format!("{weight} to {}", text(cluster, "/name"))
                    })
                    .collect();
                destinations.push(match text(config, "/cluster") {
                    "" => weighted.join(", "),
                    cluster => cluster.to_owned(),
                });
            }
            _ => destinations.push(text(filter, "/name").to_owned()),
        }
    }
    destinations.join(", then ")
}
