//! What the messages of Envoy's API look like, and what we do with each field.
//!
//! The tables are integers and one string in read-only pages: nothing is built, relocated or
//! allocated when a program starts (`prost-reflect` needs 51 MiB and 82 ms for the same facts).
//! `cargo xtask codegen` makes them; `crates/xds/schema` has the judgements.

#[rustfmt::skip]
mod generated {
    pub(super) mod tables;
}
mod row;
#[cfg(test)]
mod tests;

use generated::tables::{ENUMS, FIELDS, MESSAGES, TEXT, VALUES};
use row::{FieldRow, Text};

/// The target of a field whose message or enum is not in the tables.
const ABSENT: u16 = u16::MAX;

/// A message type of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Message(u16);

/// A field of a message type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Field(u16);

/// An enum type of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Enum(u16);

/// The type of a field's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `double`
    Double,
    /// `float`
    Float,
    /// `int32`
    Int32,
    /// `int64`
    Int64,
    /// `uint32`
    Uint32,
    /// `uint64`
    Uint64,
    /// `bool`
    Bool,
    /// `string`
    String,
    /// `bytes`
    Bytes,
    /// An enum; `None` where only rejected fields have its type.
    Enum(Option<Enum>),
    /// A message; `None` where only rejected fields have its type.
    Message(Option<Message>),
}

/// What the sidecar does with a field that is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// It is acted on.
    Supported,
    /// It is safe to leave alone, for this reason.
    Ignored(&'static str),
    /// It makes its resource fail; the reason may be empty.
    Rejected(&'static str),
}

/// The messages that proto3 JSON writes in a form of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WellKnown {
    /// `google.protobuf.Any`
    Any,
    /// `google.protobuf.Struct`
    Struct,
    /// `google.protobuf.Value`
    Value,
    /// `google.protobuf.ListValue`
    ListValue,
    /// `google.protobuf.Duration`
    Duration,
    /// `google.protobuf.Timestamp`
    Timestamp,
    /// `google.protobuf.BoolValue` and its like: one field, `value`.
    Wrapper,
}

impl Message {
    /// The message of this full name, such as `envoy.config.listener.v3.Listener`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let found = MESSAGES
            .binary_search_by(|row| text(row.name).cmp(name))
            .ok()?;
        u16::try_from(found).ok().map(Self)
    }

    /// The message that an `Any` with this type URL holds: the name after the last slash.
    #[must_use]
    pub fn for_type_url(url: &str) -> Option<Self> {
        Self::named(url.rsplit_once('/')?.1)
    }

    /// The full name.
    #[must_use]
    pub fn name(self) -> &'static str {
        text(MESSAGES[usize::from(self.0)].name)
    }

    /// The fields, by number.
    pub fn fields(self) -> impl Iterator<Item = Field> {
        let row = &MESSAGES[usize::from(self.0)];
        (row.first..row.first + row.count).map(Field)
    }

    /// The field of this number.
    #[must_use]
    pub fn field(self, number: u32) -> Option<Field> {
        let row = &MESSAGES[usize::from(self.0)];
        let rows = &FIELDS[usize::from(row.first)..usize::from(row.first + row.count)];
        let found = rows.binary_search_by_key(&number, |row| row.number).ok()?;
        u16::try_from(found).ok().map(|at| Field(row.first + at))
    }

    /// The field that a document calls `key`: its proto name or that name in lowerCamelCase.
    #[must_use]
    pub fn field_for_key(self, key: &str) -> Option<Field> {
        self.fields()
            .find(|field| field.name() == key || is_camel_case_of(key, field.name()))
    }

    /// How the message is special in JSON, if it is.
    #[must_use]
    pub fn well_known(self) -> Option<WellKnown> {
        Some(match self.name().strip_prefix("google.protobuf.")? {
            "Any" => WellKnown::Any,
            "Struct" => WellKnown::Struct,
            "Value" => WellKnown::Value,
            "ListValue" => WellKnown::ListValue,
            "Duration" => WellKnown::Duration,
            "Timestamp" => WellKnown::Timestamp,
            "BoolValue" | "BytesValue" | "DoubleValue" | "FloatValue" | "Int32Value"
            | "Int64Value" | "StringValue" | "UInt32Value" | "UInt64Value" => WellKnown::Wrapper,
            _ => return None,
        })
    }
}

impl Field {
    fn row(self) -> &'static FieldRow {
        &FIELDS[usize::from(self.0)]
    }

    /// The name in the proto, in snake_case.
    #[must_use]
    pub fn name(self) -> &'static str {
        text(self.row().name)
    }

    /// The number on the wire.
    #[must_use]
    pub fn number(self) -> u32 {
        self.row().number
    }

    /// The type; for a map, the message of one entry (fields 1 and 2).
    #[must_use]
    pub fn kind(self) -> Kind {
        let row = self.row();
        match row.kind {
            b'd' => Kind::Double,
            b'f' => Kind::Float,
            b'i' => Kind::Int32,
            b'l' => Kind::Int64,
            b'u' => Kind::Uint32,
            b'w' => Kind::Uint64,
            b'b' => Kind::Bool,
            b's' => Kind::String,
            b'y' => Kind::Bytes,
            b'e' => Kind::Enum((row.target != ABSENT).then_some(Enum(row.target))),
            _ => Kind::Message((row.target != ABSENT).then_some(Message(row.target))),
        }
    }

    /// Whether the field is a list.
    #[must_use]
    pub fn is_repeated(self) -> bool {
        self.row().flags & row::REPEATED != 0
    }

    /// Whether the field is a map.
    #[must_use]
    pub fn is_map(self) -> bool {
        self.row().flags & row::MAP != 0
    }

    /// Whether the field can be set to its default: a message, a oneof's member, `optional`.
    #[must_use]
    pub fn has_presence(self) -> bool {
        self.row().flags & row::PRESENCE != 0
    }

    /// Whether the value is a secret, which no log, dump or error may show.
    #[must_use]
    pub fn is_sensitive(self) -> bool {
        self.row().flags & row::SENSITIVE != 0
    }

    /// The oneof that the field is part of: equal numbers within one message exclude each other.
    #[must_use]
    pub fn oneof(self) -> Option<u8> {
        Some(self.row().oneof).filter(|oneof| *oneof != u8::MAX)
    }

    /// What the sidecar does with the field.
    #[must_use]
    pub fn support(self) -> Support {
        let row = self.row();
        match row.support {
            b'S' => Support::Supported,
            b'I' => Support::Ignored(text(row.reason)),
            _ => Support::Rejected(text(row.reason)),
        }
    }
}

impl Enum {
    /// The full name.
    #[must_use]
    pub fn name(self) -> &'static str {
        text(ENUMS[usize::from(self.0)].name)
    }

    /// The values, by number.
    pub fn values(self) -> impl Iterator<Item = (i32, &'static str)> {
        let row = &ENUMS[usize::from(self.0)];
        let values = &VALUES[usize::from(row.first)..usize::from(row.first + row.count)];
        values.iter().map(|value| (value.number, text(value.name)))
    }

    /// The name of a number.
    #[must_use]
    pub fn value_name(self, number: i32) -> Option<&'static str> {
        self.values()
            .find(|(each, _)| *each == number)
            .map(|(_, name)| name)
    }

    /// The number of a name.
    #[must_use]
    pub fn value_number(self, name: &str) -> Option<i32> {
        // Exactly written first, for two values may differ in case alone.
        let exact = self.values().find(|(_, each)| *each == name);
        let any_case = || {
            self.values()
                .find(|(_, each)| each.eq_ignore_ascii_case(name))
        };
        exact.or_else(any_case).map(|(number, _)| number)
    }
}

fn text(place: Text) -> &'static str {
    let at = place.at as usize;
    &TEXT[at..at + usize::from(place.length)]
}

/// Whether `key` is `name` with each underscore dropped and the letter after it in upper case.
fn is_camel_case_of(key: &str, name: &str) -> bool {
    let mut key = key.bytes();
    let mut upper = false;
    for letter in name.bytes() {
        if letter == b'_' {
            upper = true;
            continue;
        }
        let expected = if upper {
            letter.to_ascii_uppercase()
        } else {
            letter
        };
        upper = false;
        if key.next() != Some(expected) {
            return false;
        }
    }
    key.next().is_none()
}
