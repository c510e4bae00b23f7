//! The sockets of a listener: one for each worker and address, bound by the control thread so that
//! whoever configured the listener hears of an address that cannot be had.

use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use socket2::Socket;

use super::balance::Balance;
use super::socket;
use crate::config::address::Address;
use crate::config::listener::{ListenAddress, Listener};

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The system does not give it.
    #[error("cannot listen on {address}: {source}{}", hint(.source))]
    System {
        /// The address.
        address: Address,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is bound already, in another way.
    #[error(
        "{0} is bound with other settings, and cannot be bound twice: give the listener another \
         address, or remove it first"
    )]
    Held(Address),
}

fn hint(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => " (another program listens there: see `ss -ltnp`)",
        std::io::ErrorKind::PermissionDenied => " (ports below 1024 need CAP_NET_BIND_SERVICE)",
        std::io::ErrorKind::AddrNotAvailable => " (no interface of this pod has that address)",
        _ => "",
    }
}

/// One bound address, with a socket for each worker.
#[derive(Debug)]
pub struct Binding {
    wanted: ListenAddress,
    address: Address,
    sockets: Mutex<Vec<Option<Socket>>>,
    /// With `exact_balance`.
    pub balance: Option<Arc<Balance>>,
}

impl Binding {
    /// Binds, `workers` times. `alone` makes sure that no other program is there already, which
    /// SO_REUSEPORT alone would let share the port without a word.
    ///
    /// # Errors
    /// The address cannot be had.
    pub fn new(wanted: ListenAddress, workers: usize, alone: bool) -> Result<Arc<Self>, BindError> {
        let fail = |source| BindError::System {
            address: wanted.address.clone(),
            source,
        };
        if alone && workers > 0 && wanted.reuse_port {
            socket::probe(&wanted).map_err(fail)?;
        }
        // Port 0 is chosen once, for all workers' sockets, and by a socket that shares with nobody:
        // the kernel would give one with SO_REUSEPORT a port that another program has.
        let mut bound = wanted.address.clone();
        let chosen = match workers {
            0 => None,
            _ => socket::choose_port(&wanted).map_err(fail)?,
        };
        if let Some((address, _)) = &chosen {
            bound = Address::Socket(*address);
        }
        let mut sockets: Vec<Option<Socket>> = Vec::with_capacity(workers);
        for _ in 0..workers {
            let socket = match sockets.first().and_then(Option::as_ref) {
                // The datagrams of one client must reach one worker, which has its session.
                Some(_) if !wanted.reuse_port && wanted.udp => None,
                Some(shared) if !wanted.reuse_port => Some(shared.try_clone().map_err(fail)?),
                _ => Some(socket::open(&bound, &wanted).map_err(fail)?),
            };
            sockets.push(socket);
        }
        Ok(Arc::new(Binding {
            balance: wanted
                .exact_balance
                .then(|| Arc::new(Balance::new(workers))),
            wanted,
            address: bound,
            sockets: Mutex::new(sockets),
        }))
    }

    /// The address as bound.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Begins to listen, once its listener is in force: before that, clients are refused rather
    /// than left waiting.
    fn listen(&self) -> Result<(), BindError> {
        for socket in self.sockets().iter().flatten() {
            socket::listen(socket, &self.wanted).map_err(|source| BindError::System {
                address: self.address.clone(),
                source,
            })?;
        }
        Ok(())
    }

    fn sockets(&self) -> MutexGuard<'_, Vec<Option<Socket>>> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker's socket; each is given out once.
    pub fn take(&self, worker: usize) -> Option<Socket> {
        self.sockets().get_mut(worker)?.take()
    }
}

/// A listener in force: its configuration and its sockets.
#[derive(Debug)]
pub struct ActiveListener {
    /// The configuration.
    pub config: Arc<Listener>,
    /// One for each address; empty where it does not bind.
    pub bindings: Vec<Arc<Binding>>,
    /// Its connections that are open, over all workers and versions.
    pub open: Arc<AtomicU32>,
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
        let mut bindings = Vec::new();
        if config.bind_to_port {
            for wanted in &config.addresses {
                bindings.push(match kept(wanted, previous)? {
                    Some(binding) => binding,
                    None => Binding::new(wanted.clone(), workers, alone)?,
                });
            }
        }
        let open = previous.map(|previous| previous.open.clone());
        Ok(Arc::new(ActiveListener {
            config,
            bindings,
            open: open.unwrap_or_default(),
        }))
    }

    /// Begins to listen: it is in force.
    ///
    /// # Errors
    /// Another program was faster.
    pub fn listen(&self) -> Result<(), BindError> {
        self.bindings
            .iter()
            .try_for_each(|binding| binding.listen())
    }

    /// Where it listens: as bound, or as configured where it does not bind.
    pub fn addresses(&self) -> Vec<Address> {
        if self.bindings.is_empty() {
            let addresses = self.config.addresses.iter();
            return addresses.map(|wanted| wanted.address.clone()).collect();
        }
        let bindings = self.bindings.iter();
        bindings.map(|binding| binding.address.clone()).collect()
    }
}

/// The binding of the version in force that serves this address too.
fn kept(
    wanted: &ListenAddress,
    previous: Option<&ActiveListener>,
) -> Result<Option<Arc<Binding>>, BindError> {
    let bindings = previous.map_or(&[][..], |previous| &previous.bindings);
    let of_address = |binding: &&Arc<Binding>| binding.wanted.address == wanted.address;
    let Some(binding) = bindings.iter().find(of_address) else {
        return Ok(None);
    };
    if binding.wanted == *wanted {
        return Ok(Some(binding.clone()));
    }
    let is_file = matches!(&wanted.address, Address::Pipe(path) if !socket::is_abstract(path));
    if is_file || (wanted.reuse_port && binding.wanted.reuse_port) {
        return Ok(None);
    }
    Err(BindError::Held(wanted.address.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(address: &str) -> ListenAddress {
        ListenAddress::new(Address::Socket(address.parse().unwrap()))
    }

    #[test]
    fn every_worker_has_a_socket_on_one_port() {
        for reuse_port in [true, false] {
            let wanted = ListenAddress {
                reuse_port,
                ..on("127.0.0.1:0")
            };
            let binding = Binding::new(wanted, 3, true).unwrap();
            let ports: Vec<_> = (0..3)
                .map(|worker| binding.take(worker).unwrap().local_addr().unwrap())
                .collect();
            let same =
                |address: &socket2::SockAddr| address.as_socket() == binding.address().socket();
            assert!(ports.iter().all(same));
            assert!(binding.take(0).is_none(), "given out once");
            assert!(binding.take(3).is_none());
        }
    }

    #[test]
    fn an_address_that_is_not_ours_is_named() {
        let error = Binding::new(on("192.0.2.1:80"), 1, true)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("192.0.2.1:80") && error.contains("no interface"),
            "{error}"
        );
    }
}
