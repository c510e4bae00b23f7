//! HTTP/2 over the `h2` crate (RFC 9113).

pub mod server;
