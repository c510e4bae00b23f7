//! One encoding for one meaning.
//!
//! prost writes the entries of a map in the order of a hash table with a random key, so the same
//! message has other bytes in each process, and a version that is a hash of them would change with
//! each restart of a server.

use super::error::Problem;
use super::wire::{Raw, Reader, put_bytes};
use super::{MAX_DEPTH, scalar::Wire};
use crate::schema::{Field, Kind, Message, WellKnown};

/// The bytes of a message with the entries of its maps in order, at every depth that the tables
/// know. Bytes that are not such a message stay as they are.
#[must_use]
pub fn canonicalize(type_name: &str, bytes: &[u8]) -> Vec<u8> {
    let canonical = Message::named(type_name).map(|message| canonical(message, bytes, 0));
    match canonical {
        Some(Ok(canonical)) => canonical,
        _ => bytes.to_vec(),
    }
}

fn canonical(message: Message, bytes: &[u8], depth: usize) -> Result<Vec<u8>, Problem> {
    if depth > MAX_DEPTH {
        return Err(Problem::TooDeep);
    }
    if message.well_known() == Some(WellKnown::Any) {
        return canonical_any(bytes, depth);
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut entries: Vec<(u32, Vec<u8>)> = Vec::new();
    let mut reader = Reader::new(bytes);
    while let Some((number, raw)) = reader.record()? {
        match (
            message.field(number).map(|field| (field, field.kind())),
            raw,
        ) {
            (Some((field, Kind::Message(Some(inner)))), Raw::Bytes(bytes)) => {
                let inner = canonical(inner, bytes, depth + 1)?;
                if Field::is_map(field) {
                    entries.push((number, inner));
                } else {
                    put_bytes(&mut out, number, &inner);
                }
            }
            (_, raw) => put_raw(&mut out, number, raw),
        }
    }
    entries.sort();
    for (number, entry) in entries {
        put_bytes(&mut out, number, &entry);
    }
    Ok(out)
}

fn canonical_any(bytes: &[u8], depth: usize) -> Result<Vec<u8>, Problem> {
    let (url, value) = super::wire::any(bytes)?;
    let message = std::str::from_utf8(url)
        .ok()
        .and_then(Message::for_type_url);
    let value = match message {
        Some(message) => canonical(message, value, depth + 1)?,
        None => value.to_vec(),
    };
    let mut out = Vec::new();
    for (number, bytes) in [(1, url), (2, value.as_slice())] {
        if !bytes.is_empty() {
            put_bytes(&mut out, number, bytes);
        }
    }
    Ok(out)
}

fn put_raw(out: &mut Vec<u8>, number: u32, raw: Raw<'_>) {
    match raw {
        Raw::Varint(value) => Wire::Varint(value).put(out, number),
        Raw::Fixed64(value) => Wire::Fixed64(value).put(out, number),
        Raw::Fixed32(value) => Wire::Fixed32(value).put(out, number),
        Raw::Bytes(bytes) => put_bytes(out, number, bytes),
    }
}
