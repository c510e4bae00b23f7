//! Accepting connections: bind, listener filters, hand-over, filter-chain match.
//!
//! [`accept`] takes connections from the sockets, [`serve`] is the way of each to its network
//! filter.

mod accept;
mod balance;
pub mod binding;
mod choose;
pub mod connection;
mod detect;
pub mod filter_chain_match;
mod filter_stats;
mod inspect;
mod original_dst;
pub mod proxy_protocol;
pub mod running;
mod serve;
mod socket;
mod stats;
#[cfg(test)]
mod tests;
mod udp;

pub use running::Listeners;
