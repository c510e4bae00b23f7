//! What a request tells the next hop about its way: x-forwarded-for, x-forwarded-proto, via,
//! x-request-id.
//!
//! The rules are Envoy's ("HTTP header manipulation" in its documentation): with
//! `use_remote_address` the connection's peer is the client and is appended; without it the proxy
//! is one more hop behind somebody who has done so.

use std::net::{IpAddr, SocketAddr};

use crate::config::http_connection_manager::HttpConnectionManager;
use crate::http::headers::Name;
use crate::http::message::RequestHead;

/// Headers by which a caller steers the router: those of a stranger are not believed.
const STEERING: [Name; 4] = [
    Name::XEnvoyInternal,
    Name::XEnvoyExternalAddress,
    Name::XEnvoyUpstreamRqTimeoutMs,
    Name::XEnvoyExpectedRqTimeoutMs,
];

/// Sets the forwarding headers of a request that came from `peer`, over TLS or not.
pub fn apply(
    manager: &HttpConnectionManager,
    peer: SocketAddr,
    tls: bool,
    request: &mut RequestHead,
) {
    let proto: &[u8] = if tls { b"https" } else { b"http" };
    if is_internal(manager, peer, request) {
        request.headers.set(Name::XEnvoyInternal, b"true");
    } else {
        for name in STEERING {
            request.headers.remove(name);
        }
        if manager.use_remote_address {
            request.headers.remove(Name::XEnvoyDecoratorOperation);
        }
    }
    if manager.use_remote_address {
        if !manager.skip_xff_append {
            let mut text = IpText::new();
            request
                .headers
                .append_to_list(Name::XForwardedFor, text.write(peer.ip()));
        }
        if manager.xff_trusted_hops == 0 {
            request.headers.set(Name::XForwardedProto, proto);
        }
    }
    match request.headers.first(Name::XForwardedProto) {
        Some(b"http" | b"https") => {}
        // Absent, or nothing that a scheme can be: this connection's own.
        _ => request.headers.set(Name::XForwardedProto, proto),
    }
    if !manager.via.is_empty() {
        request.headers.append_to_list(Name::Via, &manager.via);
    }
}

/// Whether the request comes straight from an address that the configuration calls internal: the
/// peer's own or, behind another proxy, the only one in x-forwarded-for.
fn is_internal(manager: &HttpConnectionManager, peer: SocketAddr, request: &RequestHead) -> bool {
    if manager.internal_addresses.is_empty() {
        return false;
    }
    let mut forwarded = request.headers.all(Name::XForwardedFor);
    let client = match (manager.use_remote_address, forwarded.next()) {
        (true, None) => Some(peer.ip()),
        (false, Some(only)) if forwarded.next().is_none() => std::str::from_utf8(only)
            .ok()
            .and_then(|text| text.trim().parse::<IpAddr>().ok()),
        _ => None,
    };
    client.is_some_and(|client| {
        let client = client.to_canonical();
        let ranges = &manager.internal_addresses;
        ranges.iter().any(|range| range.contains(&client))
    })
}

/// Makes sure that the request has an x-request-id; one that a stranger sent is replaced.
pub fn request_id(
    manager: &HttpConnectionManager,
    random: impl FnOnce() -> u128,
    request: &mut RequestHead,
) {
    if !manager.generate_request_id {
        return;
    }
    let stranger = manager.use_remote_address && !manager.preserve_external_request_id;
    if stranger || !request.headers.contains(Name::XRequestId) {
        let id = uuid::Builder::from_random_bytes(random().to_ne_bytes()).into_uuid();
        let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
        let text = id.hyphenated().encode_lower(&mut text).as_bytes();
        request.headers.set(Name::XRequestId, text);
    }
}

/// Room for an address as text, on the stack.
struct IpText([u8; 46], usize);

impl IpText {
    fn new() -> Self {
        IpText([0; 46], 0)
    }

    fn write(&mut self, ip: IpAddr) -> &[u8] {
        use std::io::Write;
        let room = self.0.len();
        let mut rest = &mut self.0[..];
        // An address never needs more than 45 bytes, so this cannot fail.
        if write!(rest, "{}", ip.to_canonical()).is_ok() {
            self.1 = room - rest.len();
        }
        &self.0[..self.1]
    }
}
