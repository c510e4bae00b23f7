//! What the client has of one kind of resource.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// The resources that the application accepted, by name.
#[derive(Debug, Default)]
pub(super) struct Held {
    all: BTreeMap<String, Entry>,
    /// The resources with a time to live, first to expire first.
    expiries: BTreeSet<(Instant, String)>,
}

#[derive(Debug)]
struct Entry {
    /// As the server gave it; servers that give none have "" here.
    version: String,
    expires: Option<Instant>,
}

impl Held {
    pub(super) fn insert(&mut self, name: &str, version: String, expires: Option<Instant>) {
        self.remove(name);
        self.all.insert(name.to_owned(), Entry { version, expires });
        if let Some(expires) = expires {
            self.expiries.insert((expires, name.to_owned()));
        }
    }

    pub(super) fn remove(&mut self, name: &str) {
        if let Some(entry) = self.all.remove(name)
            && let Some(expires) = entry.expires
        {
            self.expiries.remove(&(expires, name.to_owned()));
        }
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.all.keys()
    }

    pub(super) fn versions(&self) -> impl Iterator<Item = (&String, &String)> {
        self.all.iter().map(|(name, entry)| (name, &entry.version))
    }

    pub(super) fn version(&self, name: &str) -> Option<&str> {
        self.all.get(name).map(|entry| entry.version.as_str())
    }

    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.expiries.first().map(|(at, _)| *at)
    }

    /// Removes what expired by `now` and names it.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<String> {
        let mut expired = Vec::new();
        while self.next_expiry().is_some_and(|at| at <= now) {
            if let Some((_, name)) = self.expiries.pop_first() {
                self.all.remove(&name);
                expired.push(name);
            }
        }
        expired
    }
}
