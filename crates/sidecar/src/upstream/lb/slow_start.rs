//! Slow start: what a new endpoint gets until it has warmed up. Time is an argument.

use std::time::{Duration, Instant};

use super::edf::DIVISOR;
use crate::config::cluster::SlowStart;
use crate::runtime_layer::Double;

/// Since when the members of a picker take traffic.
#[derive(Debug)]
pub struct Warming {
    rule: SlowStart,
    since: Box<[Option<Instant>]>,
}

impl Warming {
    /// `None` where nobody is new. Members without a time are not healthy, and not new either.
    pub fn new(
        rule: &SlowStart,
        since: impl Iterator<Item = Option<Instant>>,
        now: Instant,
    ) -> Option<Self> {
        let since: Box<[_]> = since.collect();
        let is_new = |since: &Instant| now.saturating_duration_since(*since) <= rule.window;
        let some = since.iter().flatten().any(is_new);
        some.then(|| Warming {
            rule: rule.clone(),
            since,
        })
    }

    /// What the weight of a member is divided by at `now`, in units of 1/[`DIVISOR`].
    pub fn divisor(&self, member: usize, now: Instant) -> u64 {
        let Some(since) = self.since[member] else {
            return DIVISOR;
        };
        let passed = now.saturating_duration_since(since);
        if passed >= self.rule.window {
            return DIVISOR;
        }
        let time = passed.max(Duration::from_millis(1)).as_secs_f64();
        let part = time / self.rule.window.as_secs_f64();
        let grown = match self.rule.aggression.as_ref().map_or(1.0, Double::get) {
            1.0 => part,
            // As Envoy takes a value of the runtime that is none.
            aggression if aggression.is_nan() || aggression <= 0.0 => part.powf(10.0),
            aggression => part.powf(1.0 / aggression),
        };
        // A part of nothing would never end; this is less than anybody notices.
        (DIVISOR as f64 / grown.max(self.rule.least).max(1e-6)) as u64
    }
}
