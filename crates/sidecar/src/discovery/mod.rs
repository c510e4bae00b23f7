//! xDS subscriptions, warming and the published snapshot.

pub mod slot;
