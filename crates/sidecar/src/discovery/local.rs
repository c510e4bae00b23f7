//! Sources that live in this process: the built-in secrets, and files. They take subscriptions like
//! a stream to a server does, and give updates like one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use outrider_xds::ads::ResourceType;
use outrider_xds::ads::client::{Event, Resource, Subscription, Update};
use outrider_xds::ads::server::ResourceSet;
use tokio::sync::{mpsc, watch};

/// Where updates go, with the key of the origin that they come from.
pub type Events = mpsc::Sender<(usize, Event)>;

type Subscriptions = BTreeMap<ResourceType, Subscription>;

/// Tells a source what is wanted of it. When it is dropped, the source stops telling.
#[derive(Debug)]
pub struct Handle(watch::Sender<Subscriptions>);

impl Handle {
    /// Sets what is wanted of one kind, as
    /// [`set_subscription`](outrider_xds::ads::client::Handle::set_subscription) of a stream does.
    pub fn set_subscription(&self, kind: ResourceType, wanted: Subscription) {
        self.0.send_modify(|all| {
            all.insert(kind, wanted);
        });
    }
}

/// The other end of a [`Handle`].
pub struct Feed {
    origin: usize,
    events: Events,
    subscriptions: watch::Receiver<Subscriptions>,
    ledger: Ledger,
}

/// A feed of the origin `origin` into `events`. `pending` are names that the source will have, so
/// that their absence does not mean that there is no such resource.
pub fn feed(origin: usize, events: Events, pending: &'static [&'static str]) -> (Handle, Feed) {
    let (sender, subscriptions) = watch::channel(Subscriptions::new());
    let ledger = Ledger {
        pending,
        told: BTreeMap::new(),
    };
    let feed = Feed {
        origin,
        events,
        subscriptions,
        ledger,
    };
    (Handle(sender), feed)
}

impl Feed {
    /// Tells what is wanted of `resources` as either changes, until the handle, the receiver of the
    /// events or the source is gone.
    pub async fn run(mut self, mut resources: watch::Receiver<Arc<ResourceSet>>) {
        loop {
            let set = Arc::clone(&resources.borrow_and_update());
            let subscriptions = self.subscriptions.borrow_and_update().clone();
            for (kind, subscription) in &subscriptions {
                let Some(update) = self.ledger.update(*kind, subscription, &set) else {
                    continue;
                };
                let event = (self.origin, Event::Update(update));
                if self.events.send(event).await.is_err() {
                    return;
                }
            }
            let changed = tokio::select! {
                changed = self.subscriptions.changed() => changed,
                changed = resources.changed() => changed,
                () = self.events.closed() => return,
            };
            if changed.is_err() {
                return;
            }
        }
    }

    /// Resolves when the handle or the receiver of the events is gone.
    pub async fn abandoned(&self) {
        let mut subscriptions = self.subscriptions.clone();
        let dropped = async { while subscriptions.changed().await.is_ok() {} };
        tokio::select! {
            () = dropped => {}
            () = self.events.closed() => {}
        }
    }
}

/// What was told of the resources of each kind: the version, or `None` that there is none.
struct Ledger {
    pending: &'static [&'static str],
    told: BTreeMap<ResourceType, BTreeMap<String, Option<Arc<str>>>>,
}

impl Ledger {
    /// What is news of one kind.
    fn update(
        &mut self,
        kind: ResourceType,
        wanted: &Subscription,
        set: &ResourceSet,
    ) -> Option<Update> {
        let resources = set.kind(kind);
        // Who waits for all there is waits for an answer even where there is nothing.
        let greeting = wanted.wildcard && !self.told.contains_key(&kind);
        let told = self.told.entry(kind).or_default();
        told.retain(|name, _| wanted.wildcard || wanted.names.contains(name));

        let mut added = Vec::new();
        for (name, resource) in resources.iter() {
            let is_wanted = wanted.wildcard || wanted.names.contains(name);
            let is_known = matches!(told.get(name), Some(Some(told)) if *told == resource.version);
            if is_wanted && !is_known {
                told.insert(name.clone(), Some(Arc::clone(&resource.version)));
                added.push(Resource {
                    name: name.clone(),
                    version: resource.version.to_string(),
                    body: (*resource.body).clone(),
                });
            }
        }
        let mut removed = BTreeSet::new();
        for (name, version) in told.iter_mut() {
            if !resources.contains_key(name) && version.take().is_some() {
                removed.insert(name.clone());
            }
        }
        for name in &wanted.names {
            let is_expected = resources.contains_key(name) || self.pending.contains(&name.as_str());
            if !is_expected && !told.contains_key(name) {
                told.insert(name.clone(), None);
                removed.insert(name.clone());
            }
        }
        if added.is_empty() && removed.is_empty() && !greeting {
            return None;
        }
        Some(Update {
            ticket: None,
            resource_type: kind,
            version: set.version().to_owned(),
            added,
            removed: removed.into_iter().collect(),
            refused: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use outrider_xds::ads::server::{Resources, Versioned};
    use outrider_xds::pb::envoy::extensions::transport_sockets::tls::v3::Secret;

    use super::*;

    fn set(secrets: &[(&str, u8)]) -> ResourceSet {
        let resource = |(name, detail): &(&str, u8)| {
            let mut secret = Secret {
                name: (*name).to_owned(),
                ..Default::default()
            };
            secret.name.push_str(&"x".repeat(usize::from(*detail)));
            let versioned = Versioned::new(ResourceType::Secret, &secret);
            ((*name).to_owned(), versioned)
        };
        let all: Resources = secrets.iter().map(resource).collect();
        ResourceSet::new("1").with(ResourceType::Secret, Arc::new(all))
    }

    /// The names that an update adds and removes; `-` for no update at all.
    fn news(ledger: &mut Ledger, wanted: &Subscription, set: &ResourceSet) -> String {
        let Some(update) = ledger.update(ResourceType::Secret, wanted, set) else {
            return "-".to_owned();
        };
        assert_eq!(update.ticket, None);
        let added = update
            .added
            .into_iter()
            .map(|each| format!("+{}", each.name));
        let removed = update.removed.into_iter().map(|name| format!("-{name}"));
        added.chain(removed).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_is_wanted_is_told_once_and_what_does_not_exist_too() {
        let mut ledger = Ledger {
            pending: &["default", "ROOTCA"],
            told: BTreeMap::new(),
        };
        let named = |names: &[&str]| Subscription::named(names.iter().copied());
        let none = set(&[]);
        let one = set(&[("default", 0), ("ROOTCA", 0)]);
        let two = set(&[("default", 1), ("ROOTCA", 0)]);
        let steps = [
            (named(&["default"]), &none, "-"),
            (named(&["default", "other"]), &none, "-other"),
            (named(&["default", "other"]), &none, "-"),
            (named(&["default", "other"]), &one, "+default"),
            (named(&["default", "other"]), &one, "-"),
            (named(&["default", "other"]), &two, "+default"),
            (named(&["default", "ROOTCA"]), &two, "+ROOTCA"),
            // Who asks again has forgotten.
            (named(&["ROOTCA"]), &two, "-"),
            (named(&["default", "ROOTCA"]), &two, "+default"),
            (named(&["default", "ROOTCA"]), &none, "-ROOTCA -default"),
            (named(&["default", "ROOTCA"]), &one, "+ROOTCA +default"),
        ];
        for (index, (wanted, set, expected)) in steps.into_iter().enumerate() {
            assert_eq!(news(&mut ledger, &wanted, set), expected, "step {index}");
        }
    }

    #[test]
    fn everything_is_answered_even_if_there_is_nothing() {
        let mut ledger = Ledger {
            pending: &[],
            told: BTreeMap::new(),
        };
        let all = Subscription::everything();
        assert_eq!(news(&mut ledger, &all, &set(&[])), "");
        assert_eq!(news(&mut ledger, &all, &set(&[])), "-");
        assert_eq!(
            news(&mut ledger, &all, &set(&[("a", 0), ("b", 0)])),
            "+a +b"
        );
        assert_eq!(news(&mut ledger, &all, &set(&[("b", 0)])), "-a");
        assert_eq!(
            news(&mut ledger, &all, &set(&[("a", 0), ("b", 1)])),
            "+a +b"
        );
    }

    #[tokio::test]
    async fn a_feed_follows_both_sides() {
        let (events, mut receiver) = mpsc::channel(4);
        let (source, resources) = watch::channel(Arc::new(set(&[])));
        let (handle, feed) = feed(7, events, &["default"]);
        let running = tokio::spawn(feed.run(resources));
        handle.set_subscription(ResourceType::Secret, Subscription::named(["default"]));
        source.send_replace(Arc::new(set(&[("default", 0)])));
        let Some((7, Event::Update(update))) = receiver.recv().await else {
            panic!("no update")
        };
        assert_eq!(update.added[0].name, "default");
        drop(handle);
        running.await.unwrap();
    }
}
