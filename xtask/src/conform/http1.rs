//! HTTP/1 messages out of the bytes that have come so far. Written for the judge alone and
//! independent of the codecs that it judges; lenient, since what is odd is to be shown.

/// A message and its framing.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Message {
    /// The first line.
    pub(super) start: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    pub(super) trailers: Vec<(String, String)>,
}

/// How far a message has come.
#[derive(Debug, PartialEq)]
pub(super) enum Parsed {
    /// It is whole, and this long.
    Whole(Message, usize),
    /// More must come. The head, if that is whole, and its length.
    Partly(Option<(Message, usize)>),
    /// It is none.
    Broken(String),
}

/// What a message without a length means.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    Request,
    Response,
    ResponseToHead,
}

impl Message {
    pub(super) fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let of_name = move |(header, _): &&(String, String)| header.eq_ignore_ascii_case(name);
        self.headers
            .iter()
            .filter(of_name)
            .map(|(_, value)| value.as_str())
    }

    /// The status of a response, 0 if this is none.
    pub(super) fn status(&self) -> u16 {
        let code = self.start.split(' ').nth(1);
        code.and_then(|code| code.parse().ok()).unwrap_or(0)
    }

    pub(super) fn is_chunked(&self) -> bool {
        self.values("transfer-encoding")
            .any(|value| value.to_ascii_lowercase().contains("chunked"))
    }
}

/// Parses the message at the beginning of `bytes`; `ended` when nothing more will come.
pub(super) fn parse(bytes: &[u8], kind: Kind, ended: bool) -> Parsed {
    let Some((head, mut at)) = head(bytes) else {
        return Parsed::Partly(None);
    };
    let mut message = match head {
        Ok(message) => message,
        Err(problem) => return Parsed::Broken(problem),
    };
    let status = message.status();
    let response = kind != Kind::Request;
    let bodiless = response && (status < 200 || status == 204 || status == 304);
    if kind == Kind::ResponseToHead || bodiless {
        return Parsed::Whole(message, at);
    }
    if message.is_chunked() {
        let head_end = at;
        loop {
            let Some((size_line, after)) = line(bytes, at) else {
                return Parsed::Partly(Some((message, head_end)));
            };
            let digits = size_line.split(';').next().unwrap_or_default().trim();
            let Ok(size) = usize::from_str_radix(digits, 16) else {
                return Parsed::Broken(format!("chunk {size_line:?}"));
            };
            at = after;
            if size == 0 {
                break;
            }
            let Some(data) = bytes.get(at..at.saturating_add(size)) else {
                message.body.extend_from_slice(&bytes[at..]);
                return Parsed::Partly(Some((message, head_end)));
            };
            message.body.extend_from_slice(data);
            match line(bytes, at + size) {
                Some((end, after)) if end.is_empty() => at = after,
                Some((end, _)) => return Parsed::Broken(format!("a chunk ends with {end:?}")),
                None => return Parsed::Partly(Some((message, head_end))),
            }
        }
        loop {
            let Some((trailer, after)) = line(bytes, at) else {
                return Parsed::Partly(Some((message, head_end)));
            };
            at = after;
            if trailer.is_empty() {
                return Parsed::Whole(message, at);
            }
            match field(&trailer) {
                Some(field) => message.trailers.push(field),
                None => return Parsed::Broken(format!("trailer {trailer:?}")),
            }
        }
    }
    let length = message
        .values("content-length")
        .next()
        .map(str::parse::<usize>);
    match length {
        Some(Ok(length)) => match bytes.get(at..at.saturating_add(length)) {
            Some(body) => {
                message.body = body.to_vec();
                Parsed::Whole(message, at + length)
            }
            None => {
                message.body = bytes[at..].to_vec();
                Parsed::Partly(Some((message, at)))
            }
        },
        Some(Err(_)) => Parsed::Broken("content-length".to_owned()),
        None if kind == Kind::Request => Parsed::Whole(message, at),
        None => {
            message.body = bytes[at..].to_vec();
            if ended {
                Parsed::Whole(message, bytes.len())
            } else {
                Parsed::Partly(Some((message, at)))
            }
        }
    }
}

/// The head and where it ends.
fn head(bytes: &[u8]) -> Option<(Result<Message, String>, usize)> {
    let (start, mut at) = line(bytes, 0)?;
    let mut message = Message {
        start,
        ..Message::default()
    };
    loop {
        let (text, after) = line(bytes, at)?;
        at = after;
        if text.is_empty() {
            return Some((Ok(message), at));
        }
        match field(&text) {
            Some(field) => message.headers.push(field),
            None => return Some((Err(format!("header {text:?}")), at)),
        }
    }
}

fn field(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once(':')?;
    Some((name.to_owned(), value.trim().to_owned()))
}

/// A line without its end, and where the next one begins.
fn line(bytes: &[u8], from: usize) -> Option<(String, usize)> {
    let rest = bytes.get(from..)?;
    let end = rest.iter().position(|byte| *byte == b'\n')?;
    let text = &rest[..end];
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    let text = match std::str::from_utf8(text) {
        Ok(text) => text.to_owned(),
        Err(_) => text.escape_ascii().to_string(),
    };
    Some((text, from + end + 1))
}

#[cfg(test)]
#[allow(clippy::panic)]
mod tests {
    use super::{Kind, Parsed, parse};

    #[test]
    fn takes_messages_as_they_come() {
        /// Bytes, what they are, whether they are all, and the body and the length of the message.
        type Case = (&'static str, Kind, bool, Option<(&'static str, usize)>);
        let cases: &[Case] = &[
            (
                "GET / HTTP/1.1\r\nA: b\r\n\r\nx",
                Kind::Request,
                false,
                Some(("", 24)),
            ),
            ("GET / HTTP/1.1\r\nA: b\r\n", Kind::Request, false, None),
            (
                "P / HTTP/1.1\r\ncontent-length: 2\r\n\r\nab",
                Kind::Request,
                false,
                Some(("ab", 37)),
            ),
            ("HTTP/1.1 200 OK\r\n\r\nab", Kind::Response, false, None),
            (
                "HTTP/1.1 200 OK\r\n\r\nab",
                Kind::Response,
                true,
                Some(("ab", 21)),
            ),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nT: x\r\n\r\n",
                Kind::Response,
                false,
                Some(("ab", 65)),
            ),
        ];
        for (bytes, kind, ended, expected) in cases {
            let found = match parse(bytes.as_bytes(), *kind, *ended) {
                Parsed::Whole(message, length) => {
                    Some((String::from_utf8_lossy(&message.body).into_owned(), length))
                }
                Parsed::Partly(_) => None,
                Parsed::Broken(problem) => panic!("{bytes:?}: {problem}"),
            };
            let found = found
                .as_ref()
                .map(|(body, length)| (body.as_str(), *length));
            assert_eq!(found, *expected, "{bytes:?}");
        }
    }
}
