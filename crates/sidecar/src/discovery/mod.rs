//! xDS subscriptions, warming and the published snapshot.
//!
//! [`streams::Streams`] is the loop: what servers and files send goes to the [`manager::Manager`],
//! which builds, warms and publishes; what is referred to by then is asked for.

pub mod builtin;
pub mod dial;
pub mod disk;
pub mod dns;
pub mod dump;
pub mod files;
pub mod local;
pub mod manager;
pub mod references;
pub mod resolve;
pub mod sds_socket;
pub mod slot;
pub mod sources;
pub mod stats;
pub mod streams;
#[cfg(test)]
mod testing;
pub mod token;
mod validity;
mod warming;
