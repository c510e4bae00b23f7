//! HTTP: codecs, the connection manager, routing.

pub mod headers;
pub mod message;
