//! How values are written. What the network chose and no codec has checked is written without control
//! characters, for it may become a header. Each says whether there is a value.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::config::address::Address;

pub(super) fn text(value: &[u8], out: &mut Vec<u8>) -> bool {
    visible(value, out);
    !value.is_empty()
}

/// Appends text without control characters.
pub(super) fn visible(value: &[u8], out: &mut Vec<u8>) {
    out.extend(value.iter().filter(|byte| !byte.is_ascii_control()));
}

/// Appends a reason with `_` for each space, as Envoy writes them: fields of a line stay apart.
pub(super) fn spaceless(value: &[u8], out: &mut Vec<u8>) -> bool {
    let start = out.len();
    visible(value, out);
    for byte in &mut out[start..] {
        if *byte == b' ' {
            *byte = b'_';
        }
    }
    !value.is_empty()
}

pub(super) fn integer(value: u64, out: &mut Vec<u8>) -> bool {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    true
}

pub(super) fn milliseconds(duration: Duration, out: &mut Vec<u8>) -> bool {
    integer(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX), out)
}

pub(super) fn ip(address: IpAddr, out: &mut Vec<u8>) -> bool {
    use std::io::Write as _;
    write!(out, "{}", address.to_canonical()).is_ok()
}

pub(super) fn socket(address: SocketAddr, out: &mut Vec<u8>) -> bool {
    use std::io::Write as _;
    let canonical = SocketAddr::new(address.ip().to_canonical(), address.port());
    write!(out, "{canonical}").is_ok()
}

/// With its port; a Unix socket by its path.
pub(super) fn address(address: &Address, out: &mut Vec<u8>) -> bool {
    match address {
        Address::Socket(at) => socket(*at, out),
        Address::Pipe(path) => text(path.as_os_str().as_encoded_bytes(), out),
    }
}

pub(super) fn without_port(at: &Address, out: &mut Vec<u8>) -> bool {
    match at {
        Address::Socket(at) => ip(at.ip(), out),
        Address::Pipe(_) => address(at, out),
    }
}

pub(super) fn port(address: &Address, out: &mut Vec<u8>) -> bool {
    // That of a Unix socket is empty, which is a value too.
    address.port().is_none_or(|port| integer(port.into(), out))
}
