//! `cargo xtask conformance`: the Gateway API's official suite against the mesh on the cluster.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use outrider_testkit::cluster::{Cluster, Program};
use rcgen::{CertificateParams, KeyPair};

use crate::images::{self, Entry, ImageConfig};
use crate::shell;

/// The app of the suite's mesh tests, by the name that its manifests have.
const ECHO_IMAGE: &str = "registry.k8s.io/gateway-api/echo-advanced:v1.5.1";
/// How many tests of a mesh the suite has at this version.
const TESTS: usize = 22;

/// Run the Gateway API's conformance suite against the installed mesh
#[derive(clap::Args, Debug, Default)]
pub(crate) struct Conformance {
    /// Only this test of the suite, such as MeshHTTPRouteWeight; makes no report
    #[arg(long)]
    only: Option<String>,
}

impl Conformance {
    /// Runs the verb.
    ///
    /// # Errors
    /// A test fails or was left out; each that failed is named, and where what it said is.
    pub(crate) fn run(&self) -> Result<()> {
        let cluster = Cluster::running()?;
        let program = Program::Conformance.path()?;
        load_echo(&cluster)?;
        let target = shell::top()?.join("target");
        let report = target.join("conformance-report.yaml");
        let log = target.join("conformance.log");
        println!("==> conformance ({})", log.display());
        let mut command = cluster.command(program);
        command.args(self.arguments(&report));
        // It looks for files beside itself, and for a configuration of git's.
        command.current_dir(&target);
        let output = File::create(&log).with_context(|| format!("create {}", log.display()))?;
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        let status = command.status().context("start the conformance suite")?;

        let outcomes = outcomes(&log)?;
        let of = |outcome: &str| -> Vec<&str> {
            let all = outcomes.iter().filter(|(_, is)| *is == outcome);
            all.map(|(name, _)| name.as_str()).collect()
        };
        let (passed, failed) = (of("PASS"), of("FAIL"));
        ensure!(
            status.success() && failed.is_empty(),
            "conformance: {} of {} tests failed ({}): {}\nwhat they said: {}",
            failed.len(),
            failed.len() + passed.len(),
            status,
            failed.join(", "),
            log.display()
        );
        if self.only.is_none() {
            // A test that was left out would be a silent pass.
            ensure!(
                passed.len() == TESTS,
                "conformance: {} tests ran, there are {TESTS}: {}",
                passed.len(),
                passed.join(", ")
            );
            println!("==> the report: {}", report.display());
        }
        println!("==> conformance: {} tests passed", passed.len());
        Ok(())
    }

    fn arguments(&self, report: &Path) -> Vec<String> {
        let mut arguments = [
            "-test.run=^TestConformance$",
            "-test.v",
            "-test.parallel=16",
            "--conformance-profiles=MESH-HTTP,MESH-GRPC",
            // A mesh has none.
            "--gateway-class=",
            "--all-features",
            "--exempt-features=Gateway,ReferenceGrant",
            "--namespace-labels=outrider.dev/inject=enabled",
            "--organization=Outrider",
            "--project=outrider",
            "--url=https://outrider.dev",
            "--contact=https://outrider.dev",
        ]
        .map(str::to_owned)
        .to_vec();
        arguments.push(format!("--version=v{}", env!("CARGO_PKG_VERSION")));
        match &self.only {
            Some(test) => arguments.push(format!("--run-test={test}")),
            None => arguments.push(format!("--report-output={}", report.display())),
        }
        arguments
    }
}

/// The outcome of each test of the suite that was run: `PASS` or `FAIL` by its name.
fn outcomes(log: &Path) -> Result<BTreeMap<String, String>> {
    let file = File::open(log).with_context(|| format!("open {}", log.display()))?;
    let mut outcomes = BTreeMap::new();
    for line in BufReader::new(file).lines() {
        if let Some((outcome, name)) = outcome(&line?) {
            outcomes.insert(name.to_owned(), outcome.to_owned());
        }
    }
    Ok(outcomes)
}

/// `    --- PASS: TestConformance/MeshBasic (0.36s)`, and not the parts of one.
fn outcome(line: &str) -> Option<(&str, &str)> {
    let (outcome, rest) = line
        .strip_prefix("    --- ")?
        .split_once(": TestConformance/")?;
    let (name, _) = rest.split_once(' ')?;
    (outcome != "SKIP" && !name.contains('/')).then_some((outcome, name))
}

/// Gives the node the app of the suite, built from its module.
fn load_echo(cluster: &Cluster) -> Result<()> {
    let present = cluster.containerd(&["images", "ls", "-q"]).output()?;
    let present = String::from_utf8_lossy(&present.stdout).into_owned();
    if present.lines().any(|line| line == ECHO_IMAGE) {
        return Ok(());
    }
    let key = KeyPair::generate().context("make the app's key")?;
    let params = CertificateParams::new(vec!["echo".to_owned()])?;
    let certificate = params.self_signed(&key).context("make its certificate")?;
    let entries = [
        Entry::bytes("/cert.crt", certificate.pem()),
        Entry::bytes("/cert.key", key.serialize_pem()),
        // The suite runs the client by its name alone.
        Entry::program("/usr/local/bin/client", Program::EchoClient.path()?),
        Entry::program("/usr/local/bin/server", Program::EchoServer.path()?),
    ];
    let config = ImageConfig {
        entrypoint: vec!["/usr/local/bin/server".to_owned()],
        user: "65532:65532".to_owned(),
        environment: vec!["PATH=/usr/local/bin".to_owned()],
    };
    let file: PathBuf = shell::top()?.join("target/images/conformance-echo.tar");
    images::write(ECHO_IMAGE, &entries, &config, &file)?;
    cluster.load_image(&file)?;
    fs::remove_file(&file).context("remove the image's file")
}

#[cfg(test)]
mod tests {
    use super::outcome;

    #[test]
    fn reads_the_outcome_of_whole_tests_alone() {
        let cases = [
            (
                "    --- PASS: TestConformance/MeshBasic (0.36s)",
                Some(("PASS", "MeshBasic")),
            ),
            (
                "    --- FAIL: TestConformance/MeshPorts (30.01s)",
                Some(("FAIL", "MeshPorts")),
            ),
            (
                "    --- SKIP: TestConformance/GatewayInfrastructure (0.00s)",
                None,
            ),
            (
                "        --- PASS: TestConformance/MeshBasic/send (0.01s)",
                None,
            ),
            ("--- PASS: TestConformance (80.00s)", None),
        ];
        for (line, expected) in cases {
            assert_eq!(outcome(line), expected, "{line}");
        }
    }
}
