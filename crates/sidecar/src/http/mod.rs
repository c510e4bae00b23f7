//! HTTP: codecs, the connection manager, routing.

pub mod downstream;
pub mod error;
pub mod h1;
pub mod h2;
pub mod headers;
pub mod message;
pub mod route;
