//! The header of the PROXY protocol, versions 1 and 2 (HAProxy, "The PROXY protocol"), which a
//! proxy before us sends ahead of a connection's bytes: who its client is and where that was going.
//!
//! No I/O happens here. What is accepted is what Envoy accepts.

mod keep;
mod v1;
mod v2;

use std::net::{IpAddr, SocketAddr};

pub use keep::keep;

use crate::config::listener_filter::ProxyProtocol;

/// The longest header of version 1, with its line end.
const LONGEST_V1: usize = 108;
const SIGNATURE_V1: &[u8] = b"PROXY ";
const SIGNATURE_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// What the header says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// 1 or 2.
    pub version: u8,
    /// Source and destination; `None` where the proxy speaks for itself or does not know.
    pub addresses: Option<(SocketAddr, SocketAddr)>,
    /// The type and value of what version 2 adds.
    pub tlvs: Vec<Tlv>,
}

/// One addition of version 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tlv {
    /// Its type.
    pub kind: u8,
    /// Its value.
    pub value: Box<[u8]>,
}

impl Tlv {
    /// How many bytes it takes in a header.
    pub fn encoded_length(&self) -> usize {
        3 + self.value.len()
    }
}

/// What the bytes received so far are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// More are needed to tell.
    NeedMore,
    /// Not the PROXY protocol, which is allowed.
    Absent,
    /// Not the PROXY protocol, which is not allowed.
    Missing,
    /// A version that is not allowed.
    Disallowed(u8),
    /// A header that is broken, of this version.
    Broken(u8),
    /// A whole header, of so many bytes.
    Header(Header, usize),
}

/// Looks at the first bytes of a connection.
pub fn parse(bytes: &[u8], config: &ProxyProtocol) -> Parsed {
    // Where its absence is allowed, a version that is not allowed is taken for other bytes.
    let may_be =
        |signature, disallowed: bool| begins(bytes, signature) && !(disallowed && config.optional);
    let v1 = may_be(SIGNATURE_V1, config.v1_disallowed);
    let v2 = may_be(SIGNATURE_V2, config.v2_disallowed);
    let whole = |signature: &[u8]| bytes.len() >= signature.len();
    match (v1, v2) {
        (false, false) if config.optional => Parsed::Absent,
        (false, false) => Parsed::Missing,
        (true, _) if !whole(SIGNATURE_V1) => Parsed::NeedMore,
        (_, true) if !whole(SIGNATURE_V2) => Parsed::NeedMore,
        (true, _) if config.v1_disallowed => Parsed::Disallowed(1),
        (_, true) if config.v2_disallowed => Parsed::Disallowed(2),
        (true, _) => of_version(1, v1::parse(bytes)),
        (_, true) => of_version(2, v2::parse(bytes)),
    }
}

fn of_version(version: u8, outcome: Result<Option<(Header, usize)>, Broken>) -> Parsed {
    match outcome {
        Ok(None) => Parsed::NeedMore,
        Ok(Some((header, length))) => Parsed::Header(Header { version, ..header }, length),
        Err(Broken) => Parsed::Broken(version),
    }
}

/// It follows its signature, but not its version's rules.
struct Broken;

fn begins(bytes: &[u8], signature: &[u8]) -> bool {
    let common = bytes.len().min(signature.len());
    bytes[..common] == signature[..common]
}

/// Both must be addresses that a host can have.
fn checked(
    source: SocketAddr,
    destination: SocketAddr,
) -> Result<Option<(SocketAddr, SocketAddr)>, Broken> {
    let unicast = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => !ip.is_unspecified() && !ip.is_broadcast() && !ip.is_multicast(),
        IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_multicast(),
    };
    match unicast(source) && unicast(destination) {
        true => Ok(Some((source, destination))),
        false => Err(Broken),
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
