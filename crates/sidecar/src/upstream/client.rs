//! What the upstream side knows of the client's connection that it works for.

use std::net::SocketAddr;

use crate::listener::connection::Connection;

/// A client's connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Client {
    /// Its number in this process.
    pub connection: u64,
    /// The client's end, and the one that it connected to; `None` where one is no IP address.
    pub ends: Option<(SocketAddr, SocketAddr)>,
}

impl From<&Connection> for Client {
    fn from(connection: &Connection) -> Self {
        let ends = connection.peer.socket().zip(connection.local.socket());
        Client {
            connection: connection.id,
            ends,
        }
    }
}
