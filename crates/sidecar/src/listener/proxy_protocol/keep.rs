//! What is kept of a header's additions, for those who come later.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Tlv;
use crate::config::listener_filter::{ProxyProtocol, TlvRule};
use crate::network::state::ConnectionState;

/// Leaves what the rules ask for in the connection's metadata, and what may be passed on for the
/// connection upstream.
pub fn keep(tlvs: Vec<Tlv>, config: &ProxyProtocol, state: &ConnectionState) {
    for tlv in &tlvs {
        // The first rule for a type is the one that counts.
        if let Some(rule) = config.rules.iter().find(|rule| rule.kind == tlv.kind) {
            state.set_metadata(&rule.namespace, &rule.key, text(rule, &tlv.value).into());
        }
    }
    let passed = tlvs
        .into_iter()
        .filter(|tlv| config.pass_through.includes(tlv.kind));
    state.passed_tlvs.borrow_mut().extend(passed);
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
