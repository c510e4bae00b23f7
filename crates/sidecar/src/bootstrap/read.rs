//! From a file to the bytes of a `Bootstrap`.

use std::path::Path;

use outrider_xds::transcode;
use serde_json::Value;

use super::BootstrapError;
use super::options::Options;
use crate::config::build::resource::warned;
use crate::config::error::{ConfigError, Problems};

const BOOTSTRAP: &str = "envoy.config.bootstrap.v3.Bootstrap";

/// Reads a file, whose form its extension tells as Envoy has it.
pub fn file(
    path: &Path,
    origin: &str,
    options: &Options,
    problems: &mut Problems,
) -> Result<Vec<u8>, BootstrapError> {
    let unreadable = |source| BootstrapError::Read {
        path: path.to_owned(),
        source,
    };
    let extension = path.extension().and_then(|extension| extension.to_str());
    if extension == Some("pb") {
        return std::fs::read(path).map_err(unreadable);
    }
    if let Some("pb_text" | "prototxt" | "textproto") = extension {
        return Err(BootstrapError::Syntax {
            origin: origin.to_owned(),
            reason: "protobuf's text form is not read; use YAML, JSON or the binary form (.pb)"
                .to_owned(),
        });
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    if extension == Some("json") {
        let value = transcode::strict_json_to_value(&text);
        let value = value.map_err(|error| syntax(origin, error))?;
        return Ok(encode(&value, options, problems));
    }
    yaml(&text, origin, options, problems)
}

/// Reads YAML.
pub fn yaml(
    text: &str,
    origin: &str,
    options: &Options,
    problems: &mut Problems,
) -> Result<Vec<u8>, BootstrapError> {
    let value = transcode::yaml_to_value(text).map_err(|error| syntax(origin, error))?;
    Ok(encode(&value, options, problems))
}

fn syntax(origin: &str, error: impl std::fmt::Display) -> BootstrapError {
    BootstrapError::Syntax {
        origin: origin.to_owned(),
        reason: error.to_string(),
    }
}

fn encode(value: &Value, options: &Options, problems: &mut Problems) -> Vec<u8> {
    let (bytes, left_out) = transcode::json_to_proto_in_part(BOOTSTRAP, value);
    for transcode::Error { path, problem } in left_out {
        let lenient = match problem {
            // Whoever builds what it is for refuses it, and knows what is supported there; or
            // leaves it out, where the file calls it optional.
            transcode::Problem::UnknownType(_) => continue,
            transcode::Problem::NoSuchField { .. } => options.allow_unknown_static_fields,
            transcode::Problem::Unsupported { .. } => options.allow_unsupported,
            _ => false,
        };
        if lenient {
            warned(BOOTSTRAP, &path, &problem.to_string());
        } else {
            problems.add(ConfigError::new(path, problem));
        }
    }
    bytes
}
