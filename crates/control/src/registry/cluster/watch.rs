//! Follows one kind.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use kube::api::{Api, ListParams};
use kube::core::dynamic::DynamicObject;
use kube::core::{ApiResource, GroupVersionKind};
use kube::error::DiscoveryError;
use kube::runtime::utils::Backoff as _;
use kube::runtime::watcher::{self, DefaultBackoff, watcher};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tracing::{error, info, warn};

use crate::registry::ObjectRef;

use super::Event;
use super::health::{Health, Watching};
use super::kind::Kind;

/// How often a kind that is not there, or may not be read, is looked for again.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// How long a kind must be gone before its objects count as gone: a server that has just started
/// does not know its custom kinds at once.
const GONE: Duration = Duration::from_secs(30);

/// How long a streamed list may be silent: servers that do not know streamed lists send none, and
/// never say that there was no more.
const SILENCE: Duration = Duration::from_secs(30);

/// Follows a kind until nobody listens any more.
pub(super) async fn follow(
    client: kube::Client,
    kind: &'static Kind,
    sender: mpsc::Sender<Event>,
    health: Arc<Health>,
) {
    let mut follower = Follower {
        client,
        kind,
        sender,
        health,
        streaming: true,
        listed: false,
        known: BTreeSet::new(),
        seen: None,
        missing_since: None,
        failing: false,
        backoff: DefaultBackoff::default(),
    };
    while follower.once().await.is_ok() {}
}

/// Nobody listens.
struct Closed;

struct Follower {
    client: kube::Client,
    kind: &'static Kind,
    sender: mpsc::Sender<Event>,
    health: Arc<Health>,
    /// Whether to ask for the first list as a stream.
    streaming: bool,
    /// Whether a list has come to its end so far.
    listed: bool,
    known: BTreeSet<ObjectRef>,
    /// While a list is being read, what was in it so far.
    seen: Option<BTreeSet<ObjectRef>>,
    missing_since: Option<Instant>,
    /// Whether the last that was heard of the server was an error.
    failing: bool,
    backoff: DefaultBackoff,
}

/// Why a watch cannot go on as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Obstacle {
    Missing,
    Forbidden,
    NoStreaming,
    Other,
}

impl Obstacle {
    fn of(error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::of_code(status.code),
            kube::Error::Discovery(
                DiscoveryError::MissingKind(_) | DiscoveryError::MissingApiGroup(_),
            ) => Self::Missing,
            _ => Self::Other,
        }
    }

    fn of_code(code: u16) -> Self {
        match code {
            404 => Self::Missing,
            401 | 403 => Self::Forbidden,
            // What servers answer that do not know, or have turned off, streamed lists.
            400 | 422 => Self::NoStreaming,
            _ => Self::Other,
        }
    }

    fn of_watch(error: &watcher::Error) -> Self {
        match error {
            watcher::Error::InitialListFailed(error)
            | watcher::Error::WatchStartFailed(error)
            | watcher::Error::WatchFailed(error) => Self::of(error),
            watcher::Error::WatchError(status) => Self::of_code(status.code),
            watcher::Error::NoResourceVersion => Self::Other,
        }
    }
}

/// Whether a kind that has been missing for so long is not there, and with it none of its objects.
///
/// What has never been there is not waited for, unless the mesh were less safe without it: an API
/// server that has just started may miss any custom kind, and no PeerAuthentication would mean that
/// plain text is taken.
fn is_gone(kind: &Kind, has_objects: bool, missing: Duration) -> bool {
    missing >= GONE || !(has_objects || kind.required)
}

impl Follower {
    /// Finds the kind and watches it until that ends.
    async fn once(&mut self) -> Result<(), Closed> {
        match self.find().await {
            Ok(resource) => self.watch(&Arc::new(resource)).await,
            Err(error) => {
                let obstacle = Obstacle::of(&error);
                self.meet(obstacle, &error.to_string()).await
            }
        }
    }

    /// The best version of the kind that the server has.
    async fn find(&self) -> Result<ApiResource, kube::Error> {
        let mut outcome = Ok(self.kind.resource(self.kind.versions[0]));
        if self.kind.built_in {
            return outcome;
        }
        for version in self.kind.versions {
            let wanted = GroupVersionKind::gvk(self.kind.group, version, self.kind.name);
            outcome = kube::discovery::pinned_kind(&self.client, &wanted)
                .await
                .map(|_| self.kind.resource(version));
            match &outcome {
                Err(error) if Obstacle::of(error) == Obstacle::Missing => {}
                _ => break,
            }
        }
        outcome
    }

    async fn watch(&mut self, resource: &Arc<ApiResource>) -> Result<(), Closed> {
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), resource.as_ref());
        let mut config = watcher::Config {
            label_selector: self.kind.labels.map(str::to_owned),
            field_selector: self.kind.fields.map(str::to_owned),
            ..watcher::Config::default()
        };
        if self.streaming {
            config = config.streaming_lists();
        }
        let mut events = watcher(api.clone(), config).boxed();
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                // A watch that goes on tells nothing until something happens.
                () = sleep(LOOK_AGAIN), if self.failing && self.listed && self.seen.is_none() => {
                    if api.list(&ListParams::default().limit(1)).await.is_ok() {
                        self.live();
                    }
                    continue;
                }
                () = sleep(SILENCE), if self.streaming && !self.listed => {
                    let kind = self.kind.name;
                    info!(kind, "the API server does not end a streamed list: listing instead");
                    self.streaming = false;
                    return Ok(());
                }
            };
            let Some(event) = event else {
                return Ok(());
            };
            match event {
                Ok(event) => self.take(resource, event).await?,
                Err(error) => match Obstacle::of_watch(&error) {
                    Obstacle::NoStreaming if self.streaming => {
                        let kind = self.kind.name;
                        info!(
                            kind,
                            "the API server does not stream lists: listing instead"
                        );
                        self.streaming = false;
                        return Ok(());
                    }
                    Obstacle::Missing => return self.meet(Obstacle::Missing, "").await,
                    obstacle => self.meet(obstacle, &error.to_string()).await?,
                },
            }
        }
    }

    async fn take(
        &mut self,
        resource: &Arc<ApiResource>,
        event: watcher::Event<DynamicObject>,
    ) -> Result<(), Closed> {
        match event {
            watcher::Event::Init => self.seen = Some(BTreeSet::new()),
            watcher::Event::InitApply(object) => {
                let reference = self.set(resource, object).await?;
                if let Some(seen) = &mut self.seen {
                    seen.insert(reference);
                }
            }
            watcher::Event::InitDone => {
                let seen = self.seen.take().unwrap_or_default();
                let gone: Vec<_> = self.known.difference(&seen).cloned().collect();
                for reference in gone {
                    self.forget(reference).await?;
                }
                self.listed = true;
                self.live();
                self.send(Event::Synced(self.kind.name)).await?;
            }
            watcher::Event::Apply(object) => {
                self.set(resource, object).await?;
                self.live();
            }
            watcher::Event::Delete(object) => {
                self.forget(self.kind.reference(&object)).await?;
                self.live();
            }
        }
        Ok(())
    }

    async fn set(
        &mut self,
        resource: &Arc<ApiResource>,
        object: DynamicObject,
    ) -> Result<ObjectRef, Closed> {
        let read = self.kind.read(resource, object);
        let reference = read.reference;
        self.known.insert(reference.clone());
        if let Some(present) = read.present {
            self.send(Event::Present(reference.clone(), present))
                .await?;
        }
        self.send(match read.object {
            Ok(object) => Event::Set(Arc::new(object)),
            Err(error) => Event::Refused {
                object: reference.clone(),
                generation: read.generation,
                error,
            },
        })
        .await?;
        Ok(reference)
    }

    async fn forget(&mut self, reference: ObjectRef) -> Result<(), Closed> {
        self.known.remove(&reference);
        self.send(Event::Gone(reference)).await
    }

    fn live(&mut self) {
        self.missing_since = None;
        self.failing = false;
        let (kind, now) = (self.kind.name, Instant::now());
        if let Some(before) = self.health.note(kind, Watching::Live, now) {
            self.backoff.reset();
            if before.is_zero() {
                info!(kind, "watching");
            } else {
                info!(kind, after = ?before, "watching again");
            }
        }
    }

    /// Says what is in the way, once, and waits until it is worth another try.
    async fn meet(&mut self, obstacle: Obstacle, reason: &str) -> Result<(), Closed> {
        let (kind, group, now) = (self.kind.name, self.kind.group, Instant::now());
        match obstacle {
            Obstacle::Missing => {
                if self.health.note(kind, Watching::Missing, now).is_some() {
                    info!(
                        kind,
                        group, "the kind is not installed; looking for it again"
                    );
                }
                let since = *self.missing_since.get_or_insert(now);
                if is_gone(self.kind, !self.known.is_empty(), now - since) {
                    for reference in self.known.clone() {
                        self.forget(reference).await?;
                    }
                    self.send(Event::Synced(kind)).await?;
                }
                sleep(LOOK_AGAIN).await;
            }
            Obstacle::Forbidden => {
                if self.health.note(kind, Watching::Forbidden, now).is_some() {
                    let required = self.kind.required;
                    error!(
                        kind,
                        group,
                        required,
                        reason,
                        "may not list and watch the kind: check the ClusterRole and its binding"
                    );
                }
                if !self.kind.required {
                    self.send(Event::Synced(kind)).await?;
                }
                sleep(LOOK_AGAIN).await;
            }
            Obstacle::NoStreaming | Obstacle::Other => {
                self.failing = true;
                if self.health.note(kind, Watching::Failing, now).is_some() {
                    warn!(
                        kind,
                        reason, "cannot watch; what was last read stays in force"
                    );
                }
                sleep(self.backoff.next().unwrap_or(LOOK_AGAIN)).await;
            }
        }
        Ok(())
    }

    async fn send(&self, event: Event) -> Result<(), Closed> {
        self.sender.send(event).await.map_err(|_| Closed)
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
