//! TLS: contexts, ALPN, peer verification, the encrypted stream.
//!
//! rustls makes the handshake (`handshake`) with configurations that `server` and `client` build of
//! their secrets; then the connection is a [`stream::Stream`] whose records `encrypted` seals and
//! opens.

pub mod client;
pub mod client_hello;
mod encrypted;
pub mod error;
mod handshake;
mod messages;
mod peer;
pub mod record;
#[cfg(test)]
mod record_tests;
pub mod scratch;
mod secrets;
pub mod server;
pub mod socket;
pub mod stream;
#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;
