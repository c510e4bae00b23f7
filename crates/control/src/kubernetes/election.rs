//! Who of several replicas leads, decided from what the Lease says (KEP-1965's object, the protocol
//! of client-go's leader election). Pure: the Lease and the time are arguments.
//!
//! No clock of another machine is trusted. A candidate takes the Lease over only after it has seen
//! it unchanged for the whole duration by its own monotonic clock; a leader stops to lead well
//! before that, counted from before its last successful write. So at most one leads at any time.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::LeaseSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;

/// How long others leave a silent leader its Lease: 15 s.
pub(super) const DURATION: Duration = Duration::from_secs(15);
/// How long after its last renewal a leader leads: 10 s. What is left to [`DURATION`] is for the
/// requests that are under way when it stops.
pub(super) const LEADS_FOR: Duration = Duration::from_secs(10);

/// One candidate's view of the election.
#[derive(Debug)]
pub(super) struct Election {
    identity: String,
    /// The Lease as it was last read, and when it was first read so.
    seen: Option<(LeaseSpec, Instant)>,
    /// Until when this candidate leads.
    until: Option<Instant>,
}

impl Election {
    /// A candidate that knows nothing yet. Identities differ between all candidates.
    pub(super) fn new(identity: String) -> Self {
        Self {
            identity,
            seen: None,
            until: None,
        }
    }

    /// Whether this candidate leads at `now`.
    pub(super) fn leads(&self, now: Instant) -> bool {
        self.until(now).is_some()
    }

    /// When this candidate stops to lead unless it renews before; none if it does not lead.
    pub(super) fn until(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| now < *until)
    }

    /// Looks at the Lease (none when there is no such object) and says what to write in its place;
    /// nothing when it is somebody else's. The write must be conditional on what was read.
    pub(super) fn look(
        &mut self,
        lease: Option<&LeaseSpec>,
        now: Instant,
        wall: Timestamp,
    ) -> Option<LeaseSpec> {
        let lease = lease.cloned().unwrap_or_default();
        let holder = lease.holder_identity.clone().unwrap_or_default();
        let since = match &self.seen {
            Some((seen, since)) if *seen == lease => *since,
            _ => now,
        };
        self.seen = Some((lease.clone(), since));
        let own = holder == self.identity;
        if !own {
            // Whatever we believed, it is another's now.
            self.until = None;
        }
        let seconds = lease.lease_duration_seconds.unwrap_or_default();
        let duration = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
        if !own && !holder.is_empty() && now < since + duration {
            return None;
        }
        let transitions = lease.lease_transitions.unwrap_or_default();
        let acquired = lease.acquire_time.filter(|_| own);
        Some(LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: Some(acquired.unwrap_or(MicroTime(wall))),
            renew_time: Some(MicroTime(wall)),
            lease_transitions: Some(if own {
                transitions
            } else {
                transitions.saturating_add(1)
            }),
            ..LeaseSpec::default()
        })
    }

    /// The write of what [`Election::look`] gave at `looked` succeeded.
    pub(super) fn wrote(&mut self, looked: Instant) {
        self.until = Some(looked + LEADS_FOR);
    }

    /// What to write in place of a Lease to let others lead at once; nothing when it is not ours.
    /// This candidate leads no more.
    pub(super) fn release(&mut self, lease: LeaseSpec, wall: Timestamp) -> Option<LeaseSpec> {
        self.until = None;
        let own = lease.holder_identity.as_ref() == Some(&self.identity);
        own.then(|| LeaseSpec {
            holder_identity: Some(String::new()),
            lease_duration_seconds: Some(1),
            renew_time: Some(MicroTime(wall)),
            ..lease
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn wall() -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    /// Two candidates and the one Lease between them.
    struct World {
        lease: Option<LeaseSpec>,
        start: Instant,
    }

    impl World {
        fn at(&self, seconds: u32) -> Instant {
            self.start + seconds * SECOND
        }

        /// One round of a candidate whose write arrives; whether it leads after it.
        fn round(&mut self, who: &mut Election, seconds: u32) -> bool {
            let now = self.at(seconds);
            if let Some(spec) = who.look(self.lease.as_ref(), now, wall() + seconds * SECOND) {
                who.wrote(now);
                self.lease = Some(spec);
            }
            who.leads(now)
        }

        fn transitions(&self) -> Option<i32> {
            self.lease.as_ref()?.lease_transitions
        }
    }

    fn world() -> (World, Election, Election) {
        let world = World {
            lease: None,
            start: Instant::now(),
        };
        let candidate = |name: &str| Election::new(name.to_owned());
        (world, candidate("a"), candidate("b"))
    }

    #[test]
    fn the_first_leads_as_long_as_it_renews() {
        let (mut world, mut a, mut b) = world();
        assert!(world.round(&mut a, 0));
        for seconds in (0..100).step_by(5) {
            assert!(world.round(&mut a, seconds));
            assert!(!world.round(&mut b, seconds + 1), "at {seconds}");
        }
        assert_eq!(world.transitions(), Some(1));
        let lease = world.lease.unwrap();
        assert!(lease.renew_time > lease.acquire_time);
    }

    #[test]
    fn a_silent_leader_stops_before_another_begins() {
        let (mut world, mut a, mut b) = world();
        assert!(world.round(&mut a, 0));
        assert!(!world.round(&mut b, 0));
        assert!(a.leads(world.at(9)) && !a.leads(world.at(10)));
        assert_eq!(a.until(world.at(9)), Some(world.at(10)));
        assert_eq!(a.until(world.at(10)), None, "there is no more to wait for");
        assert!(!world.round(&mut b, 14));
        assert!(world.round(&mut b, 15), "15 s unchanged by its own clock");
        assert_eq!(world.transitions(), Some(2));
        // The old leader comes back and sees that it is not it.
        assert!(!world.round(&mut a, 16));
    }

    #[test]
    fn a_candidate_counts_from_its_own_first_look_and_from_each_change() {
        let (mut world, mut a, mut b) = world();
        assert!(world.round(&mut a, 0));
        assert!(
            !world.round(&mut b, 60),
            "it may have been renewed just now"
        );
        assert!(!world.round(&mut b, 74));
        assert!(world.round(&mut a, 74));
        assert!(!world.round(&mut b, 75));
        assert!(!world.round(&mut b, 89));
        assert!(world.round(&mut b, 90));
    }

    #[test]
    fn a_released_or_deleted_lease_is_taken_at_once() {
        let (mut world, mut a, mut b) = world();
        assert!(world.round(&mut a, 0));
        assert!(!world.round(&mut b, 1));
        let lease = world.lease.clone().unwrap();
        assert!(b.release(lease.clone(), wall()).is_none(), "not its own");
        world.lease = a.release(lease, wall());
        assert!(world.lease.is_some() && !a.leads(world.at(1)));
        assert!(world.round(&mut b, 2));

        world.lease = None;
        assert!(world.round(&mut a, 3));
        assert!(!world.round(&mut b, 4), "taken from it: leads no more");
        // A Lease without a duration that somebody wrote by hand is nobody's for long.
        world.lease = Some(LeaseSpec {
            holder_identity: Some("c".to_owned()),
            ..LeaseSpec::default()
        });
        assert!(world.round(&mut b, 5));
    }

    #[test]
    fn a_failed_renewal_does_not_prolong() {
        let (mut world, mut a, _) = world();
        assert!(world.round(&mut a, 0));
        // The look at 5 s is followed by no write that succeeds.
        assert!(a.look(world.lease.as_ref(), world.at(5), wall()).is_some());
        assert!(a.leads(world.at(9)) && !a.leads(world.at(10)));
        // It is still the holder by name, and leads again as soon as a write succeeds.
        assert!(world.round(&mut a, 12));
    }
}
