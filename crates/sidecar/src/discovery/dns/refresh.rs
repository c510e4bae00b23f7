//! When a name is looked up again. Pure: what came of the last lookup and a random number go in.

use std::time::Duration;

use crate::config::dns::RefreshRates;

/// What a lookup came to, as far as the next one depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// An answer, and how long it is good for if it says so.
    Answer(Option<Duration>),
    /// No answer.
    Failure,
}

/// The lookups of one name.
#[derive(Clone, Copy, Debug, Default)]
pub struct Schedule {
    /// Failures since the last answer.
    failures: u32,
}

impl Schedule {
    /// How long to wait for the next lookup. `random` is any number.
    pub fn next(&mut self, rates: &RefreshRates, came: Came, random: u64) -> Duration {
        match came {
            Came::Answer(ttl) => {
                self.failures = 0;
                let ttl = ttl.filter(|ttl| rates.respect_ttl && !ttl.is_zero());
                let wait = ttl.map_or(rates.normal, |ttl| ttl.max(rates.least));
                wait + part(rates.jitter, random)
            }
            Came::Failure => {
                let (base, most) = rates.failure;
                let factor = 1u32.checked_shl(self.failures).unwrap_or(u32::MAX);
                self.failures = (self.failures + 1).min(31);
                if base == most {
                    return base;
                }
                // Half of it is random, so that not everybody asks a server again at once that has
                // just come back; the other half keeps a lookup from following at once.
                let wait = base.saturating_mul(factor).min(most);
                wait / 2 + part(wait / 2, random)
            }
        }
    }
}

/// A random part of `whole`, in milliseconds.
fn part(whole: Duration, random: u64) -> Duration {
    let whole = u64::try_from(whole.as_millis()).unwrap_or(u64::MAX);
    random
        .checked_rem(whole)
        .map_or(Duration::ZERO, Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn rates() -> RefreshRates {
        RefreshRates {
            normal: seconds(5),
            failure: (seconds(2), seconds(10)),
            respect_ttl: false,
            least: Duration::ZERO,
            jitter: Duration::ZERO,
        }
    }

    #[test]
    fn answers_are_good_for_as_long_as_is_configured() {
        let with_ttl = RefreshRates {
            respect_ttl: true,
            least: seconds(3),
            ..rates()
        };
        let jittered = RefreshRates {
            jitter: seconds(2),
            ..rates()
        };
        for (rates, ttl, random, want) in [
            (rates(), None, 0, seconds(5)),
            (rates(), Some(60), 0, seconds(5)),
            (with_ttl, Some(60), 0, seconds(60)),
            (with_ttl, Some(1), 0, seconds(3)),
            // A TTL of zero asks for no storing at all: the configured rate is as good.
            (with_ttl, Some(0), 0, seconds(5)),
            (with_ttl, None, 0, seconds(5)),
            (jittered, None, 2500, Duration::from_millis(5500)),
            (jittered, None, 1999, Duration::from_millis(6999)),
        ] {
            let came = Came::Answer(ttl.map(seconds));
            let wait = Schedule::default().next(&rates, came, random);
            assert_eq!(wait, want, "{rates:?} {ttl:?} {random}");
        }
    }

    #[test]
    fn failures_back_off_until_an_answer_comes() {
        let mut schedule = Schedule::default();
        let mut next = |came, random| schedule.next(&rates(), came, random).as_millis();
        assert_eq!(next(Came::Failure, 0), 1000);
        assert_eq!(next(Came::Failure, 1999), 3999);
        assert_eq!(next(Came::Failure, 0), 4000);
        for _ in 0..100 {
            assert_eq!(next(Came::Failure, 0), 5000);
        }
        assert_eq!(next(Came::Answer(None), 0), 5000);
        assert_eq!(next(Came::Failure, 0), 1000);
    }

    #[test]
    fn without_a_failure_rate_the_normal_one_holds() {
        let rates = RefreshRates {
            failure: (seconds(5), seconds(5)),
            ..rates()
        };
        let mut schedule = Schedule::default();
        for random in 0..3 {
            assert_eq!(schedule.next(&rates, Came::Failure, random), seconds(5));
        }
    }
}
