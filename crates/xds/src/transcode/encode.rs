//! JSON to wire bytes.

use serde_json::{Map, Value};

use super::base64;
use super::error::{Error, Problem};
use super::path::Path;
use super::scalar::{self, Wire, wrong_type};
use super::wire::put_bytes;
use super::{MAX_DEPTH, time};
use crate::schema::{Field, Kind, Message, Support, WellKnown};

/// The wire bytes of a message of type `type_name` that `value` describes in proto3 JSON: names in
/// snake_case or lowerCamelCase, an `Any` as its `@type` beside its fields, null for unset.
///
/// Fields that [`check`](super::check()) would reject are encoded where the tables know their type,
/// so that it can report them all at once, and are errors here where they do not.
///
/// # Errors
/// The first thing that does not fit, with its path.
pub fn json_to_proto(type_name: &str, value: &Value) -> Result<Vec<u8>, Error> {
    let (bytes, problems) = json_to_proto_in_part(type_name, value);
    problems.into_iter().next().map_or(Ok(bytes), Err)
}

/// As [`json_to_proto`], but what does not fit is left out, and everything that was left out is
/// told, with its path. Of an `Any` of a type that is not in the tables the type URL stays, so that
/// its reader can tell what is allowed there.
#[must_use]
pub fn json_to_proto_in_part(type_name: &str, value: &Value) -> (Vec<u8>, Vec<Error>) {
    let mut out = Vec::new();
    let mut left_out = Vec::new();
    let encoded = match Message::named(type_name) {
        Some(message) => encode(&mut out, message, value, &Path::Root, 0, &mut left_out),
        None => Err(Problem::UnknownRoot(type_name.to_owned()).at(&Path::Root)),
    };
    left_out.extend(encoded.err());
    (out, left_out)
}

/// What is left out, as it is found.
type LeftOut = Vec<Error>;

type Result<T, E = Error> = std::result::Result<T, E>;

fn encode(
    out: &mut Vec<u8>,
    message: Message,
    value: &Value,
    path: &Path<'_>,
    depth: usize,
    left_out: &mut LeftOut,
) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(Problem::TooDeep.at(path));
    }
    match message.well_known() {
        None => encode_fields(out, message, object(value, path)?, path, depth, left_out),
        Some(WellKnown::Any) => encode_any(out, object(value, path)?, path, depth, left_out),
        Some(WellKnown::Struct) => encode_struct(out, object(value, path)?, path, depth),
        Some(WellKnown::Value) => encode_value(out, value, path, depth),
        Some(WellKnown::ListValue) => match value {
            Value::Array(items) => encode_list(out, items, path, depth),
            _ => Err(wrong_type("a list", value).at(path)),
        },
        Some(WellKnown::Duration) => {
            let text = string("a duration such as \"1.5s\"", value, path)?;
            let (seconds, nanos) = time::parse_duration(text)
                .ok_or_else(|| Problem::bad_value(text, "is not a duration such as 1.5s"))
                .map_err(|problem| problem.at(path))?;
            put_time(out, seconds, nanos);
            Ok(())
        }
        Some(WellKnown::Timestamp) => {
            let text = string("a time such as \"2026-01-31T12:00:00Z\"", value, path)?;
            let (seconds, nanos) = time::parse_timestamp(text)
                .ok_or_else(|| {
                    Problem::bad_value(text, "is not a time such as 2026-01-31T12:00:00Z")
                })
                .map_err(|problem| problem.at(path))?;
            put_time(out, seconds, nanos);
            Ok(())
        }
        Some(WellKnown::Wrapper) => {
            let Some(inner) = message.field(1) else {
                return Ok(());
            };
            let wire =
                scalar::from_json(inner.kind(), value).map_err(|problem| problem.at(path))?;
            if !wire.is_default() {
                wire.put(out, 1);
            }
            Ok(())
        }
    }
}

fn encode_fields(
    out: &mut Vec<u8>,
    message: Message,
    object: &Map<String, Value>,
    path: &Path<'_>,
    depth: usize,
    left_out: &mut LeftOut,
) -> Result<()> {
    let mut set: Vec<(Field, &Value)> = Vec::with_capacity(object.len());
    for (key, value) in object {
        let Some(field) = message.field_for_key(key) else {
            left_out.push(Problem::no_such_field(message, key).at(&path.field(key)));
            continue;
        };
        let here = path.field(field.name());
        // A google.protobuf.Value can be null itself; for every other type null means unset.
        if (value.is_null() && !takes_null(field)) || is_empty_collection(field, value) {
            continue;
        }
        let clash = set.iter().find_map(|(other, _)| {
            if *other == field {
                return Some(Problem::GivenTwice);
            }
            let same = field.oneof().is_some() && field.oneof() == other.oneof();
            let other = other.name();
            same.then_some(Problem::OneofConflict { other })
        });
        match clash {
            Some(problem) => left_out.push(problem.at(&here)),
            None => set.push((field, value)),
        }
    }
    // In one order, so that the same settings give the same bytes, and so the same version.
    set.sort_by_key(|(field, _)| field.number());
    for (field, value) in set {
        let here = path.field(field.name());
        let encoded = encode_field(out, field, value, &here, depth, left_out);
        left_out.extend(encoded.err());
    }
    Ok(())
}

fn is_empty_collection(field: Field, value: &Value) -> bool {
    match value {
        Value::Array(items) => field.is_repeated() && items.is_empty(),
        Value::Object(entries) => field.is_map() && entries.is_empty(),
        _ => false,
    }
}

fn takes_null(field: Field) -> bool {
    let has_null = match field.kind() {
        Kind::Message(Some(message)) => message.well_known() == Some(WellKnown::Value),
        Kind::Enum(Some(values)) => scalar::is_null(values),
        _ => false,
    };
    has_null && !field.is_repeated()
}

fn encode_field(
    out: &mut Vec<u8>,
    field: Field,
    value: &Value,
    path: &Path<'_>,
    depth: usize,
    left_out: &mut LeftOut,
) -> Result<()> {
    if let (Support::Rejected(reason), Kind::Message(None) | Kind::Enum(None)) =
        (field.support(), field.kind())
    {
        return Err(Problem::Unsupported { reason }.at(path));
    }
    if field.is_map() {
        let Kind::Message(Some(entry)) = field.kind() else {
            return Ok(());
        };
        return encode_map(
            out,
            field,
            entry,
            object(value, path)?,
            path,
            depth,
            left_out,
        );
    }
    if !field.is_repeated() {
        let wire = encode_one(field.kind(), value, path, depth, left_out)?;
        if field.has_presence() || !wire.is_default() {
            wire.put(out, field.number());
        }
        return Ok(());
    }
    let Value::Array(items) = value else {
        return Err(wrong_type("a list", value).at(path));
    };
    let mut packed = Vec::new();
    for (at, item) in items.iter().enumerate() {
        let wire = match encode_one(field.kind(), item, &path.index(at), depth, left_out) {
            Ok(wire) => wire,
            Err(error) => {
                left_out.push(error);
                continue;
            }
        };
        if scalar::is_packed(field.kind()) {
            wire.put_value(&mut packed);
        } else {
            wire.put(out, field.number());
        }
    }
    if !packed.is_empty() {
        put_bytes(out, field.number(), &packed);
    }
    Ok(())
}

fn encode_one(
    kind: Kind,
    value: &Value,
    path: &Path<'_>,
    depth: usize,
    left_out: &mut LeftOut,
) -> Result<Wire> {
    let Kind::Message(Some(message)) = kind else {
        return scalar::from_json(kind, value).map_err(|problem| problem.at(path));
    };
    let mut bytes = Vec::new();
    encode(&mut bytes, message, value, path, depth + 1, left_out)?;
    Ok(Wire::Bytes(bytes))
}

fn encode_map(
    out: &mut Vec<u8>,
    field: Field,
    entry: Message,
    object: &Map<String, Value>,
    path: &Path<'_>,
    depth: usize,
    left_out: &mut LeftOut,
) -> Result<()> {
    let (Some(key_field), Some(value_field)) = (entry.field(1), entry.field(2)) else {
        return Ok(());
    };
    for (key, value) in object {
        let here = path.key(key);
        let mut bytes = Vec::new();
        let json_key = match key_field.kind() {
            Kind::Bool => Value::Bool(key == "true"),
            _ => Value::String(key.clone()),
        };
        scalar::from_json(key_field.kind(), &json_key)
            .map_err(|problem| problem.at(&here))?
            .put(&mut bytes, 1);
        encode_one(value_field.kind(), value, &here, depth, left_out)?.put(&mut bytes, 2);
        put_bytes(out, field.number(), &bytes);
    }
    Ok(())
}

fn encode_any(
    out: &mut Vec<u8>,
    object: &Map<String, Value>,
    path: &Path<'_>,
    depth: usize,
    left_out: &mut LeftOut,
) -> Result<()> {
    let url = match object.get("@type") {
        Some(Value::String(url)) => url,
        Some(other) => return Err(wrong_type("a type URL", other).at(&path.field("@type"))),
        None if object.is_empty() => return Ok(()),
        None => return Err(Problem::NoType.at(path)),
    };
    let mut bytes = Vec::new();
    match Message::for_type_url(url) {
        Some(message) if message.well_known().is_some() => {
            let value = object.get("value").unwrap_or(&Value::Null);
            only_value(object, path)?;
            encode(&mut bytes, message, value, path, depth + 1, left_out)?;
        }
        Some(message) => {
            let mut fields = object.clone();
            fields.shift_remove("@type");
            encode_fields(&mut bytes, message, &fields, path, depth + 1, left_out)?;
        }
        // What `proto_to_json` writes for a type that it does not know can be read back.
        None => {
            let value = match object.get("value") {
                Some(Value::String(text)) if object.len() == 2 => base64::decode(text),
                _ => None,
            };
            bytes = value.unwrap_or_else(|| {
                left_out.push(Problem::UnknownType(url.clone()).at(path));
                Vec::new()
            });
        }
    }
    put_bytes(out, 1, url.as_bytes());
    if !bytes.is_empty() {
        put_bytes(out, 2, &bytes);
    }
    Ok(())
}

fn only_value(object: &Map<String, Value>, path: &Path<'_>) -> Result<()> {
    match object
        .keys()
        .find(|key| !matches!(key.as_str(), "@type" | "value"))
    {
        Some(key) => Err(Problem::NoSuchField {
            suggestion: Some("value"),
        }
        .at(&path.field(key))),
        None => Ok(()),
    }
}

fn encode_struct(
    out: &mut Vec<u8>,
    object: &Map<String, Value>,
    path: &Path<'_>,
    depth: usize,
) -> Result<()> {
    for (key, value) in object {
        let mut bytes = Vec::new();
        encode_value(&mut bytes, value, &path.field(key), depth + 1)?;
        let mut entry = Vec::new();
        put_bytes(&mut entry, 1, key.as_bytes());
        put_bytes(&mut entry, 2, &bytes);
        put_bytes(out, 1, &entry);
    }
    Ok(())
}

fn encode_list(out: &mut Vec<u8>, items: &[Value], path: &Path<'_>, depth: usize) -> Result<()> {
    for (at, item) in items.iter().enumerate() {
        let mut bytes = Vec::new();
        encode_value(&mut bytes, item, &path.index(at), depth + 1)?;
        put_bytes(out, 1, &bytes);
    }
    Ok(())
}

/// The fields of `google.protobuf.Value`: null 1, number 2, string 3, bool 4, struct 5, list 6.
fn encode_value(out: &mut Vec<u8>, value: &Value, path: &Path<'_>, depth: usize) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(Problem::TooDeep.at(path));
    }
    match value {
        Value::Null => Wire::Varint(0).put(out, 1),
        Value::Number(number) => {
            Wire::Fixed64(number.as_f64().unwrap_or(f64::NAN).to_bits()).put(out, 2);
        }
        Value::String(text) => put_bytes(out, 3, text.as_bytes()),
        Value::Bool(value) => Wire::Varint(u64::from(*value)).put(out, 4),
        Value::Object(object) => {
            let mut bytes = Vec::new();
            encode_struct(&mut bytes, object, path, depth)?;
            put_bytes(out, 5, &bytes);
        }
        Value::Array(items) => {
            let mut bytes = Vec::new();
            encode_list(&mut bytes, items, path, depth)?;
            put_bytes(out, 6, &bytes);
        }
    }
    Ok(())
}

fn put_time(out: &mut Vec<u8>, seconds: i64, nanos: i32) {
    for (number, value) in [(1, seconds), (2, i64::from(nanos))] {
        if value != 0 {
            Wire::Varint(value.cast_unsigned()).put(out, number);
        }
    }
}

fn object<'a>(value: &'a Value, path: &Path<'_>) -> Result<&'a Map<String, Value>> {
    match value {
        Value::Object(object) => Ok(object),
        _ => Err(wrong_type("a mapping", value).at(path)),
    }
}

fn string<'a>(expected: &'static str, value: &'a Value, path: &Path<'_>) -> Result<&'a str> {
    match value {
        Value::String(text) => Ok(text),
        _ => Err(wrong_type(expected, value).at(path)),
    }
}
