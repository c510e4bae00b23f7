//! What ties an exchange to the pool that it came from.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use super::h1;
use crate::config::endpoint::Endpoint;

/// The pool that handed out an exchange.
pub trait Owner {
    /// The endpoint that its connections go to.
    fn endpoint(&self) -> &Arc<Endpoint>;

    /// The head of a final response has come, or the 101 that ends HTTP on its connection.
    fn responded(&self, status: u16);

    /// An HTTP/1 connection that has finished its exchange and can carry another.
    fn keep(&self, connection: Box<h1::Connection>);

    /// An exchange is over, however it ended; called once for each, after [`keep`](Self::keep) if
    /// there is something to keep.
    fn released(&self);
}

/// One exchange's claim on its pool (its place among the circuit breaker's requests, for example).
/// Dropping it tells the pool that the exchange is over.
pub struct Lease {
    owner: Rc<dyn Owner>,
}

impl Lease {
    /// A claim that `owner` has already counted.
    pub fn new(owner: Rc<dyn Owner>) -> Self {
        Lease { owner }
    }

    /// The endpoint of the pool.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        self.owner.endpoint()
    }

    pub(super) fn responded(&self, status: u16) {
        self.owner.responded(status);
    }

    pub(super) fn keep(&self, connection: Box<h1::Connection>) {
        self.owner.keep(connection);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.owner.released();
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lease")
            .field(&self.endpoint().address)
            .finish()
    }
}
