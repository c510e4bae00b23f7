//! Outrider's xds crate.
