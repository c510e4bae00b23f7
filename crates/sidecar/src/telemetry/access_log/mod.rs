//! Access logs.

pub mod filter;
pub mod flags;
pub mod format;
pub mod record;
pub mod writer;
