//! `outrider check`

mod certificates;
mod finding;
mod installed;
mod namespaces;
mod permissions;
mod platform;
mod server;
mod webhook;
mod workloads;

use crate::cluster::{Cluster, ClusterError, Installation};
use crate::flags::Global;
use crate::output::{self, OutputError};

use finding::{Finding, Report};

/// Look whether a cluster is fit for the mesh, or whether an installed mesh is well
///
/// Nothing is changed. Each failure comes with what to do about it, and makes the exit code 1;
/// a warning does not.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  outrider check                              before the installation
  outrider check --installed                  after it, and whenever something seems wrong
  outrider check --installed -n mesh -o json  of an installation in namespace mesh, for programs
  outrider check --installed --revision canary

What only the node itself can tell (its kernel's modules, say), the init container checks in every
pod and reports: kubectl logs POD -c outrider-init")]
pub(crate) struct Arguments {
    /// Look at the installation in the namespace of -n (outrider-system if not given).
    #[arg(long)]
    installed: bool,
}

/// Why nothing could be looked at.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckError {
    /// There is no cluster to ask.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The result cannot be printed.
    #[error(transparent)]
    Output(#[from] OutputError),
}

/// Runs the verb; the result is whether nothing failed.
///
/// # Errors
/// There is no cluster to ask, or the result cannot be printed.
pub(crate) async fn run(arguments: &Arguments, flags: &Global) -> Result<bool, CheckError> {
    let cluster = Cluster::of(flags).await?;
    let installation = Installation::of(flags);
    let mut findings = Vec::new();
    let reached = server::check(&cluster, &mut findings).await;
    // Without the API server the rest would be the same failure over and over.
    let ready = if !reached {
        ""
    } else if arguments.installed {
        installed::check(&cluster, &installation, &mut findings).await;
        "The installation is well."
    } else {
        before(&cluster, &installation, &mut findings).await;
        "The cluster is fit for the mesh."
    };
    let report = Report::new(findings);
    output::print(flags.output, &report, |report| report.render(ready))?;
    Ok(report.ok)
}

async fn before(cluster: &Cluster, installation: &Installation, findings: &mut Vec<Finding>) {
    permissions::check(cluster, &installation.namespace, findings).await;
    platform::check(cluster, findings).await;
    namespaces::check(cluster, findings).await;
    webhook::others(cluster, installation, findings).await;
}
