//! What the hash policies of a route make of a request.

use std::net::IpAddr;

use smallvec::SmallVec;
use twox_hash::XxHash64;

use super::matching::{cookie, parameter, split_query};
use crate::config::route::{Forward, HashInput};
use crate::http::message::RequestHead;
use crate::network::filter_state::{FilterState, Value};

impl Forward {
    /// The hash of a request from `client`, the same as Envoy's for the same request; `None` where
    /// no policy finds its part.
    pub fn hash(
        &self,
        request: &RequestHead,
        client: Option<IpAddr>,
        state: &FilterState,
    ) -> Option<u64> {
        let mut hash: Option<u64> = None;
        for policy in &self.hash {
            if let Some(part) = part(&policy.input, request, client, state) {
                // Rotated, so that two equal parts do not take each other away.
                hash = Some(hash.map_or(part, |hash| hash.rotate_left(1) ^ part));
            }
            if policy.terminal && hash.is_some() {
                break;
            }
        }
        hash
    }
}

fn part(
    input: &HashInput,
    request: &RequestHead,
    client: Option<IpAddr>,
    state: &FilterState,
) -> Option<u64> {
    match input {
        HashInput::Header { name, rewrite } => {
            let mut values: SmallVec<[&[u8]; 4]> = match &**name {
                b":path" => [&request.path[..]].into_iter().collect(),
                b":method" => [&request.method[..]].into_iter().collect(),
                b":authority" | b"host" => [&request.authority[..]].into_iter().collect(),
                b":scheme" => [request.scheme.as_bytes()].into_iter().collect(),
                name => request.headers.named(name).collect(),
            };
            if values.is_empty() {
                return None;
            }
            values.sort_unstable();
            let mut hash = 0;
            for value in values {
                hash = match rewrite {
                    None => XxHash64::oneshot(hash, value),
                    Some((pattern, by)) => {
                        XxHash64::oneshot(hash, &pattern.replace_all(value, &**by))
                    }
                };
            }
            Some(hash)
        }
        HashInput::Cookie(name) => text(cookie(request, name)?),
        HashInput::FilterState(key) => match state.value(key)? {
            Value::Hashable(value) => Some(XxHash64::oneshot(0, value.as_bytes())),
            _ => None,
        },
        HashInput::SourceIp => text(client?.to_canonical().to_string().as_bytes()),
        HashInput::QueryParameter(name) => {
            let (_, query) = split_query(&request.path);
            Some(XxHash64::oneshot(
                0,
                parameter(query.get(1..).unwrap_or_default(), name)?,
            ))
        }
    }
}

/// The hash of a text; an empty one has none.
fn text(text: &[u8]) -> Option<u64> {
    (!text.is_empty()).then(|| XxHash64::oneshot(0, text))
}
