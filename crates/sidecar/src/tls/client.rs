//! The client side of TLS.

/// An `UpstreamTlsContext` at work.
#[derive(Debug)]
pub struct ClientContext {}
