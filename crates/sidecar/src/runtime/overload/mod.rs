//! Envoy's overload manager: what is read of the system's resources decides what is refused.
//!
//! The control thread looks at the monitors every `refresh_interval` and sets the levels of the
//! actions; the data path reads a level by one load.

pub mod config;
mod monitor;
mod watch;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

pub use config::Overload as OverloadConfig;
pub use watch::start;

/// What is done under pressure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Action {
    /// `stop_accepting_requests`: they are answered with 503.
    StopRequests,
    /// `disable_http_keepalive`: connections end with their request.
    DisableKeepalive,
    /// `stop_accepting_connections`: they wait in the system's queue.
    StopConnections,
    /// `reject_incoming_connections`: they are closed at once.
    RejectConnections,
    /// `shrink_heap`: nothing is left to do, for the allocator gives back what is not used.
    ShrinkHeap,
}

/// How many actions there are.
const ACTIONS: usize = 5;

/// Where load is shed: like an action, and what is shed is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum ShedPoint {
    /// `tcp_listener_accept`: connections are closed as they come.
    Accept,
    /// `http_connection_manager_decode_headers`: requests are answered with 503.
    DecodeHeaders,
}

/// How many points there are.
const POINTS: usize = 2;

/// The levels of all actions: 0 is not at all, the greatest number always.
pub struct Levels {
    levels: [AtomicU32; ACTIONS],
    points: [AtomicU32; POINTS],
    shed: [AtomicU64; POINTS],
    most_connections: AtomicU64,
}

/// Those of this process.
pub static OVERLOAD: Levels = Levels::new();

impl Levels {
    const fn new() -> Self {
        Levels {
            levels: [const { AtomicU32::new(0) }; ACTIONS],
            points: [const { AtomicU32::new(0) }; POINTS],
            shed: [const { AtomicU64::new(0) }; POINTS],
            most_connections: AtomicU64::new(u64::MAX),
        }
    }

    /// Sets the level of an action, from 0 to 1.
    fn set(&self, action: Action, level: f64) {
        self.levels[action as usize].store(scaled(level), Relaxed);
    }

    /// Sets that of a point.
    fn set_point(&self, point: ShedPoint, level: f64) {
        self.points[point as usize].store(scaled(level), Relaxed);
    }

    /// How often load was shed at a point.
    fn shed(&self, point: ShedPoint) -> u64 {
        self.shed[point as usize].load(Relaxed)
    }

    /// Whether an action that is done wholly or not at all is to be done.
    pub fn is_saturated(&self, action: Action) -> bool {
        self.levels[action as usize].load(Relaxed) == u32::MAX
    }

    /// Whether an action is to be done this time.
    pub fn happens(&self, action: Action, random: impl FnOnce() -> u64) -> bool {
        drawn(&self.levels[action as usize], random)
    }

    /// Whether load is to be shed at a point this time.
    pub fn sheds(&self, point: ShedPoint, random: impl FnOnce() -> u64) -> bool {
        let sheds = drawn(&self.points[point as usize], random);
        if sheds {
            self.shed[point as usize].fetch_add(1, Relaxed);
        }
        sheds
    }

    /// How many connections may be open over all listeners.
    pub fn most_connections(&self) -> u64 {
        self.most_connections.load(Relaxed)
    }
}

fn scaled(level: f64) -> u32 {
    // A cast of a float saturates.
    (level * f64::from(u32::MAX)) as u32
}

fn drawn(level: &AtomicU32, random: impl FnOnce() -> u64) -> bool {
    match level.load(Relaxed) {
        0 => false,
        u32::MAX => true,
        level => (random() >> 32) < u64::from(level),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_how_often_it_happens() {
        let levels = Levels::new();
        let action = Action::StopRequests;
        assert!(!levels.happens(action, || 0));
        levels.set(action, 0.5);
        assert!(levels.happens(action, || 0) && !levels.happens(action, || u64::MAX));
        assert!(!levels.is_saturated(action));
        levels.set(action, 1.0);
        assert!(levels.happens(action, || u64::MAX) && levels.is_saturated(action));
        assert!(!levels.happens(Action::StopConnections, || 0));
    }
}
