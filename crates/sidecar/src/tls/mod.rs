//! TLS: contexts, ALPN, peer verification, the encrypted stream.
//!
//! rustls makes the handshake (`handshake`) with configurations that `server` and `client` build of
//! their secrets; then the connection is a [`stream::Stream`] whose records `encrypted` seals and
//! opens.

mod certificates;
pub mod client;
pub mod client_hello;
mod encrypted;
pub mod error;
pub mod fingerprint;
mod handshake;
mod key_log;
mod messages;
pub mod names;
pub mod ocsp;
pub mod overrides;
mod peer;
pub mod record;
#[cfg(test)]
mod record_tests;
pub mod scratch;
mod secrets;
pub mod server;
pub mod socket;
pub mod stats;
pub mod stream;
#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;
mod tickets;
mod witness;
