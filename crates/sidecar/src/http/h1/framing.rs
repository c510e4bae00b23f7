//! How long a body is, by the fields of its head (RFC 9112, section 6). Whatever two readers could
//! understand in two ways is refused.

use super::error::HeadError;
use super::grammar;
use crate::http::message::Version;

/// What the fields of a head say about framing and about the connection.
#[derive(Debug, Default)]
pub struct Framing {
    /// `content-length`
    pub length: Option<u64>,
    /// `transfer-encoding: chunked`
    pub chunked: bool,
    /// There is a `transfer-encoding`, whichever.
    coded: bool,
    close: bool,
    keep_alive: bool,
}

impl Framing {
    /// A `content-length` field.
    pub fn content_length(&mut self, value: &[u8]) -> Result<(), HeadError> {
        if self.length.is_some() {
            return Err(HeadError::Length("there twice"));
        }
        match grammar::decimal(value) {
            Some(length) => self.length = Some(length),
            // What is none still counts as one beside chunks.
            None if self.chunked => return Err(HeadError::TwoLengths),
            None => return Err(HeadError::Length("not a number")),
        }
        self.check()
    }

    /// A `transfer-encoding` field.
    pub fn transfer_encoding(&mut self, value: &[u8], version: Version) -> Result<(), HeadError> {
        if std::mem::replace(&mut self.coded, true) {
            return Err(HeadError::TransferEncoding("there twice"));
        }
        self.check()?;
        if !value.eq_ignore_ascii_case(b"chunked") {
            return Err(HeadError::TransferEncoding("other than chunked"));
        }
        if version == Version::Http10 {
            return Err(HeadError::Malformed("transfer-encoding in HTTP/1.0"));
        }
        self.chunked = true;
        Ok(())
    }

    fn check(&self) -> Result<(), HeadError> {
        if self.coded && self.length.is_some() {
            return Err(HeadError::TwoLengths);
        }
        Ok(())
    }

    /// A `connection` field.
    pub fn connection(&mut self, value: &[u8]) {
        self.close |= grammar::list_has(value, b"close");
        self.keep_alive |= grammar::list_has(value, b"keep-alive");
    }

    /// Whether the sender will keep the connection (RFC 9112, section 9.3).
    pub fn persists(&self, version: Version) -> bool {
        !self.close && (version != Version::Http10 || self.keep_alive)
    }
}
