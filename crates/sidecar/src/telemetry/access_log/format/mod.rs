//! Format strings: literal text and `%OPERATORS%`, parsed once with the configuration and rendered
//! for each line or header (Envoy's documentation, "Access logging, Command Operators").

mod certificate;
mod connection_state;
pub mod grpc;
mod header;
mod json;
mod masked;
mod moments;
mod operator;
mod parse;
mod simple;
mod target;
mod text;
mod time;

use self::json::Json;
use self::operator::Operator;
pub use self::parse::FormatError;
use super::record::Record;

/// The line of an access log that names no format, for HTTP and for TCP.
pub const DEFAULT: &str = concat!(
    "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" ",
    "%RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% ",
    "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" ",
    "\"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n",
);

/// A parsed format.
#[derive(Debug)]
pub struct Format(Body);

#[derive(Debug)]
enum Body {
    /// Text without an operator, which most added headers are.
    Literal(Box<[u8]>),
    Text(Text),
    /// One JSON object and a line feed.
    Json(Json, Missing),
}

/// Text with operators.
#[derive(Debug)]
struct Text {
    pieces: Vec<Piece>,
    missing: Missing,
}

#[derive(Debug)]
enum Piece {
    Literal(Box<[u8]>),
    Value {
        operator: Operator,
        /// `:Z`: at most so many bytes of it.
        limit: Option<usize>,
    },
}

/// What is written for a value that a request or connection does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// `-` in text, `null` in JSON.
    Dash,
    /// Nothing (`omit_empty_values`): in JSON the property is left out. Also for added headers.
    Nothing,
}

impl Format {
    /// Parses a text format.
    ///
    /// # Errors
    ///
    /// An operator that does not exist, or one that is written wrongly.
    pub fn text(format: &str, missing: Missing) -> Result<Format, FormatError> {
        let mut pieces = parse::pieces(format)?;
        Ok(Format(match pieces.as_mut_slice() {
            [] => Body::Literal(Box::default()),
            [Piece::Literal(text)] => Body::Literal(std::mem::take(text)),
            _ => Body::Text(Text { pieces, missing }),
        }))
    }

    /// Parses a JSON format: strings hold operators, and one that is a lone operator of a number
    /// becomes a number.
    ///
    /// # Errors
    ///
    /// As [`Format::text`] for any string in it.
    pub fn json(
        properties: &serde_json::Map<String, serde_json::Value>,
        missing: Missing,
    ) -> Result<Format, FormatError> {
        Ok(Format(Body::Json(
            Json::object(properties, missing)?,
            missing,
        )))
    }

    /// Text that is taken as it is.
    pub fn literal(text: impl Into<Box<[u8]>>) -> Format {
        Format(Body::Literal(text.into()))
    }

    /// The text, if it is the same for every request: no [`Record`] need be put together.
    #[cfg(test)]
    pub fn as_literal(&self) -> Option<&[u8]> {
        match &self.0 {
            Body::Literal(text) => Some(text),
            _ => None,
        }
    }

    /// Appends the text for one request or connection.
    pub fn render(&self, record: &Record<'_>, out: &mut Vec<u8>) {
        match &self.0 {
            Body::Literal(text) => out.extend_from_slice(text),
            Body::Text(text) => text.render(record, out),
            Body::Json(json, missing) => {
                json.render(record, *missing, out);
                out.push(b'\n');
            }
        }
    }
}

impl Text {
    fn render(&self, record: &Record<'_>, out: &mut Vec<u8>) {
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => out.extend_from_slice(text),
                Piece::Value { operator, limit } => {
                    if !write_limited(operator, *limit, record, out)
                        && self.missing == Missing::Dash
                    {
                        out.push(b'-');
                    }
                }
            }
        }
    }
}

/// Appends a value cut to its limit; says whether there is one.
fn write_limited(
    operator: &Operator,
    limit: Option<usize>,
    record: &Record<'_>,
    out: &mut Vec<u8>,
) -> bool {
    let start = out.len();
    let present = operator.write(record, out);
    if let Some(limit) = limit {
        out.truncate(out.len().min(start.saturating_add(limit)));
    }
    present
}

#[cfg(test)]
mod tests;
