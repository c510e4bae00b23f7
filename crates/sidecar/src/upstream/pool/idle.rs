//! Connections that wait to be used again. Time is an argument.

use std::time::{Duration, Instant};

/// Idle connections, the last to have become idle at the end. That one is used first: so the others
/// grow old, and a pool shrinks to what its traffic needs.
#[derive(Debug)]
pub struct IdleList<C> {
    connections: Vec<(Instant, C)>,
}

impl<C> IdleList<C> {
    /// An empty list.
    pub const fn new() -> Self {
        IdleList {
            connections: Vec::new(),
        }
    }

    /// Adds a connection that is idle since `now`.
    pub fn push(&mut self, connection: C, now: Instant) {
        self.connections.push((now, connection));
    }

    /// Takes the one that was used last.
    pub fn pop(&mut self) -> Option<C> {
        self.connections.pop().map(|(_, connection)| connection)
    }

    /// Takes those that have been idle for `timeout`.
    pub fn take_expired(&mut self, now: Instant, timeout: Duration) -> Vec<C> {
        let expired = self
            .connections
            .partition_point(|(since, _)| now.saturating_duration_since(*since) >= timeout);
        self.connections
            .drain(..expired)
            .map(|(_, connection)| connection)
            .collect()
    }

    /// Takes those for which `unusable` answers true.
    pub fn take_if(&mut self, mut unusable: impl FnMut(&mut C) -> bool) -> Vec<C> {
        self.connections
            .extract_if(.., |(_, connection)| unusable(connection))
            .map(|(_, connection)| connection)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_used_comes_first_and_the_oldest_expires_first() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut list = IdleList::new();
        for (connection, since) in [("a", 0), ("b", 5), ("c", 9), ("d", 9)] {
            list.push(connection, at(since));
        }
        assert_eq!(list.pop(), Some("d"));
        let timeout = Duration::from_secs(10);
        assert!(list.take_expired(at(9), timeout).is_empty());
        assert_eq!(list.take_expired(at(15), timeout), ["a", "b"]);
        assert_eq!(list.take_if(|connection| *connection == "c"), ["c"]);
        assert_eq!(list.pop(), None);
    }
}
