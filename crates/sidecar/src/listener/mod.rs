//! Accepting connections: bind, original destination, inspection, filter-chain match.

pub mod connection;
pub mod filter_chain_match;
