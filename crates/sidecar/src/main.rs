//! The outrider-sidecar program: flags, then the application.

use clap::Parser;
use outrider_sidecar::Options;

// Chosen by measurement: half the memory of others under load, at the same speed.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    outrider_sidecar::log_to_stderr(&options)?;
    outrider_sidecar::run(&options)?;
    Ok(())
}
