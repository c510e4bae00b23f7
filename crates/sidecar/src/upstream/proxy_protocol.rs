//! The PROXY protocol towards endpoints: who the client is, before anything else
//! (the specification of HAProxy, "The PROXY protocol", versions 1 and 2).

use std::net::IpAddr;

use super::client::Client;
use crate::config::cluster::{ProxyProtocol, ProxyProtocolVersion};
use crate::listener::proxy_protocol::Tlv;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Version 2, the command PROXY.
const PROXY: u8 = 0x21;
/// Version 2, the command LOCAL: nobody's connection but our own.
const LOCAL: u8 = 0x20;
/// TCP over IPv4, TCP over IPv6.
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

/// The header for a client's connection; where its ends are not known, one that says so.
pub fn header(config: &ProxyProtocol, client: &Client) -> Vec<u8> {
    // An IPv4 address in IPv6's clothes is one of IPv4; else both are given as IPv6.
    let ends = client.ends.map(|(from, to)| {
        let (source, destination) = (from.ip().to_canonical(), to.ip().to_canonical());
        let ips = match (source, destination) {
            (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => {
                (source, destination)
            }
            _ => (mapped(source), mapped(destination)),
        };
        (ips.0, ips.1, from.port(), to.port())
    });
    match config.version {
        ProxyProtocolVersion::V1 => match ends {
            None => b"PROXY UNKNOWN\r\n".to_vec(),
            Some((from, to, from_port, to_port)) => {
                let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
                format!("PROXY {family} {from} {to} {from_port} {to_port}\r\n").into_bytes()
            }
        },
        ProxyProtocolVersion::V2 => {
            let mut rest = Vec::new();
            let (command, family) = match ends {
                None => (LOCAL, 0),
                Some((from, to, from_port, to_port)) => {
                    for address in [from, to] {
                        match address {
                            IpAddr::V4(address) => rest.extend_from_slice(&address.octets()),
                            IpAddr::V6(address) => rest.extend_from_slice(&address.octets()),
                        }
                    }
                    rest.extend_from_slice(&from_port.to_be_bytes());
                    rest.extend_from_slice(&to_port.to_be_bytes());
                    (PROXY, if from.is_ipv4() { TCP4 } else { TCP6 })
                }
            };
            if command == PROXY {
                add_tlvs(
                    config,
                    client.tlvs.as_deref().unwrap_or_default(),
                    &mut rest,
                );
            }
            let mut header = SIGNATURE.to_vec();
            header.extend([command, family]);
            // What is added stays below it.
            let length = u16::try_from(rest.len()).unwrap_or(u16::MAX);
            header.extend(length.to_be_bytes());
            header.extend(rest);
            header
        }
    }
}

/// Those of the configuration, then those of the client that pass and whose type the former have
/// not. What does not fit is left out.
fn add_tlvs(config: &ProxyProtocol, client: &[Tlv], rest: &mut Vec<u8>) {
    let added = |kind| config.tlvs.iter().any(|tlv| tlv.kind == kind);
    let passed = client
        .iter()
        .filter(|tlv| config.pass_through.includes(tlv.kind) && !added(tlv.kind));
    for tlv in config.tlvs.iter().chain(passed) {
        let Ok(length) = u16::try_from(tlv.value.len()) else {
            continue;
        };
        if rest.len() + tlv.encoded_length() > usize::from(u16::MAX) {
            tracing::debug!(kind = tlv.kind, "a TLV does not fit in the PROXY header");
            continue;
        }
        rest.push(tlv.kind);
        rest.extend(length.to_be_bytes());
        rest.extend_from_slice(&tlv.value);
    }
}

fn mapped(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().into(),
        v6 => v6,
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::config::listener_filter::PassThrough;

    fn config(version: ProxyProtocolVersion) -> ProxyProtocol {
        ProxyProtocol {
            version,
            tlvs: [tlv(0xe0, b"x")].into(),
            pass_through: PassThrough::Some(vec![0xe0, 0xe1]),
        }
    }

    fn tlv(kind: u8, value: &[u8]) -> Tlv {
        let value = value.into();
        Tlv { kind, value }
    }

    fn client(ends: Option<(SocketAddr, SocketAddr)>) -> Client {
        Client {
            ends,
            ..Client::default()
        }
    }

    fn ends(from: &str, to: &str) -> Option<(SocketAddr, SocketAddr)> {
        Some((from.parse().unwrap(), to.parse().unwrap()))
    }

    #[test]
    fn version_one_is_a_line() {
        for (ends, want) in [
            (
                ends("10.0.0.1:5", "10.0.0.2:80"),
                "PROXY TCP4 10.0.0.1 10.0.0.2 5 80\r\n",
            ),
            (
                ends("[fd00::1]:5", "[fd00::2]:80"),
                "PROXY TCP6 fd00::1 fd00::2 5 80\r\n",
            ),
            (
                ends("[::ffff:10.0.0.1]:5", "10.0.0.2:80"),
                "PROXY TCP4 10.0.0.1 10.0.0.2 5 80\r\n",
            ),
            (None, "PROXY UNKNOWN\r\n"),
        ] {
            let header = header(&config(ProxyProtocolVersion::V1), &client(ends));
            assert_eq!(String::from_utf8(header).unwrap(), want);
        }
    }

    #[test]
    fn version_two_is_binary_with_tlvs() {
        let config = config(ProxyProtocolVersion::V2);
        let header_of = |ends| header(&config, &client(ends))[12..].to_vec();
        let mut want = vec![0x21, 0x11, 0, 16, 10, 0, 0, 1, 10, 0, 0, 2, 0, 5, 0, 80];
        want.extend([0xe0, 0, 1, b'x']);
        assert_eq!(header_of(ends("10.0.0.1:5", "10.0.0.2:80")), want);
        let v6 = header_of(ends("[fd00::1]:5", "10.0.0.2:80"));
        assert_eq!(v6[..4], [0x21, 0x21, 0, 40]);
        assert_eq!(header_of(None), [0x20, 0, 0, 0]);
        assert_eq!(header(&config, &client(None))[..12], *SIGNATURE);
        let with_tlvs = Client {
            tlvs: Some([tlv(0xe0, b"y"), tlv(0xe2, b"z"), tlv(0xe1, b"zz")].into()),
            ..client(ends("10.0.0.1:5", "10.0.0.2:80"))
        };
        want[3] = 21;
        want.extend([0xe1, 0, 2, b'z', b'z']);
        assert_eq!(header(&config, &with_tlvs)[12..], want);
    }
}
