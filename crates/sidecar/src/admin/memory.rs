//! `/memory`

use serde_json::{Value, json};

use crate::runtime::memory::Memory;

/// `envoy.admin.v3.Memory`
pub fn page() -> Value {
    let memory = Memory::now();
    json!({
        "allocated": memory.data.to_string(),
        "heap_size": memory.data.to_string(),
        "pageheap_unmapped": "0",
        "pageheap_free": "0",
        "total_thread_cache": "0",
        "total_physical_bytes": memory.resident.to_string(),
    })
}
