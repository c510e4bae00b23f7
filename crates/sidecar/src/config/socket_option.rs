//! `SocketOption`: what a configuration sets on a socket by numbers.

use std::sync::Arc;

/// When a socket takes an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketState {
    /// STATE_PREBIND: before it has an address.
    Prebind,
    /// STATE_BOUND: when it has one.
    Bound,
    /// STATE_LISTENING: when it listens, or is connected.
    Listening,
}

/// One option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketOption {
    /// `description`, for errors; may be empty.
    pub description: Box<str>,
    /// `level`, for example SOL_SOCKET.
    pub level: i32,
    /// `name`, for example SO_KEEPALIVE.
    pub name: i32,
    /// `int_value` as the machine has it, or `buf_value`.
    pub value: Box<[u8]>,
    /// `state`
    pub state: SocketState,
    /// `type` lets stream sockets have it.
    pub stream: bool,
    /// `ip_version` lets IPv4 sockets have it.
    pub ipv4: bool,
    /// `ip_version` lets IPv6 sockets have it.
    pub ipv6: bool,
}

/// All options of a socket, in the order in which they are set.
pub type SocketOptions = Arc<[SocketOption]>;
