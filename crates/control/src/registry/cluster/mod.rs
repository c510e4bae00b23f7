//! The objects of a cluster, as its API server tells of them.
//!
//! Each kind is watched by a task of its own. A list that is streamed, or read in pages, is followed
//! by a watch that goes on where it was after an interruption; while the server is away, what was
//! last read stays in force.

mod health;
mod kind;
mod present;
mod watch;

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::quiet::gather;
use super::{FieldError, Object, ObjectRef};

pub use health::Health;
pub use present::{Present, Presents};

/// How many events wait to be taken; then the watches wait.
const WAITING: usize = 4096;

/// What happened to an object.
#[derive(Debug)]
pub enum Event {
    /// It says this now.
    Set(Arc<Object>),
    /// It is no more.
    Gone(ObjectRef),
    /// What it says now is wrong; what it said before stays in force.
    Refused {
        /// Which.
        object: ObjectRef,
        /// The generation of the wrong version.
        generation: i64,
        /// The field, and what is wrong with it.
        error: FieldError,
    },
    /// What the server has of it beside that. Of kinds that get a status.
    Present(ObjectRef, Present),
    /// All objects of the kind were told of.
    Synced(&'static str),
}

/// The watches.
#[derive(Debug)]
pub struct Cluster {
    events: mpsc::Receiver<Event>,
    unsynced: BTreeSet<&'static str>,
    /// Ends the watches when dropped.
    _watches: JoinSet<()>,
}

impl Cluster {
    /// Starts watching every kind.
    pub fn watch(client: &kube::Client, health: &Arc<Health>) -> Self {
        let (sender, events) = mpsc::channel(WAITING);
        let mut watches = JoinSet::new();
        for kind in kind::KINDS {
            let (client, health) = (client.clone(), Arc::clone(health));
            watches.spawn(watch::follow(client, kind, sender.clone(), health));
        }
        Self {
            events,
            unsynced: kind::KINDS.iter().map(|kind| kind.name).collect(),
            _watches: watches,
        }
    }

    /// Waits for something to happen and for it to be quiet again; what happened, in order. Nothing
    /// when the watches have ended, which they do not by themselves.
    pub async fn changes(&mut self) -> Vec<Event> {
        let mut changes: Vec<_> = self.events.recv().await.into_iter().collect();
        if !changes.is_empty() {
            gather(&mut self.events, |event| changes.push(event)).await;
        }
        for change in &changes {
            if let Event::Synced(kind) = change {
                self.unsynced.remove(kind);
            }
        }
        changes
    }

    /// Whether everything was read once, as far as what was returned goes.
    pub fn is_synced(&self) -> bool {
        self.unsynced.is_empty()
    }
}
