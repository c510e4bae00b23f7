//! Lines that end with CRLF, and the fields on them.

use super::error::HeadError;
use super::grammar;

/// Finds lines in input that comes piece by piece; no byte is looked at twice.
#[derive(Debug, Default)]
pub struct Lines {
    /// How much of the present line was searched already.
    searched: usize,
    /// Bytes of the lines before it.
    used: usize,
}

impl Lines {
    /// The first line of `input`, without its CRLF; `None` if more bytes are needed. The caller
    /// takes the line and its CRLF off the input before it asks again. `limit` is for all lines
    /// together.
    pub fn next<'a>(
        &mut self,
        input: &'a [u8],
        limit: usize,
    ) -> Result<Option<&'a [u8]>, HeadError> {
        let Some(at) = memchr::memchr(b'\n', &input[self.searched..]) else {
            self.searched = input.len();
            return if self.used + input.len() > limit {
                Err(HeadError::TooLarge)
            } else {
                Ok(None)
            };
        };
        let end = self.searched + at;
        self.used += end + 1;
        self.searched = 0;
        if self.used > limit {
            return Err(HeadError::TooLarge);
        }
        match input[..end].split_last() {
            Some((b'\r', line)) => Ok(Some(line)),
            _ => Err(HeadError::Malformed("a line ends with LF alone")),
        }
    }
}

/// `field-name ":" OWS field-value OWS` (RFC 9112, section 5).
pub fn field(line: &[u8]) -> Result<(&[u8], &[u8]), HeadError> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(HeadError::Malformed("a field is folded over two lines"));
    }
    let colon = memchr::memchr(b':', line).ok_or(HeadError::Malformed("a field has no colon"))?;
    let name = &line[..colon];
    if !grammar::is_token(name) {
        return Err(HeadError::Malformed("a field name is not a token"));
    }
    if name.len() > usize::from(u16::MAX) {
        return Err(HeadError::TooLarge);
    }
    let value = grammar::trim(&line[colon + 1..]);
    if !grammar::is_text(value) {
        return Err(HeadError::Characters);
    }
    Ok((name, value))
}
