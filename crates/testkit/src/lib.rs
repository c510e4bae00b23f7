//! What every test and bench of Outrider stands on: pods as network namespaces, supervised
//! processes, fake servers, and clients that see the exact bytes.
//!
//! Everything here returns `anyhow` errors: its users are tests, which only print them.

pub mod bins;
pub mod certs;
pub mod clients;
pub mod cluster;
pub mod envoy;
pub mod load;
pub mod mesh;
pub mod message;
pub mod netns;
pub mod poll;
pub mod process;
pub mod proxy;
pub mod servers;
pub mod sniffer;
pub mod tls;

pub use poll::{eventually, eventually_async};
pub use process::Process;
pub use proxy::Proxy;
pub use sniffer::Sniffer;
