//! The head of a request, parsed line by line as it comes (RFC 9112, sections 3 and 5).

use super::Limits;
use super::error::HeadError;
use super::framing::Framing;
use super::grammar;
use super::lines::{self, Lines};
use crate::http::headers::Name;
use crate::http::message::{BodyLength, RequestHead, Version};

/// The parser of one head. What it has understood is in the head already, so a head that comes in
/// pieces is read once.
#[derive(Debug, Default)]
pub struct RequestParser {
    lines: Lines,
    framing: Framing,
    stage: Stage,
    hosts: u32,
    fields: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// Nothing yet.
    #[default]
    Start,
    /// One empty line came before the request line: an old habit that RFC 9112, section 2.2, wants
    /// forgiven.
    AfterEmptyLine,
    Fields,
}

impl RequestParser {
    /// Whether bytes of a head were taken.
    pub fn has_begun(&self) -> bool {
        self.stage == Stage::Fields
    }

    /// Takes the complete lines of `input`; adds their bytes to `taken`. True when the head is whole.
    pub fn parse(
        &mut self,
        input: &[u8],
        taken: &mut usize,
        head: &mut RequestHead,
        limits: &Limits,
    ) -> Result<bool, HeadError> {
        loop {
            let rest = &input[*taken..];
            // Who speaks another protocol is told at once, not after a timeout.
            if self.stage != Stage::Fields
                && let Some(&first) = rest.first()
                && first != b'\r'
                && !grammar::is_token(&[first])
            {
                return Err(HeadError::Malformed("a method is not a token"));
            }
            let Some(line) = self.lines.next(rest, limits.head_bytes)? else {
                return Ok(false);
            };
            *taken += line.len() + 2;
            match self.stage {
                Stage::Start if line.is_empty() => self.stage = Stage::AfterEmptyLine,
                Stage::Start | Stage::AfterEmptyLine => {
                    request_line(line, head, limits)?;
                    self.stage = Stage::Fields;
                }
                Stage::Fields if line.is_empty() => {
                    self.finish(head)?;
                    return Ok(true);
                }
                Stage::Fields => self.field(line, head, limits)?,
            }
        }
    }

    fn field(
        &mut self,
        line: &[u8],
        head: &mut RequestHead,
        limits: &Limits,
    ) -> Result<(), HeadError> {
        let (text, value) = lines::field(line)?;
        if self.fields == limits.headers {
            return Err(HeadError::TooManyFields);
        }
        self.fields += 1;
        let name = Name::recognise(text);
        if self.fields == 1 || name == Name::Host {
            head.title_case = text[0].is_ascii_uppercase();
        }
        match name {
            Name::Host => {
                self.hosts += 1;
                if self.hosts > 1 {
                    return Err(HeadError::Malformed("host is there twice"));
                }
                if !grammar::is_authority(value) {
                    return Err(HeadError::Malformed("host is not a host and port"));
                }
                // The target's own authority rules (RFC 9112, section 3.2.2).
                if head.authority.is_empty() {
                    head.authority.extend_from_slice(value);
                }
                return Ok(());
            }
            Name::ContentLength => return self.framing.content_length(value),
            Name::TransferEncoding => return self.framing.transfer_encoding(value, head.version),
            Name::Connection => self.framing.connection(value),
            _ => {}
        }
        head.headers.push_recognised(name, text, value);
        Ok(())
    }

    fn finish(&mut self, head: &mut RequestHead) -> Result<(), HeadError> {
        if self.hosts == 0 && head.version == Version::Http11 {
            return Err(HeadError::Malformed("host is missing"));
        }
        head.body = match (self.framing.chunked, self.framing.length) {
            (true, _) => BodyLength::Streamed,
            (false, Some(length)) => BodyLength::Sized(length),
            (false, None) => BodyLength::None,
        };
        if head.method == b"CONNECT" && !head.body.is_empty() {
            return Err(HeadError::Malformed("CONNECT with a body"));
        }
        Ok(())
    }

    /// Whether the client means to keep the connection.
    pub fn persists(&self, version: Version) -> bool {
        self.framing.persists(version)
    }
}

/// `method SP request-target SP HTTP-version`, with exactly these spaces.
fn request_line(line: &[u8], head: &mut RequestHead, limits: &Limits) -> Result<(), HeadError> {
    let malformed =
        HeadError::Malformed("the request line is not a method, a target and a version");
    let Some(first) = memchr::memchr(b' ', line) else {
        return Err(malformed);
    };
    let Some(last) = memchr::memrchr(b' ', line).filter(|&last| last > first) else {
        return Err(malformed);
    };
    let (method, target, version) = (&line[..first], &line[first + 1..last], &line[last + 1..]);
    if !grammar::is_token(method) {
        return Err(HeadError::Malformed("a method is not a token"));
    }
    head.version = version_of(version)?;
    if head.version == Version::Http10 && !limits.accept_http_10 {
        return Err(HeadError::Http10);
    }
    head.method.extend_from_slice(method);
    if !grammar::is_target(target) {
        return Err(HeadError::Malformed(
            "the request target has a space, a control character or a fragment",
        ));
    }
    request_target(target, head)
}

/// The version that a head names.
pub fn version_of(text: &[u8]) -> Result<Version, HeadError> {
    match text {
        b"HTTP/1.1" => Ok(Version::Http11),
        b"HTTP/1.0" => Ok(Version::Http10),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Err(HeadError::Version)
        }
        _ => Err(HeadError::Malformed("the version is not one of HTTP")),
    }
}

/// The four forms of RFC 9112, section 3.2.
fn request_target(target: &[u8], head: &mut RequestHead) -> Result<(), HeadError> {
    if head.method == b"CONNECT" {
        let has_port = target
            .rsplit(|&b| b == b':')
            .next()
            .is_some_and(|port| port.len() < target.len() && !port.is_empty());
        if !has_port || target.ends_with(b"]") || !grammar::is_authority(target) {
            return Err(HeadError::Malformed("CONNECT without a host and port"));
        }
        head.authority.extend_from_slice(target);
        return Ok(());
    }
    if target[0] == b'/' {
        head.path.extend_from_slice(target);
        return Ok(());
    }
    if target == b"*" {
        if head.method != b"OPTIONS" {
            return Err(HeadError::Malformed("the target * is for OPTIONS alone"));
        }
        head.path.push(b'*');
        return Ok(());
    }
    let rest = match (target.get(..7), target.get(..8)) {
        (Some(scheme), _) if scheme.eq_ignore_ascii_case(b"http://") => &target[7..],
        (_, Some(scheme)) if scheme.eq_ignore_ascii_case(b"https://") => &target[8..],
        _ => {
            return Err(HeadError::Malformed(
                "the request target is neither a path nor an http or https URI",
            ));
        }
    };
    let end = memchr::memchr2(b'/', b'?', rest).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if authority.is_empty() || !grammar::is_authority(authority) {
        return Err(HeadError::Malformed(
            "the URI's host is missing or malformed",
        ));
    }
    head.authority.extend_from_slice(authority);
    match path.first() {
        // RFC 9112, section 3.2.4: OPTIONS of a URI without a path asks about the whole server.
        None if head.method == b"OPTIONS" => head.path.push(b'*'),
        Some(b'/') => {}
        _ => head.path.push(b'/'),
    }
    head.path.extend_from_slice(path);
    Ok(())
}

/// Empties a head for the next message and keeps its memory.
pub fn clear(head: &mut RequestHead, scheme: &'static str) {
    head.version = Version::Http11;
    head.method.clear();
    head.scheme = scheme;
    head.authority.clear();
    head.path.clear();
    head.protocol = None;
    head.headers.clear();
    head.body = BodyLength::None;
    head.title_case = false;
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
