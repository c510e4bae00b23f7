//! Addresses without their ports, and the networks of them.

use std::io::Write as _;

use ipnet::IpNet;

use super::text::{ip, without_port};
use crate::config::address::Address;
use crate::telemetry::access_log::record::Record;

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    UpstreamRemote,
    UpstreamLocal,
    Remote,
    DirectRemote,
    Local,
    DirectLocal,
}

/// An address, or so many bits of it in CIDR notation.
#[derive(Debug)]
pub(super) struct Masked {
    end: End,
    bits: Option<u8>,
}

impl Masked {
    /// `None`: it is another operator.
    pub(super) fn parse(
        name: &str,
        argument: Option<&str>,
    ) -> Option<Result<Masked, &'static str>> {
        let end = match name.strip_suffix("_ADDRESS_WITHOUT_PORT")? {
            "UPSTREAM_REMOTE" => End::UpstreamRemote,
            "UPSTREAM_LOCAL" => End::UpstreamLocal,
            "DOWNSTREAM_REMOTE" => End::Remote,
            "DOWNSTREAM_DIRECT_REMOTE" => End::DirectRemote,
            "DOWNSTREAM_LOCAL" => End::Local,
            "DOWNSTREAM_DIRECT_LOCAL" => End::DirectLocal,
            _ => return None,
        };
        let bits = match argument.filter(|argument| !argument.is_empty()) {
            None => None,
            Some(text) => match text.parse::<u8>() {
                Ok(bits) if bits <= 128 => Some(bits),
                _ => return Some(Err("must be a number of bits, 0 to 128")),
            },
        };
        Some(Ok(Masked { end, bits }))
    }

    pub(super) fn write(&self, record: &Record<'_>, out: &mut Vec<u8>) -> bool {
        let connection = record.connection;
        let own;
        let address = match self.end {
            End::UpstreamRemote => match record.reached() {
                Some(address) => address,
                None => return false,
            },
            End::UpstreamLocal => match record.upstream_local {
                Some(address) => {
                    own = Address::Socket(address);
                    &own
                }
                None => return false,
            },
            End::Remote => match record.client {
                Some(address) => {
                    own = Address::Socket(address);
                    &own
                }
                None => &connection.peer,
            },
            End::DirectRemote => &connection.direct_peer,
            End::Local => &connection.local,
            End::DirectLocal => &connection.direct_local,
        };
        let Some(bits) = self.bits else {
            return without_port(address, out);
        };
        let network = address.ip().and_then(|ip| {
            let most = if ip.is_ipv4() { 32 } else { 128 };
            IpNet::new(ip, bits.min(most)).ok()
        });
        network.is_some_and(|network| {
            ip(network.network(), out) && write!(out, "/{}", network.prefix_len()).is_ok()
        })
    }
}
