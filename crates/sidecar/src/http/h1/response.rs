//! The head of a response, parsed line by line as it comes (RFC 9112, sections 4 to 6).

use super::Limits;
use super::error::HeadError;
use super::framing::Framing;
use super::grammar;
use super::lines::{self, Lines};
use super::request::version_of;
use crate::http::headers::Name;
use crate::http::message::{BodyLength, ResponseHead, Version};

/// What a response's framing depends on besides its head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Asked {
    /// Any other method.
    #[default]
    Body,
    /// HEAD: no body follows whatever the head says.
    Head,
    /// CONNECT: after 2xx a tunnel follows.
    Connect,
}

impl Asked {
    /// By the request's method.
    pub fn by(method: &[u8]) -> Self {
        match method {
            b"HEAD" => Asked::Head,
            b"CONNECT" => Asked::Connect,
            _ => Asked::Body,
        }
    }

    /// Whether a response with this status has no body by its nature (RFC 9112, section 6.3).
    pub fn is_bodiless(self, status: u16) -> bool {
        self == Asked::Head
            || status < 200
            || matches!(status, 204 | 304)
            || (self == Asked::Connect && status < 300)
    }
}

/// The parser of one head; see [`super::request::RequestParser`].
#[derive(Debug, Default)]
pub struct ResponseParser {
    lines: Lines,
    framing: Framing,
    in_fields: bool,
    fields: usize,
}

impl ResponseParser {
    /// Whether bytes of a head were taken.
    pub fn has_begun(&self) -> bool {
        self.in_fields
    }

    /// Takes the complete lines of `input`; adds their bytes to `taken`. True when the head is whole.
    pub fn parse(
        &mut self,
        input: &[u8],
        taken: &mut usize,
        head: &mut ResponseHead,
        asked: Asked,
        limits: &Limits,
    ) -> Result<bool, HeadError> {
        while let Some(line) = self.lines.next(&input[*taken..], limits.head_bytes)? {
            *taken += line.len() + 2;
            if !self.in_fields {
                status_line(line, head)?;
                self.in_fields = true;
            } else if line.is_empty() {
                self.finish(head, asked);
                return Ok(true);
            } else {
                self.field(line, head, limits)?;
            }
        }
        Ok(false)
    }

    fn field(
        &mut self,
        line: &[u8],
        head: &mut ResponseHead,
        limits: &Limits,
    ) -> Result<(), HeadError> {
        let (text, value) = lines::field(line)?;
        if self.fields == limits.headers {
            return Err(HeadError::TooManyFields);
        }
        self.fields += 1;
        if self.fields == 1 {
            head.title_case = text[0].is_ascii_uppercase();
        }
        let name = Name::recognise(text);
        match name {
            Name::ContentLength => self.framing.content_length(value)?,
            Name::TransferEncoding => {
                return self.framing.transfer_encoding(value, head.version);
            }
            Name::Connection => self.framing.connection(value),
            _ => {}
        }
        head.headers.push_recognised(name, text, value);
        Ok(())
    }

    fn finish(&mut self, head: &mut ResponseHead, asked: Asked) {
        if asked.is_bodiless(head.status) {
            head.body = BodyLength::None;
            return;
        }
        head.body = match (self.framing.chunked, self.framing.length) {
            (true, _) => BodyLength::Streamed,
            (false, Some(length)) => {
                head.headers.remove(Name::ContentLength);
                BodyLength::Sized(length)
            }
            (false, None) => BodyLength::Streamed,
        };
    }

    /// Whether a body of unknown length is chunked; else it ends with the connection.
    pub fn is_chunked(&self) -> bool {
        self.framing.chunked
    }

    /// Whether the server means to keep the connection.
    pub fn persists(&self, version: Version) -> bool {
        self.framing.persists(version)
    }
}

/// `HTTP-version SP status-code SP [ reason-phrase ]`; the last space is often forgotten.
fn status_line(line: &[u8], head: &mut ResponseHead) -> Result<(), HeadError> {
    let malformed = HeadError::Malformed("the status line is not a version and a status");
    let Some((version, rest)) = line.split_at_checked(8) else {
        return Err(malformed);
    };
    head.version = version_of(version)?;
    let (digits, reason) = match rest {
        [b' ', a, b, c] => ([*a, *b, *c], &[][..]),
        [b' ', a, b, c, b' ', reason @ ..] => ([*a, *b, *c], reason),
        _ => return Err(malformed),
    };
    let status = grammar::decimal(&digits).and_then(|status| u16::try_from(status).ok());
    head.status = status.filter(|&status| status >= 100).ok_or(malformed)?;
    if !grammar::is_text(reason) {
        return Err(HeadError::Malformed(
            "a reason phrase has a control character",
        ));
    }
    head.reason.extend_from_slice(reason);
    Ok(())
}

/// Empties a head for the next message and keeps its memory.
pub fn clear(head: &mut ResponseHead) {
    head.version = Version::Http11;
    head.status = 0;
    head.reason.clear();
    head.headers.clear();
    head.body = BodyLength::None;
    head.title_case = false;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &[u8], asked: Asked) -> Result<ResponseHead, String> {
        let mut results = Vec::new();
        // Whole, and split at every byte.
        for split in 0..=text.len() {
            let mut head = ResponseHead::new();
            let mut parser = ResponseParser::default();
            let mut taken = 0;
            let mut result = Ok(false);
            for end in [split, text.len()] {
                if matches!(result, Ok(false)) {
                    result = parser.parse(
                        &text[..end],
                        &mut taken,
                        &mut head,
                        asked,
                        &Limits::default(),
                    );
                }
            }
            results.push(match result {
                Ok(true) if taken == text.len() => Ok(format!("{head:?}")),
                Ok(_) => Err("incomplete".to_owned()),
                Err(error) => Err(error.to_string()),
            });
            if split == text.len() {
                assert!(results.iter().all(|r| *r == results[0]), "{results:?}");
                return results.remove(0).map(|_| head);
            }
        }
        unreachable!()
    }

    #[test]
    fn bodies_by_status_method_and_fields() {
        use BodyLength::{None, Sized, Streamed};
        for (text, asked, body) in [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
                Asked::Body,
                Sized(5),
            ),
            (
                "HTTP/1.1 200\r\nTransfer-Encoding: Chunked\r\n\r\n",
                Asked::Body,
                Streamed,
            ),
            ("HTTP/1.1 200 \r\n\r\n", Asked::Body, Streamed),
            (
                "HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n",
                Asked::Body,
                Sized(0),
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
                Asked::Head,
                None,
            ),
            (
                "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
                Asked::Body,
                None,
            ),
            ("HTTP/1.1 204 No Content\r\n\r\n", Asked::Body, None),
            ("HTTP/1.1 100 Continue\r\n\r\n", Asked::Body, None),
            (
                "HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n",
                Asked::Body,
                None,
            ),
            ("HTTP/1.1 200 OK\r\n\r\n", Asked::Connect, None),
            (
                "HTTP/1.1 403 No\r\nContent-Length: 1\r\n\r\n",
                Asked::Connect,
                Sized(1),
            ),
            (
                "HTTP/1.1 999 été\r\nX:\r\nContent-Length:\t7 \r\n\r\n",
                Asked::Body,
                Sized(7),
            ),
        ] {
            let head = parse(text.as_bytes(), asked).unwrap_or_else(|e| panic!("{text:?}: {e}"));
            assert_eq!(head.body, body, "{text:?}");
            let kept = head.headers.contains(Name::ContentLength);
            assert_eq!(kept, body == None && text.contains("-Length"), "{text:?}");
            assert!(!head.headers.contains(Name::TransferEncoding));
        }
    }

    #[test]
    fn what_is_ambiguous_or_malformed_is_refused() {
        for text in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX : y\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: y\r\n z\r\n\r\n",
            "HTTP/1.1 200 OK\nX: y\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: y\n\r\n",
            "HTTP/1.1 200 OK\r\nX: y\0\r\n\r\n",
            "HTTP/1.1 200 O\rK\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 2000 OK\r\n\r\n",
            "HTTP/1.1 099 OK\r\n\r\n",
            "HTTP/1.1  200 OK\r\n\r\n",
            "HTTP/2.0 200 OK\r\n\r\n",
            "ICY 200 OK\r\n\r\n",
            "\r\nHTTP/1.1 200 OK\r\n\r\n",
        ] {
            assert!(parse(text.as_bytes(), Asked::Body).is_err(), "{text:?}");
        }
    }
}
