//! The server side of TLS.

/// A `DownstreamTlsContext` at work.
#[derive(Debug)]
pub struct ServerContext {}
