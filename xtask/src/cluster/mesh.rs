//! The mesh on the cluster: what users do, with the images of this checkout.

use anyhow::{Context as _, Result};
use outrider_testkit::cluster::Cluster;

use crate::images::Images;
use crate::shell;

/// The namespace that it is installed in, and the release's name.
const NAMESPACE: &str = "outrider-system";
const RELEASE: &str = "outrider";

/// Builds the images, gives them to the node, and installs or upgrades the chart.
///
/// # Errors
/// An image does not build, or Helm fails; its words are in the error.
pub(crate) fn install(tools: bool) -> Result<()> {
    let cluster = Cluster::running()?;
    Images::for_tests(tools).run()?;
    let installed = !cluster
        .helm(&["list", "--namespace", NAMESPACE, "--short"])?
        .trim()
        .is_empty();
    let chart = shell::top()?.join("charts/outrider");
    let chart = chart.to_str().context("the checkout's path is not UTF-8")?;
    println!("==> helm upgrade --install {RELEASE} charts/outrider");
    cluster.helm(&[
        "upgrade",
        "--install",
        RELEASE,
        chart,
        "--namespace",
        NAMESPACE,
        "--create-namespace",
        "--wait",
        "--timeout",
        "3m",
    ])?;
    if installed {
        // The tags are the same as before, so nothing else tells the pods.
        cluster.kubectl(&["--namespace", NAMESPACE, "rollout", "restart", "deployment"])?;
        let arguments = ["rollout", "status", "deployment", "--timeout", "3m"];
        let mut all = vec!["--namespace", NAMESPACE];
        all.extend(arguments);
        cluster.kubectl(&all)?;
    }
    Ok(())
}

/// Runs the chart's own test: `outrider check` from within the cluster.
///
/// # Errors
/// It finds something wrong, which the error tells.
pub(super) fn check() -> Result<()> {
    println!("==> helm test {RELEASE}");
    let arguments = [
        "test",
        RELEASE,
        "--namespace",
        NAMESPACE,
        "--logs",
        "--timeout",
        "90s",
    ];
    let report = Cluster::running()?.helm(&arguments)?;
    println!("{}", report.trim());
    Ok(())
}
