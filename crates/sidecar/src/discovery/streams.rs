//! The streams to discovery servers: one aggregated stream, and one more for each other server that
//! a `ConfigSource` names.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use outrider_xds::ads::ResourceType;
use outrider_xds::ads::client::{Event, Rejection, Subscription, Update};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::disk::{DiskCopy, Saved};
use super::files;
use super::manager::{Incoming, Manager};
use super::references::{OriginKey, Wanted};
use super::sources::{Handle, Sources};
use super::stats::{DiscoveryStats, Outcome};
use crate::config::source::Origin;

/// Which sources are asked for a kind as a whole.
#[derive(Clone, Copy, Debug, Default)]
pub struct Everything {
    /// `dynamic_resources.cds_config`
    pub clusters: Option<Collection>,
    /// `dynamic_resources.lds_config`
    pub listeners: Option<Collection>,
}

/// All there is of a kind.
#[derive(Clone, Copy, Debug)]
pub struct Collection {
    /// Who is asked.
    pub origin: OriginKey,
    /// `initial_fetch_timeout`: how long the start waits for the first answer; `None` for ever.
    pub patience: Option<Duration>,
}

impl Everything {
    fn of(&self, kind: ResourceType) -> Option<OriginKey> {
        let collection = match kind {
            ResourceType::Cluster => self.clusters,
            ResourceType::Listener => self.listeners,
            ResourceType::Endpoint
            | ResourceType::Route
            | ResourceType::Secret
            | ResourceType::Runtime => None,
        };
        collection.map(|collection| collection.origin)
    }
}

/// The first answer for all there is of a kind.
#[derive(Clone, Copy, Debug)]
enum First {
    /// It has come, or nothing is asked for.
    Here,
    /// It was not asked for yet.
    Unasked(Option<Duration>),
    /// It is waited for, until then.
    Awaited(Option<Instant>),
    /// It was waited for in vain: the start goes on without it.
    Missed,
}

impl First {
    fn of(collection: Option<Collection>) -> Self {
        match collection {
            None => First::Here,
            Some(collection) => First::Unasked(collection.patience),
        }
    }

    fn asked(&mut self, now: Instant) {
        if let First::Unasked(patience) = self {
            *self = First::Awaited(patience.map(|patience| now + patience));
        }
    }

    fn is_waited_for(self) -> bool {
        matches!(self, First::Unasked(_) | First::Awaited(_))
    }

    fn patience(self) -> Option<Instant> {
        match self {
            First::Awaited(patience) => patience,
            First::Here | First::Unasked(_) | First::Missed => None,
        }
    }

    /// Gives up; says whether it has just done so.
    fn gives_up(&mut self, now: Instant) -> bool {
        let in_vain = self.patience().is_some_and(|patience| patience <= now);
        if in_vain {
            *self = First::Missed;
        }
        in_vain
    }
}

struct Stream {
    /// `None`: it cannot be asked, which was logged.
    handle: Option<Handle>,
    asked: BTreeMap<ResourceType, Subscription>,
}

/// All open streams, and the manager that takes what they bring.
pub struct Streams {
    manager: Manager,
    sources: Rc<Sources>,
    everything: Everything,
    streams: BTreeMap<OriginKey, Stream>,
    sender: mpsc::Sender<(OriginKey, Event)>,
    events: mpsc::Receiver<(OriginKey, Event)>,
    /// The first answers for clusters and listeners have come, where any are asked for.
    first: (First, First),
    /// Clusters or listeners have changed, and with them what refers to others.
    stirred: bool,
    disk: Option<DiskCopy>,
    stats: DiscoveryStats,
}

impl Streams {
    /// No stream is open yet.
    pub fn new(
        manager: Manager,
        sources: Rc<Sources>,
        everything: Everything,
        stats: DiscoveryStats,
    ) -> Self {
        let (sender, events) = mpsc::channel(16);
        Streams {
            manager,
            sources,
            everything,
            streams: BTreeMap::new(),
            sender,
            events,
            first: (
                First::of(everything.clusters),
                First::of(everything.listeners),
            ),
            stirred: false,
            disk: None,
            stats,
        }
    }

    /// Puts the copy of the aggregated server's configuration on disk in force, and keeps it up to
    /// date from now on. What the server says replaces it: it is told what is here.
    pub fn restore(&mut self, mut disk: DiskCopy, mut saved: Saved) {
        let here = self.aggregated();
        let count = saved.len();
        let mut accept = |manager: &mut Manager, kind, incoming: Incoming| match manager
            .accept(kind, here, &incoming)
        {
            Ok(()) => disk.restored(kind, incoming),
            Err(error) => {
                tracing::warn!(kind = ?kind, name = %incoming.name, %error, "resource on disk refused");
            }
        };
        for wanted in [ResourceType::Cluster, ResourceType::Listener] {
            self.stirred = true;
            for (_, incoming) in saved.extract_if(.., |(kind, _), _| *kind == wanted) {
                accept(&mut self.manager, wanted, incoming);
            }
        }
        let wanted = self.manager.references.wanted();
        let wanted = wanted
            .into_iter()
            .filter(|((origin, _), _)| *origin == here);
        for ((_, kind), names) in wanted {
            for name in names {
                match saved.remove(&(kind, name.clone())) {
                    Some(incoming) => accept(&mut self.manager, kind, incoming),
                    // Nobody waits for it: the rest is of use without it.
                    None if count > 0 => self.manager.remove(kind, here, &name),
                    None => {}
                }
            }
        }
        if count > 0 {
            tracing::info!(resources = count, "going on with the configuration on disk");
            self.first = (First::Here, First::Here);
        }
        self.disk = Some(disk);
    }

    fn aggregated(&self) -> OriginKey {
        self.manager.references.key(&Origin::Ads)
    }

    /// Whether everything that was asked for at the start is in force (or was waited for in vain).
    pub fn is_initialized(&self) -> (bool, bool) {
        let (clusters, listeners) = self.manager.warming();
        (
            !self.first.0.is_waited_for() && clusters.is_empty(),
            !self.first.1.is_waited_for() && listeners.is_empty(),
        )
    }

    /// Waits for the next thing to happen and sees it through.
    pub async fn step(&mut self) {
        self.settle();
        let patiences = [
            self.manager.references.next_patience(Instant::now()),
            self.first.0.patience(),
            self.first.1.patience(),
        ];
        let patience = patiences.into_iter().flatten().min();
        let due = self.disk.as_ref().and_then(DiskCopy::due);
        let looked_up = self.manager.lookups.answered();
        tokio::select! {
            event = self.events.recv() => {
                if let Some((origin, event)) = event {
                    self.happened(origin, event);
                }
            }
            () = looked_up.notified() => {}
            () = async { tokio::time::sleep_until(patience.unwrap_or_else(Instant::now)).await }, if patience.is_some() => {}
            () = async { tokio::time::sleep_until(due.unwrap_or_else(Instant::now)).await }, if due.is_some() => self.save(),
        }
        self.settle();
    }

    /// Writes what is in force, if that is due.
    fn save(&mut self) {
        let here = self.aggregated();
        let Some(disk) = &mut self.disk else { return };
        let wanted = self.manager.references.wanted();
        let in_use = |kind: ResourceType, name: &Arc<str>| match kind {
            ResourceType::Cluster | ResourceType::Listener => true,
            _ => wanted
                .get(&(here, kind))
                .is_some_and(|names| names.contains(name)),
        };
        let (clusters, listeners) = self.manager.warming();
        let complete = clusters.is_empty() && listeners.is_empty();
        disk.save(Instant::now(), complete, in_use);
    }

    fn happened(&mut self, origin: OriginKey, event: Event) {
        match event {
            Event::Connected => {
                if origin == self.aggregated() {
                    self.stats.connected(true);
                }
                tracing::info!(origin, "discovery stream open");
            }
            Event::Disconnected { reason, retry_in } => {
                if origin == self.aggregated() {
                    self.stats.connected(false);
                }
                let asked = self.streams.get(&origin).map(|stream| &stream.asked);
                for (kind, subscription) in asked.into_iter().flatten() {
                    for name in names_of(subscription) {
                        self.stats.failed(origin, *kind, name);
                    }
                }
                // What it might have brought is not waited for beyond its patience; what is in
                // force stays.
                tracing::warn!(reason, ?retry_in, "discovery stream closed");
            }
            Event::Update(update) => self.update(origin, update),
        }
    }

    fn update(&mut self, origin: OriginKey, update: Update) {
        let kind = update.resource_type;
        let kept = origin == self.aggregated();
        let mut disk = self.disk.as_mut().filter(|_| kept);
        let mut rejections = update.refused.clone();
        for resource in &update.added {
            let incoming = Incoming {
                name: resource.name.as_str().into(),
                version: resource.version.as_str().into(),
                bytes: resource.body.value.as_slice().into(),
                fixed: false,
            };
            if let Err(error) = self.manager.accept(kind, origin, &incoming) {
                tracing::warn!(kind = ?kind, name = %incoming.name, %error, "resource refused; the last good one stays");
                rejections.push(Rejection {
                    resource: resource.name.clone(),
                    reason: error.to_string(),
                });
            } else if let Some(disk) = &mut disk {
                disk.accepted(kind, &incoming, Instant::now());
            }
        }
        for name in &update.removed {
            let name = name.as_str().into();
            self.manager.remove(kind, origin, &name);
            if let Some(disk) = &mut disk {
                disk.removed(kind, &name, Instant::now());
            }
        }
        self.count(origin, &update, &rejections);
        match kind {
            ResourceType::Cluster => self.first.0 = First::Here,
            ResourceType::Listener => self.first.1 = First::Here,
            _ => {}
        }
        self.stirred |= kind.is_complete();
        let handle = self.streams.get(&origin).and_then(|s| s.handle.as_ref());
        if let (Some(ticket), Some(handle)) = (update.ticket, handle) {
            handle.outcome(ticket, rejections);
        }
    }

    /// Counts a response, for its kind or for each name in it.
    fn count(&self, origin: OriginKey, update: &Update, rejections: &[Rejection]) {
        let kind = update.resource_type;
        let changed = !update.added.is_empty() || !update.removed.is_empty();
        let outcome = |version, accepted| Outcome {
            version,
            accepted,
            changed,
        };
        if kind.is_complete() {
            let outcome = outcome(update.version.as_str(), rejections.is_empty());
            self.stats.update(origin, kind, "", &outcome);
            return;
        }
        let refused: BTreeSet<&str> = rejections.iter().map(|r| r.resource.as_str()).collect();
        for resource in &update.added {
            // In delta the response has no version, but each resource has.
            let version = match update.version.as_str() {
                "" => resource.version.as_str(),
                version => version,
            };
            let accepted = !refused.contains(resource.name.as_str());
            let outcome = outcome(version, accepted);
            self.stats.update(origin, kind, &resource.name, &outcome);
        }
    }

    /// Waits no longer for what has not come within its time.
    fn give_up(&mut self, now: Instant) {
        let first = [
            (ResourceType::Cluster, &mut self.first.0),
            (ResourceType::Listener, &mut self.first.1),
        ];
        let mut expired = Vec::new();
        for (kind, first) in first {
            if first.gives_up(now) {
                let origin = self.everything.of(kind);
                expired.extend(origin.map(|origin| (origin, kind, "".into())));
            }
        }
        expired.extend(self.manager.references.give_up(now));
        for (origin, kind, name) in expired {
            tracing::warn!(%kind, %name, "not sent within initial_fetch_timeout; going on without it");
            self.stats.timed_out(origin, kind, &name);
        }
    }

    /// Puts into force what is warm, and asks for what is referred to now.
    pub fn settle(&mut self) {
        let now = Instant::now();
        self.give_up(now);
        self.manager.advance(now);
        let held = self.manager.awaits_layers(now);
        let stirred = std::mem::take(&mut self.stirred);
        for (slot, files) in self.manager.references.take_file_secrets() {
            if let Some(slot) = slot.upgrade() {
                files::keep_fresh(&self.sources.watcher, &slot, files);
            }
        }
        let wanted = self.manager.references.wanted();
        for origin in self.origins(&wanted) {
            self.open(origin);
        }
        let none = BTreeSet::new();
        for (origin, stream) in &mut self.streams {
            for kind in ResourceType::ALL {
                // As in Envoy, a layer of the runtime comes before all that it may decide about;
                // secrets may be what its server is reached by.
                let first = matches!(kind, ResourceType::Runtime | ResourceType::Secret);
                if held && !first {
                    continue;
                }
                let everything = self.everything.of(kind) == Some(*origin);
                let names = wanted.get(&(*origin, kind)).into_iter().flatten();
                let subscription = if everything {
                    Subscription::everything()
                } else {
                    Subscription::named(names.map(|name| name.to_string()))
                };
                // Routes and endpoints are asked for only once what names them has come: so says
                // rule 9, and it comes about because nothing refers to them before.
                let is_asked = stream.asked.get(&kind).cloned().unwrap_or_default() == subscription;
                if !kind.is_complete() && (stirred || !is_asked) {
                    let names = wanted.get(&(*origin, kind)).unwrap_or(&none);
                    let subjects = self.manager.subjects(kind, names);
                    self.stats.follow(*origin, kind, names, &subjects);
                }
                if everything {
                    match kind {
                        ResourceType::Cluster => self.first.0.asked(now),
                        _ => self.first.1.asked(now),
                    }
                }
                if !is_asked {
                    if let Some(Handle::Stream(_)) = &stream.handle {
                        let before = stream.asked.get(&kind);
                        let before: BTreeSet<&str> =
                            before.into_iter().flat_map(names_of).collect();
                        for name in names_of(&subscription) {
                            if !before.contains(name) {
                                self.stats.asked(*origin, kind, name);
                            }
                        }
                    }
                    if let Some(handle) = &stream.handle {
                        handle.set_subscription(kind, subscription.clone());
                    }
                    stream.asked.insert(kind, subscription);
                }
            }
        }
    }

    fn origins(&self, wanted: &Wanted) -> Vec<OriginKey> {
        let mut origins: Vec<_> = wanted.keys().map(|(origin, _)| *origin).collect();
        let everything = [ResourceType::Cluster, ResourceType::Listener];
        origins.extend(
            everything
                .iter()
                .filter_map(|kind| self.everything.of(*kind)),
        );
        origins.sort_unstable();
        origins.dedup();
        origins.retain(|origin| !self.streams.contains_key(origin));
        origins
    }

    fn open(&mut self, key: OriginKey) {
        let Some(origin) = self.manager.references.origin(key) else {
            return;
        };
        let disk = self.disk.as_ref().filter(|_| origin == Origin::Ads);
        let known = disk.map(DiskCopy::versions).unwrap_or_default();
        let handle = self.sources.open(key, &origin, self.sender.clone(), &known);
        let handle = handle
            .inspect_err(|error| tracing::error!(%error, "resources cannot be asked for"))
            .ok();
        let asked = BTreeMap::new();
        self.streams.insert(key, Stream { handle, asked });
    }
}

/// The names of a subscription; that of all there is has an empty one.
fn names_of(subscription: &Subscription) -> impl Iterator<Item = &str> {
    let all = subscription.wildcard.then_some("");
    all.into_iter()
        .chain(subscription.names.iter().map(String::as_str))
}
