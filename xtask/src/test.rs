//! `cargo xtask test`: the suites, with what they need built first.

use anyhow::{Result, bail};
use clap::ValueEnum;

use crate::conform::Conform;
use crate::demo::Demo;
use crate::fuzz::Fuzz;
use crate::{cluster, machine, shell};

/// Build the programs and run the tests
#[derive(clap::Args, Debug)]
pub(crate) struct Test {
    /// Which suite to run
    #[arg(value_enum, default_value = "all")]
    suite: Suite,
    /// Install what the machine lacks
    #[arg(long)]
    install: bool,
    /// Only the tests whose names contain this
    #[arg(long)]
    filter: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Suite {
    /// Every crate's own tests
    Unit,
    /// The Helm chart, as the real Helm lints and renders it
    Chart,
    /// The built programs on loopback, with fake and real peers
    Integration,
    /// The sidecar against a real Envoy: written cases, and 20,000 generated ones
    Conform,
    /// The built programs in pods with real redirects, and the demo; needs root
    Netns,
    /// The mesh on a real Kubernetes, and the Gateway API's conformance suite; needs root
    Kube,
    /// Every decoder of what comes from the network, for a minute each
    Fuzz,
    /// All of them
    All,
}

impl Suite {
    fn includes(self, other: Self) -> bool {
        self == Self::All || self == other
    }
}

impl Test {
    /// Runs the verb.
    ///
    /// # Errors
    /// When something is missing, does not build, or a test fails. In CI also when a suite cannot
    /// run.
    pub(crate) fn run(&self) -> Result<()> {
        let root = nix::unistd::geteuid().is_root();
        let mut needed = vec![machine::ENVOY];
        if self.suite.includes(Suite::Integration) {
            needed.extend([machine::HTTP, machine::TLS]);
        }
        if root {
            needed.push(machine::NAMESPACES);
        }
        if root && self.suite.includes(Suite::Kube) {
            needed.push(machine::CLUSTER);
        }
        machine::require(&needed, self.install)?;
        // The cluster's are built for its images.
        if self.suite != Suite::Kube {
            shell::step(
                "build the programs",
                shell::cargo(&["build", "--workspace", "--bins"])?,
            )?;
        }
        if self.suite.includes(Suite::Unit) {
            let arguments = ["test", "--workspace", "--exclude", "outrider-tests"];
            self.cargo_test("unit tests", &arguments)?;
        }
        if self.suite.includes(Suite::Chart) {
            let arguments = ["test", "--package", "outrider-tests", "--test", "chart"];
            self.cargo_test("the chart", &arguments)?;
        }
        if self.suite.includes(Suite::Integration) {
            let arguments = [
                "test",
                "--package",
                "outrider-tests",
                "--test",
                "integration",
            ];
            self.cargo_test("integration tests", &arguments)?;
        }
        if self.suite.includes(Suite::Conform) && self.filter.is_none() {
            println!("==> conform");
            Conform::of_ci().run()?;
        }
        if self.suite.includes(Suite::Netns) {
            if root {
                let arguments = ["test", "--package", "outrider-tests", "--test", "netns"];
                self.cargo_test("namespace tests", &arguments)?;
                // What the README shows first must work too; a filter asks for less.
                if self.filter.is_none() {
                    Demo::default().run()?;
                }
            } else {
                skip("namespace tests", "netns")?;
            }
        }
        if self.suite.includes(Suite::Kube) {
            if root {
                cluster::test(self.install, self.filter.as_deref())?;
            } else {
                skip("tests on a cluster", "kube")?;
            }
        }
        if self.suite.includes(Suite::Fuzz) && self.filter.is_none() {
            Fuzz::all(self.install).run()?;
        }
        Ok(())
    }

    fn cargo_test(&self, what: &str, arguments: &[&str]) -> Result<()> {
        let mut command = shell::cargo(arguments)?;
        command.args(&self.filter);
        shell::step(what, command)
    }
}

/// Says that a suite is skipped for want of root, which is a failure where `CI` is set.
fn skip(what: &str, suite: &str) -> Result<()> {
    if shell::in_ci() {
        bail!("the {what} need root, and CI skips nothing");
    }
    let as_root = shell::AS_ROOT;
    println!("==> {what}: skipped, they need root: {as_root} test {suite}");
    Ok(())
}
