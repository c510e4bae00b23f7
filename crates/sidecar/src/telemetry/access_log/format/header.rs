//! `REQ`, `RESP`, `TRAILER` and what else is taken from the head of a request.

use super::parse::FormatError;
use super::text::text;
use crate::http::headers::{Headers, Name};
use crate::http::message::RequestHead;

/// The name of a header, recognised once.
#[derive(Debug)]
pub(super) struct Header {
    known: Name,
    /// In lower case.
    pub(super) text: Box<[u8]>,
}

/// Reads `NAME` or `NAME?OTHER`.
pub(super) fn headers(
    operator: &'static str,
    argument: Option<&str>,
) -> Result<(Header, Option<Header>), FormatError> {
    let argument = argument
        .filter(|argument| !argument.is_empty())
        .ok_or(FormatError::NeedsArgument(operator))?;
    let (first, second) = match argument.split_once('?') {
        Some((first, second)) => (first, Some(second)),
        None => (argument, None),
    };
    if first.is_empty() || second.is_some_and(|name| name.is_empty() || name.contains('?')) {
        return Err(FormatError::Argument {
            operator,
            argument: argument.to_owned(),
            reason: "must be a header, or two with a ? between them",
        });
    }
    Ok((Header::new(first), second.map(Header::new)))
}

pub(super) fn either(
    first: &Header,
    second: &Option<Header>,
    out: &mut Vec<u8>,
    write: impl Fn(&Header, &mut Vec<u8>) -> bool,
) -> bool {
    write(first, out) || second.as_ref().is_some_and(|second| write(second, out))
}

impl Header {
    pub(super) fn new(name: &str) -> Header {
        let text = name.to_ascii_lowercase().into_bytes().into_boxed_slice();
        Header {
            known: Name::recognise(&text),
            text,
        }
    }

    pub(super) fn of_request(&self, request: &RequestHead, out: &mut Vec<u8>) -> bool {
        match &*self.text {
            b":method" => text(&request.method, out),
            b":path" => text(&request.path, out),
            b":authority" | b"host" => text(&request.authority, out),
            b":scheme" => text(request.scheme.as_bytes(), out),
            b":protocol" => request.protocol.as_ref().is_some_and(|p| text(p, out)),
            _ => self.of_fields(&request.headers, out),
        }
    }

    pub(super) fn of_fields(&self, fields: &Headers, out: &mut Vec<u8>) -> bool {
        let value = match self.known {
            Name::Other => fields.named(&self.text).next(),
            known => fields.first(known),
        };
        value.is_some_and(|value| {
            out.extend_from_slice(value);
            true
        })
    }
}
