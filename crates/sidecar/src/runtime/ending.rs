//! When a process that was told to end may end. No I/O: what is open and the time are arguments.

use std::time::Duration;

use tokio::time::Instant;

/// How long inbound listeners go on accepting after SIGTERM, at most: what the removal of our
/// endpoint takes to reach every client. A tenth of the grace period, where that is less.
const ENDPOINT_REMOVAL: Duration = Duration::from_secs(5);
/// The application of a native sidecar has ended before us: connections on which nothing has
/// happened for so long are those of peers that have not noticed.
const QUIET: Duration = Duration::from_secs(1);

/// What SIGTERM means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The application is told at the same time, and goes on for a while.
    Plain,
    /// A native sidecar: all containers that use it have ended.
    Native,
}

/// What there is to wait for.
#[derive(Clone, Copy, Debug)]
pub struct Open {
    /// Inbound connections.
    pub inbound: usize,
    /// Outbound connections.
    pub outbound: usize,
    /// Inbound listeners still accept.
    pub accepting: bool,
    /// What all counters add up to: any other number means that something has happened.
    pub activity: u64,
}

/// The end, from when it was ordered.
#[derive(Debug)]
pub struct Ending {
    form: Form,
    deadline: Instant,
    /// The last activity, and when it was seen first.
    quiet: Option<(u64, Instant)>,
}

impl Form {
    /// For how long inbound listeners still accept, of a grace period.
    pub fn accepting(self, grace: Duration) -> Duration {
        match self {
            Form::Plain => (grace / 10).min(ENDPOINT_REMOVAL),
            Form::Native => Duration::ZERO,
        }
    }
}

impl Ending {
    /// It ends at `deadline` at the latest.
    pub fn new(form: Form, deadline: Instant) -> Self {
        Ending {
            form,
            deadline,
            quiet: None,
        }
    }

    /// Whether nothing is left to wait for. Outbound connections count to the end: the application
    /// may still be calling others while it ends.
    pub fn is_over(&mut self, open: &Open, now: Instant) -> bool {
        let idle = !open.accepting && open.inbound == 0 && open.outbound == 0;
        if idle || now >= self.deadline {
            return true;
        }
        match self.quiet {
            Some((activity, since)) if activity == open.activity => {
                self.form == Form::Native && now >= since + QUIET
            }
            _ => {
                self.quiet = Some((open.activity, now));
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(inbound: usize, outbound: usize, activity: u64) -> Open {
        Open {
            inbound,
            outbound,
            accepting: false,
            activity,
        }
    }

    #[test]
    fn a_sidecar_ends_with_its_last_connection_or_at_the_deadline() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        for form in [Form::Plain, Form::Native] {
            let mut ending = Ending::new(form, at(9_000));
            for (millis, open, expected) in [
                (0, open(1, 1, 1), false),
                (900, open(0, 1, 2), false),
                (1_800, open(1, 0, 3), false),
                (1_900, open(0, 0, 3), true),
                (9_000, open(1, 1, 4), true),
            ] {
                assert_eq!(
                    ending.is_over(&open, at(millis)),
                    expected,
                    "{form:?} {millis}"
                );
            }
        }
        let still = Open {
            accepting: true,
            ..open(0, 0, 0)
        };
        assert!(!Ending::new(Form::Plain, at(1)).is_over(&still, start));
    }

    #[test]
    fn what_is_quiet_does_not_keep_a_native_one() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        for (form, expected) in [(Form::Plain, false), (Form::Native, true)] {
            let mut ending = Ending::new(form, at(60_000));
            assert!(!ending.is_over(&open(0, 1, 1), start));
            assert!(!ending.is_over(&open(0, 1, 2), at(900)));
            assert!(!ending.is_over(&open(0, 1, 2), at(1_800)));
            assert_eq!(ending.is_over(&open(0, 1, 2), at(1_900)), expected);
        }
        let grace = Duration::from_secs(30);
        assert_eq!(Form::Plain.accepting(grace), Duration::from_secs(3));
        assert_eq!(Form::Native.accepting(grace), Duration::ZERO);
    }
}
