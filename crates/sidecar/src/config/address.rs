//! Addresses, CIDR ranges and the transport endpoints that configuration names.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Where an upstream endpoint or a listener is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// `socket_address` with TCP.
    Socket(SocketAddr),
    /// `pipe`: a Unix socket; an abstract one where the path starts with `@`.
    Pipe(PathBuf),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Address::Socket(address) => address.fmt(f),
            Address::Pipe(path) => path.display().fmt(f),
        }
    }
}
