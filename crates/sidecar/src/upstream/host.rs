//! An endpoint with its pools, for as long as its cluster has it.

use std::cell::{Cell, OnceCell};
use std::rc::Rc;
use std::task::Context;
use std::time::Instant;

use super::pool::{Pool, Protocol};
use super::target::Target;
use crate::http::message::Version;

/// Dropping it retires its pools; exchanges that they handed out go on.
pub struct Host {
    target: Rc<Target>,
    /// For HTTP/1 (and where ALPN decides), and for HTTP/2.
    pools: [OnceCell<Rc<Pool>>; 2],
    /// Sweeps since it was last used, for hosts that nobody lists.
    unused: Cell<u32>,
}

impl Host {
    /// A host without connections.
    pub fn new(target: Rc<Target>) -> Rc<Self> {
        Rc::new(Host {
            target,
            pools: Default::default(),
            unused: Cell::new(0),
        })
    }

    /// The endpoint.
    pub fn target(&self) -> &Rc<Target> {
        &self.target
    }

    /// The pool for requests of a downstream version.
    pub fn pool(&self, downstream: Version) -> &Rc<Pool> {
        let configured = self.target.context.config.protocol;
        let protocol = Protocol::of(configured, &self.target.transport, downstream);
        let pool = &self.pools[usize::from(protocol == Protocol::Http2)];
        pool.get_or_init(|| Pool::new(self.target.clone(), protocol))
    }

    fn pools(&self) -> impl Iterator<Item = &Rc<Pool>> {
        self.pools.iter().filter_map(OnceCell::get)
    }

    /// See [`Pool::drop_closed`].
    pub fn drop_closed(&self, cx: &mut Context<'_>) {
        self.pools().for_each(|pool| pool.drop_closed(cx));
    }

    /// See [`Pool::sweep`].
    pub fn sweep(&self, now: Instant) {
        self.pools().for_each(|pool| pool.sweep(now));
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
