//! Conditions as Kubernetes keeps them (`metav1.Condition`).

use std::borrow::Cow;

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::mesh::Finding;

/// The longest message that the schema of conditions allows, in characters.
const MAX_MESSAGE: usize = 32_768;

/// A condition that is to be there.
#[derive(Debug, Clone)]
pub(super) struct Condition<'a> {
    pub(super) kind: &'static str,
    pub(super) status: bool,
    pub(super) reason: &'static str,
    pub(super) message: Cow<'a, str>,
}

impl<'a> Condition<'a> {
    pub(super) fn new(kind: &'static str, finding: &'a Finding) -> Self {
        Self {
            kind,
            status: finding.holds,
            reason: finding.reason,
            message: Cow::Borrowed(&finding.message),
        }
    }
}

/// The wanted conditions. `lastTransitionTime` is that of the present condition where its status is
/// the same: it tells when the status changed, not when somebody looked.
pub(super) fn merged(
    present: &[Value],
    wanted: &[Condition<'_>],
    generation: i64,
    now: OffsetDateTime,
) -> Value {
    let whole = now.replace_nanosecond(0).unwrap_or(now);
    let now = whole.format(&Rfc3339).unwrap_or_default();
    let condition = |condition: &Condition<'_>| {
        let status = if condition.status { "True" } else { "False" };
        let since = present
            .iter()
            .find(|old| old["type"] == condition.kind && old["status"] == status)
            .and_then(|old| old["lastTransitionTime"].as_str());
        let message: String = condition.message.chars().take(MAX_MESSAGE).collect();
        json!({
            "type": condition.kind,
            "status": status,
            "observedGeneration": generation,
            "lastTransitionTime": since.unwrap_or(&now),
            "reason": condition.reason,
            "message": message,
        })
    };
    wanted.iter().map(condition).collect()
}
