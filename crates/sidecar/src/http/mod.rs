//! HTTP: codecs, the connection manager, routing.

pub mod connection_manager;
pub mod downstream;
pub mod error;
pub mod filters;
pub mod h1;
pub mod h2;
pub mod headers;
pub mod message;
pub mod route;
pub mod router;
pub mod stats;
pub mod stream_info;
pub mod tunnel;
