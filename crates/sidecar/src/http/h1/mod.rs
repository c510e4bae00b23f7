//! HTTP/1, written for relaying (RFC 9110, RFC 9112).

pub mod error;
pub mod server;

/// The bytes under a connection.
pub type Transport = tokio::net::TcpStream;

/// What a head may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a whole head (or of all trailers); more is answered with 431.
    pub head_bytes: usize,
    /// Fields of a head (or of the trailers); more is answered with 431.
    pub headers: usize,
    /// Whether HTTP/1.0 is spoken; otherwise it is answered with 426.
    pub accept_http_10: bool,
}

impl Default for Limits {
    /// Envoy's: 60 KiB and 100 fields.
    fn default() -> Self {
        Limits {
            head_bytes: 60 * 1024,
            headers: 100,
            accept_http_10: true,
        }
    }
}
