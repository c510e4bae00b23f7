//! Scalars: between JSON values and wire values, by the proto3 JSON mapping.

use serde_json::{Number, Value};

use super::base64;
use super::error::Problem;
use super::wire::{Raw, Reader, put_tag, put_varint};
use crate::schema::{Enum, Kind};

/// A scalar, or an encoded message, on its way to the wire.
#[derive(Debug, PartialEq)]
pub(super) enum Wire {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(Vec<u8>),
}

impl Wire {
    /// Whether this is what an unset field means as well.
    pub(super) fn is_default(&self) -> bool {
        match self {
            Wire::Varint(value) | Wire::Fixed64(value) => *value == 0,
            Wire::Fixed32(value) => *value == 0,
            Wire::Bytes(bytes) => bytes.is_empty(),
        }
    }

    pub(super) fn put(&self, out: &mut Vec<u8>, number: u32) {
        let wire_type = match self {
            Wire::Varint(_) => 0,
            Wire::Fixed64(_) => 1,
            Wire::Bytes(_) => 2,
            Wire::Fixed32(_) => 5,
        };
        put_tag(out, number, wire_type);
        if let Wire::Bytes(bytes) = self {
            put_varint(out, bytes.len() as u64);
        }
        self.put_value(out);
    }

    /// The value without its tag, as in a packed list.
    pub(super) fn put_value(&self, out: &mut Vec<u8>) {
        match self {
            Wire::Varint(value) => put_varint(out, *value),
            Wire::Fixed64(value) => out.extend_from_slice(&value.to_le_bytes()),
            Wire::Fixed32(value) => out.extend_from_slice(&value.to_le_bytes()),
            Wire::Bytes(bytes) => out.extend_from_slice(bytes),
        }
    }
}

/// Whether a list of this kind is packed into one record.
pub(super) fn is_packed(kind: Kind) -> bool {
    !matches!(kind, Kind::String | Kind::Bytes | Kind::Message(_))
}

/// The wire value of a JSON value for a field of a scalar kind.
pub(super) fn from_json(kind: Kind, value: &Value) -> Result<Wire, Problem> {
    match kind {
        Kind::Bool => match value {
            Value::Bool(value) => Ok(Wire::Varint(u64::from(*value))),
            _ => Err(wrong_type("true or false", value)),
        },
        Kind::String => match value {
            Value::String(text) => Ok(Wire::Bytes(text.clone().into_bytes())),
            Value::Number(_) | Value::Bool(_) => {
                Err(wrong_type("a string (put it in quotes)", value))
            }
            _ => Err(wrong_type("a string", value)),
        },
        Kind::Bytes => match value {
            Value::String(text) => base64::decode(text)
                .map(Wire::Bytes)
                .ok_or(Problem::NotBase64),
            _ => Err(wrong_type("a string of base64", value)),
        },
        Kind::Int32 => {
            let number = i32::try_from(integer(value)?)
                .map_err(|_| bad_number(value, "does not fit in 32 bits with a sign"))?;
            Ok(Wire::Varint(sign_extended(i64::from(number))))
        }
        Kind::Int64 => {
            let number = i64::try_from(integer(value)?)
                .map_err(|_| bad_number(value, "does not fit in 64 bits with a sign"))?;
            Ok(Wire::Varint(sign_extended(number)))
        }
        Kind::Uint32 => {
            let number = u32::try_from(integer(value)?)
                .map_err(|_| bad_number(value, "is not between 0 and 4294967295"))?;
            Ok(Wire::Varint(u64::from(number)))
        }
        Kind::Uint64 => {
            let number = u64::try_from(integer(value)?)
                .map_err(|_| bad_number(value, "is not between 0 and 18446744073709551615"))?;
            Ok(Wire::Varint(number))
        }
        Kind::Double => Ok(Wire::Fixed64(float(value)?.to_bits())),
        Kind::Float => {
            let wide = float(value)?;
            #[allow(clippy::cast_possible_truncation, reason = "checked on the next line")]
            let narrow = wide as f32;
            if wide.is_finite() && !narrow.is_finite() {
                return Err(bad_number(value, "does not fit in a 32-bit float"));
            }
            Ok(Wire::Fixed32(narrow.to_bits()))
        }
        Kind::Enum(Some(values)) => enum_from_json(values, value),
        Kind::Enum(None) | Kind::Message(_) => Err(Problem::Unsupported { reason: "" }),
    }
}

fn enum_from_json(values: Enum, value: &Value) -> Result<Wire, Problem> {
    let number = match value {
        Value::String(name) => values
            .value_number(name)
            .ok_or_else(|| Problem::no_such_value(values, name))?,
        Value::Number(given) => given
            .as_i64()
            .and_then(|number| i32::try_from(number).ok())
            .filter(|number| values.value_name(*number).is_some())
            .ok_or_else(|| Problem::no_such_value(values, &given.to_string()))?,
        Value::Null if is_null(values) => 0,
        _ => return Err(wrong_type("the name of a value", value)),
    };
    Ok(Wire::Varint(sign_extended(i64::from(number))))
}

/// Whether an enum is `google.protobuf.NullValue`, whose one value JSON writes as `null`.
pub(super) fn is_null(values: Enum) -> bool {
    values.name() == "google.protobuf.NullValue"
}

/// Negative numbers take ten bytes on the wire, whatever their width.
fn sign_extended(value: i64) -> u64 {
    value.cast_unsigned()
}

/// A whole number, given as a number (`1`, `1.0`) or in a string.
fn integer(value: &Value) -> Result<i128, Problem> {
    const WANTED: &str = "a whole number";
    match value {
        Value::Number(number) => {
            if let Some(number) = number.as_i64() {
                return Ok(i128::from(number));
            }
            if let Some(number) = number.as_u64() {
                return Ok(i128::from(number));
            }
            let number = number.as_f64().unwrap_or(f64::NAN);
            // Up to 2^64 so that the range check of each type can speak.
            if number.fract() == 0.0 && number.abs() <= 2_f64.powi(64) {
                #[allow(clippy::cast_possible_truncation, reason = "whole and within 2^64")]
                return Ok(number as i128);
            }
            Err(bad_number(value, "is not a whole number"))
        }
        Value::String(text) => text
            .parse::<i128>()
            .map_err(|_| bad_number(value, "is not a whole number")),
        _ => Err(wrong_type(WANTED, value)),
    }
}

fn float(value: &Value) -> Result<f64, Problem> {
    match value {
        Value::Number(number) => number
            .as_f64()
            .ok_or_else(|| bad_number(value, "is not a number")),
        Value::String(text) => match text.as_str() {
            "NaN" => Ok(f64::NAN),
            "Infinity" => Ok(f64::INFINITY),
            "-Infinity" => Ok(f64::NEG_INFINITY),
            text => text
                .parse()
                .ok()
                .filter(|number: &f64| number.is_finite())
                .ok_or_else(|| bad_number(value, "is not a number")),
        },
        _ => Err(wrong_type("a number", value)),
    }
}

/// A number, or a text in its place, which a field of numbers does not take.
fn bad_number(given: &Value, reason: &'static str) -> Problem {
    match given {
        Value::String(text) => Problem::bad_value(text, reason),
        other => Problem::bad_value(other, reason),
    }
}

pub(super) fn wrong_type(expected: &'static str, found: &Value) -> Problem {
    let found = match found {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    };
    Problem::WrongType { expected, found }
}

/// Reads one value of a packed list.
pub(super) fn unpack<'a>(kind: Kind, reader: &mut Reader<'a>) -> Result<Raw<'a>, Problem> {
    Ok(match kind {
        Kind::Double => Raw::Fixed64(u64::from_le_bytes(reader.array()?)),
        Kind::Float => Raw::Fixed32(u32::from_le_bytes(reader.array()?)),
        _ => Raw::Varint(reader.varint()?),
    })
}

/// The JSON value of a wire value of a scalar kind.
pub(super) fn to_json(kind: Kind, raw: Raw<'_>) -> Result<Value, Problem> {
    #[allow(
        clippy::cast_possible_truncation,
        reason = "protobuf keeps the low 32 bits"
    )]
    Ok(match (kind, raw) {
        (Kind::Bool, Raw::Varint(value)) => Value::Bool(value != 0),
        (Kind::Int32, Raw::Varint(value)) => Value::Number((value as i32).into()),
        (Kind::Uint32, Raw::Varint(value)) => Value::Number((value as u32).into()),
        (Kind::Int64, Raw::Varint(value)) => Value::String(value.cast_signed().to_string()),
        (Kind::Uint64, Raw::Varint(value)) => Value::String(value.to_string()),
        (Kind::Enum(values), Raw::Varint(value)) => {
            let number = value as i32;
            let name = values.and_then(|values| values.value_name(number));
            name.map_or_else(
                || Value::Number(number.into()),
                |name| Value::String(name.to_owned()),
            )
        }
        (Kind::Double, Raw::Fixed64(bits)) => float_to_json(f64::from_bits(bits)),
        (Kind::Float, Raw::Fixed32(bits)) => {
            let narrow = f32::from_bits(bits);
            // By way of its shortest text, so that 0.1 does not become 0.10000000149011612.
            let wide = narrow
                .to_string()
                .parse()
                .unwrap_or_else(|_| f64::from(narrow));
            float_to_json(wide)
        }
        (Kind::String, Raw::Bytes(bytes)) => {
            let text = std::str::from_utf8(bytes);
            Value::String(
                text.map_err(|_| Problem::Malformed("not UTF-8"))?
                    .to_owned(),
            )
        }
        (Kind::Bytes, Raw::Bytes(bytes)) => Value::String(base64::encode(bytes)),
        _ => return Err(Problem::WrongWireType),
    })
}

fn float_to_json(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 2_f64.powi(53) {
        #[allow(clippy::cast_possible_truncation, reason = "whole and within 2^53")]
        return Value::Number((value as i64).into());
    }
    let text = if value.is_nan() {
        "NaN"
    } else if value > 0.0 {
        "Infinity"
    } else {
        "-Infinity"
    };
    Number::from_f64(value).map_or_else(|| Value::String(text.to_owned()), Value::Number)
}
