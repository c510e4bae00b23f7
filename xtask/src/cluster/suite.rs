//! `cargo xtask test kube`: one cluster for the tests, the conformance suite and the removal.

use anyhow::Result;
use outrider_testkit::cluster::{Cluster, Program};

use super::{build, down, install, mesh, up};
use crate::conformance::Conformance;
use crate::shell;

/// Brings a cluster up with the mesh on it, runs everything, and takes it down. A cluster that ran
/// before stays, with the mesh.
///
/// # Errors
/// Something does not build or come up, or a test fails; what was on the cluster then is shown.
pub(crate) fn test(tools: bool, filter: Option<&str>) -> Result<()> {
    let is_ours = Cluster::running().is_err();
    if filter.is_none() {
        build(Program::CONFORMANCE)?;
    }
    let outcome = up()
        .and_then(|()| install(tools))
        // While nothing else is there that could be found unwell.
        .and_then(|()| mesh::check())
        .and_then(|()| run(filter, is_ours));
    if outcome.is_err() {
        show_state();
    }
    if is_ours {
        // The first failure is the one to tell.
        let downed = down();
        return outcome.and(downed);
    }
    outcome
}

fn run(filter: Option<&str>, whole: bool) -> Result<()> {
    let tests = ["test", "--package", "outrider-tests", "--test", "kube"];
    let mut command = shell::cargo(&tests)?;
    // The command that was built for its image.
    command.env("OUTRIDER_BIN_DIR", shell::static_folder("quick")?);
    command.args(filter);
    shell::step("tests on the cluster", command)?;
    if filter.is_some() {
        return Ok(());
    }
    Conformance::default().run()?;
    if whole {
        let mut command = shell::cargo(&tests)?;
        command.args(["--", "--ignored", "uninstall"]);
        shell::step("uninstall", command)?;
    }
    Ok(())
}

/// For whoever reads the log of a run that failed, and has no cluster to look at any more.
fn show_state() {
    let Ok(cluster) = Cluster::running() else {
        return;
    };
    let commands: [&[&str]; 4] = [
        &["get", "pods", "-A", "-o", "wide"],
        &["get", "events", "-A", "--field-selector=type!=Normal"],
        &[
            "logs",
            "-n",
            "outrider-system",
            "deployment/outrider-control",
            "--tail=40",
        ],
        &[
            "logs",
            "-n",
            "outrider-system",
            "deployment/outrider-injector",
            "--tail=40",
        ],
    ];
    for arguments in commands {
        match cluster.kubectl(arguments) {
            Ok(text) => println!("==> kubectl {}\n{text}", arguments.join(" ")),
            Err(error) => println!("==> {error:#}"),
        }
    }
}
