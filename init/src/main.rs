//! `outrider-init`: redirects the traffic of one pod (one network namespace) to its proxy.
//!
//! A run, in the order of the files: `options` (what is asked for) becomes a `config`; `rules` says
//! which rules that takes; `saved` reads what is there and `plan` writes the text that takes the
//! one to the other; `backend` runs iptables with it, under the lock of `turn`; `diagnose` finds
//! out why, where that fails. `apply` puts these together, `check` proves the result.

mod apply;
mod backend;
mod check;
mod config;
mod diagnose;
mod error;
mod ipv6;
mod netlink;
mod options;
mod plan;
mod rules;
mod saved;
mod turn;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

use crate::config::Config;
use crate::error::Error;
use crate::ipv6::Facts;
use crate::options::{Options, Verb};
use crate::turn::Turn;

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut message = format!("outrider-init: {error}");
            let mut cause = std::error::Error::source(&error);
            while let Some(error) = cause {
                message.push_str(&format!(": {error}"));
                cause = error.source();
            }
            eprintln!("{message}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(options: &Options) -> Result<(), Error> {
    let facts = Facts::read()?;
    let verb = options.verb.unwrap_or(Verb::Apply);
    if verb == Verb::Print {
        return say(&apply::print(&config(options, facts)?));
    }
    // Wrong options are told of before anything is looked at.
    let config = match verb {
        Verb::Clean => None,
        _ => Some(config(options, facts)?),
    };
    diagnose::require_capabilities()?;
    let _turn = Turn::take(options.run.lock_timeout())?;
    let report = match (verb, &config) {
        (Verb::Check, Some(config)) => {
            let outcome = check::check(config, &options.run)?;
            say(&lines(&outcome.lines))?;
            return outcome.result();
        }
        (_, Some(config)) => apply::apply(config, options.capture.ipv6, facts, &options.run)?,
        (_, None) => apply::clean(facts, &options.run)?,
    };
    say(&lines(&report))
}

fn config(options: &Options, facts: Facts) -> Result<Config, Error> {
    let ipv6 = ipv6::settle(options.capture.ipv6, facts)?;
    options.capture.config(ipv6).map_err(Error::Options)
}

fn lines(report: &[String]) -> String {
    report.iter().map(|line| format!("{line}\n")).collect()
}

fn say(text: &str) -> Result<(), Error> {
    let mut output = std::io::stdout().lock();
    output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush())
        .map_err(Error::Output)
}
