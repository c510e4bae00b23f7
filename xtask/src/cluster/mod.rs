//! `cargo xtask cluster`: a real one-node Kubernetes on this machine, without a container registry.
//!
//! etcd, the API server, the controller manager, the scheduler, the kubelet, kube-proxy and
//! CoreDNS are built from their Go modules once (`outrider_testkit::cluster::Program`); containerd,
//! runc and the network plugins are Debian's. All of it is in one network namespace, one folder
//! and one tree of control groups, so that `down` can leave nothing behind.

mod addons;
mod certificates;
mod configuration;
mod daemon;
mod down;
mod groups;
mod mesh;
mod network;
mod node;
mod status;
mod suite;
mod up;

use anyhow::{Result, bail, ensure};
use clap::Subcommand;
use outrider_testkit::cluster::{Cluster as Running, Program};

pub(crate) use suite::test;

use down::down;
use mesh::install;
use up::up;

use crate::{machine, shell};

/// A real one-node Kubernetes on this machine, for the tests and for trying things
#[derive(clap::Args, Debug)]
pub(crate) struct Cluster {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Bring it up; what already runs is left alone
    Up {
        /// Install what the machine lacks
        #[arg(long)]
        install: bool,
    },
    /// Take it down; nothing of it stays but the built programs in the cache
    Down,
    /// Say what runs
    Status,
    /// Build its programs and those of the conformance suite into the cache
    Build,
    /// Build the images of this checkout and install the mesh with them, by Helm
    Install {
        /// Install what the machine lacks
        #[arg(long)]
        install: bool,
    },
    /// Run a program inside its network, with its kubeconfig: `exec kubectl get pods -A`
    Exec {
        /// The program and its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<String>,
    },
}

impl Cluster {
    /// Runs the verb.
    ///
    /// # Errors
    /// The machine lacks something, or a part does not come up; the error names its log.
    pub(crate) fn run(&self) -> Result<()> {
        match &self.verb {
            Verb::Build => build(&[Program::CLUSTER, Program::CONFORMANCE].concat()),
            Verb::Up { install } => {
                require_root()?;
                machine::require(&[machine::CLUSTER], *install)?;
                up()
            }
            Verb::Down => {
                require_root()?;
                down()
            }
            Verb::Status => status::print(),
            Verb::Install { install } => {
                require_root()?;
                self::install(*install)
            }
            Verb::Exec { command } => {
                require_root()?;
                exec(command)
            }
        }
    }
}

/// Builds what of these is not in the cache.
pub(crate) fn build(programs: &[Program]) -> Result<()> {
    for program in programs {
        program.path()?;
    }
    Ok(())
}

fn require_root() -> Result<()> {
    let root = nix::unistd::geteuid().is_root();
    ensure!(root, "a cluster needs root: {} cluster", shell::AS_ROOT);
    Ok(())
}

fn exec(command: &[String]) -> Result<()> {
    let cluster = Running::running()?;
    let Some((program, arguments)) = command.split_first() else {
        bail!("name a program");
    };
    let mut command = match program.as_str() {
        "kubectl" => cluster.command(Program::Kubectl.path()?),
        "helm" => cluster.command(Program::Helm.path()?),
        "ctr" => cluster.containerd(&[]),
        other => cluster.command(other),
    };
    let status = command.args(arguments).status()?;
    // The program has said why.
    std::process::exit(status.code().unwrap_or(1));
}
