//! Writes the status of objects: what the mesh makes of them, and how many proxies refused that.
//! One replica writes, of all that there are: two revisions side by side may judge an object
//! differently, and two writers would undo each other's words for ever. Every replica notes the
//! refusals of its own proxies, so that the count is whole.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kube::Api;
use kube::api::{Patch, PatchParams};
use kube::core::dynamic::DynamicObject;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, warn};

use crate::mesh::Verdict;
use crate::metrics::Metrics;
use crate::push::Publisher;
use crate::registry::ObjectRef;
use crate::registry::cluster::{Present, Presents};
use crate::status;

use super::refusals::{Board, Counts, counts_of};
use super::retries::Retries;
use super::while_leading;

/// The Lease that the replicas of all revisions in the namespace share.
pub const LEASE: &str = "outrider-status";
/// What changes within this time of a first change is written with it.
const SETTLE: Duration = Duration::from_millis(200);
/// How often the refusals at other replicas are looked at.
const LOOK: Duration = Duration::from_secs(5);
/// The shortest time between two writes: a storm of changes is no storm for the API server.
const PACE: Duration = Duration::from_millis(20);
/// The longest that one write may take.
const EXCHANGE: Duration = Duration::from_secs(5);
/// Whom the API server records as the writer.
const MANAGER: &str = "outrider-control";

/// Who writes, and where replicas meet.
#[derive(Clone)]
pub struct StatusOptions {
    /// The cluster.
    pub client: kube::Client,
    /// Whether this replica holds [`LEASE`].
    pub leads: watch::Receiver<bool>,
    /// The namespace of the control plane.
    pub namespace: String,
}

impl std::fmt::Debug for StatusOptions {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = formatter.debug_struct("StatusOptions");
        debug.field("namespace", &self.namespace);
        debug.finish_non_exhaustive()
    }
}

/// Keeps the statuses right, for ever.
pub async fn keep(
    options: StatusOptions,
    publisher: Arc<Publisher>,
    presents: Arc<Presents>,
    metrics: Arc<Metrics>,
) {
    let board = Board::new(options.client.clone(), &options.namespace, LEASE);
    let mut tasks = JoinSet::new();
    tasks.spawn(board.clone().keep(Arc::clone(&publisher)));
    let writer = Writer {
        client: options.client,
        board,
        publisher,
        presents,
        metrics,
    };
    while_leading(options.leads, move || writer.clone().write()).await;
}

#[derive(Clone)]
struct Writer {
    client: kube::Client,
    board: Board,
    publisher: Arc<Publisher>,
    presents: Arc<Presents>,
    metrics: Arc<Metrics>,
}

/// What a round made statuses from. Where nothing of it changed, there is nothing to write.
#[derive(PartialEq)]
struct Basis {
    verdicts: Arc<BTreeMap<ObjectRef, Verdict>>,
    counts: Counts,
    /// [`Presents::revision`]
    presents: u64,
}

impl Writer {
    async fn write(self) {
        let (mut changed, mut seen) = (self.publisher.changed(), self.presents.changed());
        let (mut others, mut is_blind) = (Counts::new(), false);
        let mut look = Instant::now();
        let (mut basis, mut retries) = (None, Retries::default());
        loop {
            if look <= Instant::now() {
                match self.board.others().await {
                    Ok(counts) => {
                        others = counts;
                        is_blind = false;
                    }
                    Err(error) => {
                        // Said once; what was last read counts meanwhile.
                        if !std::mem::replace(&mut is_blind, true) {
                            warn!("reading the refusals at other replicas: {error}");
                        }
                    }
                }
                look = Instant::now() + LOOK;
            }
            self.round(&others, &mut basis, &mut retries).await;
            let wake = retries.next().map_or(look, |retry| retry.min(look));
            tokio::select! {
                _ = changed.changed() => {}
                _ = seen.changed() => {}
                () = sleep_until(wake) => {}
            }
            sleep(SETTLE).await;
        }
    }

    /// Writes what is not as it should be, if that may be anything else than last time.
    async fn round(&self, others: &Counts, basis: &mut Option<Basis>, retries: &mut Retries) {
        let mut counts = counts_of(&self.publisher.refusals());
        for (object, count) in others {
            *counts.entry(object.clone()).or_default() += count;
        }
        let present = Basis {
            verdicts: Arc::clone(self.publisher.mesh().verdicts()),
            counts,
            // Read before the objects: what changes in between is looked at once more.
            presents: self.presents.revision(),
        };
        let is_retry = retries.next().is_some_and(|next| next <= Instant::now());
        if basis.as_ref() == Some(&present) && !is_retry {
            return;
        }
        let due = due(&present.verdicts, self.presents.all(), &present.counts);
        *basis = Some(present);
        retries.retain(&due.iter().map(|(object, ..)| object).collect());
        for (object, present, status) in due {
            if retries.is_early(&object, Instant::now()) {
                continue;
            }
            match self.patch(&object, present, status).await {
                Ok(()) => {
                    retries.succeeded(&object);
                    self.metrics.statuses.increment();
                }
                Err(error) => {
                    warn!("writing the status of {object}: {error}");
                    retries.failed(object, Instant::now());
                }
            }
            sleep(PACE).await;
        }
    }

    async fn patch(
        &self,
        object: &ObjectRef,
        present: Present,
        status: Value,
    ) -> Result<(), String> {
        let name = &object.name;
        let client = self.client.clone();
        let api: Api<DynamicObject> =
            Api::namespaced_with(client, &name.namespace, present.resource.as_ref());
        // Others write into the same lists. With the version that they were read in, a write of
        // theirs meanwhile makes ours fail instead of undoing theirs.
        let patch = Patch::Merge(json!({
            "metadata": {"resourceVersion": present.resource_version},
            "status": status,
        }));
        let parameters = PatchParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let write = api.patch_status(&name.name, &parameters, &patch);
        match timeout(EXCHANGE, write).await {
            Ok(Ok(written)) => {
                let status = written.data.get("status").cloned().unwrap_or_default();
                let metadata = written.metadata;
                // Seen at once, so that it is not written again before the watch tells of it.
                self.presents.wrote(
                    object,
                    Present {
                        generation: metadata.generation.unwrap_or(present.generation),
                        resource_version: metadata.resource_version.unwrap_or_default(),
                        status,
                        ..present
                    },
                );
                Ok(())
            }
            // It changed or went meanwhile; the watch tells how.
            Ok(Err(kube::Error::Api(answer))) if answer.is_conflict() || answer.is_not_found() => {
                debug!("{object} changed before its status was written");
                Ok(())
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(_elapsed) => Err("it took too long".to_owned()),
        }
    }
}

/// The objects whose status is not as it should be, each with what it should be.
fn due(
    verdicts: &BTreeMap<ObjectRef, Verdict>,
    presents: Vec<(ObjectRef, Present)>,
    counts: &Counts,
) -> Vec<(ObjectRef, Present, Value)> {
    let now = OffsetDateTime::now_utc();
    let mut due = Vec::new();
    for (object, present) in presents {
        // One that changed is judged in a moment.
        let verdict = verdicts.get(&object);
        let Some(verdict) = verdict.filter(|verdict| verdict.generation >= present.generation)
        else {
            continue;
        };
        let rejecting = counts.get(&object.to_string()).copied().unwrap_or_default();
        let status = status::wanted(Some(&present.status), verdict, rejecting, now);
        due.extend(status.map(|status| (object, present, status)));
    }
    due
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::Fault;
    use crate::registry::{FieldError, NamespacedName};
    use kube::core::ApiResource;

    #[test]
    fn what_is_judged_and_not_yet_so_is_due() {
        let object = ObjectRef {
            kind: "PeerAuthentication",
            name: NamespacedName::new("shop", "p"),
        };
        let verdicts = |generation| {
            let error = FieldError::new("spec.mtls", "must be set");
            let verdict = Verdict::refused(&Fault { generation, error });
            BTreeMap::from([(object.clone(), verdict)])
        };
        let present = |generation, status| {
            let resource = Arc::new(ApiResource {
                group: "outrider.dev".to_owned(),
                version: "v1alpha1".to_owned(),
                api_version: "outrider.dev/v1alpha1".to_owned(),
                kind: "PeerAuthentication".to_owned(),
                plural: "peerauthentications".to_owned(),
            });
            let present = Present {
                resource,
                generation,
                resource_version: "1".to_owned(),
                status,
            };
            vec![(object.clone(), present)]
        };
        let counts = Counts::from([(object.to_string(), 4)]);
        let due = |verdict, generation, status| {
            let due = due(&verdicts(verdict), present(generation, status), &counts);
            due.into_iter().map(|(_, _, status)| status).next()
        };
        assert_eq!(
            due(1, 2, Value::Null),
            None,
            "its change was not judged yet"
        );
        let status = due(2, 2, Value::Null).unwrap();
        assert_eq!(status["rejectedBy"], 4);
        let accepted = &status["conditions"][0];
        assert_eq!(accepted["status"], "False");
        assert!(
            accepted["message"]
                .as_str()
                .unwrap()
                .starts_with("spec.mtls: must be set")
        );
        assert_eq!(due(2, 2, status), None, "it is so already");
    }
}
