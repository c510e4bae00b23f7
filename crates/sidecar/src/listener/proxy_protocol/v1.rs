//! Version 1: a line of text.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use super::{Broken, Header, LONGEST_V1, checked};

/// The header and its length; `None` where its end has not come.
pub fn parse(bytes: &[u8]) -> Result<Option<(Header, usize)>, Broken> {
    let within = &bytes[..bytes.len().min(LONGEST_V1)];
    let Some(end) = memchr::memmem::find(within, b"\r\n") else {
        return if within.len() == LONGEST_V1 {
            Err(Broken)
        } else {
            Ok(None)
        };
    };
    let line = std::str::from_utf8(&bytes[..end]).map_err(|_| Broken)?;
    let mut parts = line.split(' ').skip(1);
    let addresses = match parts.next() {
        // What follows is not to be looked at.
        Some("UNKNOWN") => None,
        Some("TCP4") => addresses::<Ipv4Addr>(parts)?,
        Some("TCP6") => addresses::<Ipv6Addr>(parts)?,
        _ => return Err(Broken),
    };
    let header = Header {
        addresses,
        ..Header::default()
    };
    Ok(Some((header, end + 2)))
}

type Addresses = Option<(SocketAddr, SocketAddr)>;

fn addresses<'a, Ip: FromStr + Into<IpAddr>>(
    mut parts: impl Iterator<Item = &'a str>,
) -> Result<Addresses, Broken> {
    let mut next = || parts.next().ok_or(Broken);
    let ip = |text: &str| text.parse::<Ip>().map(Into::into).map_err(|_| Broken);
    let (source, destination) = (ip(next()?)?, ip(next()?)?);
    let (source_port, destination_port) = (port(next()?)?, port(next()?)?);
    match parts.next() {
        None => checked(
            SocketAddr::new(source, source_port),
            SocketAddr::new(destination, destination_port),
        ),
        Some(_) => Err(Broken),
    }
}

/// Digits alone; Rust's own takes a sign.
fn port(text: &str) -> Result<u16, Broken> {
    match text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => text.parse().map_err(|_| Broken),
        false => Err(Broken),
    }
}
