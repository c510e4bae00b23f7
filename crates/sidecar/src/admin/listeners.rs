//! `/listeners`

use std::fmt::Write;

use serde_json::{Value, json};

use crate::config::address::Address;
use crate::runtime::snapshot::Snapshot;

pub fn text(snapshot: &Snapshot) -> String {
    let mut page = String::new();
    for (name, listener) in snapshot.listeners.iter() {
        for address in listener.addresses() {
            let _ = writeln!(page, "{name}::{address}");
        }
    }
    page
}

pub fn json(snapshot: &Snapshot) -> Value {
    let listeners = snapshot.listeners.iter().map(|(name, listener)| {
        let mut addresses = listener.addresses().into_iter().map(|address| match address {
            Address::Socket(socket) => json!({"socket_address": {"address": socket.ip().to_string(), "port_value": socket.port()}}),
            Address::Pipe(path) => json!({"pipe": {"path": path.to_string_lossy()}}),
        });
        let mut status = json!({"name": &**name, "local_address": addresses.next()});
        let additional: Vec<Value> = addresses.collect();
        if !additional.is_empty() {
            status["additional_local_addresses"] = additional.into();
        }
        status
    });
    json!({ "listener_statuses": listeners.collect::<Vec<_>>() })
}
