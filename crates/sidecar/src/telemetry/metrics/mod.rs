//! Stats: handles resolved once, cells per thread, merged when they are read.
//!
//! A module asks its thread's [`Stats`] for a [`Scope`] (one cluster, one listener, ...), and the
//! scope for handles, when the thing that they count is built. Counting is then one uncontended
//! atomic addition. When the last scope of a subject is dropped, on all threads, its stats go.

mod cells;
mod histogram_text;
mod names;
pub mod pages;
mod registry;
mod rules;

pub use histogram_text::Form;
#[cfg(test)]
pub use registry::Value;
pub use registry::{Family, Number, Registry, Scope, Stats, Text};
pub use rules::{Keep, StatsRules, Tag};
