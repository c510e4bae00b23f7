//! An endpoint with its pools, for as long as its cluster has it.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::task::Context;
use std::time::Instant;

use super::client::Client;
use super::pool::{Pool, Protocol};
use super::target::Target;
use crate::config::cluster::Priority;
use crate::http::message::Version;

/// Sweeps (about a second each) after which a client's own connections are closed that it does not
/// use: it may have gone.
const PRIVATE_FOR: u32 = 30;

struct Private {
    pool: Rc<Pool>,
    /// Sweeps since it was last used.
    unused: u32,
}

/// Dropping it retires its pools; exchanges that they handed out go on.
pub struct Host {
    target: Rc<Target>,
    /// For HTTP/1 (and where ALPN decides), and for HTTP/2; of each priority.
    pools: [OnceCell<Rc<Pool>>; 4],
    /// The same for each client, where clients share no connections.
    private: RefCell<HashMap<(u64, usize), Private>>,
    /// Sweeps since it was last used, for hosts that nobody lists.
    unused: Cell<u32>,
}

impl Host {
    /// A host without connections.
    pub fn new(target: Rc<Target>) -> Rc<Self> {
        Rc::new(Host {
            target,
            pools: Default::default(),
            private: RefCell::default(),
            unused: Cell::new(0),
        })
    }

    /// The endpoint.
    pub fn target(&self) -> &Rc<Target> {
        &self.target
    }

    /// The pool for requests of a downstream version, a priority and, where clients share no
    /// connections, a client.
    pub fn pool(&self, downstream: Version, priority: Priority, client: &Client) -> Rc<Pool> {
        let config = &self.target.context.config;
        let transport = &self.target.transport;
        let protocol = Protocol::of(config.protocol, transport, downstream);
        let at = 2 * priority as usize + usize::from(protocol == Protocol::Http2);
        let is_shared = client.source.is_none() && transport.proxy_protocol().is_none();
        if config.pool_per_downstream || !is_shared {
            let mut private = self.private.borrow_mut();
            let private = private
                .entry((client.connection, at))
                .or_insert_with(|| Private {
                    pool: Pool::new(self.target.clone(), protocol, priority, client.clone()),
                    unused: 0,
                });
            private.unused = 0;
            return private.pool.clone();
        }
        let shared = self.pools[at].get_or_init(|| {
            let nobody = Client::default();
            Pool::new(self.target.clone(), protocol, priority, nobody)
        });
        shared.clone()
    }

    /// All pools. They are held while they are looked at: what they do calls back.
    fn pools(&self) -> impl Iterator<Item = Rc<Pool>> {
        let private = self.private.borrow();
        let private: Vec<_> = private.values().map(|own| own.pool.clone()).collect();
        let shared = self.pools.iter().filter_map(OnceCell::get).cloned();
        shared.chain(private)
    }

    /// See [`Pool::drop_closed`].
    pub fn drop_closed(&self, cx: &mut Context<'_>) {
        self.pools().for_each(|pool| pool.drop_closed(cx));
    }

    /// See [`Pool::sweep`].
    pub fn sweep(&self, now: Instant) {
        self.pools().for_each(|pool| pool.sweep(now));
        let abandoned: Vec<_> = self
            .private
            .borrow_mut()
            .extract_if(|_, own| {
                own.unused = if own.pool.is_busy() {
                    0
                } else {
                    own.unused + 1
                };
                own.pool.is_empty() || own.unused > PRIVATE_FOR
            })
            .collect();
        for (_, own) in abandoned {
            own.pool.retire();
        }
    }

    /// Notes that it is used.
    pub fn touch(&self) {
        self.unused.set(0);
    }

    /// Notes that a sweep came by, and says how many have since it was last used: 0 as long as
    /// there is a connection or a request.
    pub fn age(&self) -> u32 {
        let busy = self.target.active() > 0 || self.pools().any(|pool| !pool.is_empty());
        let unused = if busy { 0 } else { self.unused.get() + 1 };
        self.unused.set(unused);
        unused
    }

    /// See [`Pool::retire`].
    pub fn retire(&self) {
        self.pools().for_each(|pool| pool.retire());
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.retire();
    }
}
