//! The data plane of the Outrider service mesh. `main.rs` is its only user; the folders are the
//! stages of a connection, in the order in which a newcomer should read them.

mod admin;
mod app;
mod bootstrap;
mod config;
mod discovery;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod http;
mod listener;
mod matching;
mod network;
mod pod;
mod rbac;
mod runtime;
mod runtime_layer;
mod telemetry;
mod tls;
mod upstream;

pub use app::{AppError, run};
pub use bootstrap::options::{Options, OptionsError, Verb};
pub use pod::wait::{NotReady, wait};
pub use telemetry::program_log::{LogError, open as open_log};
