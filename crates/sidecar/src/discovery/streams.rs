//! The streams to discovery servers: one aggregated stream, and one more for each other server that
//! a `ConfigSource` names.

use std::collections::BTreeMap;
use std::sync::Arc;

use outrider_xds::ads::ResourceType;
use outrider_xds::ads::client::{Event, Handle, Options, Rejection, Subscription, Update, start};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::manager::{Incoming, Manager};
use super::references::{OriginKey, Wanted};
use super::stats::DiscoveryStats;
use crate::config::source::Origin;

/// How to reach the server of an origin. `None`: it is not known (yet).
pub type Dial = Box<dyn Fn(&Origin) -> Option<Options>>;

/// Which kinds the aggregated stream is asked for as a whole.
#[derive(Clone, Copy, Debug, Default)]
pub struct Everything {
    /// `dynamic_resources.cds_config` is the aggregated stream.
    pub clusters: bool,
    /// `dynamic_resources.lds_config` is.
    pub listeners: bool,
}

struct Stream {
    handle: Handle,
    asked: BTreeMap<ResourceType, Subscription>,
    aggregated: bool,
}

/// All open streams, and the manager that takes what they bring.
pub struct Streams {
    manager: Manager,
    dial: Dial,
    everything: Everything,
    streams: BTreeMap<OriginKey, Stream>,
    sender: mpsc::Sender<(OriginKey, Event)>,
    events: mpsc::Receiver<(OriginKey, Event)>,
    /// The first answers for clusters and listeners have come, where any are asked for.
    answered: (bool, bool),
    stats: DiscoveryStats,
}

impl Streams {
    /// No stream is open yet.
    pub fn new(
        manager: Manager,
        dial: Dial,
        everything: Everything,
        stats: DiscoveryStats,
    ) -> Self {
        let (sender, events) = mpsc::channel(16);
        Streams {
            manager,
            dial,
            everything,
            streams: BTreeMap::new(),
            sender,
            events,
            answered: (!everything.clusters, !everything.listeners),
            stats,
        }
    }

    /// Where a source other than a stream (files, the built-in secrets) puts what it has.
    pub fn sender(&self) -> mpsc::Sender<(OriginKey, Event)> {
        self.sender.clone()
    }

    /// The manager.
    pub fn manager(&mut self) -> &mut Manager {
        &mut self.manager
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
        tokio::select! {
            event = self.events.recv() => {
                if let Some((origin, event)) = event {
                    self.happened(origin, event);
                }
            }
            () = async { tokio::time::sleep_until(patience.unwrap_or_else(Instant::now)).await }, if patience.is_some() => {}
        }
        self.settle();
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
            }
        }
        for name in &update.removed {
            self.manager.remove(kind, origin, &name.as_str().into());
        }
        self.stats.update(kind, rejections.is_empty());
        match kind {
            ResourceType::Cluster => self.answered.0 = true,
            ResourceType::Listener => self.answered.1 = true,
            _ => {}
        }
        if let (Some(ticket), Some(stream)) = (update.ticket, self.streams.get(&origin)) {
            stream.handle.outcome(ticket, rejections);
        }
    }

    /// Puts into force what is warm, and asks for what is referred to now.
    pub fn settle(&mut self) {
        self.manager.advance(Instant::now());
        let wanted = self.manager.references.wanted();
        for origin in self.origins(&wanted) {
            self.open(origin);
        }
        for (origin, stream) in &mut self.streams {
            for kind in ResourceType::ALL {
                let everything = stream.aggregated
                    && (kind == ResourceType::Cluster && self.everything.clusters
                        || kind == ResourceType::Listener && self.everything.listeners);
                let names = wanted.get(&(*origin, kind)).into_iter().flatten();
                let subscription = if everything {
                    Subscription::everything()
                } else {
                    Subscription::named(names.map(|name| name.to_string()))
                };
                // Routes and endpoints are asked for only once what names them has come: so says
                // rule 9, and it comes about because nothing refers to them before.
                if stream.asked.get(&kind).cloned().unwrap_or_default() != subscription {
                    stream.handle.set_subscription(kind, subscription.clone());
                    stream.asked.insert(kind, subscription);
                }
            }
        }
    }

    fn origins(&self, wanted: &Wanted) -> Vec<OriginKey> {
        let mut origins: Vec<_> = wanted.keys().map(|(origin, _)| *origin).collect();
        if self.everything.clusters || self.everything.listeners {
            origins.push(self.manager.references.key(&Origin::Ads));
        }
        origins.sort_unstable();
        origins.dedup();
        origins.retain(|origin| !self.streams.contains_key(origin));
        origins
    }

    fn open(&mut self, key: OriginKey) {
        let Some(origin) = self.manager.references.origin(key) else {
            return;
        };
        let Some(options) = (self.dial)(&origin) else {
            return;
        };
        let (driver, handle, mut events) = start(options);
        tokio::spawn(driver.run());
        let sender = self.sender.clone();
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                if sender.send((key, event)).await.is_err() {
                    return;
                }
            }
        });
        let aggregated = origin == Origin::Ads;
        self.streams.insert(
            key,
            Stream {
                handle,
                asked: BTreeMap::new(),
                aggregated,
            },
        );
    }
}
