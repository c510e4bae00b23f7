//! Outrider's sidecar crate.
