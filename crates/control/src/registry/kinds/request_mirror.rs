//! The filter that copies requests.

use std::num::NonZeroU32;

use serde::Deserialize;

use super::BackendRef;
use crate::registry::FieldError;

/// Sends a copy of requests elsewhere, whose answers nobody sees.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RequestMirror {
    /// Where to.
    pub backend_ref: BackendRef,
    #[serde(default)]
    percent: Option<u32>,
    #[serde(default)]
    fraction: Option<Fraction>,
}

/// A part of all requests.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fraction {
    numerator: u32,
    #[serde(default)]
    denominator: Option<NonZeroU32>,
}

impl RequestMirror {
    /// How many of a million requests are copied.
    pub fn parts_per_million(&self) -> u32 {
        let (part, whole) = match (self.percent, self.fraction) {
            (Some(percent), _) => (percent, 100),
            (None, Some(fraction)) => (
                fraction.numerator,
                fraction.denominator.map_or(100, NonZeroU32::get),
            ),
            (None, None) => (1, 1),
        };
        let parts = u64::from(part) * 1_000_000 / u64::from(whole);
        u32::try_from(parts.min(1_000_000)).unwrap_or(1_000_000)
    }

    pub(super) fn validate(&self) -> Result<(), FieldError> {
        if self.percent.is_some() && self.fraction.is_some() {
            return Err(FieldError::new("fraction", "excludes percent"));
        }
        if self.percent.is_some_and(|percent| percent > 100) {
            return Err(FieldError::new("percent", "is over 100"));
        }
        if let Some(fraction) = self.fraction
            && fraction.numerator > fraction.denominator.map_or(100, NonZeroU32::get)
        {
            let reason = "is over the denominator";
            return Err(FieldError::new("fraction.numerator", reason));
        }
        self.backend_ref
            .check_mirror()
            .map_err(|error| error.under("backendRef"))
    }
}
