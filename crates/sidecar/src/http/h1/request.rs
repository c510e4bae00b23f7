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
    /// What is wrong with the message although its lines are well formed: told when the head is
    /// whole.
    problem: Option<HeadError>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// Nothing yet.
    #[default]
    Start,
    Fields,
}

impl RequestParser {
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
            if self.stage == Stage::Start
                && let Some(&first) = rest.first()
                && first != b'\r'
                && !(limits.custom_methods && grammar::is_token(&[first])
                    || grammar::begins_known_method(first))
            {
                return Err(HeadError::Malformed("no method begins so"));
            }
            let Some(line) = self.lines.next(rest, limits.head_bytes)? else {
                return Ok(false);
            };
            *taken += line.len() + 2;
            match self.stage {
                // An old habit that RFC 9112, section 2.2, wants forgiven.
                Stage::Start if line.is_empty() => {}
                Stage::Start => {
                    self.request_line(line, head, limits)?;
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
        let (text, value) = match lines::field(line) {
            Err(error @ HeadError::Characters) => {
                self.keep(error);
                return Ok(());
            }
            field => field?,
        };
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
                    self.keep(HeadError::Authority("not a host and port"));
                }
                // The target's own authority rules (RFC 9112, section 3.2.2).
                if head.authority.is_empty() {
                    head.authority.extend_from_slice(value);
                }
                return Ok(());
            }
            Name::ContentLength => {
                if let Err(error) = self.framing.content_length(value) {
                    self.keep(error);
                }
                return Ok(());
            }
            Name::TransferEncoding => {
                // Where HTTP/1.0 is refused, that is what its client is told.
                let version = match limits.accept_http_10 {
                    true => head.version,
                    false => Version::Http11,
                };
                return match self.framing.transfer_encoding(value, version) {
                    Err(HeadError::Malformed(rule)) => Err(HeadError::Malformed(rule)),
                    Err(error) => {
                        self.keep(error);
                        Ok(())
                    }
                    Ok(()) => Ok(()),
                };
            }
            Name::Connection => self.framing.connection(value),
            _ => {}
        }
        head.headers.push_recognised(name, text, value);
        Ok(())
    }

    fn finish(&mut self, head: &mut RequestHead) -> Result<(), HeadError> {
        head.hostless = self.hosts == 0 && head.authority.is_empty();
        head.body = match (self.framing.chunked, self.framing.length) {
            (true, _) => BodyLength::Streamed,
            (false, Some(length)) => BodyLength::Sized(length),
            (false, None) => BodyLength::None,
        };
        if head.method == b"CONNECT" && !head.body.is_empty() {
            self.keep(match self.framing.chunked {
                true => HeadError::TransferEncoding("of CONNECT"),
                false => HeadError::Body,
            });
        }
        match self.problem.take() {
            Some(problem) => Err(problem),
            None => Ok(()),
        }
    }

    fn keep(&mut self, problem: HeadError) {
        let known = self.problem.as_ref().map_or(u8::MAX, HeadError::rank);
        if problem.rank() < known {
            self.problem = Some(problem);
        }
    }

    /// `method SP request-target SP HTTP-version`, with exactly these spaces.
    fn request_line(
        &mut self,
        line: &[u8],
        head: &mut RequestHead,
        limits: &Limits,
    ) -> Result<(), HeadError> {
        let malformed =
            HeadError::Malformed("the request line is not a method, a target and a version");
        let Some(first) = memchr::memchr(b' ', line) else {
            return Err(malformed);
        };
        let last = memchr::memrchr(b' ', line).filter(|&last| last > first);
        let last = match last {
            Some(last) => last,
            // HTTP/0.9 had no version.
            None if !limits.accept_http_10 => line.len(),
            None => return Err(malformed),
        };
        let (method, target) = (&line[..first], &line[first + 1..last]);
        let version = line.get(last + 1..).unwrap_or_default();
        if !grammar::is_token(method) {
            return Err(HeadError::Malformed("a method is not a token"));
        }
        if !limits.custom_methods && !grammar::is_known_method(method) {
            return Err(HeadError::Malformed("a method that is not known"));
        }
        match version_of(version) {
            Ok(version) => head.version = version,
            Err(HeadError::Version) => {
                head.version = Version::Http10;
                self.keep(HeadError::Version);
            }
            Err(_) if version.is_empty() && !limits.accept_http_10 => {
                head.version = Version::Http10;
            }
            Err(error) => return Err(error),
        }
        if !limits.accept_http_10 && head.version == Version::Http10 {
            self.problem = Some(HeadError::LowVersion);
        }
        head.method.extend_from_slice(method);
        if !grammar::is_request_target(target) {
            return Err(HeadError::Malformed(
                "the request target has a space, a control character or a byte over 127",
            ));
        }
        match request_target(target, head) {
            // A scheme that is none at all is the parser's business.
            Err(error @ HeadError::Malformed(_)) => return Err(error),
            Err(error) => self.keep(error),
            Ok(()) => {}
        }
        // HTTP/0.9 had no head: what follows is not to be read as one.
        if version.is_empty() {
            return Err(self.problem.take().unwrap_or(HeadError::LowVersion));
        }
        if limits.scheme_as_connection
            && head.scheme == "http"
            && target
                .get(..8)
                .is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"https://"))
        {
            self.keep(HeadError::Plaintext);
        }
        Ok(())
    }

    /// Whether the client means to keep the connection.
    pub fn persists(&self, version: Version) -> bool {
        self.framing.persists(version)
    }
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
            return Err(HeadError::Target("CONNECT without a host and port"));
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
            return Err(HeadError::Target("* is for OPTIONS alone"));
        }
        head.path.push(b'*');
        return Ok(());
    }
    let rest = match (target.get(..7), target.get(..8)) {
        (Some(scheme), _) if scheme.eq_ignore_ascii_case(b"http://") => &target[7..],
        (_, Some(scheme)) if scheme.eq_ignore_ascii_case(b"https://") => &target[8..],
        _ => {
            let scheme = target.iter().take_while(|byte| byte.is_ascii_alphabetic());
            let scheme = scheme.count();
            return Err(if scheme > 0 && target[scheme..].starts_with(b"://") {
                HeadError::Scheme
            } else {
                HeadError::Malformed("the request target is neither a path nor a URI")
            });
        }
    };
    let end = memchr::memchr2(b'/', b'?', rest).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if !grammar::is_uri_authority(authority) {
        return Err(HeadError::Malformed(
            "the URI's host has a character that none has",
        ));
    }
    if authority.is_empty() {
        return Err(HeadError::Target("the URI has no host"));
    }
    if !grammar::is_authority(authority) {
        return Err(HeadError::Authority("the URI's is not a host and port"));
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
    head.hostless = false;
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
