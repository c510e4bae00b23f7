//! TLS: contexts, ALPN, peer verification, the encrypted stream.

pub mod client;
pub mod server;
pub mod stream;
