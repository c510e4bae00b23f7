//! Messages as they are written, into one buffer: the head and the first bytes of the body leave in
//! one send.

use super::buffer::Buffer;
use crate::http::error::StreamError;
use crate::http::headers::{Headers, Name};
use crate::http::message::{BodyLength, RequestHead, ResponseHead, Version};

/// How the body of the message being written is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// Nothing may follow the head.
    None,
    /// So many bytes are still to come.
    Sized(u64),
    Chunked,
    /// A response that the end of the connection ends; or a tunnel follows.
    Raw,
}

/// The writer of one message.
#[derive(Debug)]
pub struct Encoder {
    framing: Framing,
    /// The head is written.
    begun: bool,
    ended: bool,
    dialect: Dialect,
}

/// What of HTTP/1 is a matter of configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dialect {
    /// `header_key_format`
    pub style: Style,
    /// `enable_trailers`: they are neither sent nor taken otherwise.
    pub trailers: bool,
}

/// How the names of fields are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    /// As they came; those that the codec adds as the message's others are.
    #[default]
    AsCame,
    /// `header_key_format.proper_case_words`: a capital after each character that is no letter or
    /// digit.
    ProperCase,
}

/// What a response's head depends on besides itself.
#[derive(Clone, Copy, Debug)]
pub struct ResponseContext {
    /// The version of the request.
    pub version: Version,
    /// The response has no body by its nature: see [`super::response::Asked::is_bodiless`].
    pub bodiless: bool,
    /// After this head the connection is a tunnel: 101, or 2xx to CONNECT.
    pub tunnel: bool,
    /// The client may send another request after it.
    pub persists: bool,
}

impl Encoder {
    /// For the next message.
    pub const fn new(dialect: Dialect) -> Self {
        Encoder {
            framing: Framing::None,
            begun: false,
            ended: false,
            dialect,
        }
    }

    /// Whether the message is written to its end.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether only the end of the connection tells the end of the message.
    pub fn ends_with_connection(&self) -> bool {
        self.framing == Framing::Raw
    }

    /// The head of a request. It is always HTTP/1.1, which every server answers as it can.
    pub fn request(&mut self, out: &mut Buffer, head: &RequestHead, end: bool) {
        let style = self.dialect.style;
        let names = Names::of(head.title_case || style == Style::ProperCase);
        out.put(&head.method);
        out.put(b" ");
        if head.method == b"CONNECT" {
            out.put(&head.authority);
        } else if head.path.is_empty() {
            out.put(b"/");
        } else {
            out.put(&head.path);
        }
        out.put(b" HTTP/1.1\r\n");
        put_field(out, names.host, &head.authority);
        for (name, text, value) in head.headers.iter() {
            if !matches!(
                name,
                Name::Host | Name::ContentLength | Name::TransferEncoding
            ) {
                put_styled(out, style, text, value);
            }
        }
        self.framing = match head.body {
            BodyLength::Sized(length) => Framing::Sized(length),
            BodyLength::Streamed if !end => Framing::Chunked,
            // Servers wait for a body after a method that has one unless they are told that there
            // is none (RFC 9110 section 8.6); as with Envoy.
            BodyLength::None | BodyLength::Streamed if has_content(&head.method) => {
                Framing::Sized(0)
            }
            BodyLength::None | BodyLength::Streamed => Framing::None,
        };
        self.finish_head(out, names, end);
    }

    /// The head of a final response, or of 101.
    pub fn response(
        &mut self,
        out: &mut Buffer,
        head: &ResponseHead,
        context: ResponseContext,
        end: bool,
    ) {
        let style = self.dialect.style;
        let names = Names::of(head.title_case || style == Style::ProperCase);
        put_status(out, context.version, head);
        // A response without a body may tell the length that GET would have given.
        let keeps_length = context.bodiless && head.status >= 200 && head.status != 204;
        for (name, text, value) in head.headers.iter() {
            if match name {
                Name::ContentLength => keeps_length && !context.tunnel,
                Name::TransferEncoding => false,
                _ => true,
            } {
                put_styled(out, style, text, value);
            }
        }
        self.framing = if context.tunnel {
            Framing::Raw
        } else if context.bodiless {
            if keeps_length && !head.headers.contains(Name::ContentLength) {
                match head.body {
                    BodyLength::Sized(length) => put_field(
                        out,
                        names.content_length,
                        itoa::Buffer::new().format(length).as_bytes(),
                    ),
                    // As GET's answer would be framed, as far as is known.
                    BodyLength::Streamed | BodyLength::None
                        if head.status != 304 && context.version == Version::Http11 =>
                    {
                        put_field(out, names.transfer_encoding, b"chunked");
                    }
                    BodyLength::Streamed | BodyLength::None => {}
                }
            }
            Framing::None
        } else {
            match head.body {
                BodyLength::Sized(length) => Framing::Sized(length),
                BodyLength::None => Framing::Sized(0),
                BodyLength::Streamed if end => Framing::Sized(0),
                BodyLength::Streamed if context.version == Version::Http10 => Framing::Raw,
                BodyLength::Streamed => Framing::Chunked,
            }
        };
        if !context.tunnel {
            let persists = context.persists && self.framing != Framing::Raw;
            if !persists {
                put_field(out, names.connection, b"close");
            } else if context.version == Version::Http10 {
                put_field(out, names.connection, b"keep-alive");
            }
        }
        self.finish_head(out, names, end && !context.tunnel);
    }

    fn finish_head(&mut self, out: &mut Buffer, names: Names, end: bool) {
        match self.framing {
            Framing::Sized(length) => {
                put_field(
                    out,
                    names.content_length,
                    itoa::Buffer::new().format(length).as_bytes(),
                );
            }
            Framing::Chunked => put_field(out, names.transfer_encoding, b"chunked"),
            Framing::None | Framing::Raw => {}
        }
        out.put(b"\r\n");
        self.begun = true;
        self.ended = end;
    }

    /// Bytes of the body.
    pub fn data(&mut self, out: &mut Buffer, data: &[u8]) -> Result<(), StreamError> {
        if data.is_empty() {
            return Ok(());
        }
        match &mut self.framing {
            _ if self.ended || !self.begun => {
                return Err(StreamError::Unrepresentable(
                    "a body after the message's end",
                ));
            }
            Framing::None => {
                return Err(StreamError::Unrepresentable("a body where there is none"));
            }
            Framing::Sized(left) => {
                *left = left
                    .checked_sub(data.len() as u64)
                    .ok_or(StreamError::Unrepresentable(
                        "a body longer than its content-length",
                    ))?;
                out.put(data);
            }
            Framing::Raw => out.put(data),
            Framing::Chunked => {
                put_chunk_size(out, data.len());
                out.put(data);
                out.put(b"\r\n");
            }
        }
        Ok(())
    }

    /// The end of the message. Trailers only travel behind chunks.
    pub fn end(&mut self, out: &mut Buffer, trailers: Option<&Headers>) -> Result<(), StreamError> {
        if self.ended {
            return Ok(());
        }
        if let Framing::Sized(1..) = self.framing {
            return Err(StreamError::Unrepresentable(
                "a body shorter than its content-length",
            ));
        }
        if self.framing == Framing::Chunked {
            out.put(b"0\r\n");
            let trailers = trailers.filter(|_| self.dialect.trailers);
            for (name, text, value) in trailers.into_iter().flat_map(Headers::iter) {
                if !matches!(
                    name,
                    Name::ContentLength | Name::TransferEncoding | Name::Host
                ) {
                    put_styled(out, self.dialect.style, text, value);
                }
            }
            out.put(b"\r\n");
        }
        self.ended = true;
        Ok(())
    }
}

/// An informational response (RFC 9110, section 15.2); HTTP/1.0 knows none, so nothing is written.
pub fn put_informational(out: &mut Buffer, version: Version, head: &ResponseHead) {
    if version == Version::Http10 {
        return;
    }
    put_status(out, version, head);
    for (name, text, value) in head.headers.iter() {
        if !matches!(name, Name::ContentLength | Name::TransferEncoding) {
            put_field(out, text, value);
        }
    }
    out.put(b"\r\n");
}

fn put_status(out: &mut Buffer, version: Version, head: &ResponseHead) {
    out.put(match version {
        Version::Http10 => b"HTTP/1.0 ",
        _ => b"HTTP/1.1 ",
    });
    out.put(itoa::Buffer::new().format(head.status).as_bytes());
    out.put(b" ");
    if head.reason.is_empty() {
        out.put(reason(head.status).as_bytes());
    } else {
        out.put(&head.reason);
    }
    out.put(b"\r\n");
}

/// A field that others named.
fn put_styled(out: &mut Buffer, style: Style, name: &[u8], value: &[u8]) {
    match style {
        Style::AsCame => put_field(out, name, value),
        Style::ProperCase => {
            let mut after_letter = false;
            for part in name.chunks(64) {
                let mut text = [0; 64];
                for (to, from) in text.iter_mut().zip(part) {
                    *to = match after_letter {
                        true => from.to_ascii_lowercase(),
                        false => from.to_ascii_uppercase(),
                    };
                    after_letter = from.is_ascii_alphanumeric();
                }
                out.put(&text[..part.len()]);
            }
            put_field(out, b"", value);
        }
    }
}

fn put_field(out: &mut Buffer, name: &[u8], value: &[u8]) {
    out.put(name);
    out.put(b": ");
    out.put(value);
    out.put(b"\r\n");
}

fn put_chunk_size(out: &mut Buffer, size: usize) {
    let mut text = [0; 18];
    let mut at = 16;
    let mut left = size;
    text[16] = b'\r';
    text[17] = b'\n';
    loop {
        at -= 1;
        text[at] = b"0123456789abcdef"[left & 15];
        left >>= 4;
        if left == 0 {
            break;
        }
    }
    out.put(&text[at..]);
}

/// The reason phrase that goes with a status (RFC 9110, section 15, and IANA's registry).
pub fn reason(status: u16) -> &'static str {
    // Envoy has not been told of the teapot, and programs compare.
    if status == 418 {
        return "Unknown";
    }
    ::http::StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .unwrap_or("Unknown")
}

/// Whether a request of this method means something by its content.
fn has_content(method: &[u8]) -> bool {
    !matches!(method, b"GET" | b"HEAD" | b"DELETE" | b"TRACE" | b"CONNECT")
}

/// The names that the codec writes, in the style of the message.
#[derive(Clone, Copy)]
struct Names {
    host: &'static [u8],
    content_length: &'static [u8],
    transfer_encoding: &'static [u8],
    connection: &'static [u8],
}

impl Names {
    const fn of(title_case: bool) -> Self {
        if title_case {
            Names {
                host: b"Host",
                content_length: b"Content-Length",
                transfer_encoding: b"Transfer-Encoding",
                connection: b"Connection",
            }
        } else {
            Names {
                host: b"host",
                content_length: b"content-length",
                transfer_encoding: b"transfer-encoding",
                connection: b"connection",
            }
        }
    }
}
