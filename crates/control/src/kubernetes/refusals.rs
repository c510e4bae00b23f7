//! How many proxies of all replicas refuse what became of an object. Each replica knows its own, and
//! notes them in an annotation of the Lease that all replicas of all revisions share; the one that
//! holds it adds them up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde::{Deserialize, Serialize};
use serde_json::json;
use time::OffsetDateTime;
use tokio::time::{sleep, timeout};
use tracing::warn;

use crate::push::Publisher;
use crate::registry::ObjectRef;

/// The annotations begin with this; what follows tells replicas apart.
const PREFIX: &str = "outrider.dev/refusals-";
/// How often a note that holds refusals is written again.
const RENEW: Duration = Duration::from_secs(30);
/// How old a note may be: its replica has gone without a word.
const FRESH: Duration = Duration::from_secs(90);
/// The shortest time between two notes, and from a failure to the next attempt.
const PAUSE: Duration = Duration::from_secs(2);
/// The longest that one exchange with the API server may take.
const EXCHANGE: Duration = Duration::from_secs(5);
/// How many objects a note tells of: annotations are bounded.
const MAX_OBJECTS: usize = 500;

/// The number of refusing proxies by object, as text.
pub(super) type Counts = BTreeMap<String, usize>;

#[derive(Debug, Serialize, Deserialize)]
struct Note {
    /// Seconds since 1970.
    at: i64,
    objects: Counts,
}

/// Where the replicas leave their notes.
#[derive(Debug, Clone)]
pub(super) struct Board {
    leases: Api<Lease>,
    lease: String,
    /// The annotation of this replica.
    own: String,
}

impl Board {
    pub(super) fn new(client: kube::Client, namespace: &str, lease: &str) -> Self {
        let random: u64 = rand::random();
        Self {
            leases: Api::namespaced(client, namespace),
            lease: lease.to_owned(),
            own: format!("{PREFIX}{random:016x}"),
        }
    }

    /// Keeps the note of this replica right, for ever.
    pub(super) async fn keep(self, publisher: Arc<Publisher>) {
        let mut changed = publisher.changed();
        let (mut noted, mut is_blocked) = (Counts::new(), false);
        loop {
            let renewal = async {
                if noted.is_empty() {
                    std::future::pending::<()>().await;
                }
                sleep(RENEW).await;
            };
            let is_renewal = tokio::select! {
                // An error means that the publisher is gone, and its proxies with it.
                changed = changed.changed() => match changed {
                    Ok(()) => false,
                    Err(_gone) => return,
                },
                () = renewal => true,
            };
            let counts = counts_of(&publisher.refusals());
            if counts == noted && !is_renewal {
                continue;
            }
            match self.write(&counts).await {
                Ok(()) => {
                    noted = counts;
                    is_blocked = false;
                }
                Err(error) => {
                    // Said once.
                    if !std::mem::replace(&mut is_blocked, true) {
                        warn!("noting refusals in Lease {}: {error}", self.lease);
                    }
                    // Looked at again, whatever happens meanwhile.
                    changed.mark_changed();
                }
            }
            sleep(PAUSE).await;
        }
    }

    async fn write(&self, counts: &Counts) -> Result<(), String> {
        let note = (!counts.is_empty()).then(|| {
            let note = Note {
                at: OffsetDateTime::now_utc().unix_timestamp(),
                objects: counts.clone(),
            };
            json!(note).to_string()
        });
        self.annotate(json!({ &self.own: note })).await
    }

    async fn annotate(&self, annotations: serde_json::Value) -> Result<(), String> {
        let patch = Patch::Merge(json!({"metadata": {"annotations": annotations}}));
        let parameters = PatchParams::default();
        let write = self.leases.patch_metadata(&self.lease, &parameters, &patch);
        match timeout(EXCHANGE, write).await {
            Ok(written) => written.map(drop).map_err(|error| error.to_string()),
            Err(_elapsed) => Err("it took too long".to_owned()),
        }
    }

    /// What the other replicas noted. Removes what replicas left that are gone.
    pub(super) async fn others(&self) -> Result<Counts, String> {
        let lease = match timeout(EXCHANGE, self.leases.get_metadata(&self.lease)).await {
            Ok(lease) => lease.map_err(|error| error.to_string())?,
            Err(_elapsed) => return Err("it took too long".to_owned()),
        };
        let annotations = lease.metadata.annotations.unwrap_or_default();
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let (counts, stale) = add_up(&annotations, &self.own, now);
        if !stale.is_empty() {
            let gone: BTreeMap<_, Option<()>> = stale.into_iter().map(|key| (key, None)).collect();
            self.annotate(json!(gone)).await?;
        }
        Ok(counts)
    }
}

/// The counts, as many as are noted.
pub(super) fn counts_of(refusals: &BTreeMap<ObjectRef, usize>) -> Counts {
    let counts = refusals.iter().take(MAX_OBJECTS);
    counts
        .map(|(object, count)| (object.to_string(), *count))
        .collect()
}

/// The sum of the notes but one's own, and the annotations that are too old or no notes.
fn add_up(annotations: &BTreeMap<String, String>, own: &str, now: i64) -> (Counts, Vec<String>) {
    let (mut counts, mut stale) = (Counts::new(), Vec::new());
    let notes = annotations.iter();
    for (key, text) in notes.filter(|(key, _)| key.starts_with(PREFIX) && *key != own) {
        let note = serde_json::from_str::<Note>(text).ok();
        match note.filter(|note| now.abs_diff(note.at) <= FRESH.as_secs()) {
            Some(note) => {
                for (object, count) in note.objects {
                    *counts.entry(object).or_default() += count;
                }
            }
            None => stale.push(key.clone()),
        }
    }
    (counts, stale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fresh_notes_of_others_are_added_up_and_the_rest_is_cleared_away() {
        let note = |at: i64, count: usize| {
            format!(r#"{{"at":{at},"objects":{{"HTTPRoute shop/r":{count}}}}}"#)
        };
        let annotations = [
            ("a", note(1000, 2)),
            ("b", note(990, 3)),
            ("own", note(1000, 50)),
            ("old", note(800, 7)),
            ("ahead", note(2000, 7)),
            ("broken", "{".to_owned()),
        ];
        let annotations = annotations.map(|(name, note)| (format!("{PREFIX}{name}"), note));
        let mut annotations: BTreeMap<_, _> = annotations.into();
        annotations.insert("other/annotation".to_owned(), String::new());
        let (counts, stale) = add_up(&annotations, &format!("{PREFIX}own"), 1000);
        assert_eq!(counts, [("HTTPRoute shop/r".to_owned(), 5)].into());
        let expected = ["ahead", "broken", "old"].map(|name| format!("{PREFIX}{name}"));
        assert_eq!(stale, expected);
    }
}
