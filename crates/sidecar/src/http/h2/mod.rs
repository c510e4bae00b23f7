//! HTTP/2 over the `h2` crate (RFC 9113).
//!
//! The crate does framing, HPACK, flow control and the states of streams. Here is what a relay adds:
//! [`convert`] turns its heads into ours and back, [`stream`] gives both directions of a stream the
//! verbs of [`crate::http::downstream::Downstream`], [`server`] accepts and bounds connections, and
//! [`corked`] has a connection send once for all of its streams.

pub mod convert;
pub mod corked;
pub mod keepalive;
pub mod server;
pub mod stream;
