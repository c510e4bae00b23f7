//! JSON formats: an object whose strings hold operators.

use std::io::Write as _;

use super::parse::{self, FormatError};
use super::{Missing, Piece, Text, write_limited};
use crate::telemetry::access_log::record::Record;

/// A value of a JSON format.
#[derive(Debug)]
pub(super) enum Json {
    /// The same for every line, as JSON.
    Literal(Box<[u8]>),
    /// A lone operator: a number, a string, or null.
    Value(Piece),
    /// A string with operators in it.
    Text(Text),
    /// Each name as JSON with its colon.
    Object(Vec<(Box<[u8]>, Json)>),
    List(Vec<Json>),
}

impl Json {
    pub(super) fn object(
        properties: &serde_json::Map<String, serde_json::Value>,
        missing: Missing,
    ) -> Result<Json, FormatError> {
        let properties = properties.iter().map(|(name, value)| {
            let mut quoted = Vec::new();
            string(name.as_bytes(), &mut quoted);
            quoted.push(b':');
            Ok((quoted.into(), Json::parse(value, missing)?))
        });
        Ok(Json::Object(properties.collect::<Result<_, _>>()?))
    }

    fn parse(value: &serde_json::Value, missing: Missing) -> Result<Json, FormatError> {
        Ok(match value {
            serde_json::Value::Object(properties) => Json::object(properties, missing)?,
            serde_json::Value::Array(items) => {
                let items = items.iter().map(|item| Json::parse(item, missing));
                Json::List(items.collect::<Result<_, _>>()?)
            }
            serde_json::Value::String(format) => {
                let mut pieces = parse::pieces(format)?;
                match pieces.as_slice() {
                    [Piece::Value { .. }] => Json::Value(pieces.swap_remove(0)),
                    _ => Json::Text(Text { pieces, missing }),
                }
            }
            literal => Json::Literal(literal.to_string().into_bytes().into()),
        })
    }

    pub(super) fn render(&self, record: &Record<'_>, missing: Missing, out: &mut Vec<u8>) {
        match self {
            Json::Literal(json) => out.extend_from_slice(json),
            Json::Text(text) => {
                let mut plain = Vec::new();
                text.render(record, &mut plain);
                string(&plain, out);
            }
            Json::Value(piece) => {
                if !value(piece, record, out) {
                    out.extend_from_slice(b"null");
                }
            }
            Json::List(items) => {
                out.push(b'[');
                let start = out.len();
                for item in items {
                    let before = out.len();
                    if before > start {
                        out.push(b',');
                    }
                    match item {
                        Json::Value(piece) if missing == Missing::Nothing => {
                            if !value(piece, record, out) {
                                out.truncate(before);
                            }
                        }
                        other => other.render(record, missing, out),
                    }
                }
                out.push(b']');
            }
            Json::Object(properties) => {
                out.push(b'{');
                let start = out.len();
                for (name, property) in properties {
                    let before = out.len();
                    if before > start {
                        out.push(b',');
                    }
                    out.extend_from_slice(name);
                    match property {
                        Json::Value(piece) if missing == Missing::Nothing => {
                            if !value(piece, record, out) {
                                out.truncate(before);
                            }
                        }
                        other => other.render(record, missing, out),
                    }
                }
                out.push(b'}');
            }
        }
    }
}

/// Appends a lone operator's value as JSON; says whether there is one.
fn value(piece: &Piece, record: &Record<'_>, out: &mut Vec<u8>) -> bool {
    let Piece::Value { operator, limit } = piece else {
        return false;
    };
    if operator.is_number() {
        return write_limited(operator, *limit, record, out);
    }
    if let Some(json) = operator.json(record) {
        // Writing to a Vec cannot fail.
        let _ = write!(out, "{json}");
        return true;
    }
    let mut plain = Vec::new();
    let present = write_limited(operator, *limit, record, &mut plain);
    if present {
        string(&plain, out);
    }
    present
}

/// Appends a JSON string (RFC 8259, section 7). Bytes that are not UTF-8 become U+FFFD.
fn string(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for chunk in text.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' => out.extend_from_slice(b"\\\""),
                '\\' => out.extend_from_slice(b"\\\\"),
                '\n' => out.extend_from_slice(b"\\n"),
                '\r' => out.extend_from_slice(b"\\r"),
                '\t' => out.extend_from_slice(b"\\t"),
                control if control < ' ' => {
                    // Writing to a Vec cannot fail.
                    let _ = write!(out, "\\u{:04x}", u32::from(control));
                }
                other => out.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
    out.push(b'"');
}
