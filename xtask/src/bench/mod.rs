//! `cargo xtask bench`: our pair of sidecars and Envoy's, side by side on the same files.
//!
//! Two pods with real redirects; nginx and iperf3 are the app in one, wrk, h2load and iperf3 the
//! load in the other. A pair is started anew for each round, the rounds of the two pairs
//! alternate, and what counts are medians: single runs differ by up to a third.

mod bootstrap;
mod load;
mod pair;
mod report;
mod routes;
mod stage;

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use outrider_testkit::netns;

use crate::{machine, shell};
use load::Load;
use pair::{Pair, Proxy};
use report::{Report, Round};
use stage::Stage;

/// Measure our pair of sidecars against Envoy's, on the same configuration files
#[derive(clap::Args, Debug)]
pub(crate) struct Bench {
    /// How many rounds each pair has; they alternate
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long each load lasts, in seconds
    #[arg(long, default_value_t = 5)]
    seconds: u32,
    /// Only this load, which may be given several times
    #[arg(long, value_enum)]
    only: Vec<Load>,
    /// Only our pair
    #[arg(long, conflicts_with = "envoy_only")]
    ours_only: bool,
    /// Only Envoy's pair
    #[arg(long)]
    envoy_only: bool,
    /// A sidecar that is built already, instead of building this tree's in release
    #[arg(long, value_name = "PROGRAM")]
    sidecar: Option<PathBuf>,
    /// Record each load of the first round with perf, and print how to read it
    #[arg(long)]
    profile: bool,
    /// Where the measurements go
    #[arg(long, value_name = "FILE", default_value = "target/bench.json")]
    json: PathBuf,
    /// Instead of pairs, measure a large route table: lookups, and how long it takes to load
    #[arg(long)]
    routes: bool,
    /// Install what the machine lacks
    #[arg(long)]
    install: bool,
}

impl Bench {
    /// Runs the verb.
    ///
    /// # Errors
    /// When something is missing, does not start, or any request of a load fails: a figure with
    /// failures in it says nothing.
    pub(crate) fn run(&self) -> Result<()> {
        if self.routes {
            machine::require(&[machine::ENVOY], self.install)?;
            return routes::run(&self.program()?, &outrider_testkit::envoy::binary()?);
        }
        ensure!(
            nix::unistd::geteuid().is_root(),
            "the bench makes network namespaces, which need root: {} bench",
            shell::AS_ROOT
        );
        ensure!(
            self.rounds > 0 && self.seconds > 0,
            "--rounds and --seconds are at least 1"
        );
        machine::require(
            &[machine::NAMESPACES, machine::ENVOY, machine::BENCH],
            self.install,
        )?;
        let proxies = self.proxies()?;
        let loads: Vec<Load> = Load::all()
            .filter(|load| self.only.is_empty() || self.only.contains(load))
            .collect();

        let stage = Stage::set(&init()?)?;
        let mut report = Report::new(self.seconds);
        for round in 0..self.rounds {
            for proxy in &proxies {
                println!("==> round {} of {}: {}", round + 1, self.rounds, proxy.name);
                let profile = self.profile && round == 0;
                let measured = self.round(&stage, proxy, &loads, profile)?;
                report.add(proxy.name, measured);
            }
        }
        print!("{}", report.table());
        let path = shell::top()?.join(&self.json);
        let text = serde_json::to_string_pretty(&report.json())?;
        std::fs::write(&path, text + "\n").with_context(|| format!("write {}", path.display()))?;
        println!("the measurements of each round are in {}", path.display());
        Ok(())
    }

    /// The sidecar to measure.
    fn program(&self) -> Result<PathBuf> {
        let program = match &self.sidecar {
            Some(program) => std::path::absolute(program).context("--sidecar")?,
            None => {
                let (build, program) = shell::release("outrider-sidecar")?;
                shell::step("build the sidecar", build)?;
                program
            }
        };
        ensure!(program.is_file(), "there is no {}", program.display());
        Ok(program)
    }

    /// The pairs to measure, ours first.
    fn proxies(&self) -> Result<Vec<Proxy>> {
        let mut proxies = Vec::new();
        if !self.envoy_only {
            proxies.push(Proxy {
                name: report::OURS,
                program: self.program()?,
                arguments: &[],
            });
        }
        if !self.ours_only {
            let program = outrider_testkit::envoy::binary()?;
            // Two in a row would share its hot-restart memory.
            let arguments = &["--disable-hot-restart"];
            proxies.push(Proxy {
                name: report::ENVOY,
                program,
                arguments,
            });
        }
        Ok(proxies)
    }

    /// Starts a pair, measures its memory and each load, and ends it.
    fn round(&self, stage: &Stage, proxy: &Proxy, loads: &[Load], profile: bool) -> Result<Round> {
        let pair = Pair::start(stage, proxy)?;
        let idle = pair.idle_memory()?;
        stage
            .check()
            .with_context(|| format!("through {}", proxy.name))?;
        let mut round = Round {
            idle,
            ..Round::default()
        };
        for load in loads {
            let profiler = if profile {
                Some(pair.profile(*load)?)
            } else {
                None
            };
            let before = pair.cpu()?;
            let outcome = load
                .run(stage, self.seconds)
                .with_context(|| format!("{} through {}", load.title(), proxy.name))?;
            let cpu = pair.cpu()? - before;
            drop(profiler);
            let sample = report::Sample::new(&outcome, cpu);
            println!("    {}", sample.line(*load));
            if *load == Load::Http1Many {
                round.loaded = Some(pair.memory()?);
            }
            round.samples.insert(*load, sample);
        }
        pair.end()?;
        Ok(round)
    }
}

/// The program that installs the redirects. It is not measured, so any build will do.
fn init() -> Result<PathBuf> {
    let arguments = ["build", "--package", "outrider-init"];
    shell::step("build the init program", shell::cargo(&arguments)?)?;
    Ok(shell::top()?.join("target/debug/outrider-init"))
}

/// The user that the sidecars run as.
const USER: u32 = netns::PROXY_UID;
