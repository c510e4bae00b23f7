//! The admission webhook: a pure function from a pod to its patch, and the server around it.
//!
//! [`inject`] decides what becomes of a pod; [`inject_document`] does the same to a YAML file, for
//! the command line. [`Config`] is what both go by. [`serve`] is the webhook, and [`cluster`] what
//! it asks of the API server.

pub mod cluster;
pub mod config;
pub mod document;
pub mod patch;
pub mod serve;
pub mod values;

pub use config::Config;
pub use document::{inject_document, uninject_document};
pub use patch::{HookSecret, Left, Outcome, Refusal, Surroundings, inject, uninject};
