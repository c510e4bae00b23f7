//! rbac: policies that let a connection through or end it.
//!
//! They are asked before the next filter sees the connection: a server that speaks first is not even
//! connected to for a client that is not let in.

use std::rc::Rc;

use super::filters::Refusal;
use crate::config::network::Rbac;
use crate::listener::connection::Connection;
use crate::runtime::worker::Worker;
use crate::telemetry::access_log::flags::Flags;
use crate::telemetry::access_log::record::Record;

/// The namespace of the shadow rules' results in the dynamic metadata.
const NAMESPACE: &str = "envoy.filters.network.rbac";

/// Asks the policies about a connection.
///
/// # Errors
/// They do not let it through.
pub fn admit(worker: &Rc<Worker>, filter: &Rbac, connection: &Connection) -> Result<(), Refusal> {
    if let Some(engine) = &filter.shadow_engine {
        let verdict = engine.judge(&Record::of_connection(connection));
        let stats = worker.shadow_rbac_stats(&filter.shadow_stat_prefix);
        let (counter, result) = match verdict.allowed {
            true => (&stats.shadow_allowed, "allowed"),
            false => (&stats.shadow_denied, "denied"),
        };
        counter.increment(1);
        let set = |key, value: &str| {
            let key = format!("{}{key}", filter.shadow_metadata_prefix);
            connection.state.set_metadata(NAMESPACE, &key, value.into());
        };
        if let Some(policy) = &verdict.policy {
            set("shadow_effective_policy_id", policy);
        }
        set("shadow_engine_result", result);
    }
    let Some(engine) = &filter.engine else {
        return Ok(());
    };
    let verdict = engine.judge(&Record::of_connection(connection));
    if let Some(hint) = verdict.log_hint {
        let state = &connection.state;
        state.set_metadata("envoy.common", "access_log_hint", hint.into());
    }
    let stats = worker.rbac_stats(&filter.stat_prefix);
    if verdict.allowed {
        stats.allowed.increment(1);
        return Ok(());
    }
    stats.denied.increment(1);
    let details = termination_details(verdict.policy.as_deref());
    *connection.state.termination_details.borrow_mut() = details.into();
    Err(Refusal {
        reason: "rbac_deny_close",
        flags: Flags::NONE,
        delay: filter.delay,
        lingers: true,
    })
}

/// What is said of the policy that denied; there are no spaces in it.
fn termination_details(policy: Option<&str>) -> String {
    let policy: String = policy
        .unwrap_or("none")
        .chars()
        .map(|char| if char.is_whitespace() { '_' } else { char })
        .collect();
    format!("rbac_access_denied_matched_policy[{policy}]")
}
