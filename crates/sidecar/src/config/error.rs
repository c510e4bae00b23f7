//! Why a resource is refused.

use std::fmt;

/// A field of a resource that cannot be accepted, by its path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct ConfigError {
    /// For example `filter_chains[2].filters[0].typed_config.route_config.virtual_hosts[0].domains`.
    pub path: String,
    /// What is wrong and what would be right.
    pub reason: String,
}

impl ConfigError {
    /// An error at a field.
    pub fn new(path: impl fmt::Display, reason: impl fmt::Display) -> Self {
        ConfigError {
            path: path.to_string(),
            reason: reason.to_string(),
        }
    }

    /// Puts the parent's path before this one's.
    pub fn within(self, parent: impl fmt::Display) -> Self {
        let join = if self.path.starts_with('[') || self.path.is_empty() {
            ""
        } else {
            "."
        };
        ConfigError {
            path: format!("{parent}{join}{}", self.path),
            reason: self.reason,
        }
    }
}

/// What a build answers.
pub type Result<T, E = ConfigError> = std::result::Result<T, E>;
