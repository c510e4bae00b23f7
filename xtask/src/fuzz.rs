//! `cargo xtask fuzz`: libFuzzer on everything that takes bytes from the network.
//!
//! Only our own crates are compiled with the counters that guide it; what they depend on is shared
//! with every other build. The compiler that does so is this program again, called by cargo.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context as _, Result, bail, ensure};

use crate::{machine, shell};

/// Set where this program is called in place of the compiler.
const COMPILER: &str = "OUTRIDER_FUZZ_COMPILER";
/// What LLVM adds for libFuzzer: edge counters, their addresses, and what comparisons compare.
const INSTRUMENTATION: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
    "-Copt-level=1",
];
/// The longest input, in bytes: several times the largest head or record.
const LONGEST: usize = 64 * 1024;

/// Feed every decoder with bytes nobody sane would send
#[derive(clap::Args, Debug)]
pub(crate) struct Fuzz {
    /// Only this target
    target: Option<String>,
    /// How long each target runs
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    seconds: u64,
    /// Targets that run at once
    #[arg(long, value_name = "N", default_value_t = 2)]
    jobs: usize,
    /// Run this input, which a run before has found, and nothing else
    #[arg(long, value_name = "FILE", requires = "target")]
    input: Option<PathBuf>,
    /// Install what the machine lacks
    #[arg(long)]
    install: bool,
}

impl Default for Fuzz {
    fn default() -> Self {
        Fuzz {
            target: None,
            seconds: 60,
            jobs: 2,
            input: None,
            install: false,
        }
    }
}

impl Fuzz {
    /// What CI runs.
    pub(crate) fn all(install: bool) -> Self {
        Fuzz {
            install,
            ..Self::default()
        }
    }

    /// Runs the verb.
    ///
    /// # Errors
    /// A target panics, takes too long over one input, or too much memory: the error names the
    /// input and how to run it again.
    pub(crate) fn run(&self) -> Result<()> {
        machine::require(&[machine::FUZZ], self.install)?;
        let program = build()?;
        let targets = targets(&program)?;
        let chosen: Vec<&String> = match &self.target {
            None => targets.iter().collect(),
            Some(name) => targets.iter().filter(|target| *target == name).collect(),
        };
        ensure!(
            !chosen.is_empty(),
            "there is no such target; there are: {}",
            targets.join(", ")
        );
        if let Some(input) = &self.input {
            let status = libfuzzer(&program, chosen[0]).arg(input).status()?;
            ensure!(status.success(), "{}: {status}", chosen[0]);
            return Ok(());
        }
        println!(
            "==> fuzz: {} targets, {} s each, {} at once",
            chosen.len(),
            self.seconds,
            self.jobs
        );
        let queue = Mutex::new(chosen.into_iter());
        let failed = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for _ in 0..self.jobs.max(1) {
                scope.spawn(|| {
                    loop {
                        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                        let Some(target) = next else { return };
                        if let Err(error) = self.one(&program, target) {
                            println!("==> fuzz {target}: {error:#}");
                            let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                            failed.push(target.clone());
                        }
                    }
                });
            }
        });
        let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
        if !failed.is_empty() {
            bail!("fuzz: {} failed", failed.join(", "));
        }
        Ok(())
    }

    /// Runs one target for its time, from what earlier runs have found on.
    fn one(&self, program: &Path, target: &str) -> Result<()> {
        let folder = shell::top()?.join("target/fuzz").join(target);
        let (corpus, found) = (folder.join("corpus"), folder.join("found"));
        for folder in [&corpus, &found] {
            fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        }
        seed(program, target, &corpus)?;
        let log = folder.join("log");
        let output = fs::File::create(&log).with_context(|| format!("create {}", log.display()))?;
        let status = libfuzzer(program, target)
            .arg(format!("-max_total_time={}", self.seconds))
            .arg(format!("-max_len={LONGEST}"))
            .args(["-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1"])
            .arg(format!("-artifact_prefix={}/", found.display()))
            .arg(&corpus)
            .stdout(Stdio::null())
            .stderr(output)
            .status()
            .context("start the fuzzer")?;
        let text = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
        if !status.success() {
            let last: Vec<&str> = text.lines().rev().take(25).collect();
            let last: Vec<&str> = last.into_iter().rev().collect();
            bail!(
                "{status}\n{}\nagain: cargo xtask fuzz {target} --input {}/...",
                last.join("\n"),
                found.display()
            );
        }
        let runs = stat(&text, "number_of_executed_units");
        // One that cannot tell inputs apart would find nothing and pass.
        let edges = text
            .lines()
            .filter_map(|line| line.split_once(" cov: ")?.1.split(' ').next()?.parse().ok())
            .max()
            .unwrap_or(0_u64);
        ensure!(
            runs > 0 && edges > 60,
            "{runs} runs reached {edges} edges: it is not guided ({})",
            log.display()
        );
        println!("==> fuzz {target}: {runs} runs, {edges} edges, nothing found");
        Ok(())
    }
}

/// A number of libFuzzer's last lines.
fn stat(text: &str, name: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.strip_prefix("stat::")?.strip_prefix(name))
        .find_map(|rest| rest.trim_start_matches(':').trim().parse().ok())
        .unwrap_or(0)
}

/// The program, run for one target.
fn libfuzzer(program: &Path, target: &str) -> Command {
    let mut command = Command::new(program);
    command
        .env("OUTRIDER_FUZZ", target)
        .env("RUST_BACKTRACE", "1");
    command
}

/// Builds the program and answers where it is.
fn build() -> Result<PathBuf> {
    let arguments = ["build", "--package", "outrider-fuzz", "--features"];
    let mut command = shell::cargo(&arguments)?;
    command
        .arg("libfuzzer")
        .env("RUSTC_WORKSPACE_WRAPPER", compiler()?)
        .env(COMPILER, "1");
    shell::step("build the fuzz targets", command)?;
    Ok(shell::top()?.join("target/debug/outrider-fuzz"))
}

/// This program as a file that stays: a build of the whole workspace, which ran before in the same
/// process, may have replaced the one that was started.
fn compiler() -> Result<PathBuf> {
    let path = shell::top()?.join("target/fuzz/compiler");
    let program = fs::read("/proc/self/exe").context("read this program")?;
    // Written only when it is another one: cargo builds all again for a newer compiler.
    if fs::read(&path).is_ok_and(|there| there == program) {
        return Ok(path);
    }
    fs::create_dir_all(shell::top()?.join("target/fuzz")).context("make target/fuzz")?;
    let _ = fs::remove_file(&path);
    fs::write(&path, program).with_context(|| format!("write {}", path.display()))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("make {} executable", path.display()))?;
    Ok(path)
}

/// Whether cargo has called this program in place of the compiler.
pub(crate) fn is_compiler() -> bool {
    std::env::var_os(COMPILER).is_some()
}

/// Compiles one crate of ours: the arguments are the compiler and its own.
///
/// # Errors
/// The compiler cannot be started; otherwise this ends the process as the compiler ends.
pub(crate) fn compile() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let compiler = arguments.next().context("called without a compiler")?;
    let arguments: Vec<_> = arguments.collect();
    let mut command = Command::new(compiler);
    // What runs while the build does, and macros, would miss libFuzzer when they are linked.
    let is_for_host = arguments
        .windows(2)
        .any(|pair| pair[0] == "--crate-type" && pair[1] == "proc-macro");
    let is_script = arguments.windows(2).any(|pair| {
        pair[0] == "--crate-name" && pair[1].to_string_lossy().starts_with("build_script")
    });
    let asks = !arguments.iter().any(|argument| argument == "--crate-name");
    command.args(&arguments);
    if !is_for_host && !is_script && !asks {
        command.args(INSTRUMENTATION);
    }
    let status = command.status().context("start the compiler")?;
    std::process::exit(status.code().unwrap_or(1));
}

/// The names of the targets, from the program itself.
fn targets(program: &Path) -> Result<Vec<String>> {
    let listed = shell::output(listing(program))?;
    Ok(listed.lines().map(str::to_owned).collect())
}

fn listing(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("OUTRIDER_FUZZ_LIST", "1");
    command
}

/// Writes a target's first inputs.
fn seed(program: &Path, target: &str, corpus: &Path) -> Result<()> {
    let mut command = listing(program);
    command.env("OUTRIDER_FUZZ", target);
    command.env("OUTRIDER_FUZZ_SEEDS", corpus);
    shell::output(command).map(drop)
}
