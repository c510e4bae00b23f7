//! `cargo xtask lint`: all that is checked without running anything.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use crate::{shell, tidy};

/// The version of cargo-deny whose configuration `.deny.toml` is.
const DENY_VERSION: &str = "0.20.2";

/// Check formatting, clippy, dependencies and the tree's own rules
#[derive(clap::Args, Debug)]
pub(crate) struct Lint {
    /// Install cargo-deny into the cache if it is missing (CI does so without being told)
    #[arg(long)]
    install: bool,
    /// Also check the dependencies against the advisory database, which is fetched from its
    /// public repository: not part of the default, since it needs the internet and its answer
    /// changes without a commit
    #[arg(long)]
    advisories: bool,
}

impl Lint {
    /// Runs the verb.
    ///
    /// # Errors
    /// At the first check that fails.
    pub(crate) fn run(&self) -> Result<()> {
        shell::step("formatting", shell::cargo(&["fmt", "--all", "--check"])?)?;
        tidy::check()?;
        self.deny()?;
        let arguments = [
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ];
        shell::step("clippy", shell::cargo(&arguments)?)
    }

    /// Licences, bans (one crypto provider) and sources.
    fn deny(&self) -> Result<()> {
        let root = outrider_testkit::envoy::cache_folder()?.join(format!("deny-{DENY_VERSION}"));
        let program: PathBuf = root.join("bin/cargo-deny");
        if !program.is_file() {
            let by_hand = format!(
                "cargo install --locked cargo-deny --version {DENY_VERSION} --root {}",
                root.display()
            );
            if !self.install && !shell::in_ci() {
                bail!("cargo-deny is missing; install it (--install does the same): {by_hand}");
            }
            let arguments = [
                "install",
                "--locked",
                "cargo-deny",
                "--version",
                DENY_VERSION,
            ];
            let mut install = shell::cargo(&arguments)?;
            install.arg("--root").arg(&root);
            shell::step("install cargo-deny", install)?;
        }
        let mut command = Command::new(program);
        command.current_dir(shell::top()?);
        command.args(["--workspace", "--config", ".deny.toml", "check"]);
        command.args(["--hide-inclusion-graph", "licenses", "bans", "sources"]);
        if self.advisories {
            command.arg("advisories");
        }
        shell::step("dependencies", command)
    }
}
