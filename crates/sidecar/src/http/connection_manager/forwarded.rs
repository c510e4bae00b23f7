//! What a request tells the next hop about its way: x-forwarded-for, x-forwarded-proto, via,
//! x-request-id.
//!
//! The rules are Envoy's ("HTTP header manipulation" in its documentation): with
//! `use_remote_address` the connection's peer is the client and is appended; without it the proxy
//! is one more hop behind somebody who has done so.

use std::net::IpAddr;

use smallvec::SmallVec;

use crate::config::http_connection_manager::HttpConnectionManager;
use crate::http::headers::Name;
use crate::http::message::RequestHead;

/// Headers by which a trusted caller steers the router, without the `x-envoy-` that they begin
/// with: those of a stranger are not believed.
const STEERING: [&[u8]; 14] = [
    b"expected-rq-timeout-ms",
    b"force-trace",
    b"hedge-on-per-try-timeout",
    b"ip-tags",
    b"max-retries",
    b"original-url",
    b"retriable-header-names",
    b"retriable-status-codes",
    b"retry-grpc-on",
    b"retry-on",
    b"upstream-alt-stat-name",
    b"upstream-rq-per-try-timeout-ms",
    b"upstream-rq-timeout-alt-response",
    b"upstream-rq-timeout-ms",
];
/// Those that only the edge of the mesh takes away: further in they are the edge's own.
const OF_THE_EDGE: [&[u8]; 5] = [
    b"decorator-operation",
    b"downstream-service-cluster",
    b"downstream-service-node",
    b"original-host",
    b"original-path",
];

/// Who a request comes from, as far as its way tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// From an address that is configured as internal, with no other proxy between.
    pub internal: bool,
    /// From outside, and this proxy is the first to see it.
    pub edge: bool,
    /// The client, where x-forwarded-for is believed to tell it; else it is the connection's peer.
    pub told: Option<IpAddr>,
}

/// Sets the forwarding headers of a request that came from `peer`, over TLS or not. A client of a
/// Unix socket has no address, and is told of to nobody.
pub fn apply(
    manager: &HttpConnectionManager,
    peer: Option<IpAddr>,
    tls: bool,
    request: &mut RequestHead,
) -> Caller {
    let proto: &[u8] = if tls { b"https" } else { b"http" };
    let hops = manager.xff_trusted_hops as usize;
    let (told, direct) = if manager.use_remote_address {
        let direct = !request.headers.contains(Name::XForwardedFor);
        // The peer is the first of the trusted hops.
        let told = hops
            .checked_sub(1)
            .and_then(|skip| told_address(request, skip));
        if let Some(peer) = peer.filter(|_| !manager.skip_xff_append) {
            let mut text = IpText::new();
            request
                .headers
                .append_to_list(Name::XForwardedFor, text.write(peer));
        }
        if hops == 0 {
            request.headers.set(Name::XForwardedProto, proto);
        }
        (told, direct)
    } else {
        let mut lists = request.headers.all(Name::XForwardedFor);
        let sole = lists.next().is_some_and(|list| !list.contains(&b','));
        let sole = sole && hops == 0 && lists.next().is_none();
        (told_address(request, hops), sole)
    };
    let client = match told {
        None if manager.use_remote_address => peer,
        told => told,
    };
    let internal = direct
        && client.is_some_and(|client| {
            let ranges = &manager.internal_addresses;
            ranges.iter().any(|range| range.contains(&client))
        });
    let caller = Caller {
        internal,
        edge: !internal && manager.use_remote_address,
        told,
    };
    sanitise(caller, request);
    if caller.edge
        && let Some(client) = client
    {
        let mut text = IpText::new();
        request
            .headers
            .set(Name::XEnvoyExternalAddress, text.write(client));
    }
    if !request.headers.contains(Name::XForwardedProto) {
        request.headers.push_known(Name::XForwardedProto, proto);
    }
    if !manager.via.is_empty() {
        request.headers.append_after(Name::Via, b", ", &manager.via);
    }
    caller
}

/// Takes away what this caller may not say, in one pass.
fn sanitise(caller: Caller, request: &mut RequestHead) {
    request.headers.retain(|name, text, _| {
        let Some((prefix, rest)) = text.split_at_checked(8) else {
            return true;
        };
        if !prefix.eq_ignore_ascii_case(b"x-envoy-") {
            return true;
        }
        let is_one_of = |list: &[&[u8]]| list.iter().any(|known| rest.eq_ignore_ascii_case(known));
        name != Name::XEnvoyInternal
            && (caller.internal || !is_one_of(&STEERING))
            && (!caller.edge || !is_one_of(&OF_THE_EDGE))
    });
    if caller.internal {
        request.headers.push_known(Name::XEnvoyInternal, b"true");
    }
}

/// The entry of x-forwarded-for that is `skip` from its end.
fn told_address(request: &RequestHead, skip: usize) -> Option<IpAddr> {
    let fields: SmallVec<[&[u8]; 4]> = request.headers.all(Name::XForwardedFor).collect();
    let mut entries = fields
        .iter()
        .rev()
        .flat_map(|field| field.rsplit(|byte| *byte == b','));
    let entry = entries.nth(skip)?.trim_ascii();
    let address: IpAddr = std::str::from_utf8(entry).ok()?.parse().ok()?;
    Some(address.to_canonical())
}

/// Makes sure that the request has an x-request-id; one that a stranger sent is replaced.
pub fn request_id(
    manager: &HttpConnectionManager,
    caller: Caller,
    random: impl FnOnce() -> u128,
    request: &mut RequestHead,
) {
    if !manager.generate_request_id {
        return;
    }
    let replace = caller.edge && !manager.preserve_external_request_id;
    if replace || !request.headers.contains(Name::XRequestId) {
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
