//! Why no request came out of a connection.

use std::io;

/// Why a head was refused, or never came.
#[derive(Debug, thiserror::Error)]
pub enum HeadError {
    /// Not by the grammar, or ambiguous; the text says which rule.
    #[error("malformed head: {0}")]
    Malformed(&'static str),
    /// Both `content-length` and `transfer-encoding`: two hops may end the message at two places.
    #[error("content-length and transfer-encoding are both there")]
    TwoLengths,
    /// Over the limit of bytes.
    #[error("the head is larger than the limit")]
    TooLarge,
    /// Over the limit of fields.
    #[error("the head has more fields than the limit")]
    TooManyFields,
    /// A version other than 1.0 and 1.1.
    #[error("the version of HTTP is not supported")]
    Version,
    /// HTTP/1.0 where it is switched off.
    #[error("HTTP/1.0 is not accepted here")]
    Http10,
    /// The peer closed in the middle of a head.
    #[error("the peer closed in the middle of a head")]
    Closed,
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Io(#[source] io::Error),
}

impl HeadError {
    /// The status of the answer to a request with such a head; `None` where nobody is there to
    /// answer. After the answer the connection is closed.
    pub fn status(&self) -> Option<u16> {
        match self {
            HeadError::Malformed(_) | HeadError::TwoLengths => Some(400),
            HeadError::TooLarge | HeadError::TooManyFields => Some(431),
            HeadError::Version => Some(505),
            HeadError::Http10 => Some(426),
            HeadError::Closed | HeadError::Io(_) => None,
        }
    }
}
