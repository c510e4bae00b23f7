//! YAML and JSON to protobuf and back, and what of a message we do not act on.
//!
//! Everything here works on wire bytes, guided by [`crate::schema`]. prost drops fields that it
//! does not know, so whether something is set that we would not act on can only be told from the
//! bytes: [`check`] tells it, with the path of each such field.

mod base64;
mod canonical;
mod check;
mod decode;
mod encode;
mod error;
mod path;
mod scalar;
#[cfg(test)]
mod tests;
mod time;
mod wire;
mod yaml;

pub use canonical::canonicalize;
pub use check::{Fault, Ignored, Opaque, Report, Violation, check, inspect};
pub use decode::proto_to_json;
pub use encode::{json_to_proto, json_to_proto_in_part};
pub use error::{Error, Problem};
pub use yaml::{YamlError, strict_json_to_value, yaml_to_value};

/// The deepest nesting that is read, which is prost's limit too.
const MAX_DEPTH: usize = 100;

/// The text in field 1 of a message, which is its name in every kind of resource: empty where it
/// is not set, `None` where the bytes are malformed.
pub(crate) fn first_field_text(bytes: &[u8]) -> Option<String> {
    let mut reader = wire::Reader::new(bytes);
    let mut text: &[u8] = &[];
    while let Some((number, raw)) = reader.record().ok()? {
        match (number, raw) {
            (1, wire::Raw::Bytes(bytes)) => text = bytes,
            (1, _) => return None,
            _ => {}
        }
    }
    std::str::from_utf8(text).ok().map(str::to_owned)
}
