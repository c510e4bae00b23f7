//! Bodies as they come: sized, chunked, or until the connection ends (RFC 9112, sections 6 and 7).

use super::Limits;
use super::error::HeadError;
use super::grammar;
use super::lines::{self, Lines};
use crate::http::error::StreamError;
use crate::http::headers::{Headers, Name};

/// A chunk's size with its extensions: longer lines are refused.
const CHUNK_LINE: usize = 1024;
/// Extensions of all chunks of one body: nobody uses them but to make us work.
const EXTENSIONS: usize = 16 * 1024;

/// What to do with the input next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// So many bytes of framing: take them off the input and ask again.
    Skip(usize),
    /// So many bytes of the body: hand them on, take off what was used, and say so with
    /// [`Decoder::consumed`].
    Data(usize),
    /// More input is needed.
    More,
    /// The body is whole.
    End,
}

/// The decoder of one body.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    lines: Lines,
    extensions: usize,
    trailers: Headers,
    trailer_fields: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Done,
    Sized(u64),
    UntilClose,
    ChunkSize,
    ChunkData(u64),
    /// The CRLF after a chunk's bytes.
    ChunkEnd,
    Trailers,
}

impl Decoder {
    fn new(state: State) -> Self {
        Decoder {
            state,
            lines: Lines::default(),
            extensions: 0,
            trailers: Headers::new(),
            trailer_fields: 0,
        }
    }

    /// No body.
    pub fn none() -> Self {
        Self::new(State::Done)
    }

    /// Exactly so many bytes.
    pub fn sized(length: u64) -> Self {
        Self::new(match length {
            0 => State::Done,
            length => State::Sized(length),
        })
    }

    /// Chunks.
    pub fn chunked() -> Self {
        Self::new(State::ChunkSize)
    }

    /// All that comes until the end of the connection (responses only).
    pub fn until_close() -> Self {
        Self::new(State::UntilClose)
    }

    /// Whether the body is whole.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// The connection ended: whether that is a proper end of this body.
    pub fn end_of_input(&mut self) -> bool {
        if self.state == State::UntilClose {
            self.state = State::Done;
        }
        self.is_done()
    }

    /// The trailers, if there were any.
    pub fn take_trailers(&mut self) -> Option<Headers> {
        (self.is_done() && !self.trailers.is_empty()).then(|| std::mem::take(&mut self.trailers))
    }

    /// So many bytes of the last [`Step::Data`] were taken.
    pub fn consumed(&mut self, n: usize) {
        match &mut self.state {
            State::Sized(left) => {
                *left -= n as u64;
                if *left == 0 {
                    self.state = State::Done;
                }
            }
            State::ChunkData(left) => {
                *left -= n as u64;
                if *left == 0 {
                    self.state = State::ChunkEnd;
                }
            }
            _ => {}
        }
    }

    /// What comes next in `input`.
    pub fn step(&mut self, input: &[u8], limits: &Limits) -> Result<Step, StreamError> {
        Ok(match self.state {
            State::Done => Step::End,
            _ if input.is_empty() => Step::More,
            State::UntilClose => Step::Data(input.len()),
            State::Sized(left) | State::ChunkData(left) => {
                Step::Data(usize::try_from(left).map_or(input.len(), |left| left.min(input.len())))
            }
            State::ChunkSize => self.chunk_size(input)?,
            State::ChunkEnd => match input {
                [b'\r', b'\n', ..] => {
                    self.state = State::ChunkSize;
                    Step::Skip(2)
                }
                [b'\r'] => Step::More,
                _ => return Err(StreamError::Protocol("a chunk is longer than its size")),
            },
            State::Trailers => self.trailer(input, limits)?,
        })
    }

    /// `chunk-size [ chunk-ext ] CRLF`
    fn chunk_size(&mut self, input: &[u8]) -> Result<Step, StreamError> {
        let line = match self.lines.next(input, CHUNK_LINE) {
            Ok(None) => return Ok(Step::More),
            Ok(Some(line)) => line,
            Err(HeadError::TooLarge) => {
                return Err(StreamError::LimitExceeded("a chunk's size line"));
            }
            Err(_) => return Err(StreamError::Protocol("a chunk's size ends with LF alone")),
        };
        self.lines = Lines::default();
        let digits = memchr::memchr(b';', line).unwrap_or(line.len());
        let (size, extension) = line.split_at(digits);
        let size = grammar::hexadecimal(size).ok_or(StreamError::Protocol(
            "a chunk's size is not a hexadecimal number",
        ))?;
        if !grammar::is_text(extension) {
            return Err(StreamError::Protocol(
                "a chunk's extension has a control character",
            ));
        }
        self.extensions += extension.len();
        if self.extensions > EXTENSIONS {
            return Err(StreamError::LimitExceeded("the chunks' extensions"));
        }
        self.state = match size {
            0 => State::Trailers,
            size => State::ChunkData(size),
        };
        Ok(Step::Skip(line.len() + 2))
    }

    fn trailer(&mut self, input: &[u8], limits: &Limits) -> Result<Step, StreamError> {
        let Some(line) = self
            .lines
            .next(input, limits.head_bytes)
            .map_err(of_trailers)?
        else {
            return Ok(Step::More);
        };
        if line.is_empty() {
            self.state = State::Done;
            return Ok(Step::Skip(2));
        }
        let (text, value) = lines::field(line).map_err(of_trailers)?;
        if self.trailer_fields == limits.headers {
            return Err(StreamError::LimitExceeded("the number of trailers"));
        }
        self.trailer_fields += 1;
        let name = Name::recognise(text);
        if limits.trailers && !is_forbidden_trailer(name, text) {
            self.trailers.push_recognised(name, text, value);
        }
        Ok(Step::Skip(line.len() + 2))
    }
}

fn of_trailers(error: HeadError) -> StreamError {
    match error {
        HeadError::Malformed(reason) => StreamError::Protocol(reason),
        HeadError::Characters => StreamError::Protocol("a trailer has a control character"),
        _ => StreamError::LimitExceeded("the size of the trailers"),
    }
}

/// Fields that must not come as a trailer, since whoever merges them into the head would read the
/// message in another way (RFC 9110, section 6.5.1): framing, routing, request modifiers,
/// authentication, response control, and how the content is to be processed.
pub fn is_forbidden_trailer(name: Name, text: &[u8]) -> bool {
    match name {
        Name::Other => [
            &b"authorization"[..],
            b"cache-control",
            b"content-encoding",
            b"content-range",
            b"max-forwards",
            b"range",
            b"set-cookie",
            b"vary",
            b"www-authenticate",
        ]
        .iter()
        .any(|forbidden| text.eq_ignore_ascii_case(forbidden)),
        Name::GrpcStatus | Name::GrpcMessage | Name::XEnvoyUpstreamServiceTime => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes `text`, which becomes known up to each of `ends` in turn.
    fn decode(decoder: fn() -> Decoder, text: &[u8], ends: &[usize]) -> Result<String, String> {
        let limits = Limits {
            head_bytes: 64,
            headers: 3,
            trailers: true,
            accept_http_10: true,
            ..Limits::default()
        };
        let mut decoder = decoder();
        let (mut at, mut body) = (0, Vec::new());
        for &end in ends {
            loop {
                match decoder
                    .step(&text[at..end], &limits)
                    .map_err(|e| e.to_string())?
                {
                    Step::Skip(n) => at += n,
                    Step::Data(n) => {
                        body.extend_from_slice(&text[at..at + n]);
                        at += n;
                        decoder.consumed(n);
                    }
                    Step::More => break,
                    Step::End => {
                        let trailers = decoder.take_trailers().unwrap_or_default();
                        let trailers: Vec<_> = trailers
                            .iter()
                            .map(|(_, n, v)| format!("{}={}", n.escape_ascii(), v.escape_ascii()))
                            .collect();
                        let rest = text[at..].escape_ascii();
                        return Ok(format!("{}|{trailers:?}|{rest}", body.escape_ascii()));
                    }
                }
            }
        }
        match decoder.end_of_input() {
            true => Ok(format!("{} until close", body.escape_ascii())),
            false => Err("truncated".to_owned()),
        }
    }

    fn check(decoder: fn() -> Decoder, text: &str) -> Result<String, String> {
        let text = text.as_bytes();
        let whole = decode(decoder, text, &[text.len()]);
        for split in 0..text.len() {
            let split_up = decode(decoder, text, &[split, text.len()]);
            assert_eq!(
                split_up,
                whole,
                "split at {split} of {}",
                text.escape_ascii()
            );
        }
        let every: Vec<usize> = (0..=text.len()).collect();
        assert_eq!(decode(decoder, text, &every), whole);
        whole
    }

    #[test]
    fn whole_bodies() {
        for (text, expect) in [
            ("0\r\n\r\nGET", "|[]|GET"),
            ("5\r\nhello\r\n0\r\n\r\n", "hello|[]|"),
            (
                "00005\r\nhello\r\nA;x=\"y;z\"\r\n0123456789\r\n0;e\r\n\r\n",
                "hello0123456789|[]|",
            ),
            ("2\r\n\r\n\r\n0\r\n\r\n", "\\r\\n|[]|"),
            (
                "0\r\nX-Sum: 1\r\nb:\r\n\r\nrest",
                "|[\"X-Sum=1\", \"b=\"]|rest",
            ),
            // What would change the meaning of the message is dropped.
            (
                "0\r\nContent-Length: 1\r\nhost: x\r\nSet-Cookie: y\r\n\r\n",
                "|[]|",
            ),
        ] {
            assert_eq!(
                check(Decoder::chunked, text).as_deref(),
                Ok(expect),
                "{text:?}"
            );
        }
        assert_eq!(
            check(|| Decoder::sized(3), "abcdef").as_deref(),
            Ok("abc|[]|def")
        );
        assert_eq!(check(|| Decoder::sized(0), "abc").as_deref(), Ok("|[]|abc"));
        assert_eq!(
            check(Decoder::until_close, "abc").as_deref(),
            Ok("abc until close")
        );
    }

    #[test]
    fn refused() {
        let long_extension = format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(1100));
        let many_extensions = format!("1;{}\r\na\r\n", "x".repeat(1000)).repeat(17) + "0\r\n\r\n";
        for text in [
            "5\r\nhel",
            "5\r\nhello",
            "5\r\nhello\r\n",
            "5\r\nhello\r\n0\r\n",
            "5\r\nhello0\r\n\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "5\nhello\r\n0\r\n\r\n",
            "5\r\nhello\r\n0\n\r\n",
            "5\r\nhello\r\n0\r\n\n",
            "5 \r\nhello\r\n0\r\n\r\n",
            " 5\r\nhello\r\n0\r\n\r\n",
            "+5\r\nhello\r\n0\r\n\r\n",
            "0x5\r\nhello\r\n0\r\n\r\n",
            "-1\r\nhello\r\n0\r\n\r\n",
            "\r\nhello\r\n0\r\n\r\n",
            ";x\r\nhello\r\n0\r\n\r\n",
            "g\r\nhello\r\n0\r\n\r\n",
            "10000000000000000\r\nhello\r\n0\r\n\r\n",
            "5;\0\r\nhello\r\n0\r\n\r\n",
            "5;a\rb\r\nhello\r\n0\r\n\r\n",
            "0\r\nX : y\r\n\r\n",
            "0\r\nX: y\r\n z\r\n\r\n",
            "0\r\nX\r\n\r\n",
            "0\r\na:\r\nb:\r\nc:\r\nd:\r\n\r\n",
            "0\r\na: 0123456789012345678901234567890123456789012345678901234567890123\r\n\r\n",
            &long_extension,
            &many_extensions,
        ] {
            let result = if text.len() > 2000 {
                decode(Decoder::chunked, text.as_bytes(), &[text.len()])
            } else {
                check(Decoder::chunked, text)
            };
            assert!(result.is_err(), "{text:?}: {result:?}");
        }
        assert!(check(|| Decoder::sized(4), "abc").is_err());
    }
}
