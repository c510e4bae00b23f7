//! `/runtime` and `/runtime_modify`

use std::collections::BTreeSet;

use http::StatusCode;
use serde_json::{Value, json};

use super::answer::{ok, text};
use super::query::Query;
use crate::runtime::http_server::Page;
use crate::runtime_layer;

const USAGE: &str = "usage: /runtime_modify?key1=value1&key2=value2&keyN=valueN
       or send the parameters as form values
use an empty value to remove a previously added override";

/// The layers, and for each key its value in each and the one that holds.
pub fn page() -> Value {
    let layers = runtime_layer::of_process().layers();
    let keys: BTreeSet<&String> = layers
        .iter()
        .flat_map(|layer| layer.values.keys())
        .collect();
    let entries = keys.into_iter().map(|key| {
        let of = layers.iter().map(|layer| layer.values.get(key));
        let values: Vec<&str> = of.map(|value| value.map_or("", |v| v.text())).collect();
        let last = values.iter().rev().find(|value| !value.is_empty());
        let entry = json!({"layer_values": values, "final_value": last.unwrap_or(&"")});
        (key.clone(), entry)
    });
    let entries: serde_json::Map<_, _> = entries.collect();
    let names: Vec<&str> = layers.iter().map(|layer| layer.name.as_str()).collect();
    json!({"layers": names, "entries": entries})
}

/// Sets values of the admin layer.
pub fn modify(query: &Query<'_>) -> Page {
    let changes: Vec<_> = query.decoded().collect();
    if changes.is_empty() {
        return text(StatusCode::BAD_REQUEST, USAGE);
    }
    match runtime_layer::of_process().modify(changes) {
        Ok(()) => ok(),
        Err(error) => text(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
    }
}
