//! Outrider's control crate.
