//! HTTP/1 messages as they are on the wire: every header in its order and its case. Written for
//! the tests alone and independent of any codec that is under test.

use std::io::{BufRead, Read as _};

use anyhow::{Context as _, Result, bail, ensure};

/// The longest line that is read, so that a broken peer cannot fill the memory.
const LONGEST_LINE: u64 = 1 << 20;

/// A request's or response's head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The first line, without its end.
    pub start: String,
    /// Names and values as they came.
    pub headers: Vec<(String, String)>,
}

/// A whole message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The head.
    pub head: Head,
    /// The body, without its framing.
    pub body: Vec<u8>,
    /// The trailers of a chunked body.
    pub trailers: Vec<(String, String)>,
}

/// Whether a head that lacks a length means "no body" or "until the end of the connection".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// No length: no body (RFC 9112 section 6.3, rule 7).
    Request,
    /// No length: until the connection's end (rule 8).
    Response,
    /// No body whatever the head says: the answer to HEAD.
    ResponseToHead,
}

impl Head {
    /// The first value of a header, found without regard to case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let wanted = |header: &&(String, String)| header.0.eq_ignore_ascii_case(name);
        self.headers
            .iter()
            .find(wanted)
            .map(|(_, value)| value.as_str())
    }

    /// All values of a header, found without regard to case.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let wanted = move |header: &&(String, String)| header.0.eq_ignore_ascii_case(name);
        self.headers
            .iter()
            .filter(wanted)
            .map(|(_, value)| value.as_str())
    }

    /// Whether a header's comma-separated list has this token.
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.values(name)
            .flat_map(|value| value.split(','))
            .any(|item| {
                // Parameters, as in `upgrade;q=1`, are not part of the token.
                item.split(';')
                    .next()
                    .unwrap_or("")
                    .trim()
                    .eq_ignore_ascii_case(token)
            })
    }

    /// The status code, if this is a response's head.
    ///
    /// # Errors
    /// When the first line is no status line.
    pub fn status(&self) -> Result<u16> {
        let mut parts = self.start.split(' ');
        let version = parts.next().unwrap_or("");
        ensure!(
            version.starts_with("HTTP/1."),
            "not a status line: {:?}",
            self.start
        );
        parts
            .next()
            .and_then(|code| code.parse().ok())
            .with_context(|| self.start.clone())
    }
}

impl Message {
    /// The status code of a response.
    ///
    /// # Errors
    /// When the first line is no status line.
    pub fn status(&self) -> Result<u16> {
        self.head.status()
    }

    /// The body as text, with what is not UTF-8 replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON, which is what the echo servers answer.
    ///
    /// # Errors
    /// When it is none.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("not JSON: {}", self.text()))
    }
}

/// Reads a head. `None` is the end of the connection before its first byte.
///
/// # Errors
/// When the connection ends within, or what comes is not HTTP/1.
pub fn read_head(reader: &mut impl BufRead) -> Result<Option<Head>> {
    let Some(start) = read_line(reader)? else {
        return Ok(None);
    };
    let headers = read_headers(reader)?;
    Ok(Some(Head { start, headers }))
}

/// Reads the body that belongs to `head`, and its trailers.
///
/// # Errors
/// When the connection ends within, or the framing is broken.
pub fn read_body(reader: &mut impl BufRead, head: Head, kind: Kind) -> Result<Message> {
    let mut body = Vec::new();
    let mut trailers = Vec::new();
    let status = head.status().ok();
    let bodiless = status.is_some_and(|code| code < 200 || code == 204 || code == 304);
    if bodiless || kind == Kind::ResponseToHead {
        return Ok(Message {
            head,
            body,
            trailers,
        });
    }
    if head.has_token("transfer-encoding", "chunked") {
        while let Some(length) = read_chunk_length(reader)? {
            read_exactly(reader, length, &mut body)?;
            let end = read_line(reader)?;
            ensure!(
                end.as_deref() == Some(""),
                "a chunk of {length} ends with {end:?}"
            );
        }
        trailers = read_headers(reader)?;
    } else if let Some(length) = head.header("content-length") {
        let length = length
            .parse()
            .with_context(|| format!("content-length {length:?}"))?;
        read_exactly(reader, length, &mut body)?;
    } else if kind == Kind::Response {
        reader
            .read_to_end(&mut body)
            .context("read a body to the connection's end")?;
    }
    Ok(Message {
        head,
        body,
        trailers,
    })
}

fn read_headers(reader: &mut impl BufRead) -> Result<Vec<(String, String)>> {
    let mut headers = Vec::new();
    loop {
        let line = read_line(reader)?.context("the connection ended within a head")?;
        if line.is_empty() {
            return Ok(headers);
        }
        let (name, value) = line
            .split_once(':')
            .with_context(|| format!("header {line:?}"))?;
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
}

/// The length of the next chunk; `None` for the last.
fn read_chunk_length(reader: &mut impl BufRead) -> Result<Option<u64>> {
    let line = read_line(reader)?.context("the connection ended before the last chunk")?;
    let digits = line.split(';').next().unwrap_or("").trim();
    let length = u64::from_str_radix(digits, 16).with_context(|| format!("chunk {line:?}"))?;
    Ok(Some(length).filter(|length| *length > 0))
}

fn read_exactly(reader: &mut impl BufRead, length: u64, body: &mut Vec<u8>) -> Result<()> {
    let read = reader
        .take(length)
        .read_to_end(body)
        .context("read a body")?;
    ensure!(
        read as u64 == length,
        "the connection ended {read} bytes into {length}"
    );
    Ok(())
}

/// A line without its CRLF; `None` at the connection's end.
fn read_line(reader: &mut impl BufRead) -> Result<Option<String>> {
    let mut line = Vec::new();
    let read = reader
        .take(LONGEST_LINE)
        .read_until(b'\n', &mut line)
        .context("read a line")?;
    if read == 0 {
        return Ok(None);
    }
    let text = String::from_utf8_lossy(&line).into_owned();
    match text.strip_suffix("\r\n") {
        Some(line) => Ok(Some(line.to_owned())),
        None => bail!("a line without CRLF: {text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_framing_and_refuses_broken_ones() {
        let cases: &[(&str, Kind, Option<&str>)] = &[
            ("GET / HTTP/1.1\r\n\r\n", Kind::Request, Some("")),
            (
                "PUT / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcd",
                Kind::Request,
                Some("abc"),
            ),
            (
                "HTTP/1.1 200 OK\r\n\r\nto the end",
                Kind::Response,
                Some("to the end"),
            ),
            ("HTTP/1.1 204 No\r\n\r\nnext", Kind::Response, Some("")),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
                Kind::ResponseToHead,
                Some(""),
            ),
            (
                "HTTP/1.1 200 OK\r\ntransfer-Encoding: Chunked\r\n\r\n\
                 3;x=y\r\nabc\r\n1\r\nd\r\n0\r\nT: v\r\n\r\n",
                Kind::Response,
                Some("abcd"),
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
                Kind::Response,
                None,
            ),
            (
                "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd",
                Kind::Request,
                None,
            ),
            ("GET / HTTP/1.1\n\n", Kind::Request, None),
            ("GET / HTTP/1.1\r\nHost: a\r\n", Kind::Request, None),
        ];
        for (bytes, kind, expected) in cases {
            let mut reader = bytes.as_bytes();
            let message = read_head(&mut reader)
                .and_then(|head| read_body(&mut reader, head.context("empty")?, *kind));
            let text = message.ok().map(|message| message.text());
            assert_eq!(text.as_deref(), *expected, "{bytes:?}");
        }
    }

    #[test]
    fn keeps_order_and_case() {
        let bytes = "GET / HTTP/1.1\r\nX-B: 1\r\nx-a:2\r\nX-b:  3 \r\n\r\n";
        let head = read_head(&mut bytes.as_bytes()).unwrap().unwrap();
        let headers: Vec<_> = head
            .headers
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        assert_eq!(headers, ["X-B=1", "x-a=2", "X-b=3"]);
        assert_eq!(head.values("x-b").collect::<Vec<_>>(), ["1", "3"]);
    }
}
