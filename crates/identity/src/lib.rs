//! Outrider's identity crate.
