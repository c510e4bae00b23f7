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
mod network;
mod pod;
mod runtime;
mod runtime_layer;
mod telemetry;
mod tls;
mod upstream;

pub use app::{AppError, run};
pub use bootstrap::options::{Options, Verb};
pub use pod::wait::{NotReady, wait};

/// Sends the program's own messages to standard error, at `--log-level`.
///
/// # Errors
/// The level is none.
pub fn log_to_stderr(options: &Options) -> Result<(), tracing_subscriber::filter::ParseError> {
    use tracing_subscriber::filter::Targets;
    use tracing_subscriber::layer::SubscriberExt as _;
    use tracing_subscriber::util::SubscriberInitExt as _;

    let level = match options.log_level.as_str() {
        // Envoy's names for two of them.
        "warning" => "warn",
        "critical" => "error",
        level => level,
    };
    let filter = level
        .parse::<Targets>()?
        // It tells of every event in the folders of watched files: of the log itself, if it is there.
        .with_target("notify", tracing::Level::WARN);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    tracing_subscriber::registry()
        .with(lines)
        .with(filter)
        .init();
    Ok(())
}
