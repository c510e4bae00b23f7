//! Why no request came out of a connection.

use std::io;

/// Why a head was refused, or never came.
#[derive(Debug, thiserror::Error)]
pub enum HeadError {
    /// Not by the grammar, or ambiguous; the text says which rule.
    #[error("malformed head: {0}")]
    Malformed(&'static str),
    /// A field value has a control character.
    #[error("malformed head: a field value has a control character")]
    Characters,
    /// The target is none; the text says which rule.
    #[error("malformed target: {0}")]
    Target(&'static str),
    /// A URI whose scheme is neither http nor https.
    #[error("the target's scheme is neither http nor https")]
    Scheme,
    /// An https URI on a connection without TLS, whose client says what happened to whom.
    #[error("an https URI on a connection without TLS")]
    Plaintext,
    /// A host that is none; the text says which rule.
    #[error("malformed host: {0}")]
    Authority(&'static str),
    /// CONNECT with a body.
    #[error("CONNECT with a body")]
    Body,
    /// A length that is none; the text says which rule.
    #[error("content-length is {0}")]
    Length(&'static str),
    /// A coding that we do not know.
    #[error("transfer-encoding: {0}")]
    TransferEncoding(&'static str),
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
    /// Less than HTTP/1.1, or no version at all, where that is switched off.
    #[error("only HTTP/1.1 is accepted here")]
    LowVersion,
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
            HeadError::Malformed(_)
            | HeadError::Characters
            | HeadError::Target(_)
            | HeadError::Scheme
            | HeadError::Authority(_)
            | HeadError::Body
            | HeadError::Length(_)
            | HeadError::TwoLengths => Some(400),
            HeadError::Plaintext => Some(403),
            HeadError::TransferEncoding(_) => Some(501),
            HeadError::TooLarge | HeadError::TooManyFields => Some(431),
            HeadError::Version => Some(505),
            HeadError::LowVersion => Some(426),
            HeadError::Closed | HeadError::Io(_) => None,
        }
    }

    /// `%RESPONSE_CODE_DETAILS%`, Envoy's.
    pub fn details(&self) -> &'static str {
        match self {
            HeadError::Malformed(_)
            | HeadError::Length(_)
            | HeadError::Version
            | HeadError::Io(_) => "http1.codec_error",
            HeadError::Characters => "http1.invalid_characters",
            HeadError::Target(_) => "http1.invalid_url",
            HeadError::Scheme => "http1.invalid_scheme",
            HeadError::Plaintext => "http1.https_url_on_plaintext_connection",
            HeadError::Authority(_) => "http.invalid_authority",
            HeadError::Body => "http1.body_disallowed",
            HeadError::TransferEncoding(_) => "http1.invalid_transfer_encoding",
            HeadError::TwoLengths => "http1.content_length_and_chunked_not_allowed",
            HeadError::TooLarge => "http1.headers_too_large",
            HeadError::TooManyFields => "http1.too_many_headers",
            HeadError::LowVersion => "low_version",
            HeadError::Closed => "downstream_remote_disconnect",
        }
    }

    /// Whether the answer is in the version that the head says: as with Envoy only where the head is
    /// whole, and not about that version.
    pub(super) fn is_told_in_its_version(&self) -> bool {
        let other = matches!(
            self,
            HeadError::LowVersion | HeadError::Version | HeadError::Length(_)
        );
        !other && self.rank() > 1
    }

    /// Of several things that are wrong with a head whose lines are well formed, Envoy tells the one
    /// with the lowest rank.
    pub(super) fn rank(&self) -> u8 {
        match self {
            HeadError::Characters => 1,
            HeadError::Body => 2,
            HeadError::TwoLengths => 3,
            HeadError::Length(_) => 4,
            HeadError::TransferEncoding(_) => 5,
            HeadError::Target(_) | HeadError::Scheme | HeadError::Plaintext => 6,
            HeadError::LowVersion => 7,
            HeadError::Authority(_) => 8,
            HeadError::Version => 9,
            _ => 0,
        }
    }
}
