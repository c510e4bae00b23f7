//! Native sidecars, and which API servers have them.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Whether the sidecar is a native one: an init container with `restartPolicy: Always` (KEP-753).
/// It starts before the app's own init containers, ends after the app, and does not keep a Job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NativeSidecar {
    /// Where the API server has them.
    #[default]
    Auto,
    /// Always: on a cluster that has them only behind a feature gate.
    Native,
    /// Never: a container beside the app's.
    Plain,
}

/// The version of an API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerVersion {
    /// 1
    pub major: u16,
    /// 34 of 1.34
    pub minor: u16,
}

impl ServerVersion {
    /// The first in which native sidecars are on by default.
    pub const NATIVE_SIDECARS: Self = Self {
        major: 1,
        minor: 29,
    };

    /// Reads what `/version` says. Some clouds write a minor version like `29+`.
    pub fn parse(major: &str, minor: &str) -> Option<Self> {
        let number = |text: &str| {
            let digits = text.trim_end_matches(|character: char| !character.is_ascii_digit());
            digits.parse().ok()
        };
        Some(Self {
            major: number(major)?,
            minor: number(minor)?,
        })
    }
}

impl NativeSidecar {
    /// Whether native, on that API server. One that is not known is taken for a current one.
    pub fn resolve(self, server: Option<ServerVersion>) -> bool {
        match self {
            Self::Native => true,
            Self::Plain => false,
            Self::Auto => server.is_none_or(|server| server >= ServerVersion::NATIVE_SIDECARS),
        }
    }
}

impl Serialize for NativeSidecar {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Native => serializer.serialize_bool(true),
            Self::Plain => serializer.serialize_bool(false),
        }
    }
}

/// `true` and `false` are not strings in YAML, but in a chart's values they may be.
impl<'de> Deserialize<'de> for NativeSidecar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Bool(bool),
            Text(String),
        }
        match Written::deserialize(deserializer) {
            Ok(Written::Bool(true)) => Ok(Self::Native),
            Ok(Written::Bool(false)) => Ok(Self::Plain),
            Ok(Written::Text(text)) => match text.as_str() {
                "auto" => Ok(Self::Auto),
                "true" => Ok(Self::Native),
                "false" => Ok(Self::Plain),
                _ => Err(serde::de::Error::custom(format!(
                    "nativeSidecar: `{text}` is none of auto, true and false"
                ))),
            },
            Err(_) => Err(serde::de::Error::custom(
                "nativeSidecar: write auto, true or false",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_is_decided_by_the_server() {
        let server = |minor| ServerVersion::parse("1", minor);
        for (minor, native) in [("28", false), ("29", true), ("30+", true)] {
            assert_eq!(NativeSidecar::Auto.resolve(server(minor)), native);
        }
        assert!(NativeSidecar::Auto.resolve(None));
        assert!(!NativeSidecar::Plain.resolve(server("34")));
    }
}
