//! Outrider's testkit crate.
