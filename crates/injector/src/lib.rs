//! The admission webhook: a pure function from a pod to its patch, and the server around it.

pub mod config;
pub mod values;

pub use config::Config;
