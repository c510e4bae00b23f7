//! Bringing the cluster up.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use outrider_testkit::cluster::{self, Cluster, Program};
use outrider_testkit::eventually;

use super::daemon::Daemon;
use super::{addons, build, certificates, configuration, groups, network, node};

/// How long a part may take on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(90);

/// Brings it up, as far as it is not.
///
/// # Errors
/// A part cannot be built or does not come up; the error names its log.
pub(crate) fn up() -> Result<()> {
    build(Program::CLUSTER)?;
    println!("==> cluster up");
    let began = Instant::now();
    network::make()?;
    certificates::make()?;
    configuration::write()?;
    groups::make()?;
    let cluster = Cluster::running()?;

    let containerd = node::containerd();
    containerd.start(&cluster)?;
    let control_plane = node::control_plane()?;
    for daemon in &control_plane {
        daemon.start(&cluster)?;
    }
    wait(&[&containerd], "containerd", || {
        let version = cluster.containerd(&["version"]).output()?;
        ensure!(version.status.success(), "containerd does not answer yet");
        Ok(())
    })?;
    addons::load_images(&cluster)?;
    let daemons: Vec<&Daemon> = control_plane.iter().collect();
    wait(&daemons, "the API server", || {
        cluster.kubectl(&["get", "--raw", "/readyz"]).map(drop)
    })?;

    let controllers = node::controllers()?;
    for daemon in &controllers {
        daemon.start(&cluster)?;
    }
    addons::apply(&cluster)?;
    let daemons: Vec<&Daemon> = controllers.iter().collect();
    wait(&daemons, "the node", || {
        let condition = r#"{.status.conditions[?(@.type=="Ready")].status}"#;
        let path = format!("jsonpath={condition}");
        let ready = cluster.kubectl(&["get", "node", node::NAME, "-o", &path])?;
        ensure!(ready == "True", "the node is not ready: {ready}");
        Ok(())
    })?;
    wait(&daemons, "the resolver", || addons::check(&cluster))?;
    println!(
        "==> cluster up: ready in {:.1} s. Try: cargo xtask cluster exec kubectl get pods -A\n\
         ==> its kubeconfig, for the network namespace {}: {}",
        began.elapsed().as_secs_f64(),
        cluster::NAMESPACE,
        cluster::kubeconfig().display(),
    );
    Ok(())
}

/// Waits until `condition` holds, and fails at once when one of the programs it depends on ends.
fn wait(daemons: &[&Daemon], what: &str, mut condition: impl FnMut() -> Result<()>) -> Result<()> {
    let mut ended = Ok(());
    let outcome = eventually(PATIENCE, || {
        ended = daemons.iter().try_for_each(|daemon| daemon.check());
        match &ended {
            Ok(()) => condition(),
            // To the outer result: waiting longer changes nothing.
            Err(_) => Ok(()),
        }
    });
    ended?;
    outcome.with_context(|| format!("{what} does not come up"))
}
