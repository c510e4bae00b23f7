//! `outrider proxy routes`

use std::time::SystemTime;

use serde_json::Value;

use super::dump::{State, chains, list, resources, text};
use super::{action, matches};
use crate::output::Table;

/// One row a route, in the order in which they are tried.
pub(super) fn table(dump: &Value, _: SystemTime) -> Table {
    let mut table = Table::new(&["TABLE", "HOSTS", "MATCH", "GOES TO", "NAME"]);
    for resource in resources(dump, "Routes") {
        if resource.state == State::Refused {
            let name = resource.name.to_owned();
            let refusal = format!("REFUSED: {}", resource.refusal);
            table.row([name, String::new(), String::new(), refusal, String::new()]);
        } else {
            add(&mut table, resource.name, resource.body);
        }
    }
    let mut seen: Vec<&Value> = Vec::new();
    for listener in resources(dump, "Listeners") {
        for chain in chains(listener.body) {
            for filter in list(chain, "/filters") {
                let Some(inline) = filter.pointer("/typed_config/route_config") else {
                    continue;
                };
                // The chains for plaintext and for mutual TLS have the same.
                if !seen.contains(&inline) {
                    seen.push(inline);
                    let name = match text(inline, "/name") {
                        "" => listener.name,
                        name => name,
                    };
                    add(&mut table, name, inline);
                }
            }
        }
    }
    table
}

fn add(table: &mut Table, name: &str, routes: &Value) {
    for host in list(routes, "/virtual_hosts") {
        let domains: Vec<&str> = list(host, "/domains")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        let domains = match domains.as_slice() {
            [first, second, third, rest @ ..] if !rest.is_empty() => {
                format!("{first},{second},{third} and {} more", rest.len())
            }
            all => all.join(","),
        };
        for route in list(host, "/routes") {
            table.row([
                name.to_owned(),
                domains.clone(),
                matches::route(&route["match"]),
                action::route(route),
                text(route, "/name").to_owned(),
            ]);
        }
    }
}
