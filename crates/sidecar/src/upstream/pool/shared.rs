//! The HTTP/2 connections of a pool.

use std::time::{Duration, Instant};

use super::h2;

/// Before the endpoint's settings come, it is taken to allow what RFC 9113, section 6.5.2 asks of
/// it at least.
const PRESUMED_STREAMS: usize = 100;

/// Connections that several exchanges use at once.
#[derive(Debug, Default)]
pub struct SharedList {
    connections: Vec<Shared>,
}

#[derive(Debug)]
struct Shared {
    connection: h2::Connection,
    created: Instant,
    /// What it had served when it was last looked at, and when that last changed.
    served: u64,
    quiet_since: Instant,
}

impl SharedList {
    /// Adds a new connection.
    pub fn push(&mut self, connection: h2::Connection) {
        let now = Instant::now();
        self.connections.push(Shared {
            served: connection.served(),
            connection,
            created: now,
            quiet_since: now,
        });
    }

    /// How many streams a new connection will take: what the endpoint allows on the last one.
    pub fn presumed_streams(&self) -> usize {
        let allowed = self.connections.iter().rev();
        allowed
            .map(|shared| shared.connection.allowed_streams())
            .find(|allowed| *allowed > 0)
            .map_or(PRESUMED_STREAMS, |allowed| allowed.min(PRESUMED_STREAMS))
    }

    /// The first connection that can take another exchange.
    pub fn available(&self) -> Option<&h2::Connection> {
        self.connections
            .iter()
            .map(|shared| &shared.connection)
            .find(|connection| connection.available_streams() > 0)
    }

    /// Takes those that no exchange can begin on any more.
    pub fn take_closed(&mut self) -> Vec<h2::Connection> {
        self.take_if(|shared| shared.connection.is_closed())
    }

    /// Takes those that have had no exchange for `timeout`.
    pub fn take_expired(&mut self, now: Instant, timeout: Duration) -> Vec<h2::Connection> {
        self.take_if(|shared| {
            let served = shared.connection.served();
            if shared.connection.active_streams() > 0 || served != shared.served {
                shared.served = served;
                shared.quiet_since = now;
            }
            now.saturating_duration_since(shared.quiet_since) >= timeout
        })
    }

    /// Takes those that are older than `most`.
    pub fn take_old(&mut self, now: Instant, most: Duration) -> Vec<h2::Connection> {
        self.take_if(|shared| now.saturating_duration_since(shared.created) >= most)
    }

    /// Takes those that `worn_out` names.
    pub fn take_worn_out(
        &mut self,
        worn_out: impl Fn(&h2::Connection) -> bool,
    ) -> Vec<h2::Connection> {
        self.take_if(|shared| worn_out(&shared.connection))
    }

    /// Takes them all.
    pub fn take_all(&mut self) -> Vec<h2::Connection> {
        self.take_if(|_| true)
    }

    fn take_if(&mut self, mut unusable: impl FnMut(&mut Shared) -> bool) -> Vec<h2::Connection> {
        self.connections
            .extract_if(.., |shared| unusable(shared))
            .map(|shared| shared.connection)
            .collect()
    }
}
