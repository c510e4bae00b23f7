//! xDS subscriptions, warming and the published snapshot.

pub mod builtin;
pub mod files;
pub mod local;
pub mod sds_socket;
pub mod slot;
pub mod token;
