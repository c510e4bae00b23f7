//! What is known of a connection when its filter chain is chosen.

use std::fmt::Display;
use std::io::Write as _;
use std::net::SocketAddr;

use super::input::{Input, Inputs, Known};
use crate::listener::filter_chain_match::{MatchInput, is_local};

/// The inputs of `filter_chain_matcher`.
pub struct ConnectionInputs<'a, 'b, Protocol>(pub &'a MatchInput<'b, Protocol>);

impl<Protocol: AsRef<[u8]>> Inputs for ConnectionInputs<'_, '_, Protocol> {
    fn with<R>(&self, input: &Input, look: impl FnOnce(Option<Known<'_>>) -> R) -> R {
        let known = self.0;
        match input {
            Input::DestinationIp => address(known.destination, look),
            Input::SourceIp => address(known.source, look),
            Input::DirectSourceIp => address(known.direct_source, look),
            Input::DestinationPort => port(known.destination, look),
            Input::SourcePort => port(known.source, look),
            Input::SourceType => {
                let ip = |address: Option<SocketAddr>| address.map(|is| is.ip().to_canonical());
                let is_local = match (ip(known.source), ip(known.destination)) {
                    (Some(source), Some(destination)) => is_local(source, destination),
                    // The ends of a Unix socket.
                    _ => true,
                };
                look(is_local.then_some(Known::Text(b"local")))
            }
            Input::ServerName => server_name(known.server_name, look),
            Input::TransportProtocol => {
                let protocol = known.transport_protocol;
                look((!protocol.is_empty()).then_some(Known::Text(protocol.as_bytes())))
            }
            Input::ApplicationProtocol => {
                if known.application_protocols.is_empty() {
                    return look(None);
                }
                let mut text = Vec::new();
                for protocol in known.application_protocols {
                    if !text.is_empty() {
                        text.push(b',');
                    }
                    text.push(b'\'');
                    text.extend_from_slice(protocol.as_ref());
                    text.push(b'\'');
                }
                look(Some(Known::Text(&text)))
            }
            Input::Fixed(value) => look(value.as_deref().map(Known::Text)),
            // The builder lets none of these in.
            Input::Header(_)
            | Input::UriSan
            | Input::DnsSan
            | Input::Subject
            | Input::FilterState(..) => look(None),
        }
    }
}

/// Looks at a server name in lower case, which most are in: names have none, so a client must not
/// choose by it what it meets.
pub fn server_name<R>(name: Option<&str>, look: impl FnOnce(Option<Known<'_>>) -> R) -> R {
    match name {
        Some(name) if name.bytes().any(|byte| byte.is_ascii_uppercase()) => {
            look(Some(Known::Text(name.to_ascii_lowercase().as_bytes())))
        }
        name => look(name.map(|name| Known::Text(name.as_bytes()))),
    }
}

pub(super) fn address<R>(
    address: Option<SocketAddr>,
    look: impl FnOnce(Option<Known<'_>>) -> R,
) -> R {
    let Some(address) = address else {
        return look(None);
    };
    let ip = address.ip().to_canonical();
    let text = Written::new(ip);
    look(Some(Known::Address(ip, text.as_bytes())))
}

pub(super) fn port<R>(address: Option<SocketAddr>, look: impl FnOnce(Option<Known<'_>>) -> R) -> R {
    let Some(address) = address else {
        return look(None);
    };
    let text = Written::new(address.port());
    look(Some(Known::Text(text.as_bytes())))
}

/// A short text on the stack: 45 bytes are the longest IPv6 address.
struct Written {
    bytes: [u8; 48],
    length: usize,
}

impl Written {
    fn new(value: impl Display) -> Self {
        let mut bytes = [0; 48];
        let mut rest = &mut bytes[..];
        // Neither an address nor a port is longer.
        let _ = write!(rest, "{value}");
        let length = 48 - rest.len();
        Written { bytes, length }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}
