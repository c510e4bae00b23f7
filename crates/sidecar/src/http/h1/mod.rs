//! HTTP/1, written for relaying (RFC 9110, RFC 9112).
//!
//! Heads are parsed line by line out of the read buffer into the head that the caller reuses, by
//! the grammar and with CRLF only: what two readers could understand in two ways is refused, so it
//! is never forwarded. Bodies are handed on as slices of the read buffer. What is written gathers in
//! one buffer until it is flushed. The parts ([`request`], [`response`], [`decoder`], [`encoder`])
//! do no I/O; [`server`] and [`crate::upstream::exchange::h1`] put them on a [`wire`].

pub mod buffer;
pub mod decoder;
pub mod encoder;
pub mod error;
mod framing;
pub mod grammar;
mod lines;
pub mod request;
pub mod response;
pub mod server;
pub mod wire;

use wire::HIGH_WATERMARK;

/// The bytes under a connection.
pub type Transport = crate::tls::stream::Stream;

/// What a head may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a whole head (or of all trailers); more is answered with 431.
    pub head_bytes: usize,
    /// Fields of a head (or of the trailers); more is answered with 431.
    pub headers: usize,
    /// Whether trailers are taken; they are thrown away otherwise.
    pub trailers: bool,
    /// Whether HTTP/1.0 is spoken; otherwise it is answered with 426.
    pub accept_http_10: bool,
    /// Whether a method may be any token; otherwise only those that Envoy knows are taken.
    pub custom_methods: bool,
    /// Whether an https URI as the target of a request that came without TLS is answered with 403.
    pub scheme_as_connection: bool,
    /// Bytes that wait to be sent to the client, or are read ahead of it; more wait where they are.
    pub buffer: usize,
}

impl Default for Limits {
    /// Envoy's: 60 KiB and 100 fields.
    fn default() -> Self {
        Limits {
            head_bytes: 60 * 1024,
            headers: 100,
            trailers: true,
            accept_http_10: true,
            custom_methods: true,
            scheme_as_connection: false,
            buffer: HIGH_WATERMARK,
        }
    }
}
