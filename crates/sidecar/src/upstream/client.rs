//! What the upstream side knows of the client's connection that it works for.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use crate::listener::connection::Connection;
use crate::listener::proxy_protocol::Tlv;

/// A client's connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Client {
    /// Its number in this process.
    pub connection: u64,
    /// The client's end, and the one that it connected to; `None` where one is no IP address.
    pub ends: Option<(SocketAddr, SocketAddr)>,
    /// The address that connections for it come from, where it is not one of ours.
    pub source: Option<OriginalSource>,
    /// What came with its PROXY header and may be passed on.
    pub tlvs: Option<Rc<[Tlv]>>,
}

/// A client's address, from which connections for it come (original_src).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OriginalSource {
    /// The address.
    pub ip: IpAddr,
    /// The mark of those connections, by which the system routes what comes back; 0 for none.
    pub mark: u32,
}

impl From<&Connection> for Client {
    fn from(connection: &Connection) -> Self {
        let ends = connection.peer.socket().zip(connection.local.socket());
        Client {
            connection: connection.id,
            ends,
            ..connection.state.upstream_client()
        }
    }
}
