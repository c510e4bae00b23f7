//! TCP segments without data, in Ethernet frames: as much as a handshake takes (RFC 9293).

use std::net::{IpAddr, SocketAddr};

use super::rig::{FAR_MAC, NEAR_MAC};

pub(super) const FIN: u8 = 0x01;
pub(super) const SYN: u8 = 0x02;
pub(super) const RST: u8 = 0x04;
pub(super) const ACK: u8 = 0x10;
const TCP: u8 = 6;

/// A segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) sequence: u32,
    pub(super) acknowledged: u32,
    pub(super) flags: u8,
}

impl Segment {
    /// As a frame from the far end to the near one.
    pub(super) fn frame(&self) -> Vec<u8> {
        let tcp = self.tcp();
        let length = u16::try_from(tcp.len()).unwrap_or(0);
        let mut frame = [NEAR_MAC, FAR_MAC].concat();
        match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                frame.extend(0x0800u16.to_be_bytes());
                let mut header = vec![0x45, 0];
                header.extend((20 + length).to_be_bytes());
                header.extend([0, 0, 0x40, 0, 64, TCP, 0, 0]);
                header.extend(from.octets());
                header.extend(to.octets());
                let sum = checksum(&header);
                header[10..12].copy_from_slice(&sum.to_be_bytes());
                frame.extend(header);
            }
            (from, to) => {
                frame.extend(0x86ddu16.to_be_bytes());
                frame.extend([0x60, 0, 0, 0]);
                frame.extend(length.to_be_bytes());
                frame.extend([TCP, 64]);
                frame.extend(octets(from));
                frame.extend(octets(to));
            }
        }
        frame.extend(tcp);
        frame
    }

    fn tcp(&self) -> Vec<u8> {
        let mut tcp = Vec::with_capacity(20);
        tcp.extend(self.from.port().to_be_bytes());
        tcp.extend(self.to.port().to_be_bytes());
        tcp.extend(self.sequence.to_be_bytes());
        tcp.extend(self.acknowledged.to_be_bytes());
        tcp.extend([0x50, self.flags]);
        tcp.extend(u16::MAX.to_be_bytes());
        tcp.extend([0; 4]);
        let mut sealed = octets(self.from.ip());
        sealed.extend(octets(self.to.ip()));
        sealed.extend([0, TCP, 0, 20]);
        sealed.extend(&tcp);
        let sum = checksum(&sealed);
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        tcp
    }

    /// Reads a frame; none if it has no TCP segment. Checksums are not looked at: on its way to the
    /// pair's other end a packet does not get one.
    pub(super) fn parse(frame: &[u8]) -> Option<Self> {
        let packet = frame.get(14..)?;
        let (from, to, tcp): (IpAddr, IpAddr, &[u8]) = match frame.get(12..14)? {
            [0x08, 0x00] if packet.get(9) == Some(&TCP) => {
                let header = usize::from(packet.first()? & 0x0f) * 4;
                let address = |start: usize| -> Option<IpAddr> {
                    let octets: [u8; 4] = packet.get(start..start + 4)?.try_into().ok()?;
                    Some(octets.into())
                };
                (address(12)?, address(16)?, packet.get(header..)?)
            }
            [0x86, 0xdd] if packet.get(6) == Some(&TCP) => {
                let address = |start: usize| -> Option<IpAddr> {
                    let octets: [u8; 16] = packet.get(start..start + 16)?.try_into().ok()?;
                    Some(octets.into())
                };
                (address(8)?, address(24)?, packet.get(40..)?)
            }
            _ => return None,
        };
        let short = |start: usize| {
            Some(u16::from_be_bytes(
                tcp.get(start..start + 2)?.try_into().ok()?,
            ))
        };
        let long = |start: usize| {
            Some(u32::from_be_bytes(
                tcp.get(start..start + 4)?.try_into().ok()?,
            ))
        };
        Some(Self {
            from: SocketAddr::new(from, short(0)?),
            to: SocketAddr::new(to, short(2)?),
            sequence: long(4)?,
            acknowledged: long(8)?,
            flags: tcp.get(13)? & (FIN | SYN | RST | ACK),
        })
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// RFC 1071. The bytes must be even in number.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_its_checksums_hold() {
        for (from, to) in [
            ("192.0.2.254:40000", "192.0.2.253:80"),
            ("[2001:db8::2]:40000", "[2001:db8::1]:80"),
        ] {
            let segment = Segment {
                from: from.parse().unwrap(),
                to: to.parse().unwrap(),
                sequence: 0xfeed_beef,
                acknowledged: 7,
                flags: SYN | ACK,
            };
            let frame = segment.frame();
            assert_eq!(Segment::parse(&frame), Some(segment));
            for end in 0..frame.len() - 6 {
                assert_eq!(Segment::parse(&frame[..end]), None, "{end}");
            }
            // A sum over data and its checksum is zero.
            let mut sealed = octets(segment.from.ip());
            sealed.extend(octets(segment.to.ip()));
            sealed.extend([0, TCP, 0, 20]);
            sealed.extend(&frame[frame.len() - 20..]);
            assert_eq!(checksum(&sealed), 0);
            if segment.from.is_ipv4() {
                assert_eq!(checksum(&frame[14..34]), 0);
            }
        }
    }
}
