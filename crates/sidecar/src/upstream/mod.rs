//! upstream

pub mod exchange;
