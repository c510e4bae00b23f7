//! Version 2: binary, with additions.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Broken, Header, SIGNATURE_V2, Tlv, checked};

/// Signature, version and command, family and transport, length of the rest.
const FIXED: usize = SIGNATURE_V2.len() + 4;
const LOCAL: u8 = 0;
const PROXY: u8 = 1;

/// The header and its length; `None` where it is not all there.
pub fn parse(bytes: &[u8]) -> Result<Option<(Header, usize)>, Broken> {
    let Some(fixed) = bytes.get(SIGNATURE_V2.len()..FIXED) else {
        return Ok(None);
    };
    let (version, command) = (fixed[0] >> 4, fixed[0] & 0xf);
    let (family, transport) = (fixed[1] >> 4, fixed[1] & 0xf);
    let end = FIXED + usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
    if version != 2 || command > PROXY {
        return Err(Broken);
    }
    let streams_or_datagrams = matches!(transport, 1 | 2);
    let address_length = match (command, family) {
        // The proxy itself connects, for example to see whether we live: what it says of
        // addresses is not to be looked at.
        (LOCAL, _) => end - FIXED,
        (_, 1) if streams_or_datagrams => 12,
        (_, 2) if streams_or_datagrams => 36,
        _ => return Err(Broken),
    };
    if end - FIXED < address_length {
        return Err(Broken);
    }
    let Some(rest) = bytes.get(FIXED..end) else {
        return Ok(None);
    };
    if command == LOCAL {
        return Ok(Some((Header::default(), end)));
    }
    let (addresses, additions) = rest.split_at(address_length);
    let header = Header {
        addresses: of_family(family, addresses)?,
        tlvs: tlvs(additions)?,
        ..Header::default()
    };
    Ok(Some((header, end)))
}

fn of_family(family: u8, bytes: &[u8]) -> Result<Option<(SocketAddr, SocketAddr)>, Broken> {
    let mut bytes = Reader(bytes);
    let (source, destination) = match family {
        1 => {
            let mut ip = || bytes.array::<4>().map(Ipv4Addr::from);
            (ip()?.into(), ip()?.into())
        }
        _ => {
            let mut ip = || bytes.array::<16>().map(Ipv6Addr::from);
            (ip()?.into(), ip()?.into())
        }
    };
    let mut port = || bytes.array().map(u16::from_be_bytes);
    checked(
        SocketAddr::new(source, port()?),
        SocketAddr::new(destination, port()?),
    )
}

fn tlvs(bytes: &[u8]) -> Result<Vec<Tlv>, Broken> {
    let mut bytes = Reader(bytes);
    let mut all = Vec::new();
    while !bytes.0.is_empty() {
        let [kind] = bytes.array()?;
        let length = u16::from_be_bytes(bytes.array()?);
        all.push(Tlv {
            kind,
            value: bytes.take(length.into())?.into(),
        });
    }
    Ok(all)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Broken> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Broken)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const LENGTH: usize>(&mut self) -> Result<[u8; LENGTH], Broken> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Broken)?;
        self.0 = rest;
        Ok(*taken)
    }
}
