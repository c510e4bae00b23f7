//! The listeners of one worker: their accept loops, and the table by which a listener that takes
//! redirected connections hands them over.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use tokio::sync::Notify;

use super::accept;
use super::binding::{ActiveListener, Binding};
use super::connection::ChainDrain;
use super::filter_stats::{self, FilterStats};
use super::socket::Acceptor;
use super::stats::ListenerStats;
use super::udp;
use crate::config::address::Address;
use crate::config::listener::{FilterChain, Listener};
use crate::runtime::snapshot::ListenerSet;
use crate::runtime::worker::Worker;

/// A listener as it is in force: what a connection reads once.
pub struct Version {
    active: Arc<ActiveListener>,
    /// What its filters count, in their order.
    pub filter_stats: Rc<[FilterStats]>,
}

impl Version {
    fn new(worker: &Worker, active: Arc<ActiveListener>) -> Rc<Self> {
        Rc::new(Version {
            filter_stats: filter_stats::of(&worker.stats, &active.config.filters),
            active,
        })
    }

    /// Its configuration.
    pub fn config(&self) -> &Arc<Listener> {
        &self.active.config
    }

    /// Its connections that are open, over all workers.
    pub fn open(&self) -> &Arc<AtomicU32> {
        &self.active.open
    }
}

/// A listener on one worker.
pub struct Running {
    version: RefCell<Rc<Version>>,
    /// The accept loops by their binding, each with what stops it.
    loops: RefCell<Vec<(Arc<Binding>, Rc<Notify>)>>,
    /// By fingerprint: chains that did not change keep their connections.
    chains: RefCell<HashMap<u64, Rc<ChainDrain>>>,
    /// Whether it was removed.
    stopped: Cell<bool>,
    pub stats: ListenerStats,
}

impl Running {
    /// The present version. A connection reads it once.
    pub fn version(&self) -> Rc<Version> {
        self.version.borrow().clone()
    }

    /// The present configuration.
    pub fn config(&self) -> Arc<Listener> {
        self.version.borrow().config().clone()
    }

    /// What tells connections of this chain to end. It has begun where the chain was changed or
    /// removed since the connection chose it, for the handshake of a slow client lasts longer than
    /// an update.
    pub fn drain_of(&self, chain: &FilterChain) -> Rc<ChainDrain> {
        let mut chains = self.chains.borrow_mut();
        if let Some(drain) = chains.get(&chain.fingerprint) {
            return drain.clone();
        }
        let drain = Rc::<ChainDrain>::default();
        if self.stopped.get() || !has_chain(&self.config(), chain.fingerprint) {
            drain.begin();
        } else {
            chains.insert(chain.fingerprint, drain.clone());
        }
        drain
    }

    /// Whether this is an address at which it listens itself.
    pub fn listens_on(&self, address: &Address) -> bool {
        let Some(address) = address.socket() else {
            return false;
        };
        self.version().active.bindings.iter().any(|binding| {
            binding.address().socket().is_some_and(|bound| {
                bound.port() == address.port()
                    && (bound.ip().is_unspecified() || bound.ip() == address.ip())
            })
        })
    }

    fn replace(&self, version: Rc<Version>) {
        *self.version.borrow_mut() = version.clone();
        let config = version.config();
        self.chains.borrow_mut().retain(|fingerprint, drain| {
            let kept = has_chain(config, *fingerprint);
            if !kept {
                drain.begin();
            }
            kept
        });
    }

    fn stop(&self) {
        self.stopped.set(true);
        for (_, stop) in self.loops.borrow().iter() {
            stop.notify_one();
        }
        for drain in self.chains.borrow().values() {
            drain.begin();
        }
    }
}

/// Whether a chain is one of this configuration.
fn has_chain(config: &Listener, fingerprint: u64) -> bool {
    let chains = config.filter_chains.iter();
    let mut chains = chains.chain(&config.default_filter_chain);
    chains.any(|chain| chain.fingerprint == fingerprint)
}

/// All listeners of one worker.
#[derive(Default)]
pub struct Listeners {
    running: RefCell<BTreeMap<Arc<str>, Rc<Running>>>,
    table: RefCell<HashMap<SocketAddr, Rc<Running>>>,
}

impl Listeners {
    /// Takes over a new set: what did not change is left alone.
    pub fn apply(&self, worker: &Rc<Worker>, set: &ListenerSet) {
        self.running.borrow_mut().retain(|name, running| {
            let kept = set.contains_key(name);
            if !kept {
                running.stop();
            }
            kept
        });
        for (name, active) in set {
            let known = self.running.borrow().get(name).cloned();
            match known {
                Some(running) if Arc::ptr_eq(&running.version().active, active) => {}
                Some(running) => {
                    running.replace(Version::new(worker, active.clone()));
                    self.listen(worker, &running);
                }
                None => {
                    let running = Rc::new(Running {
                        version: RefCell::new(Version::new(worker, active.clone())),
                        loops: RefCell::default(),
                        chains: RefCell::default(),
                        stopped: Cell::new(false),
                        stats: ListenerStats::new(
                            &worker.stats,
                            &active.config.stat_prefix,
                            worker.index,
                        ),
                    });
                    self.running
                        .borrow_mut()
                        .insert(name.clone(), running.clone());
                    self.listen(worker, &running);
                }
            }
        }
        self.index();
    }

    /// Starts accept loops for new bindings and stops those of old ones.
    fn listen(&self, worker: &Rc<Worker>, running: &Rc<Running>) {
        let active = running.version().active.clone();
        let mut loops = running.loops.borrow_mut();
        loops.retain(|(binding, stop)| {
            let kept = active
                .bindings
                .iter()
                .any(|wanted| Arc::ptr_eq(wanted, binding));
            if !kept {
                stop.notify_one();
            }
            kept
        });
        for binding in &active.bindings {
            if loops.iter().any(|(known, _)| Arc::ptr_eq(known, binding)) {
                continue;
            }
            let Some(socket) = binding.take(worker.index) else {
                continue;
            };
            if active.config.udp.is_some() {
                let stop = Rc::new(Notify::new());
                loops.push((binding.clone(), stop.clone()));
                udp::start(worker, running, socket, &stop);
                continue;
            }
            let acceptor = match Acceptor::new(socket, binding.address()) {
                Ok(acceptor) => acceptor,
                Err(error) => {
                    tracing::error!(address = %binding.address(), %error, "cannot accept on this worker");
                    continue;
                }
            };
            let stop = Rc::new(Notify::new());
            loops.push((binding.clone(), stop.clone()));
            accept::start(worker, running, acceptor, binding, &stop);
        }
    }

    fn index(&self) {
        let mut table = self.table.borrow_mut();
        table.clear();
        // Nobody hands connections over to a listener of datagrams.
        let running = self.running.borrow();
        for running in running
            .values()
            .filter(|running| running.config().udp.is_none())
        {
            let addresses = running.version().active.addresses();
            for address in addresses.iter().filter_map(Address::socket) {
                table.insert(address, running.clone());
            }
        }
    }

    /// The listener that takes a connection to `destination`: the one of that very address, else the
    /// one of its port on all addresses of its family; none leaves it where it is.
    pub fn at(&self, destination: SocketAddr) -> Option<Rc<Running>> {
        let table = self.table.borrow();
        let wildcard: IpAddr = match destination {
            SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        let exact = SocketAddr::new(destination.ip(), destination.port());
        table
            .get(&exact)
            .or_else(|| table.get(&SocketAddr::new(wildcard, destination.port())))
            .cloned()
    }

    /// Stops accepting for good where `concerned` says so; connections go on.
    pub fn stop_accepting(&self, concerned: impl Fn(&Listener) -> bool) {
        for running in self.running.borrow().values() {
            if concerned(&running.config()) {
                for (_, stop) in running.loops.borrow_mut().drain(..) {
                    stop.notify_one();
                }
            }
        }
    }
}
