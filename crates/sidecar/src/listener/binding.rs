//! The sockets of a listener: one for each worker and address, bound by the control thread so that
//! whoever configured the listener hears of an address that cannot be had.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::listener::{Listener, TrafficDirection};
use crate::tls::socket::expect_same_host;

/// Linux caps it at `net.core.somaxconn`: a redirect brings bursts that nobody paced.
const LONGEST_BACKLOG: u32 = 65_535;

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}{}", hint(.source))]
pub struct BindError {
    address: SocketAddr,
    #[source]
    source: std::io::Error,
}

fn hint(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => " (another program listens there: see `ss -ltnp`)",
        std::io::ErrorKind::PermissionDenied => " (ports below 1024 need CAP_NET_BIND_SERVICE)",
        std::io::ErrorKind::AddrNotAvailable => " (no interface of this pod has that address)",
        _ => "",
    }
}

/// What sockets are made with. A listener keeps its sockets as long as it is the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `tcp_backlog_size`
    pub backlog: Option<u32>,
    /// Outbound: the client is the application beside us.
    pub same_host: bool,
}

impl Options {
    fn of(listener: &Listener) -> Self {
        Options {
            backlog: listener.backlog,
            same_host: listener.direction == TrafficDirection::Outbound,
        }
    }
}

/// One bound address, with a socket for each worker.
#[derive(Debug)]
pub struct Binding {
    address: SocketAddr,
    options: Options,
    sockets: Mutex<Vec<Option<Socket>>>,
}

impl Binding {
    /// Binds, `workers` times. `alone` makes sure that no other program is there already, which
    /// SO_REUSEPORT alone would let share the port without a word.
    ///
    /// # Errors
    /// The address cannot be had.
    pub fn new(
        address: SocketAddr,
        workers: usize,
        options: Options,
        alone: bool,
    ) -> Result<Arc<Self>, BindError> {
        let fail = |source| BindError { address, source };
        if alone && workers > 0 {
            probe(address).map_err(fail)?;
        }
        let mut bound = address;
        let mut sockets = Vec::with_capacity(workers);
        for _ in 0..workers {
            let socket = open(bound, options).map_err(fail)?;
            // Port 0 is chosen once: the other workers' sockets join it.
            bound = socket
                .local_addr()
                .map_err(fail)?
                .as_socket()
                .unwrap_or(bound);
            sockets.push(Some(socket));
        }
        Ok(Arc::new(Binding {
            address: bound,
            options,
            sockets: Mutex::new(sockets),
        }))
    }

    /// The address as bound.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Begins to listen, once its listener is in force: before that, clients are refused rather
    /// than left waiting.
    fn listen(&self) {
        let backlog = self.options.backlog.unwrap_or(LONGEST_BACKLOG);
        for socket in self.sockets().iter().flatten() {
            if let Err(error) = socket.listen(backlog.min(LONGEST_BACKLOG) as i32) {
                tracing::error!(address = %self.address, %error, "cannot listen");
            }
        }
    }

    fn sockets(&self) -> MutexGuard<'_, Vec<Option<Socket>>> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker's socket; each is given out once.
    pub fn take(&self, worker: usize) -> Option<TcpListener> {
        self.sockets().get_mut(worker)?.take().map(Into::into)
    }
}

/// Fails where somebody listens.
fn probe(address: SocketAddr) -> std::io::Result<()> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())
}

fn open(address: SocketAddr, options: Options) -> std::io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        // Each family has a socket of its own, so that a peer's address is never a mapped one.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    if options.same_host {
        // What it accepts inherits it.
        expect_same_host(&socket);
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// A listener in force: its configuration and its sockets.
#[derive(Debug)]
pub struct ActiveListener {
    /// The configuration.
    pub config: Arc<Listener>,
    /// One for each address; empty where it does not bind.
    pub bindings: Vec<Arc<Binding>>,
}

impl ActiveListener {
    /// Binds what `previous`, the version in force, has not bound already; `alone` as in
    /// [`Binding::new`].
    ///
    /// # Errors
    /// An address cannot be had.
    pub fn bind(
        config: Arc<Listener>,
        previous: Option<&ActiveListener>,
        workers: usize,
        alone: bool,
    ) -> Result<Arc<Self>, BindError> {
        let options = Options::of(&config);
        let mut bindings = Vec::new();
        if config.bind_to_port {
            for address in &config.addresses {
                let kept = previous
                    .filter(|previous| Options::of(&previous.config) == options)
                    .and_then(|previous| {
                        let position = previous
                            .config
                            .addresses
                            .iter()
                            .position(|known| known == address)?;
                        previous.bindings.get(position).cloned()
                    });
                bindings.push(match kept {
                    Some(binding) => binding,
                    None => Binding::new(*address, workers, options, alone)?,
                });
            }
        }
        Ok(Arc::new(ActiveListener { config, bindings }))
    }

    /// Begins to listen: it is in force.
    pub fn listen(&self) {
        for binding in &self.bindings {
            binding.listen();
        }
    }

    /// Where it listens: as bound, or as configured where it does not bind.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        if self.bindings.is_empty() {
            return self.config.addresses.clone();
        }
        self.bindings
            .iter()
            .map(|binding| binding.address())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_worker_has_a_socket_on_one_port() {
        let binding =
            Binding::new("127.0.0.1:0".parse().unwrap(), 3, Options::default(), true).unwrap();
        let ports: Vec<_> = (0..3)
            .map(|worker| binding.take(worker).unwrap().local_addr().unwrap())
            .collect();
        assert!(ports.iter().all(|address| *address == binding.address()));
        assert!(binding.take(0).is_none(), "given out once");
        assert!(binding.take(3).is_none());
    }

    #[test]
    fn an_address_that_is_not_ours_is_named() {
        let error = Binding::new("192.0.2.1:80".parse().unwrap(), 1, Options::default(), true)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("192.0.2.1:80") && error.contains("no interface"),
            "{error}"
        );
    }
}
