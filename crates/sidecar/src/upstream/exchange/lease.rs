//! What ties an exchange to the pool that it came from.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use super::h1;
use crate::config::endpoint::Endpoint;
use crate::upstream::stats::ClusterStats;

/// What becomes of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The head of a final response has come, or the 101 that ends HTTP on its connection.
    Responded {
        /// Its status.
        status: u16,
    },
    /// The same, but another cluster counts the status.
    RespondedForAnother {
        /// Its status.
        status: u16,
    },
    /// The endpoint failed to give a response.
    Failed,
    /// It took longer than the request may.
    TimedOut,
    /// Bytes moved on the exchange's own connection.
    Transferred {
        /// From the endpoint.
        received: u64,
        /// To it.
        sent: u64,
    },
}

/// The pool that handed out an exchange.
pub trait Owner {
    /// The endpoint that its connections go to.
    fn endpoint(&self) -> &Arc<Endpoint>;

    /// Something that is to be counted.
    fn note(&self, event: Event);

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
    /// The cluster of clusters that counts the status of the response instead.
    charged: Option<Rc<ClusterStats>>,
}

impl Lease {
    /// A claim that `owner` has already counted.
    pub fn new(owner: Rc<dyn Owner>) -> Self {
        Lease {
            owner,
            charged: None,
        }
    }

    /// Has the status of the response counted there.
    pub fn charge(&mut self, stats: Rc<ClusterStats>) {
        self.charged = Some(stats);
    }

    /// The endpoint of the pool.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        self.owner.endpoint()
    }

    /// Has the pool count something.
    pub fn note(&self, event: Event) {
        match (&self.charged, event) {
            (Some(stats), Event::Responded { status }) => {
                stats.response(status);
                self.owner.note(Event::RespondedForAnother { status });
            }
            _ => self.owner.note(event),
        }
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
