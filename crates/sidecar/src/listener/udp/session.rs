//! One client's datagrams to one endpoint, and what that answers.

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::rc::Rc;

use nix::sys::socket::{MsgFlags, recv};
use serde_json::json;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::proxy::{Attached, Key, Shared};
use crate::config::address::Address;
use crate::listener::connection::Connection;
use crate::telemetry::access_log::record::Record;
use crate::upstream::{Permit, Target};

/// So many datagrams are taken at once before others have their turn.
const AT_ONCE: usize = 32;

/// Something has come, or the endpoint refuses what was sent.
const HEARD: Interest = Interest::READABLE.add(Interest::ERROR);

/// From where to where a session goes.
pub struct Way {
    pub key: Key,
    pub attached: Rc<Attached>,
    pub target: Rc<Target>,
    /// Its place among the cluster's sessions.
    pub _permit: Permit,
}

/// A session.
pub struct Session {
    shared: Rc<Shared>,
    way: Way,
    socket: UdpSocket,
    /// When something was last said.
    last: Cell<Instant>,
    ended: Notify,
    /// Of which state of the cluster's endpoints its own is known to be good.
    pub seen: Cell<Option<u64>>,
    counts: Counts,
    /// For the access log, where there is one.
    connection: Option<Box<Connection>>,
}

#[derive(Default)]
struct Counts {
    received: Cell<u64>,
    datagrams_received: Cell<u64>,
    sent: Cell<u64>,
    datagrams_sent: Cell<u64>,
    errors_sent: Cell<u64>,
}

fn add(cell: &Cell<u64>, count: usize) {
    cell.set(cell.get() + count as u64);
}

impl Session {
    /// Makes its socket.
    ///
    /// # Errors
    /// The system's.
    pub fn begin(shared: &Rc<Shared>, way: Way) -> io::Result<Rc<Self>> {
        let (peer, local, _) = way.key;
        let udp = shared.udp();
        let as_client = udp.is_some_and(|udp| udp.proxy.original_source);
        let logs = udp.is_some_and(|udp| !udp.proxy.access_log.is_empty());
        let socket = connect(&way.target, as_client.then_some(peer.ip()))?;
        shared.stats.total.add(1);
        shared.stats.active.increment(1.0);
        Ok(Rc::new(Session {
            seen: Cell::new(Some(way.attached.cluster.generation())),
            shared: shared.clone(),
            way,
            socket,
            last: Cell::new(Instant::now()),
            ended: Notify::new(),
            counts: Counts::default(),
            connection: logs.then(|| Box::new(shared.connection(peer, local))),
        }))
    }

    /// What tells it apart.
    pub fn key(&self) -> &Key {
        &self.way.key
    }

    /// Its cluster.
    pub fn attached(&self) -> &Rc<Attached> {
        &self.way.attached
    }

    /// Its endpoint.
    pub fn target(&self) -> &Rc<Target> {
        &self.way.target
    }

    /// Ends it.
    pub fn end(&self) {
        self.ended.notify_one();
    }

    /// Passes on what the client said. What there is no room for now is lost, as datagrams are.
    pub fn to_endpoint(&self, bytes: &[u8]) {
        let stats = &self.shared.stats;
        stats.rx_bytes.add(bytes.len() as u64);
        stats.rx_datagrams.add(1);
        add(&self.counts.received, bytes.len());
        add(&self.counts.datagrams_received, 1);
        self.last.set(Instant::now());
        let Attached { cluster, stats } = &*self.way.attached;
        match SockRef::from(&self.socket).send(bytes) {
            Ok(_) => {
                stats.tx_datagrams.increment(1);
                let sent = &cluster.stats().cx_tx_bytes_total;
                sent.increment(bytes.len() as u64);
            }
            Err(_) => stats.tx_errors.increment(1),
        }
    }

    /// Passes on what the endpoint says, until nobody says anything for too long, or it is ended.
    pub async fn run(&self) {
        let Some(udp) = self.shared.udp() else { return };
        let idle = udp.proxy.idle_timeout;
        let mut timer = std::pin::pin!(tokio::time::sleep_until(self.last.get() + idle));
        loop {
            tokio::select! {
                biased;
                () = self.ended.notified() => return,
                ready = self.socket.ready(HEARD) => {
                    // Tokio takes what it did for one of the two.
                    let heard = match ready {
                        Ok(ready) if ready.is_error() => Interest::ERROR,
                        Ok(_) => Interest::READABLE,
                        Err(_) => return,
                    };
                    self.last.set(Instant::now());
                    if self.take_answers(heard, udp.proxy.largest_from_endpoint) == AT_ONCE {
                        tokio::task::yield_now().await;
                    }
                }
                () = &mut timer => {
                    // It is set anew only when it has run out, not with each datagram.
                    let until = self.last.get() + idle;
                    if until <= Instant::now() {
                        return self.shared.stats.idle_timeout.add(1);
                    }
                    timer.as_mut().reset(until);
                }
            }
        }
    }

    fn take_answers(&self, heard: Interest, largest: usize) -> usize {
        let Attached { cluster, stats } = &*self.way.attached;
        let mut room = self.shared.from_endpoints.borrow_mut();
        // One byte more, or a datagram that is too long would look like one that just fits.
        room.resize(largest + 1, 0);
        for taken in 0..AT_ONCE {
            let received = self.socket.try_io(heard, || {
                Ok(recv(self.socket.as_raw_fd(), &mut room, MsgFlags::empty())?)
            });
            match received {
                Ok(length) if length > largest => stats.rx_datagrams_dropped.increment(1),
                Ok(length) => {
                    stats.rx_datagrams.increment(1);
                    let received = &cluster.stats().cx_rx_bytes_total;
                    received.increment(length as u64);
                    self.to_client(&room[..length]);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return taken,
                // The endpoint refuses what was sent before, for example.
                Err(_) => {
                    stats.rx_errors.increment(1);
                    return taken;
                }
            }
        }
        AT_ONCE
    }

    fn to_client(&self, bytes: &[u8]) {
        let stats = &self.shared.stats;
        let (peer, local, _) = self.way.key;
        match self.shared.listening.send(bytes, local, peer) {
            Ok(()) => {
                stats.tx_bytes.add(bytes.len() as u64);
                stats.tx_datagrams.add(1);
                add(&self.counts.sent, bytes.len());
                add(&self.counts.datagrams_sent, 1);
            }
            Err(_) => {
                stats.tx_errors.add(1);
                add(&self.counts.errors_sent, 1);
            }
        }
    }

    fn log(&self, connection: &Connection) {
        let Some(udp) = self.shared.udp() else { return };
        let cluster = &self.way.attached.cluster.config().name;
        let counts = &self.counts;
        for (key, value) in [
            ("bytes_received", json!(counts.received.get())),
            ("bytes_sent", json!(counts.sent.get())),
            ("cluster_name", json!(&**cluster)),
            ("datagrams_received", json!(counts.datagrams_received.get())),
            ("datagrams_sent", json!(counts.datagrams_sent.get())),
            ("errors_sent", json!(counts.errors_sent.get())),
        ] {
            let state = &connection.state;
            state.set_metadata("udp.proxy.session", key, value);
        }
        let record = Record {
            bytes_received: counts.received.get(),
            bytes_sent: counts.sent.get(),
            upstream_host: Some(&self.way.target.endpoint.address),
            upstream_local: self.socket.local_addr().ok(),
            ..Record::of_connection(connection)
        };
        let log = &self.shared.worker.access_log;
        log.write(&udp.proxy.access_log, &record);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.shared.stats.active.decrement(1.0);
        if let Some(connection) = self.connection.take() {
            self.log(&connection);
        }
    }
}

/// A socket for datagrams to an endpoint. Connected, so that the system takes nothing of others, and
/// tells when the endpoint refuses. `client` is the address that the endpoint is to see.
fn connect(target: &Target, client: Option<IpAddr>) -> io::Result<UdpSocket> {
    let Address::Socket(address) = target.endpoint.address else {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "datagrams do not go to Unix sockets",
        ));
    };
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if let Some(client) = client.map(|client| client.to_canonical()) {
        match address {
            SocketAddr::V4(_) => socket.set_ip_transparent_v4(true)?,
            SocketAddr::V6(_) => socket.set_ip_transparent_v6(true)?,
        }
        socket.bind(&SocketAddr::new(client, 0).into())?;
    }
    socket.connect(&address.into())?;
    UdpSocket::from_std(socket.into())
}
