//! `outrider proxy config`

use std::time::SystemTime;

use serde_json::Value;

use super::dump::{KINDS, resources};
use crate::output::{Table, parse_rfc3339, span};

/// Every resource, what was refused first.
pub(super) fn table(dump: &Value, now: SystemTime) -> Table {
    let mut table = Table::new(&["KIND", "NAME", "STATE", "VERSION", "AGE", "REASON"]);
    let mut rows = Vec::new();
    for (section, kind, _) in KINDS {
        for resource in resources(dump, section) {
            rows.push((kind, resource));
        }
    }
    rows.sort_by_key(|(_, resource)| resource.refusal.is_empty());
    for (kind, resource) in rows {
        let age = parse_rfc3339(resource.updated)
            .and_then(|updated| now.duration_since(updated).ok())
            .map(span);
        table.row([
            kind.to_owned(),
            resource.name.to_owned(),
            resource.state.name().to_owned(),
            resource.version.to_owned(),
            age.unwrap_or_default(),
            if resource.refusal.is_empty() {
                String::new()
            } else {
                resource.refusal.to_owned()
            },
        ]);
    }
    table
}
