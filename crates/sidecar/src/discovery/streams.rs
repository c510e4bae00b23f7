//! The streams to discovery servers: one aggregated stream, and one more for each other server that
//! a `ConfigSource` names.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use outrider_xds::ads::ResourceType;
use outrider_xds::ads::client::{Event, Rejection, Subscription, Update};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::disk::{DiskCopy, Saved};
use super::files;
use super::manager::{Incoming, Manager};
use super::references::{OriginKey, Wanted};
use super::sources::{Handle, Sources};
use super::stats::DiscoveryStats;
use crate::config::source::Origin;

/// Which sources are asked for a kind as a whole.
#[derive(Clone, Copy, Debug, Default)]
pub struct Everything {
    /// `dynamic_resources.cds_config`
    pub clusters: Option<OriginKey>,
    /// `dynamic_resources.lds_config`
    pub listeners: Option<OriginKey>,
}

impl Everything {
    fn of(&self, kind: ResourceType) -> Option<OriginKey> {
        match kind {
            ResourceType::Cluster => self.clusters,
            ResourceType::Listener => self.listeners,
            ResourceType::Endpoint | ResourceType::Route | ResourceType::Secret => None,
        }
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
    answered: (bool, bool),
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
            answered: (
                everything.clusters.is_none(),
                everything.listeners.is_none(),
            ),
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
            self.answered = (true, true);
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
            self.answered.0 && clusters.is_empty(),
            self.answered.1 && listeners.is_empty(),
        )
    }

    /// Waits for the next thing to happen and sees it through.
    pub async fn step(&mut self) {
        self.settle();
        let patience = self.manager.references.next_patience(Instant::now());
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
                self.stats.connected(true);
                tracing::info!(origin, "discovery stream open");
            }
            Event::Disconnected { reason, retry_in } => {
                self.stats.connected(false);
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
        let mut rejections = update.refused;
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
        self.stats.update(kind, rejections.is_empty());
        match kind {
            ResourceType::Cluster => self.answered.0 = true,
            ResourceType::Listener => self.answered.1 = true,
            _ => {}
        }
        let handle = self.streams.get(&origin).and_then(|s| s.handle.as_ref());
        if let (Some(ticket), Some(handle)) = (update.ticket, handle) {
            handle.outcome(ticket, rejections);
        }
    }

    /// Puts into force what is warm, and asks for what is referred to now.
    pub fn settle(&mut self) {
        self.manager.advance(Instant::now());
        for (slot, files) in self.manager.references.take_file_secrets() {
            if let Some(slot) = slot.upgrade() {
                files::keep_fresh(&self.sources.watcher, &slot, files);
            }
        }
        let wanted = self.manager.references.wanted();
        for origin in self.origins(&wanted) {
            self.open(origin);
        }
        for (origin, stream) in &mut self.streams {
            for kind in ResourceType::ALL {
                let everything = self.everything.of(kind) == Some(*origin);
                let names = wanted.get(&(*origin, kind)).into_iter().flatten();
                let subscription = if everything {
                    Subscription::everything()
                } else {
                    Subscription::named(names.map(|name| name.to_string()))
                };
                // Routes and endpoints are asked for only once what names them has come: so says
                // rule 9, and it comes about because nothing refers to them before.
                if stream.asked.get(&kind).cloned().unwrap_or_default() != subscription {
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
        let everything = [self.everything.clusters, self.everything.listeners];
        origins.extend(everything.into_iter().flatten());
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
