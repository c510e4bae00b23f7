//! What can go wrong with one stream: a request and its response on a downstream or an upstream
//! connection, whatever its protocol.

use std::io;

/// Why a stream ended before its time. It is always about the peer at the other end of *this*
/// connection: the caller knows whether that is the client or the endpoint.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The peer ended the connection in the middle of a message or before one.
    #[error("the peer closed the connection")]
    Closed,
    /// The connection failed: reset, timed out, TLS without its close_notify.
    #[error("the connection failed: {0}")]
    Io(#[source] io::Error),
    /// The peer reset this stream alone (HTTP/2's RST_STREAM), with its code.
    #[error("the peer reset the stream: {0}")]
    Reset(::h2::Reason),
    /// The peer says that it has done nothing with the request (REFUSED_STREAM, or GOAWAY with a
    /// lower stream id), or nothing of it was ever sent: it may be sent again whatever it is.
    #[error("the peer refused the stream without processing it")]
    Refused,
    /// The peer broke the protocol; the text says which rule.
    #[error("the peer broke the protocol: {0}")]
    Protocol(&'static str),
    /// The peer stayed within the protocol but not within our limits.
    #[error("over the limit: {0}")]
    LimitExceeded(&'static str),
    /// We reset or aborted it ourselves, earlier.
    #[error("the stream was reset by the proxy")]
    Aborted,
    /// The message cannot be said in this protocol (for example a path that a URI may not hold).
    #[error("not expressible in this protocol: {0}")]
    Unrepresentable(&'static str),
}

/// Who is to blame for a [`StreamError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The peer went away or reset: nobody broke a rule.
    Departure,
    /// The peer sent what it must not.
    Peer,
    /// The proxy, or the message that it was asked to send.
    Proxy,
}

impl StreamError {
    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            StreamError::Closed
            | StreamError::Io(_)
            | StreamError::Reset(_)
            | StreamError::Refused => Fault::Departure,
            StreamError::Protocol(_) | StreamError::LimitExceeded(_) => Fault::Peer,
            StreamError::Aborted | StreamError::Unrepresentable(_) => Fault::Proxy,
        }
    }

    /// Whether the request may be sent again whatever its method, because the peer did nothing.
    pub fn is_refusal(&self) -> bool {
        matches!(self, StreamError::Refused)
    }

    /// Whether the connection went away under the request, so that a request that is idempotent,
    /// or of which nothing was sent, may be sent again as long as no byte of a response was seen.
    pub fn is_departure(&self) -> bool {
        matches!(self, StreamError::Closed | StreamError::Io(_))
    }

    /// The error of a read or a write; an end in the middle of TLS counts as an I/O error.
    pub fn from_io(error: io::Error) -> Self {
        StreamError::Io(error)
    }

    /// What the `h2` crate reports, sorted by what it means for a retry.
    pub fn from_h2(error: ::h2::Error) -> Self {
        if error.is_remote() {
            if error.is_go_away() || error.reason() == Some(::h2::Reason::REFUSED_STREAM) {
                return StreamError::Refused;
            }
            if let Some(reason) = error.reason() {
                return StreamError::Reset(reason);
            }
        }
        match error.reason() {
            Some(::h2::Reason::ENHANCE_YOUR_CALM) => {
                StreamError::LimitExceeded("too many HTTP/2 frames of a kind")
            }
            // How the crate itself ends a stream whose fields are too many bytes.
            Some(::h2::Reason::REFUSED_STREAM) if error.is_library() => {
                StreamError::LimitExceeded("the size of the header fields")
            }
            Some(::h2::Reason::FLOW_CONTROL_ERROR) => {
                StreamError::Protocol("HTTP/2 flow control was not obeyed")
            }
            Some(::h2::Reason::FRAME_SIZE_ERROR) => {
                StreamError::Protocol("an HTTP/2 frame has a wrong size")
            }
            Some(::h2::Reason::COMPRESSION_ERROR) => {
                StreamError::Protocol("an HTTP/2 header block cannot be decoded")
            }
            Some(_) => StreamError::Protocol("HTTP/2 framing or a malformed message"),
            None if error.is_io() => match error.into_io() {
                Some(error) if error.kind() != io::ErrorKind::BrokenPipe => StreamError::Io(error),
                _ => StreamError::Closed,
            },
            None => StreamError::Aborted,
        }
    }
}

/// How the proxy ends a stream before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// No longer wanted, or the other side went away.
    Cancel,
    /// Something failed on our side or beyond it.
    InternalError,
}

impl Reset {
    /// HTTP/2's code for it.
    pub const fn reason(self) -> ::h2::Reason {
        match self {
            Reset::Cancel => ::h2::Reason::CANCEL,
            Reset::InternalError => ::h2::Reason::INTERNAL_ERROR,
        }
    }
}
