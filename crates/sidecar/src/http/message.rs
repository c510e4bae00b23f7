//! The heads of requests and responses, as every codec reads and writes them.

use super::headers::Headers;

/// The protocol in which one message travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
    /// HTTP/2
    Http2,
}

impl Version {
    /// As access logs write it (`%PROTOCOL%`).
    pub const fn as_str(self) -> &'static str {
        match self {
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
            Version::Http2 => "HTTP/2",
        }
    }

    /// Whether it is one of the HTTP/1 versions.
    pub const fn is_http1(self) -> bool {
        !matches!(self, Version::Http2)
    }
}

/// How long a body is, as far as its head tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// There is no body: nothing follows the head.
    None,
    /// Exactly so many bytes (`content-length`).
    Sized(u64),
    /// Unknown: chunked, an HTTP/2 stream without a length, or an HTTP/1 response until close.
    Streamed,
}

impl BodyLength {
    /// Whether it is known that not one byte of a body comes.
    pub const fn is_empty(self) -> bool {
        matches!(self, BodyLength::None | BodyLength::Sized(0))
    }
}

/// The head of a request. Text fields are bytes that the codec has checked: no control characters.
#[derive(Clone, Debug)]
pub struct RequestHead {
    /// The version in which it came (or is to be sent, where a codec cares).
    pub version: Version,
    /// `GET`, `POST`, ...: a token, case as it came.
    pub method: Vec<u8>,
    /// `http` or `https`: of the connection, or HTTP/2's `:scheme`.
    pub scheme: &'static str,
    /// `Host` or `:authority`. Empty where HTTP/1.0 sent none. It is *not* repeated in `headers`.
    pub authority: Vec<u8>,
    /// Path and query (origin form), `*`, or for CONNECT empty.
    pub path: Vec<u8>,
    /// HTTP/2's `:protocol` (RFC 8441), for extended CONNECT.
    pub protocol: Option<Vec<u8>>,
    /// All other fields. `content-length` and `transfer-encoding` are not in here when the codec
    /// hands it over: framing is the codec's business, told by `body`.
    pub headers: Headers,
    /// How the body is framed.
    pub body: BodyLength,
    /// Whether the names that an HTTP/1 codec itself writes (`Host`, `Content-Length`, ...) start
    /// with capitals, as the message had it: clients exist that compare them as they are.
    pub title_case: bool,
    /// No host was told at all, which is more than an empty one.
    pub hostless: bool,
}

impl RequestHead {
    /// An empty head to be filled by a codec and reused from message to message.
    pub const fn new() -> Self {
        RequestHead {
            version: Version::Http11,
            method: Vec::new(),
            scheme: "http",
            authority: Vec::new(),
            path: Vec::new(),
            protocol: None,
            headers: Headers::new(),
            body: BodyLength::None,
            title_case: false,
            hostless: false,
        }
    }

    /// Whether a gRPC client sent it: `content-type: application/grpc` with or without a suffix.
    pub fn is_grpc(&self) -> bool {
        self.headers
            .first(super::headers::Name::ContentType)
            .is_some_and(|value| {
                let value = value.trim_ascii();
                value.len() >= 16
                    && value[..16].eq_ignore_ascii_case(b"application/grpc")
                    && value
                        .get(16)
                        .is_none_or(|next| matches!(next, b'+' | b';' | b' '))
            })
    }

    /// Makes one `cookie` field of the crumbs into which HTTP/2 may split it (RFC 9113, section
    /// 8.2.3), for a peer that speaks HTTP/1.
    pub fn join_cookies(&mut self) {
        self.headers.join(super::headers::Name::Cookie, b"; ");
    }
}

/// The head of a response, final or informational (100 to 199).
#[derive(Clone, Debug)]
pub struct ResponseHead {
    /// The version in which it came.
    pub version: Version,
    /// 100 to 999.
    pub status: u16,
    /// The reason phrase of HTTP/1, as it came; empty from HTTP/2.
    pub reason: Vec<u8>,
    /// All fields but those of the framing (see [`RequestHead::headers`]).
    pub headers: Headers,
    /// How the body is framed. For the answer to HEAD, and for 204 and 304, it is `None`; a
    /// `content-length` that such an answer carries stays in `headers`.
    pub body: BodyLength,
    /// See [`RequestHead::title_case`].
    pub title_case: bool,
}

impl ResponseHead {
    /// An empty head to be filled by a codec and reused from message to message.
    pub const fn new() -> Self {
        ResponseHead {
            version: Version::Http11,
            status: 0,
            reason: Vec::new(),
            headers: Headers::new(),
            body: BodyLength::None,
            title_case: false,
        }
    }
}
