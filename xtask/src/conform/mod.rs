//! `cargo xtask conform`: a real Envoy and our sidecar with the same configuration, the same servers
//! behind them and the same bytes sent to both; every difference in what comes of it.
//!
//! What a case can say is in tests/conform/README.md. A side ([`side`]) is one proxy with servers of
//! its own ([`upstream`]) and connections of its own ([`connection`]); both are led through the steps
//! of a case together ([`play`]), and what each saw is lines of text, which are compared
//! ([`compare`]).

mod bytes;
mod compare;
mod config;
mod connection;
mod differences;
mod file;
mod frames;
mod generate;
mod http1;
mod names;
mod oddities;
mod pages;
mod play;
mod side;
mod tls;
mod upstream;
mod xds;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::shell;
use differences::Differences;
use play::{Outcome, Verdict};

/// Hold the sidecar against a real Envoy, case by case
#[derive(clap::Args, Debug)]
pub(crate) struct Conform {
    /// Only the files whose names contain this, such as route/ or http/framing
    #[arg(long, default_value = "")]
    filter: String,
    /// Only tell the files and their cases
    #[arg(long)]
    list: bool,
    /// How many files run at a time
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Make this many cases too, from the seed
    #[arg(long, value_name = "N", default_value_t = 0)]
    generate: usize,
    /// The seed of generated cases
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many kinds of differences among generated cases are made small and shown
    #[arg(long, default_value_t = 6)]
    shrink: usize,
    /// How many percent of each area's generated cases must be well; every written one must be
    #[arg(long, value_name = "PERCENT", default_value_t = 99.0)]
    at_least: f64,
    /// Only generated cases
    #[arg(long)]
    only_generated: bool,
    /// Write every difference among generated cases to this file, a line of JSON each
    #[arg(long, value_name = "FILE")]
    findings: Option<PathBuf>,
    /// Use the sidecar that is built
    #[arg(long)]
    no_build: bool,
}

/// How many cases of an area there are, and how many of them are well.
#[derive(Default)]
struct Tally {
    agreed: usize,
    explained: usize,
    total: usize,
}

impl Tally {
    /// How many of a hundred are well.
    fn percent(&self) -> f64 {
        100.0 * (self.agreed + self.explained) as f64 / self.total.max(1) as f64
    }

    fn add(&mut self, other: &Self) {
        self.agreed += other.agreed;
        self.explained += other.explained;
        self.total += other.total;
    }
}

impl Conform {
    /// What CI runs: all written cases, and generated ones of a fixed seed.
    pub(crate) fn of_ci() -> Self {
        Self {
            filter: String::new(),
            list: false,
            jobs: 4,
            generate: 20_000,
            seed: 1,
            shrink: 3,
            at_least: 99.0,
            only_generated: false,
            findings: None,
            no_build: true,
        }
    }

    /// Runs the verb.
    ///
    /// # Errors
    /// When a file is wrong, or something differs that nobody has explained.
    pub(crate) fn run(&self) -> Result<()> {
        let folder = shell::top()?.join("tests/conform");
        let files = if self.only_generated {
            Vec::new()
        } else {
            file::all(&folder, &self.filter)?
        };
        ensure!(
            self.generate > 0 || !files.is_empty(),
            "no file's name contains {:?}",
            self.filter
        );
        if self.list {
            for file in &files {
                println!("{}", file.name);
                for case in &file.cases {
                    println!("    {}", case.script.about);
                }
            }
            return Ok(());
        }
        if !self.no_build {
            let build = shell::cargo(&["build", "--package", "outrider-sidecar"])?;
            shell::step("build the sidecar", build)?;
        }
        let differences = Arc::new(Differences::read(&folder.join("differences.md"))?);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(4)
            // Envoy asks for a SIGTERM when the thread that started it ends.
            .thread_keep_alive(Duration::from_secs(24 * 3600))
            .enable_all()
            .build()
            .context("make a runtime")?;
        let began = Instant::now();
        let mut tallies = runtime.block_on(self.run_files(files, Arc::clone(&differences)))?;
        if self.generate > 0 {
            let plan = generate::Plan {
                count: self.generate,
                seed: self.seed,
                filter: self.filter.clone(),
                jobs: self.jobs,
                shrink: self.shrink,
                findings: self.findings.clone(),
            };
            let generated = generate::run(plan, differences);
            tallies.extend(runtime.block_on(generated)?);
        }
        report(&tallies, began, self.at_least)
    }

    async fn run_files(
        &self,
        files: Vec<file::CaseFile>,
        differences: Arc<Differences>,
    ) -> Result<BTreeMap<String, Tally>> {
        let jobs = Arc::new(Semaphore::new(self.jobs.max(1)));
        let mut running = JoinSet::new();
        let count = files.len();
        for file in files {
            let (jobs, differences) = (Arc::clone(&jobs), Arc::clone(&differences));
            running.spawn(async move {
                let _permit = jobs.acquire().await;
                let outcome = play::file(&file, &differences).await;
                (file, outcome)
            });
        }
        let mut tallies: BTreeMap<String, Tally> = BTreeMap::new();
        let mut done = 0;
        while let Some(finished) = running.join_next().await {
            let (file, outcome) = finished.context("a file's run panicked")?;
            done += 1;
            let tally = tallies.entry(file.area().to_owned()).or_default();
            show(&format!("[{done}/{count}] {}", file.name), &outcome, tally);
        }
        Ok(tallies)
    }
}

/// Prints what came of a file.
fn show(name: &str, outcome: &Outcome, tally: &mut Tally) {
    let total = outcome.verdicts.len();
    let agreed = outcome
        .verdicts
        .iter()
        .filter(|(_, verdict)| *verdict == Verdict::Agreed)
        .count();
    let explained = outcome
        .verdicts
        .iter()
        .filter(|(_, verdict)| *verdict == Verdict::Explained)
        .count();
    tally.total += total;
    tally.agreed += agreed;
    tally.explained += explained;
    let note = if explained > 0 {
        format!(", {explained} explained")
    } else {
        String::new()
    };
    let word = if agreed + explained == total {
        "agree"
    } else {
        "DIFFER"
    };
    println!("{name}: {word}: {agreed}/{total}{note}");
    for (about, verdict) in &outcome.verdicts {
        if let Verdict::Differs(lines) = verdict {
            println!("  {about}");
            for line in lines {
                println!("{line}");
            }
        }
    }
}

/// Prints the numbers of each area.
fn report(tallies: &BTreeMap<String, Tally>, began: Instant, at_least: f64) -> Result<()> {
    let mut sum = Tally::default();
    println!(
        "\n{:<12} {:>8} {:>10} {:>8} {:>8}",
        "area", "agreed", "explained", "total", ""
    );
    let line = |name: &str, tally: &Tally| {
        let percent = tally.percent();
        println!(
            "{name:<12} {:>8} {:>10} {:>8} {percent:>7.1}%",
            tally.agreed, tally.explained, tally.total
        );
    };
    for (area, tally) in tallies {
        line(area, tally);
        sum.add(tally);
    }
    line("all", &sum);
    println!("in {:.0} s", began.elapsed().as_secs_f64());
    let mut differing = 0;
    for (area, tally) in tallies {
        match area.strip_prefix('~') {
            None => differing += tally.total - tally.agreed - tally.explained,
            Some(area) => ensure!(
                tally.percent() >= at_least,
                "{:.1}% of the generated cases of {area} agree with Envoy or are explained, not \
                 {at_least}%",
                tally.percent()
            ),
        }
    }
    ensure!(
        differing == 0,
        "{differing} cases differ from Envoy, unexplained"
    );
    Ok(())
}
