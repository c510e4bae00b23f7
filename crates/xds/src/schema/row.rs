//! The rows of the generated tables, and the short constructors that the tables are written with.

/// A piece of the one string that holds all names and reasons.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Text {
    pub(crate) at: u32,
    pub(crate) length: u16,
}

/// A message: its fields are `count` rows from `first`, ordered by number.
#[derive(Debug)]
pub(crate) struct MessageRow {
    pub(crate) name: Text,
    pub(crate) first: u16,
    pub(crate) count: u16,
}

/// A field.
#[derive(Debug)]
pub(crate) struct FieldRow {
    pub(crate) name: Text,
    pub(crate) number: u32,
    /// A letter; `schema.rs` has the list.
    pub(crate) kind: u8,
    /// The message or enum of a field of that kind.
    pub(crate) target: u16,
    pub(crate) flags: u8,
    /// The position of its oneof in the message, or 255.
    pub(crate) oneof: u8,
    /// `S`upported, `I`gnored or `R`ejected.
    pub(crate) support: u8,
    pub(crate) reason: Text,
}

/// An enum: its values are `count` rows from `first`, ordered by number.
#[derive(Debug)]
pub(crate) struct EnumRow {
    pub(crate) name: Text,
    pub(crate) first: u16,
    pub(crate) count: u16,
}

/// A value of an enum.
#[derive(Debug)]
pub(crate) struct ValueRow {
    pub(crate) name: Text,
    pub(crate) number: i32,
}

/// The bits of [`FieldRow::flags`], in the order in which the generator shifts them in.
pub(crate) const SENSITIVE: u8 = 8;
pub(crate) const PRESENCE: u8 = 4;
pub(crate) const REPEATED: u8 = 2;
pub(crate) const MAP: u8 = 1;

pub(crate) const fn m(at: u32, length: u16, first: u16, count: u16) -> MessageRow {
    MessageRow {
        name: Text { at, length },
        first,
        count,
    }
}

#[allow(clippy::too_many_arguments, reason = "only generated code calls it")]
pub(crate) const fn f(
    at: u32,
    length: u16,
    number: u32,
    kind: u8,
    target: u16,
    flags: u8,
    oneof: u8,
    support: u8,
    reason_at: u32,
    reason_length: u16,
) -> FieldRow {
    let reason = Text {
        at: reason_at,
        length: reason_length,
    };
    FieldRow {
        name: Text { at, length },
        number,
        kind,
        target,
        flags,
        oneof,
        support,
        reason,
    }
}

pub(crate) const fn e(at: u32, length: u16, first: u16, count: u16) -> EnumRow {
    EnumRow {
        name: Text { at, length },
        first,
        count,
    }
}

pub(crate) const fn v(at: u32, length: u16, number: i32) -> ValueRow {
    ValueRow {
        name: Text { at, length },
        number,
    }
}
