//! What is known about an accepted connection once its filter chain is chosen.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tokio::sync::Notify;

use crate::config::address::Address;
use crate::config::listener::{FilterChain, Listener};
use crate::network::state::ConnectionState;
use crate::tls::stream::Handshake;

/// One downstream connection. Shared by its streams, on one worker.
#[derive(Debug)]
pub struct Connection {
    /// Unique in this process (`%CONNECTION_ID%`).
    pub id: u64,
    /// The client: as the PROXY protocol tells, where it is spoken, else the other end of the
    /// socket.
    pub peer: Address,
    /// The other end of the socket.
    pub direct_peer: Address,
    /// The address that the client was connecting to: the original destination where it was
    /// redirected, or what the PROXY protocol tells, else our own end.
    pub local: Address,
    /// Our own end of the socket.
    pub direct_local: Address,
    /// Whether `local` is what a listener filter found, and not just our own end.
    pub restored: bool,
    /// The listener that took it in the end (after a hand-over).
    pub listener: Arc<Listener>,
    /// The filter chain chosen.
    pub chain: Arc<FilterChain>,
    /// The server name that the client asked for, whether or not we ended its TLS.
    pub server_name: Option<Box<str>>,
    /// What the TLS handshake agreed on, if we ended TLS.
    pub tls: Option<Rc<Handshake>>,
    /// When it was accepted.
    pub accepted: Instant,
    /// The same by the wall clock.
    pub accepted_at: SystemTime,
    /// Tells when its filter chain is no longer configured.
    pub drain: Rc<ChainDrain>,
    /// What filters left on it.
    pub state: ConnectionState,
}

impl Connection {
    /// Where an ORIGINAL_DST cluster connects to: only what a listener filter found, for our own end
    /// would be a loop.
    pub fn original_destination(&self) -> Option<SocketAddr> {
        self.local.socket().filter(|_| self.restored)
    }

    /// How many of its bytes may wait in a buffer of ours that holds `most` unless the listener
    /// wants less.
    pub fn buffer_limit(&self, most: usize) -> usize {
        let limit = self.listener.buffer_limit;
        limit.map_or(most, |limit| (limit as usize).min(most))
    }
}

/// Whether the connections of one filter chain are to end, because the chain was changed or removed.
#[derive(Debug, Default)]
pub struct ChainDrain {
    draining: Cell<bool>,
    begun: Notify,
}

impl ChainDrain {
    /// Whether it has begun.
    pub fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Begins it.
    pub fn begin(&self) {
        self.draining.set(true);
        self.begun.notify_waiters();
    }

    /// Resolves once it has begun.
    pub async fn begun(&self) {
        let notified = self.begun.notified();
        if !self.draining.get() {
            notified.await;
        }
    }
}
