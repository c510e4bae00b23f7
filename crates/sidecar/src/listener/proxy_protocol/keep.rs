//! What is kept of a header's additions, for those who come later.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Tlv;
use crate::config::listener_filter::{ProxyProtocol, TlvRule};
use crate::network::filter_state::{PROXY_PROTOCOL_TLVS, Value};
use crate::network::state::ConnectionState;

/// Leaves what the rules ask for in the connection's metadata, and what may be passed on for the
/// connection upstream.
pub fn keep(tlvs: Vec<Tlv>, config: &ProxyProtocol, state: &ConnectionState) {
    let mut for_filter_state: Vec<(Box<str>, Box<str>)> = Vec::new();
    let mut set: Vec<(&str, &str)> = Vec::new();
    for tlv in &tlvs {
        // The first rule for a type is the one that counts.
        let Some(rule) = config.rules.iter().find(|rule| rule.kind == tlv.kind) else {
            continue;
        };
        let text = text(rule, &tlv.value);
        match config.into_filter_state {
            // Of several with one key the last counts there, and the first here, as in Envoy.
            true => {
                for_filter_state.retain(|(key, _)| **key != *rule.key);
                for_filter_state.push(((&*rule.key).into(), text.into()));
            }
            false if set.contains(&(&rule.namespace, &rule.key)) => {}
            false => {
                set.push((&rule.namespace, &rule.key));
                state.set_metadata(&rule.namespace, &rule.key, text.into());
            }
        }
    }
    if !for_filter_state.is_empty() {
        let value = Value::Fields(for_filter_state.into());
        let mut filter_state = state.filter_state.borrow_mut();
        filter_state.set(&PROXY_PROTOCOL_TLVS.into(), value);
    }
    let passed = tlvs
        .into_iter()
        .filter(|tlv| config.pass_through.includes(tlv.kind));
    let passed: Vec<Tlv> = passed.collect();
    if !passed.is_empty() {
        *state.passed_tlvs.borrow_mut() = Some(passed.into());
    }
}

fn text(rule: &TlvRule, value: &[u8]) -> String {
    if rule.base64 {
        return STANDARD.encode(value);
    }
    let chunks = value.utf8_chunks();
    chunks.fold(String::new(), |mut text, chunk| {
        text.push_str(chunk.valid());
        // One for each byte that is not part of a character.
        text.extend(chunk.invalid().iter().map(|_| '!'));
        text
    })
}
