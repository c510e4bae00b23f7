//! HTTP/2 over the `h2` crate (RFC 9113).
//!
//! The crate does framing, HPACK, flow control and the states of streams. Here is what a relay adds:
//! [`convert`] turns its heads into ours and back, [`stream`] gives both directions of a stream the
//! verbs of [`crate::http::downstream::Downstream`], and [`server`] accepts and bounds connections.

pub mod convert;
pub mod server;
pub mod stream;
