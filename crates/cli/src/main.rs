//! The command of the mesh for its users.

mod check;
mod cluster;
mod completion;
mod defaults;
mod flags;
mod inject;
mod output;
mod proxy;
mod status;
mod survey;
mod validate;
mod version;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser as _;

use flags::{Cli, Verb};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("outrider: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the verb; the result is whether what it looked at is well.
fn run(cli: &Cli) -> Result<bool> {
    let flags = &cli.global;
    // Some verbs ask many pods at once.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match &cli.verb {
            Verb::Check(arguments) => return Ok(check::run(arguments, flags).await?),
            Verb::Validate(arguments) => return Ok(validate::run(arguments, flags)?),
            Verb::Inject(arguments) => return Ok(inject::inject(arguments, flags).await?),
            Verb::Uninject(arguments) => return Ok(inject::uninject(arguments)?),
            Verb::Status(arguments) => status::run(arguments, flags).await?,
            Verb::Proxy(arguments) => proxy::run(arguments, flags).await?,
            Verb::Version(arguments) => version::run(arguments, flags).await?,
            Verb::Completion(arguments) => completion::run(arguments)?,
        }
        Ok(true)
    })
}
