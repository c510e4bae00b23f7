//! Accepting connections: bind, original destination, inspection, filter-chain match.

pub mod connection;
