//! When to ask for the next certificate. No I/O: the time is an argument.
//!
//! A certificate's term is in wall-clock time, and wall clocks jump. So it is renewed when half of
//! what was left when it came has passed by the wall clock or by the steady one, whichever is first,
//! and when the wall clock says that it is not valid yet; and nobody sleeps longer than [`POLL`].

use std::time::{Duration, Instant, SystemTime};

use outrider_xds::ads::client::Backoff;

/// The longest sleep: a jump of the wall clock is noticed within it.
pub const POLL: Duration = Duration::from_secs(30);
/// The first and the longest wait after a failure.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// The shortest wait that the approaching end of the certificate makes of it.
const PRESSED: Duration = Duration::from_millis(250);
/// How much shorter waits are while no valid certificate is in use.
const OUTAGE: f64 = 2.0 / 3.0;
/// How much earlier or later than at half life the renewal is, as a part of that half: workloads
/// that started together must not renew together.
const JITTER: f64 = 0.1;
/// Whatever the authority gives, it is not asked again sooner than this.
const SHORTEST: Duration = Duration::from_secs(1);

/// A point in time by both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// What certificates are compared with.
    pub wall: SystemTime,
    /// What never jumps.
    pub steady: Instant,
}

/// The term of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Its first moment.
    pub not_before: SystemTime,
    /// Its last moment.
    pub not_after: SystemTime,
}

/// The plan for the next request.
#[derive(Debug)]
pub struct Renewal {
    backoff: Backoff,
    term: Option<Term>,
    /// Set by a failure.
    retry_at: Option<Instant>,
}

#[derive(Debug)]
struct Term {
    validity: Validity,
    renew_at: Moment,
}

impl Renewal {
    /// There is no certificate: one is due.
    pub fn new() -> Self {
        Renewal {
            backoff: Backoff::new(BACKOFF.0, BACKOFF.1),
            term: None,
            retry_at: None,
        }
    }

    /// How long to wait before the next request; zero: it is due. At most [`POLL`], after which to
    /// ask again.
    pub fn due_in(&self, now: Moment) -> Duration {
        let wait = match (self.retry_at, &self.term) {
            (Some(retry_at), _) => retry_at.saturating_duration_since(now.steady),
            (None, None) => Duration::ZERO,
            (None, Some(term)) if now.wall < term.validity.not_before => Duration::ZERO,
            (None, Some(term)) => {
                let by_wall = term.renew_at.wall.duration_since(now.wall);
                let by_steady = term.renew_at.steady.saturating_duration_since(now.steady);
                by_wall.unwrap_or_default().min(by_steady)
            }
        };
        wait.min(POLL)
    }

    /// A certificate came. `random` is uniform in `0.0..1.0`.
    pub fn issued(&mut self, now: Moment, validity: &Validity, random: f64) {
        self.backoff.reset();
        self.retry_at = None;
        // Half of what is left, not of the whole: an authority dates its certificates back, so that
        // peers whose clocks are behind accept them.
        let half = remaining(validity, now) / 2;
        let wait = half
            .mul_f64(1.0 - JITTER + 2.0 * JITTER * random)
            .max(SHORTEST);
        self.term = Some(Term {
            validity: *validity,
            renew_at: Moment {
                wall: now.wall + wait,
                steady: now.steady + wait,
            },
        });
    }

    /// The request failed. Returns the wait before the next.
    pub fn failed(&mut self, now: Moment, random: f64) -> Duration {
        let wait = self.backoff.next(random);
        let left = self
            .term
            .as_ref()
            .map(|term| remaining(&term.validity, now));
        let wait = match left.filter(|left| !left.is_zero()) {
            // Never so long that the certificate ends without another try.
            Some(left) => wait.min((left / 2).max(PRESSED)),
            // Nothing works: this and the attempt itself take half a minute at most.
            None => wait.mul_f64(OUTAGE),
        };
        self.retry_at = Some(now.steady + wait);
        wait
    }

    /// What made requests fail may be gone: one that waits after a failure is due.
    pub fn try_now(&mut self) {
        if self.retry_at.take().is_some() {
            self.backoff.reset();
        }
    }

    /// Whether the certificate that came last has ended.
    pub fn is_expired(&self, now: Moment) -> bool {
        let term = self.term.as_ref();
        term.is_some_and(|term| remaining(&term.validity, now).is_zero())
    }
}

fn remaining(validity: &Validity, now: Moment) -> Duration {
    let left = validity.not_after.duration_since(now.wall);
    left.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both clocks, so many seconds after a fixed start; the wall clock is `jump` seconds off.
    struct Clock(Instant);

    impl Clock {
        fn at(&self, seconds: f64, jump: i64) -> Moment {
            let wall = SystemTime::UNIX_EPOCH + Duration::from_secs_f64(1e9 + seconds);
            let off = Duration::from_secs(jump.unsigned_abs());
            Moment {
                wall: if jump < 0 { wall - off } else { wall + off },
                steady: self.0 + Duration::from_secs_f64(seconds),
            }
        }

        /// A certificate that begins two minutes before `seconds` and lives `life` after it.
        fn validity(&self, seconds: f64, life: u64) -> Validity {
            let now = self.at(seconds, 0).wall;
            Validity {
                not_before: now - Duration::from_secs(120),
                not_after: now + Duration::from_secs(life),
            }
        }
    }

    fn issued(life: u64, random: f64) -> (Clock, Renewal) {
        let clock = Clock(Instant::now());
        let mut renewal = Renewal::new();
        assert_eq!(renewal.due_in(clock.at(0.0, 0)), Duration::ZERO);
        renewal.issued(clock.at(0.0, 0), &clock.validity(0.0, life), random);
        (clock, renewal)
    }

    #[test]
    fn renews_at_half_of_what_is_left_with_jitter() {
        let table = [
            // life, random, when: seconds
            (30, 0.5, 15.0),
            (30, 0.0, 13.5),
            (30, 1.0, 16.5),
            (86_400, 0.5, 43_200.0),
            (0, 0.5, 1.0),
        ];
        for (life, random, when) in table {
            let (clock, renewal) = issued(life, random);
            let before = renewal.due_in(clock.at(when - 0.1, 0));
            assert!(
                before > Duration::ZERO && before <= Duration::from_secs_f64(0.11),
                "{life}"
            );
            assert_eq!(
                renewal.due_in(clock.at(when + 0.001, 0)),
                Duration::ZERO,
                "{life}"
            );
        }
        let (clock, renewal) = issued(86_400, 0.5);
        assert_eq!(renewal.due_in(clock.at(0.0, 0)), POLL);
    }

    #[test]
    fn jumps_of_the_wall_clock_are_tolerated() {
        let table = [
            // seconds since it came, jump, whether it is due
            (60.0, 0, false),
            // Forward beyond half life, and beyond the end.
            (60.0, 1_800, true),
            (60.0, 7_200, true),
            // Back a little; and before its beginning, where peers could not accept it.
            (60.0, -100, false),
            (60.0, -300, true),
            // Back, but the steady clock says that half of the life is over.
            (1_801.0, -1_000, true),
        ];
        for (seconds, jump, due) in table {
            let (clock, renewal) = issued(3_600, 0.5);
            let wait = renewal.due_in(clock.at(seconds, jump));
            assert_eq!(wait.is_zero(), due, "{seconds} {jump}");
        }
    }

    #[test]
    fn failures_back_off_but_the_end_is_not_slept_through() {
        let (clock, mut renewal) = issued(30, 0.5);
        // Full jitter: nothing to 0.5, 1, 2, ... s; here the longest.
        let mut now = 15.0;
        let mut waits = Vec::new();
        while now < 30.0 {
            let wait = renewal.failed(clock.at(now, 0), 1.0);
            assert_eq!(renewal.due_in(clock.at(now, 0)), wait);
            assert!(!renewal.is_expired(clock.at(now, 0)));
            now += wait.as_secs_f64();
            waits.push(wait.as_secs_f64());
        }
        assert_eq!(waits[..4], [0.5, 1.0, 2.0, 4.0]);
        // 7.5 s are left: half of that, and so on down to a quarter of a second.
        assert_eq!(waits[4..7], [3.75, 1.875, 0.9375]);
        assert!(
            waits[7..].iter().all(|wait| (0.25..=0.47).contains(wait)),
            "{waits:?}"
        );
        // After the end nothing presses any more, and it comes back by itself.
        assert!(renewal.is_expired(clock.at(now, 0)));
        assert_eq!(
            renewal.failed(clock.at(now, 0), 1.0),
            Duration::from_secs(20)
        );
        assert!(renewal.failed(clock.at(now, 0), 0.0).is_zero());
        renewal.issued(clock.at(now, 0), &clock.validity(now, 30), 0.5);
        assert!(!renewal.is_expired(clock.at(now, 0)));
        assert_eq!(renewal.due_in(clock.at(now, 0)), Duration::from_secs(15));
        assert_eq!(renewal.failed(clock.at(now + 15.0, 0), 1.0), BACKOFF.0);
    }

    #[test]
    fn a_repaired_cause_ends_the_wait() {
        let clock = Clock(Instant::now());
        let mut renewal = Renewal::new();
        for _ in 0..10 {
            renewal.failed(clock.at(0.0, 0), 1.0);
        }
        assert_eq!(renewal.due_in(clock.at(0.0, 0)), Duration::from_secs(20));
        renewal.try_now();
        assert!(renewal.due_in(clock.at(0.0, 0)).is_zero());
        // With a certificate that is not due, nothing happens.
        let (clock, mut renewal) = issued(30, 0.5);
        renewal.try_now();
        assert!(!renewal.due_in(clock.at(0.0, 0)).is_zero());
        renewal.failed(clock.at(15.0, 0), 1.0);
        renewal.try_now();
        assert!(renewal.due_in(clock.at(15.0, 0)).is_zero());
    }
}
