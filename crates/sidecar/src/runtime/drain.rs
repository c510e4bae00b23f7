//! Draining: what is being told to end, and until when.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::listener::TrafficDirection;

/// How far the process has got with ending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DrainState {
    /// Since when inbound (and undirected) traffic is draining.
    pub inbound: Option<Instant>,
    /// Until when inbound listeners still accept: those who balance over our endpoint need time to
    /// learn that it is going.
    pub accepting: Option<Instant>,
    /// Since when outbound traffic is draining.
    pub outbound: Option<Instant>,
    /// Until when outbound listeners still accept.
    pub outbound_accepting: Option<Instant>,
    /// When everything ends, whatever is left.
    pub deadline: Option<Instant>,
    /// Connections are told to end one after the other over so long, not all at once:
    /// `--drain-strategy gradual`.
    pub gradually: Option<Duration>,
}

impl DrainState {
    /// Whether connections of this direction are to end.
    pub fn concerns(&self, direction: TrafficDirection) -> bool {
        self.since(direction).is_some()
    }

    fn since(&self, direction: TrafficDirection) -> Option<Instant> {
        match direction {
            TrafficDirection::Outbound => self.outbound,
            TrafficDirection::Inbound | TrafficDirection::Unspecified => self.inbound,
        }
    }

    /// Whether a connection is told to end now: with a chance that grows from 0 to 1 over the time
    /// of a gradual drain.
    fn tells(&self, direction: TrafficDirection, now: Instant, random: u64) -> bool {
        let Some(since) = self.since(direction) else {
            return false;
        };
        let Some(time) = self.gradually.filter(|time| !time.is_zero()) else {
            return true;
        };
        let passed = now.duration_since(since).as_nanos();
        passed > u128::from(random) % time.as_nanos()
    }
}

/// Which directions drain, for readers on the request path: a `watch` would take a lock.
const INBOUND: u8 = 1;
const OUTBOUND: u8 = 2;
/// `/healthcheck/fail`: clients are sent away with their next answer, and nothing else ends.
const UNHEALTHY: u8 = 4;
/// Not all connections are told at once.
const GRADUAL: u8 = 8;

fn bit(direction: TrafficDirection) -> u8 {
    match direction {
        TrafficDirection::Outbound => OUTBOUND,
        TrafficDirection::Inbound | TrafficDirection::Unspecified => INBOUND,
    }
}

/// The control thread's end: says that draining begins.
#[derive(Default)]
pub struct DrainControl {
    state: watch::Sender<DrainState>,
    bits: Arc<AtomicU8>,
    open: Arc<Open>,
}

/// Connections that are open, over all workers.
#[derive(Debug, Default)]
struct Open {
    inbound: AtomicUsize,
    outbound: AtomicUsize,
}

impl Open {
    fn of(&self, direction: TrafficDirection) -> &AtomicUsize {
        match direction {
            TrafficDirection::Outbound => &self.outbound,
            TrafficDirection::Inbound | TrafficDirection::Unspecified => &self.inbound,
        }
    }
}

impl DrainControl {
    /// How many connections of this direction are open.
    pub fn open(&self, direction: TrafficDirection) -> usize {
        self.open.of(direction).load(Relaxed)
    }

    /// How many connections are open at all.
    pub fn all_open(&self) -> usize {
        self.open(TrafficDirection::Inbound) + self.open(TrafficDirection::Outbound)
    }

    /// What drains from now on does so over this time; `None` at once.
    pub fn set_gradual(&self, time: Option<Duration>) {
        self.state.send_modify(|state| state.gradually = time);
        if time.is_some() {
            self.bits.fetch_or(GRADUAL, Relaxed);
        } else {
            self.bits.fetch_and(!GRADUAL, Relaxed);
        }
    }

    /// Inbound and undirected traffic drains from now on, its listeners stop after `accepting`, and
    /// everything ends `within` from now.
    pub fn begin_inbound(&self, accepting: Duration, within: Duration) {
        let now = Instant::now();
        self.bits.fetch_or(INBOUND, Relaxed);
        self.state.send_modify(|state| {
            state.inbound.get_or_insert(now);
            state.accepting.get_or_insert(now + accepting);
            state.deadline.get_or_insert(now + within);
        });
    }

    /// Outbound follows, and its listeners stop after `accepting`.
    pub fn begin_outbound(&self, accepting: Duration) {
        let now = Instant::now();
        self.bits.fetch_or(OUTBOUND, Relaxed);
        self.state.send_modify(|state| {
            state.outbound.get_or_insert(now);
            state.outbound_accepting.get_or_insert(now + accepting);
        });
    }

    /// `/healthcheck/fail` and `/healthcheck/ok`: whether answers are to send clients away.
    pub fn fail_health_check(&self, fail: bool) {
        if fail {
            self.bits.fetch_or(UNHEALTHY, Relaxed);
        } else {
            self.bits.fetch_and(!UNHEALTHY, Relaxed);
        }
    }

    /// A view for one thread.
    pub fn signal(&self) -> DrainSignal {
        DrainSignal {
            state: self.state.subscribe(),
            bits: self.bits.clone(),
            open: self.open.clone(),
        }
    }
}

/// A thread's view of the draining.
#[derive(Clone)]
pub struct DrainSignal {
    state: watch::Receiver<DrainState>,
    bits: Arc<AtomicU8>,
    open: Arc<Open>,
}

impl DrainSignal {
    /// A connection of this direction was accepted.
    pub fn opened(&self, direction: TrafficDirection) {
        self.open.of(direction).fetch_add(1, Relaxed);
    }

    /// It ended.
    pub fn closed(&self, direction: TrafficDirection) {
        self.open.of(direction).fetch_sub(1, Relaxed);
    }

    /// How many connections are open, over all workers and directions.
    pub fn open(&self) -> usize {
        self.open.inbound.load(Relaxed) + self.open.outbound.load(Relaxed)
    }

    /// The present state.
    pub fn state(&self) -> DrainState {
        *self.state.borrow()
    }

    /// Whether a connection of this direction is to end with its answer. Costs one load, unless the
    /// drain is a gradual one, which draws lots.
    pub fn concerns(&self, direction: TrafficDirection, random: impl FnOnce() -> u64) -> bool {
        let bits = self.bits.load(Relaxed);
        if bits & bit(direction) == 0 || bits & GRADUAL == 0 {
            return bits & bit(direction) != 0;
        }
        self.state().tells(direction, Instant::now(), random())
    }

    /// Whether health checks are told to fail. Costs one load.
    pub fn is_unhealthy(&self) -> bool {
        self.bits.load(Relaxed) & UNHEALTHY != 0
    }

    /// Whether all directions are to end: no listener is opened any more.
    pub fn is_complete(&self) -> bool {
        let all = INBOUND | OUTBOUND;
        self.bits.load(Relaxed) & all == all
    }

    /// Resolves when a connection of this direction is to end though nothing is asked on it. In a
    /// gradual drain each has a moment of its own.
    pub async fn begun(&self, direction: TrafficDirection) {
        let mut receiver = self.state.clone();
        told(&mut receiver, direction).await;
        let mut share = None;
        loop {
            let state = *receiver.borrow_and_update();
            let (Some(time), Some(since)) = (state.gradually, state.since(direction)) else {
                return;
            };
            let share = *share.get_or_insert_with(rand::random::<f64>);
            tokio::select! {
                () = tokio::time::sleep_until(since + time.mul_f64(share)) => return,
                changed = receiver.changed() => if changed.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        }
    }

    /// Resolves when listeners of this direction are to stop.
    pub async fn refusing(&self, direction: TrafficDirection) {
        told(&mut self.state.clone(), direction).await;
        let state = self.state();
        let accepting = match direction {
            TrafficDirection::Outbound => state.outbound_accepting,
            TrafficDirection::Inbound | TrafficDirection::Unspecified => state.accepting,
        };
        if let Some(accepting) = accepting {
            tokio::time::sleep_until(accepting).await;
        }
    }
}

/// Resolves when connections of this direction begin to end.
async fn told(state: &mut watch::Receiver<DrainState>, direction: TrafficDirection) {
    let begun = state.wait_for(|state| state.concerns(direction)).await;
    if begun.is_err() {
        // The sender lives as long as the process.
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_gradual_drain_tells_more_and_more_and_sigterm_all() {
        const INBOUND: TrafficDirection = TrafficDirection::Inbound;
        const MINUTE: Duration = Duration::from_secs(60);
        let control = DrainControl::default();
        let signal = control.signal();
        control.set_gradual(Some(MINUTE));
        control.begin_inbound(MINUTE, MINUTE);
        let told = || {
            let lots =
                (0..60_u64).filter(|second| signal.concerns(INBOUND, || second * 1_000_000_000));
            lots.count()
        };
        assert_eq!(told(), 0);
        tokio::time::advance(MINUTE / 2).await;
        assert_eq!(told(), 30);
        assert!(!signal.concerns(TrafficDirection::Outbound, || 0));
        let start = Instant::now();
        signal.begun(INBOUND).await;
        assert!(start.elapsed() <= MINUTE / 2);
        control.set_gradual(None);
        assert_eq!(told(), 60);
        signal.begun(INBOUND).await;
    }

    #[test]
    fn failing_health_checks_is_no_draining_and_can_be_undone() {
        let control = DrainControl::default();
        let signal = control.signal();
        control.fail_health_check(true);
        assert!(signal.is_unhealthy());
        assert!(!signal.concerns(TrafficDirection::Inbound, || 0));
        control.begin_inbound(Duration::ZERO, Duration::ZERO);
        assert!(!signal.is_complete());
        control.begin_outbound(Duration::ZERO);
        assert!(signal.is_complete());
        control.fail_health_check(false);
        assert!(!signal.is_unhealthy());
        assert!(signal.is_complete());
    }
}
