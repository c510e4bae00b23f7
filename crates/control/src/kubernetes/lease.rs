//! Leader election over a Lease object: one of the replicas writes what only one may write.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::PostParams;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::describe;
use super::election::Election;
use super::owner::Owner;

/// How often a leader renews.
const RENEWAL: Duration = Duration::from_secs(5);
/// How often a candidate looks, so that one that was released does not lie for long.
const LOOK: Duration = Duration::from_secs(2);
/// After a failure.
const RETRY: Duration = Duration::from_secs(1);
/// The longest that one exchange with the API server may take.
const EXCHANGE: Duration = Duration::from_secs(4);

/// What an election is about.
#[derive(Debug)]
pub struct LeaseOptions {
    /// The Lease's namespace.
    pub namespace: String,
    /// The Lease's name.
    pub name: String,
    /// What the candidate calls itself, such as its pod's name; a random part is added, so that
    /// not even a restarted container is taken for its predecessor.
    pub candidate: String,
}

/// Takes part in an election for as long as it lives.
#[derive(Debug)]
pub struct Leadership {
    leads: watch::Receiver<bool>,
    task: JoinHandle<()>,
}

impl Leadership {
    /// Becomes a candidate. The Lease is made if it is missing. `owner` owns it beside others from
    /// the time on that this candidate first leads.
    pub fn start(
        client: kube::Client,
        options: LeaseOptions,
        owner: Owner,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let (sender, leads) = watch::channel(false);
        let random: u64 = rand::random();
        let candidate = Candidate {
            leases: Api::namespaced(client, &options.namespace),
            name: options.name,
            election: Election::new(format!("{}_{random:016x}", options.candidate)),
            owner,
            leads: sender,
        };
        let task = tokio::spawn(candidate.run(stop));
        Self { leads, task }
    }

    /// Whether this replica leads: false until it is elected, and from the moment on at which it
    /// no longer knows that nobody else is.
    pub fn is_leader(&self) -> watch::Receiver<bool> {
        self.leads.clone()
    }

    /// Waits, after the stop was told, until the Lease is released or that has failed.
    pub async fn released(self) {
        // A panic of the task has been reported by the runtime.
        let _ = self.task.await;
    }
}

struct Candidate {
    leases: Api<Lease>,
    name: String,
    election: Election,
    owner: Owner,
    leads: watch::Sender<bool>,
}

impl Candidate {
    async fn run(mut self, mut stop: watch::Receiver<bool>) {
        loop {
            let pause = tokio::select! {
                pause = self.round() => pause,
                // Whoever could tell us to stop is gone: that is a stop too.
                _ = stop.wait_for(|stop| *stop) => break,
            };
            tokio::select! {
                () = self.pause(pause) => {}
                _ = stop.wait_for(|stop| *stop) => break,
            }
        }
        self.leads.send_replace(false);
        self.release().await;
    }

    /// One look and, where due, one write; then how long to wait for the next.
    async fn round(&mut self) -> Duration {
        let now = Instant::now();
        let bound = match self.election.until(now) {
            // Not longer than we lead, so that the end is noticed in time.
            Some(until) => EXCHANGE.min(until - now),
            None => EXCHANGE,
        };
        let outcome = timeout(bound, self.exchange()).await;
        let pause = match outcome {
            // Half a second of jitter, so that the candidates do not come together.
            Ok(Ok(())) => {
                let leads = self.election.leads(Instant::now());
                let round = if leads { RENEWAL } else { LOOK };
                round + Duration::from_millis(rand::random_range(0..500))
            }
            Ok(Err(kube::Error::Api(status)))
                if status.is_conflict() || status.is_already_exists() =>
            {
                debug!(lease = self.name, "another candidate was faster");
                RETRY
            }
            Ok(Err(error)) => {
                let reason = describe(&error);
                warn!(lease = self.name, "renewing the lease failed: {reason}");
                RETRY
            }
            Err(_elapsed) => {
                warn!(lease = self.name, "renewing the lease took too long");
                RETRY
            }
        };
        self.announce();
        pause
    }

    /// Waits, and steps down when the time of leading ends meanwhile.
    async fn pause(&self, pause: Duration) {
        let now = Instant::now();
        if let Some(until) = self.election.until(now)
            && until < now + pause
        {
            sleep(until - now).await;
            self.announce();
            return;
        }
        sleep(pause).await;
    }

    async fn exchange(&mut self) -> Result<(), kube::Error> {
        let now = Instant::now();
        let present = self.leases.get_opt(&self.name).await?;
        let spec = present.as_ref().and_then(|lease| lease.spec.as_ref());
        let Some(spec) = self.election.look(spec, now, Timestamp::now()) else {
            return Ok(());
        };
        self.write(present, spec).await?;
        self.election.wrote(now);
        Ok(())
    }

    async fn write(&self, present: Option<Lease>, spec: LeaseSpec) -> Result<Lease, kube::Error> {
        let parameters = PostParams::default();
        match present {
            Some(mut lease) => {
                let holder = |spec: &LeaseSpec| spec.holder_identity.clone();
                if lease.spec.as_ref().and_then(holder) != spec.holder_identity {
                    adopt(&mut lease.metadata, self.owner.references().await?);
                }
                // With the resource version that was read: a change meanwhile is a conflict.
                lease.spec = Some(spec);
                self.leases.replace(&self.name, &parameters, &lease).await
            }
            None => {
                let lease = Lease {
                    metadata: ObjectMeta {
                        name: Some(self.name.clone()),
                        owner_references: self.owner.references().await?,
                        ..ObjectMeta::default()
                    },
                    spec: Some(spec),
                };
                self.leases.create(&parameters, &lease).await
            }
        }
    }

    fn announce(&self) {
        let leads = self.election.leads(Instant::now());
        let changed = self.leads.send_if_modified(|current| {
            let changed = *current != leads;
            *current = leads;
            changed
        });
        if changed && leads {
            info!(lease = self.name, "this replica leads");
        } else if changed {
            warn!(lease = self.name, "this replica leads no more");
        }
    }

    async fn release(mut self) {
        match timeout(EXCHANGE, self.give_up()).await {
            Ok(Ok(true)) => info!(lease = self.name, "released the lease"),
            Ok(Ok(false)) => {}
            Ok(Err(error)) => {
                let reason = describe(&error);
                warn!(lease = self.name, "releasing the lease failed: {reason}");
            }
            Err(_elapsed) => warn!(lease = self.name, "releasing the lease took too long"),
        }
    }

    /// Reads the Lease again, as a write of ours may be under way still. False when it is not ours.
    async fn give_up(&mut self) -> Result<bool, kube::Error> {
        loop {
            let Some(mut lease) = self.leases.get_opt(&self.name).await? else {
                return Ok(false);
            };
            let spec = lease.spec.take().unwrap_or_default();
            let Some(spec) = self.election.release(spec, Timestamp::now()) else {
                return Ok(false);
            };
            lease.spec = Some(spec);
            let parameters = PostParams::default();
            match self.leases.replace(&self.name, &parameters, &lease).await {
                Ok(_) => return Ok(true),
                // That write has arrived in between.
                Err(kube::Error::Api(status)) if status.is_conflict() => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Adds owners to those that an object has: releases that share it own it together, and it goes
/// with the last of them.
fn adopt(metadata: &mut ObjectMeta, owners: Option<Vec<OwnerReference>>) {
    let present = metadata.owner_references.get_or_insert_default();
    for owner in owners.unwrap_or_default() {
        if present.iter().all(|present| present.uid != owner.uid) {
            present.push(owner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_owned_by_every_release_that_led_by_it() {
        let owner = |uid: &str| OwnerReference {
            uid: uid.to_owned(),
            ..OwnerReference::default()
        };
        let mut metadata = ObjectMeta::default();
        for uid in ["1", "2", "1"] {
            adopt(&mut metadata, Some(vec![owner(uid)]));
        }
        adopt(&mut metadata, None);
        assert_eq!(
            metadata.owner_references,
            Some(vec![owner("1"), owner("2")])
        );
    }
}
