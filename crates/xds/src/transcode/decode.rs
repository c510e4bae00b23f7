//! Wire bytes to JSON, in the form of Envoy's `/config_dump`, without the secrets.

use serde_json::{Map, Value};

use super::error::{Error, Problem};
use super::path::Path;
use super::wire::{Raw, Reader};
use super::{MAX_DEPTH, base64, scalar, time};
use crate::schema::{Field, Kind, Message, WellKnown};

/// What stands where a secret was.
const REDACTED: &str = "[redacted]";
/// What stands where a message is that the tables do not know; it might hold secrets.
const NOT_SHOWN: &str = "[not shown]";

/// A message of type `type_name` as proto3 JSON with snake_case names. An `Any` whose type the
/// tables know is expanded, another keeps its bytes as base64 in `value`.
///
/// Private keys and whatever else the protos mark as sensitive become `[redacted]` (in a field of
/// bytes, the base64 of that), as in Envoy.
///
/// # Errors
/// Bytes that are not such a message, with the path.
pub fn proto_to_json(type_name: &str, bytes: &[u8]) -> Result<Value, Error> {
    let message = Message::named(type_name)
        .ok_or_else(|| Problem::UnknownRoot(type_name.to_owned()).at(&Path::Root))?;
    decode(
        message,
        bytes,
        Show {
            redact: false,
            depth: 0,
        },
        &Path::Root,
    )
}

/// How to show what is read.
#[derive(Clone, Copy)]
struct Show {
    /// Whether we are inside a sensitive field.
    redact: bool,
    depth: usize,
}

impl Show {
    fn deeper(self) -> Self {
        Self {
            depth: self.depth + 1,
            ..self
        }
    }
}

fn decode(message: Message, bytes: &[u8], show: Show, path: &Path<'_>) -> Result<Value, Error> {
    if show.depth > MAX_DEPTH {
        return Err(Problem::TooDeep.at(path));
    }
    let records = Records::read(message, bytes).map_err(|problem| problem.at(path))?;
    match message.well_known() {
        None => records.object(show, path).map(Value::Object),
        Some(WellKnown::Any) => decode_any(&records, show, path),
        Some(WellKnown::Struct) => {
            let object = records.object(show, path)?;
            Ok(object
                .into_iter()
                .next()
                .map_or_else(|| Value::Object(Map::new()), |(_, all)| all))
        }
        Some(WellKnown::Value) => {
            let object = records.object(show, path)?;
            let only = object.into_iter().next();
            Ok(match only {
                Some((kind, value)) if kind != "null_value" => value,
                _ => Value::Null,
            })
        }
        Some(WellKnown::ListValue) => {
            let object = records.object(show, path)?;
            Ok(object
                .into_iter()
                .next()
                .map_or_else(|| Value::Array(Vec::new()), |(_, all)| all))
        }
        Some(WellKnown::Duration) => {
            let (seconds, nanos) = records.time();
            Ok(Value::String(time::format_duration(seconds, nanos)))
        }
        Some(WellKnown::Timestamp) => {
            let (seconds, nanos) = records.time();
            let text = time::format_timestamp(seconds, nanos);
            let bad = Problem::Malformed("a time outside of years 1 to 9999");
            text.map(Value::String).ok_or_else(|| bad.at(path))
        }
        Some(WellKnown::Wrapper) => {
            let Some(field) = message.field(1) else {
                return Ok(Value::Null);
            };
            let Some(raw) = records.last(field) else {
                return Ok(default_of(field.kind()));
            };
            one(field, raw, show, path)
        }
    }
}

fn decode_any(records: &Records<'_>, show: Show, path: &Path<'_>) -> Result<Value, Error> {
    let url = match records.last_of(1) {
        Some(Raw::Bytes(url)) => std::str::from_utf8(url)
            .map_err(|_| Problem::Malformed("not UTF-8").at(&path.field("type_url")))?,
        _ => "",
    };
    let bytes = match records.last_of(2) {
        Some(Raw::Bytes(bytes)) => bytes,
        _ => &[],
    };
    if url.is_empty() && bytes.is_empty() {
        return Ok(Value::Object(Map::new()));
    }
    let mut object = Map::new();
    object.insert("@type".to_owned(), Value::String(url.to_owned()));
    let Some(message) = Message::for_type_url(url) else {
        let value = if show.redact {
            REDACTED.to_owned()
        } else {
            base64::encode(bytes)
        };
        object.insert("value".to_owned(), Value::String(value));
        return Ok(Value::Object(object));
    };
    match decode(message, bytes, show.deeper(), path)? {
        Value::Object(fields) if message.well_known().is_none() => object.extend(fields),
        value => {
            object.insert("value".to_owned(), value);
        }
    }
    Ok(Value::Object(object))
}

/// The records of one message that the tables have fields for, in the order of the fields.
struct Records<'a> {
    all: Vec<(Field, Raw<'a>)>,
}

impl<'a> Records<'a> {
    fn read(message: Message, bytes: &'a [u8]) -> Result<Self, Problem> {
        let mut all: Vec<(Field, Raw<'a>)> = Vec::new();
        let mut reader = Reader::new(bytes);
        // The member of each oneof that came last, which is the one that counts.
        let mut chosen: Vec<(u8, Field)> = Vec::new();
        while let Some((number, raw)) = reader.record()? {
            let Some(field) = message.field(number) else {
                continue;
            };
            if let Some(oneof) = field.oneof() {
                chosen.retain(|(each, _)| *each != oneof);
                chosen.push((oneof, field));
            }
            all.push((field, raw));
        }
        all.retain(|(field, _)| {
            field
                .oneof()
                .is_none_or(|oneof| chosen.contains(&(oneof, *field)))
        });
        all.sort_by_key(|(field, _)| field.number());
        Ok(Self { all })
    }

    fn last(&self, field: Field) -> Option<Raw<'a>> {
        self.last_of(field.number())
    }

    fn last_of(&self, number: u32) -> Option<Raw<'a>> {
        self.all
            .iter()
            .rev()
            .find(|(field, _)| field.number() == number)
            .map(|(_, raw)| *raw)
    }

    /// The fields 1 and 2 of a duration or a timestamp.
    fn time(&self) -> (i64, i32) {
        let number = |number| match self.last_of(number) {
            Some(Raw::Varint(value)) => value.cast_signed(),
            _ => 0,
        };
        (number(1), i32::try_from(number(2)).unwrap_or(0))
    }

    fn object(&self, show: Show, path: &Path<'_>) -> Result<Map<String, Value>, Error> {
        let mut object = Map::new();
        for group in self.all.chunk_by(|one, other| one.0 == other.0) {
            let field = group[0].0;
            let show = Show {
                redact: show.redact || field.is_sensitive(),
                ..show
            };
            let here = path.field(field.name());
            let value = if field.is_map() {
                map(field, group, show, &here)?
            } else if field.is_repeated() {
                list(field, group, show, &here)?
            } else {
                single(field, group, show, &here)?
            };
            object.insert(field.name().to_owned(), value);
        }
        Ok(object)
    }
}

fn list(
    field: Field,
    group: &[(Field, Raw<'_>)],
    show: Show,
    path: &Path<'_>,
) -> Result<Value, Error> {
    let mut items = Vec::new();
    for (_, raw) in group {
        match raw {
            Raw::Bytes(packed) if scalar::is_packed(field.kind()) => {
                let mut reader = Reader::new(packed);
                while !reader.is_empty() {
                    let raw = scalar::unpack(field.kind(), &mut reader)
                        .map_err(|problem| problem.at(path))?;
                    items.push(one(field, raw, show, path)?);
                }
            }
            raw => {
                let value = one(field, *raw, show, &path.index(items.len()))?;
                items.push(value);
            }
        }
    }
    Ok(Value::Array(items))
}

fn single(
    field: Field,
    group: &[(Field, Raw<'_>)],
    show: Show,
    path: &Path<'_>,
) -> Result<Value, Error> {
    if group.len() > 1 && matches!(field.kind(), Kind::Message(_)) {
        // A message that comes in pieces is what the pieces are together.
        let mut whole = Vec::new();
        for (_, raw) in group {
            match raw {
                Raw::Bytes(bytes) => whole.extend_from_slice(bytes),
                _ => return Err(Problem::WrongWireType.at(path)),
            }
        }
        return one(field, Raw::Bytes(&whole), show, path);
    }
    one(field, group[group.len() - 1].1, show, path)
}

fn map(
    field: Field,
    group: &[(Field, Raw<'_>)],
    show: Show,
    path: &Path<'_>,
) -> Result<Value, Error> {
    let mut object = Map::new();
    let Kind::Message(Some(entry)) = field.kind() else {
        return Ok(Value::Object(object));
    };
    let (Some(key_field), Some(value_field)) = (entry.field(1), entry.field(2)) else {
        return Ok(Value::Object(object));
    };
    for (_, raw) in group {
        let Raw::Bytes(bytes) = raw else {
            return Err(Problem::WrongWireType.at(path));
        };
        let records = Records::read(entry, bytes).map_err(|problem| problem.at(path))?;
        let key = match records.last(key_field) {
            Some(raw) => scalar::to_json(key_field.kind(), raw),
            None => Ok(default_of(key_field.kind())),
        };
        let key = match key.map_err(|problem| problem.at(path))? {
            Value::String(text) => text,
            other => other.to_string(),
        };
        let here = path.key(&key);
        let value = match records.last(value_field) {
            Some(raw) => one(value_field, raw, show, &here)?,
            None => match value_field.kind() {
                Kind::Message(Some(_)) => one(value_field, Raw::Bytes(&[]), show, &here)?,
                kind => default_of(kind),
            },
        };
        object.insert(key, value);
    }
    Ok(Value::Object(object))
}

fn one(field: Field, raw: Raw<'_>, show: Show, path: &Path<'_>) -> Result<Value, Error> {
    match (field.kind(), raw) {
        (Kind::Message(Some(message)), Raw::Bytes(bytes)) => {
            decode(message, bytes, show.deeper(), path)
        }
        (Kind::Message(_), Raw::Bytes(_)) => Ok(Value::String(NOT_SHOWN.to_owned())),
        (Kind::String, Raw::Bytes(_)) if show.redact => Ok(Value::String(REDACTED.to_owned())),
        (Kind::Bytes, Raw::Bytes(_)) if show.redact => {
            Ok(Value::String(base64::encode(REDACTED.as_bytes())))
        }
        (kind, raw) => scalar::to_json(kind, raw).map_err(|problem| problem.at(path)),
    }
}

/// What proto3 JSON shows for a value that is not on the wire because it is the default.
fn default_of(kind: Kind) -> Value {
    match kind {
        Kind::Bool => Value::Bool(false),
        Kind::String | Kind::Bytes => Value::String(String::new()),
        Kind::Int64 | Kind::Uint64 => Value::String("0".to_owned()),
        Kind::Enum(Some(values)) => values
            .value_name(0)
            .map_or_else(|| 0.into(), |name| Value::String(name.to_owned())),
        Kind::Message(_) => Value::Object(Map::new()),
        _ => 0.into(),
    }
}
