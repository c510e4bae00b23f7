//! What is in force: published by the control thread as one immutable value, taken over by workers.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::listener::binding::ActiveListener;
use crate::upstream::shared::ClusterSet;

/// The listeners of one snapshot, by name.
pub type ListenerSet = BTreeMap<Arc<str>, Arc<ActiveListener>>;

/// All listeners and clusters in force. Route tables, endpoints and secrets change inside of their
/// slots without a new snapshot.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Warm listeners.
    pub listeners: Arc<ListenerSet>,
    /// Warm clusters.
    pub clusters: Arc<ClusterSet>,
}
