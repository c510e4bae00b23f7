//! Who takes what is redirected: the test itself where the proxy's port is free, so that it can ask
//! for the original destination; otherwise the proxy, and then the rules' counters tell.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::{PATIENCE, failed};
use crate::backend::Tables;
use crate::config::Family;
use crate::error::Error;
use crate::rules::{OUTPUT, TO_INBOUND, TO_OUTBOUND};
use crate::saved::SavedRule;

/// Which rule's counter shows that a packet was redirected.
#[derive(Debug, Clone, Copy)]
pub(super) enum Counter {
    Inbound,
    Outbound(u16),
    Dns(u16),
}

impl Counter {
    fn counts(self, rule: &SavedRule) -> bool {
        let leads_to = |port: u16| rule.spec.ends_with(&format!("--to-ports {port}"));
        match self {
            Self::Inbound => rule.chain == TO_INBOUND,
            // DNS over TCP is redirected where the decision is made, with a port of its own.
            Self::Outbound(port) => {
                (rule.chain == TO_OUTBOUND
                    || (rule.chain == OUTPUT && rule.spec.starts_with("-p tcp")))
                    && leads_to(port)
            }
            Self::Dns(port) => {
                rule.chain == OUTPUT && rule.spec.starts_with("-p udp") && leads_to(port)
            }
        }
    }
}

/// Makes receivers for one family.
pub(super) struct Receivers {
    tables: Tables,
}

/// One that is ready.
pub(super) enum Receiver<'a> {
    /// A socket of ours on the proxy's port.
    Ours(Socket),
    /// The proxy listens, and the rule had counted so many packets.
    Proxy {
        tables: &'a Tables,
        counter: Counter,
        before: u64,
    },
}

impl Receivers {
    pub(super) fn new(tables: Tables) -> Self {
        Self { tables }
    }

    /// Takes what is redirected to `address`, by TCP.
    pub(super) fn tcp(&self, address: SocketAddr, counter: Counter) -> Result<Receiver<'_>, Error> {
        self.receiver(address, Type::STREAM, counter)
    }

    /// The same by UDP.
    pub(super) fn udp(&self, address: SocketAddr, counter: Counter) -> Result<Receiver<'_>, Error> {
        self.receiver(address, Type::DGRAM, counter)
    }

    fn receiver(
        &self,
        address: SocketAddr,
        kind: Type,
        counter: Counter,
    ) -> Result<Receiver<'_>, Error> {
        match bind(address, kind) {
            Ok(socket) => Ok(Receiver::Ours(socket)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(Receiver::Proxy {
                tables: &self.tables,
                counter,
                before: count(&self.tables, counter)?,
            }),
            Err(source) => Err(failed(format!("listen on {address}"))(source)),
        }
    }
}

fn count(tables: &Tables, counter: Counter) -> Result<u64, Error> {
    let saved = tables.counted()?;
    let rules = saved.table("nat").map_or(&[][..], |table| &table.rules);
    Ok(rules
        .iter()
        .filter(|rule| counter.counts(rule))
        .map(|rule| rule.packets)
        .sum())
}

impl Receiver<'_> {
    /// Says whether the connection that `client` made to `target` was redirected to us, or, where
    /// the proxy listens, whether the rule has counted one more.
    pub(super) fn received(
        &self,
        client: SocketAddr,
        target: SocketAddr,
    ) -> Result<Received, Error> {
        match self {
            Self::Ours(listener) => accept(listener, client, target)
                .map_err(failed("accept the connection that it made")),
            Self::Proxy {
                tables,
                counter,
                before,
            } => Ok(if count(tables, *counter)? > *before {
                Received::Counted
            } else {
                Received::Nothing
            }),
        }
    }
}

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// The connection, with the destination that it was made to.
    Whole,
    /// The connection, but the kernel names another destination, or none.
    Misnamed(String),
    /// Not to us, but the rule has counted it.
    Counted,
    Nothing,
}

fn accept(listener: &Socket, client: SocketAddr, target: SocketAddr) -> io::Result<Received> {
    let deadline = Instant::now() + PATIENCE;
    listener.set_nonblocking(true)?;
    while Instant::now() < deadline {
        match listener.accept() {
            // Somebody else's connection is redirected to us as well, and is closed.
            Ok((connection, peer)) if peer.as_socket() == Some(client) => {
                let original = match target {
                    SocketAddr::V4(_) => connection.original_dst_v4(),
                    SocketAddr::V6(_) => connection.original_dst_v6(),
                };
                return Ok(match original.map(|address| address.as_socket()) {
                    Ok(Some(address)) if address == target => Received::Whole,
                    Ok(address) => Received::Misnamed(format!("{address:?} instead of {target}")),
                    Err(error) => Received::Misnamed(error.to_string()),
                });
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Received::Nothing)
}

/// Binds a socket, and listens if it is a stream. IPv6 sockets take IPv6 only.
pub(super) fn bind(address: SocketAddr, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, None::<Protocol>)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if kind == Type::STREAM {
        // Not for a port that another program listens on, only for one that it has left.
        socket.set_reuse_address(true)?;
    }
    socket.bind(&address.into())?;
    if kind == Type::STREAM {
        socket.listen(16)?;
    }
    Ok(socket)
}

/// Where the kernel redirects what is made in the pod.
pub(super) fn loopback(family: Family, port: u16) -> SocketAddr {
    let address: IpAddr = match family {
        Family::V4 => Ipv4Addr::LOCALHOST.into(),
        Family::V6 => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(address, port)
}

/// Where it redirects what arrives: an address of the interface, whichever that is.
pub(super) fn unspecified(family: Family, port: u16) -> SocketAddr {
    let address: IpAddr = match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    };
    SocketAddr::new(address, port)
}
