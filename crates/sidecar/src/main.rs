//! The outrider-sidecar program: flags, then the application.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use outrider_sidecar::{Options, Verb};

// Chosen by measurement: half the memory of others under load, at the same speed.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> anyhow::Result<()> {
    outrider_sidecar::open_log(options)?;
    match options.verb {
        Some(Verb::Wait { timeout_s }) => outrider_sidecar::wait(Duration::from_secs(timeout_s))?,
        // As Envoy says it where hot restarts are off.
        None if options.hot_restart_version => println!("disabled"),
        None => outrider_sidecar::run(options)?,
    }
    Ok(())
}
