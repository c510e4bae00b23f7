//! What a request tells the next hop about its way: x-forwarded-for, x-forwarded-proto, via,
//! x-request-id.
//!
//! The rules are Envoy's ("HTTP header manipulation" in its documentation): with
//! `use_remote_address` the connection's peer is the client and is appended; without it the proxy
//! is one more hop behind somebody who has done so.

use std::net::IpAddr;

use smallvec::SmallVec;

use super::local_reply::LocalReply;
use crate::config::http_connection_manager::{
    HttpConnectionManager, OriginalIp, SchemeRule, UserAgent,
};
use crate::http::headers::Name;
use crate::http::message::RequestHead;
use crate::http::route::split_port;
use crate::listener::connection::Connection;
use crate::telemetry::access_log::flags::Flags;

const FORWARDED_PORT: &[u8] = b"x-forwarded-port";

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

/// Sets the forwarding headers of a request that came over `connection`; a client of a Unix socket
/// has no address, and is told of to nobody. `Err` is the answer to one
/// that does not say where it comes from, and should.
pub fn apply(
    manager: &HttpConnectionManager,
    connection: &Connection,
    request: &mut RequestHead,
) -> Result<Caller, LocalReply> {
    let peer = connection.peer.ip().map(|peer| peer.to_canonical());
    let proto = if connection.tls.is_some() {
        "https"
    } else {
        "http"
    };
    request.headers.join(Name::XForwardedFor, b",");
    check_referer(request);
    let hops = manager.xff_trusted_hops as usize;
    let found = if manager.use_remote_address {
        let trusted = !request.headers.contains(Name::XForwardedFor);
        // The peer is the first of the trusted hops.
        let told = hops
            .checked_sub(1)
            .and_then(|skip| told_address(request, skip));
        if !manager.skip_xff_append {
            append_peer(peer, request);
        }
        if hops == 0 {
            request.headers.set(Name::XForwardedProto, proto.as_bytes());
        }
        if manager.append_forwarded_port && hops == 0 {
            request.headers.remove_named(FORWARDED_PORT);
        }
        Found { told, trusted }
    } else {
        detect(manager, peer, request)?
    };
    if !request.headers.contains(Name::XForwardedProto) {
        request
            .headers
            .push_known(Name::XForwardedProto, proto.as_bytes());
    }
    if manager.append_forwarded_port
        && let Some(port) = connection.local.port()
        && request.headers.named(FORWARDED_PORT).next().is_none()
    {
        let mut text = itoa::Buffer::new();
        let text = text.format(port);
        request.headers.push(FORWARDED_PORT, text.as_bytes());
    }
    set_scheme(manager.scheme, request);
    let client = match found.told {
        None if manager.use_remote_address => peer,
        told => told,
    };
    let internal = found.trusted
        && match client {
            Some(client) => {
                let ranges = &manager.internal_addresses;
                ranges.iter().any(|range| range.contains(&client))
            }
            // The client of a Unix socket has no address.
            None => manager.use_remote_address && manager.internal_unix_sockets,
        };
    let caller = Caller {
        internal,
        edge: !internal && manager.use_remote_address,
        told: found.told,
    };
    sanitise(caller, request);
    if let Some(agent) = &manager.user_agent {
        tell_agent(agent, request);
    }
    if caller.edge
        && let Some(client) = client
    {
        let mut text = IpText::new();
        request
            .headers
            .set(Name::XEnvoyExternalAddress, text.write(client));
    }
    if !manager.via.is_empty() {
        request.headers.append_after(Name::Via, b", ", &manager.via);
    }
    Ok(caller)
}

/// A `referer` that is there twice or is no URL is not handed on.
fn check_referer(request: &mut RequestHead) {
    let mut all = request.headers.all(Name::Referer);
    let Some(first) = all.next() else { return };
    let good = is_absolute_url(first) && all.next().is_none();
    drop(all);
    if !good {
        request.headers.remove(Name::Referer);
    }
}

/// `scheme://host`, with whatever behind it (RFC 3986, section 3).
fn is_absolute_url(text: &[u8]) -> bool {
    let Some(at) = memchr::memmem::find(text, b"://") else {
        return false;
    };
    let (scheme, rest) = (&text[..at], &text[at + 3..]);
    let of_scheme = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
    let end = rest.iter().position(|byte| b"/?#\\".contains(byte));
    let authority = &rest[..end.unwrap_or(rest.len())];
    let host = match memchr::memrchr(b'@', authority) {
        Some(at) => &authority[at + 1..],
        None => authority,
    };
    let (host, port) = split_port(host);
    let port = port.get(1..).filter(|port| !port.is_empty());
    scheme.first().is_some_and(u8::is_ascii_alphabetic)
        && scheme.iter().all(of_scheme)
        && !host.is_empty()
        && host
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._~%[]:!$&'()*+,;=".contains(byte))
        && port.is_none_or(|port| {
            let port = std::str::from_utf8(port).ok();
            port.is_some_and(|port| port.parse::<u16>().is_ok())
        })
}

fn append_peer(peer: Option<IpAddr>, request: &mut RequestHead) {
    let Some(peer) = peer else { return };
    let mut text = IpText::new();
    request
        .headers
        .append_to_list(Name::XForwardedFor, text.write(peer));
}

/// An HTTP/1 request has the scheme that the hop before it tells; HTTP/2 says its own.
fn set_scheme(rule: SchemeRule, request: &mut RequestHead) {
    if let SchemeRule::Overwrite(scheme) = rule {
        request.scheme = scheme;
        request
            .headers
            .set(Name::XForwardedProto, scheme.as_bytes());
    } else if request.version.is_http1() {
        let told = request.headers.first(Name::XForwardedProto);
        request.scheme = match told {
            Some(b"http") => "http",
            Some(b"https") => "https",
            _ => request.scheme,
        };
    }
}

/// `add_user_agent`
fn tell_agent(agent: &UserAgent, request: &mut RequestHead) {
    let headers = &mut request.headers;
    headers.set_named(b"x-envoy-downstream-service-cluster", &agent.cluster);
    if headers.first(Name::UserAgent).is_none_or(<[u8]>::is_empty) {
        headers.set(Name::UserAgent, &agent.cluster);
    }
    if !agent.node.is_empty() {
        headers.set_named(b"x-envoy-downstream-service-node", &agent.node);
    }
}

/// What is known of a request's client.
#[derive(Default)]
struct Found {
    /// Where it is, if the request tells.
    told: Option<IpAddr>,
    /// Whether that may be an internal address.
    trusted: bool,
}

/// Asks those who are configured for the client's address; the first that knows is believed.
fn detect(
    manager: &HttpConnectionManager,
    peer: Option<IpAddr>,
    request: &mut RequestHead,
) -> Result<Found, LocalReply> {
    for source in &manager.original_ip {
        let (found, append) = match source {
            OriginalIp::Hops { hops, append } => {
                let trusted = *hops == 0 && is_sole(request);
                let told = told_address(request, *hops as usize);
                (Found { told, trusted }, *append)
            }
            OriginalIp::Trusted { ranges, append } => {
                let known = |address: &IpAddr| ranges.iter().any(|range| range.contains(address));
                if peer.as_ref().is_some_and(known) {
                    let told = first_stranger(request, known);
                    let trusted = is_sole(request);
                    (Found { told, trusted }, *append)
                } else {
                    (Found::default(), true)
                }
            }
            OriginalIp::Header {
                name,
                trusted,
                reject,
            } => {
                let told = request.headers.named(name).next().and_then(address);
                if let (None, Some(status)) = (told, *reject) {
                    let details = "rejecting_because_detection_failed";
                    return Err(LocalReply::new(status, "", details, Flags::NONE));
                }
                let trusted = *trusted;
                (Found { told, trusted }, false)
            }
        };
        if append {
            append_peer(peer, request);
        }
        if found.told.is_some() {
            return Ok(found);
        }
    }
    Ok(Found::default())
}

/// Whether x-forwarded-for, whose fields have been joined, has one entry.
fn is_sole(request: &RequestHead) -> bool {
    let list = request.headers.first(Name::XForwardedFor);
    list.is_some_and(|list| !list.contains(&b','))
}

/// The last entry of x-forwarded-for that is not known, seen from the nearest hop; the first of all
/// where every one is known. An entry that is no address ends the search: nobody vouches for more.
fn first_stranger(request: &RequestHead, known: impl Fn(&IpAddr) -> bool) -> Option<IpAddr> {
    let fields: SmallVec<[&[u8]; 4]> = request.headers.all(Name::XForwardedFor).collect();
    let mut last = None;
    for entry in entries(&fields) {
        let address = address(entry)?;
        if !known(&address) {
            return Some(address);
        }
        last = Some(address);
    }
    last
}

/// The entries of a list, from its end.
fn entries<'a>(fields: &'a [&'a [u8]]) -> impl Iterator<Item = &'a [u8]> {
    let fields = fields.iter().rev();
    fields.flat_map(|field| field.rsplit(|byte| *byte == b','))
}

/// An address as text.
fn address(text: &[u8]) -> Option<IpAddr> {
    let address: IpAddr = std::str::from_utf8(text.trim_ascii()).ok()?.parse().ok()?;
    Some(address.to_canonical())
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
    entries(&fields).nth(skip).and_then(address)
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
    if caller.edge && manager.preserve_external_request_id && manager.pack_trace_reason {
        forget_trace_reason(request);
    }
    if replace || !request.headers.contains(Name::XRequestId) {
        let id = uuid::Builder::from_random_bytes(random().to_ne_bytes()).into_uuid();
        let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
        let text = id.hyphenated().encode_lower(&mut text).as_bytes();
        request.headers.set(Name::XRequestId, text);
    }
}

/// A stranger has no say in whether its request is traced, which one digit of a UUID would tell.
fn forget_trace_reason(request: &mut RequestHead) {
    let id = request.headers.first(Name::XRequestId);
    let id: Option<[u8; uuid::fmt::Hyphenated::LENGTH]> = id.and_then(|id| id.try_into().ok());
    if let Some(mut id) = id
        && id[14] != b'4'
    {
        id[14] = b'4';
        request.headers.set(Name::XRequestId, &id);
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
