//! What trees look at.

use std::net::IpAddr;

/// An `input`, by the name of its message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// `DestinationIPInput`
    DestinationIp,
    /// `DestinationPortInput`
    DestinationPort,
    /// `SourceIPInput`
    SourceIp,
    /// `SourcePortInput`
    SourcePort,
    /// `DirectSourceIPInput`
    DirectSourceIp,
    /// `SourceTypeInput`: `local` where both ends are this machine.
    SourceType,
    /// `ServerNameInput`: of the ClientHello.
    ServerName,
    /// `TransportProtocolInput`: `tls` or `raw_buffer`.
    TransportProtocol,
    /// `ApplicationProtocolInput`: `'h2','http/1.1'`.
    ApplicationProtocol,
    /// `UriSanInput`: the client's URI names, joined with commas.
    UriSan,
    /// `DnsSanInput`: the same of its DNS names.
    DnsSan,
    /// `SubjectInput`: the subject of its certificate.
    Subject,
    /// `FilterStateInput`: the key, and the name of the part if only that is wanted.
    FilterState(Box<str>, Option<Box<str>>),
    /// `HttpRequestHeaderMatchInput`: the name in lower case.
    Header(Box<[u8]>),
    /// An environment variable, which is read with the configuration; `None`: it is not set.
    Fixed(Option<Box<[u8]>>),
}

/// A value, as text and as what it is.
#[derive(Clone, Copy, Debug)]
pub enum Known<'a> {
    /// Text.
    Text(&'a [u8]),
    /// An address and its text.
    Address(IpAddr, &'a [u8]),
}

impl<'a> Known<'a> {
    /// The text.
    pub fn text(&self) -> &'a [u8] {
        match self {
            Known::Text(text) | Known::Address(_, text) => text,
        }
    }

    /// The address; of text that is one, too.
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Known::Address(address, _) => Some(*address),
            Known::Text(text) => std::str::from_utf8(text).ok()?.parse().ok(),
        }
    }
}

/// Somebody who knows.
pub trait Inputs {
    /// Calls `look` with the value of `input`, or with `None` where there is none. The value may be
    /// written for this call only.
    fn with<R>(&self, input: &Input, look: impl FnOnce(Option<Known<'_>>) -> R) -> R;
}
