//! Accepting connections: bind, original destination, hand-over, inspection, filter-chain match.
//!
//! [`accept::serve`] is the way of a connection from the socket to its network filter.

mod accept;
pub mod binding;
pub mod connection;
pub mod filter_chain_match;
mod inspect;
mod original_dst;
pub mod running;
mod stats;
#[cfg(test)]
mod tests;

pub use running::Listeners;
