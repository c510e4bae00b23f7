//! Addresses, CIDR ranges and the transport endpoints that configuration names.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// Where an upstream endpoint or a listener is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// `socket_address` with TCP.
    Socket(SocketAddr),
    /// `pipe`: a Unix socket; an abstract one where the path starts with `@`.
    Pipe(PathBuf),
}

impl Address {
    /// The IP address and port; `None` for a Unix socket.
    pub fn socket(&self) -> Option<SocketAddr> {
        match self {
            Address::Socket(address) => Some(*address),
            Address::Pipe(_) => None,
        }
    }

    /// The IP address, never an IPv4 one in IPv6's clothes; `None` for a Unix socket.
    pub fn ip(&self) -> Option<IpAddr> {
        self.socket().map(|address| address.ip().to_canonical())
    }

    /// The port; `None` for a Unix socket.
    pub fn port(&self) -> Option<u16> {
        self.socket().map(|address| address.port())
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Address::Socket(address)
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Address::Socket(address) => address.fmt(f),
            Address::Pipe(path) => path.display().fmt(f),
        }
    }
}
