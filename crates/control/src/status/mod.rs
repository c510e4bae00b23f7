//! The status of objects: pure functions from what is there and what was found to what is to be
//! written, or nothing where it is there already.

mod conditions;

use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use crate::mesh::{Finding, Findings, ParentFindings, Verdict};
use crate::registry::kinds::ParentRef;

use conditions::{Condition, merged};

/// The name under which the mesh writes into the statuses of routes.
pub const CONTROLLER_NAME: &str = "outrider.dev/mesh";

/// The most entries that a route's status can have; its schema refuses more.
const MAX_PARENTS: usize = 32;

/// The status that an object should have, given the one that it has; `None` where that is so
/// already. `rejecting` is the number of proxies that refused what became of the object.
pub fn wanted(
    present: Option<&Value>,
    verdict: &Verdict,
    rejecting: usize,
    now: OffsetDateTime,
) -> Option<Value> {
    let empty = Value::Object(Map::new());
    let present = present
        .filter(|status| status.is_object())
        .unwrap_or(&empty);
    let generation = verdict.generation;
    let mut status = present.clone();
    match &verdict.findings {
        Findings::Object(accepted) => {
            let conditions = own_conditions(accepted, rejecting);
            let old = list(present.get("conditions"));
            status["conditions"] = merged(old, &conditions, generation, now);
            status["rejectedBy"] = json!(rejecting);
        }
        Findings::Route(parents) => {
            let old = list(present.get("parents"));
            let wanted = route_parents(old, parents, generation, rejecting, now);
            // A route of other controllers alone is left alone.
            if !old.is_empty() || wanted != json!([]) {
                status["parents"] = wanted;
            }
        }
    }
    (status != *present).then_some(status)
}

fn own_conditions(accepted: &Finding, rejecting: usize) -> Vec<Condition<'_>> {
    vec![
        Condition::new("Accepted", accepted),
        programmed(accepted.holds, rejecting),
    ]
}

/// What the proxies said of it.
fn programmed(accepted: bool, rejecting: usize) -> Condition<'static> {
    let (status, reason, message) = match (accepted, rejecting) {
        (false, _) => (
            false,
            "Invalid",
            "nothing of it was sent to a proxy".to_owned(),
        ),
        (true, 0) => (true, "Programmed", "no proxy refused it".to_owned()),
        (true, 1) => (false, "Rejected", "1 proxy refused it".to_owned()),
        (true, count) => (false, "Rejected", format!("{count} proxies refused it")),
    };
    Condition {
        kind: "Programmed",
        status,
        reason,
        message: message.into(),
    }
}

/// The entries of other controllers as they are, then ours in the order of the parents; entries of
/// ours for parents that are gone go too.
fn route_parents(
    present: &[Value],
    wanted: &[ParentFindings],
    generation: i64,
    rejecting: usize,
    now: OffsetDateTime,
) -> Value {
    let is_ours = |entry: &&Value| entry["controllerName"] == CONTROLLER_NAME;
    let (ours, others): (Vec<&Value>, Vec<&Value>) = present.iter().partition(is_ours);
    let mut entries: Vec<Value> = others.into_iter().cloned().collect();
    for findings in wanted {
        if entries.len() == MAX_PARENTS {
            break;
        }
        let parent = parent_ref(&findings.parent);
        let same = |entry: &&&Value| entry["parentRef"] == parent;
        let old = ours.iter().find(same);
        let old = list(old.and_then(|entry| entry.get("conditions")));
        let mut conditions = vec![
            Condition::new("Accepted", &findings.accepted),
            Condition::new("ResolvedRefs", &findings.resolved_refs),
            programmed(findings.accepted.holds, rejecting),
        ];
        let partially = findings.partially_invalid.as_ref();
        conditions.extend(partially.map(|finding| Condition::new("PartiallyInvalid", finding)));
        entries.push(json!({
            "parentRef": parent,
            "controllerName": CONTROLLER_NAME,
            "conditions": merged(old, &conditions, generation, now),
        }));
    }
    Value::Array(entries)
}

/// As the route wrote it, with nothing added.
fn parent_ref(parent: &ParentRef) -> Value {
    let mut fields = Map::new();
    let texts = [
        ("group", parent.group.as_ref()),
        ("kind", parent.kind.as_ref()),
        ("namespace", parent.namespace.as_ref()),
        ("name", Some(&parent.name)),
        ("sectionName", parent.section_name.as_ref()),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            fields.insert(name.to_owned(), json!(text));
        }
    }
    if let Some(port) = parent.port {
        fields.insert("port".to_owned(), json!(port));
    }
    Value::Object(fields)
}

fn list(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests;
