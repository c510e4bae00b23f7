//! What a cluster is expected to have beside its control plane: the resolver, and the Gateway
//! API's definitions.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use outrider_testkit::cluster::{Cluster, Program, STATE};

use super::network::RESOLVER;
use crate::images::{self, Entry, ImageConfig};

/// What holds a pod's namespaces.
pub(super) const PAUSE_IMAGE: &str = "outrider.test/pause:1";
const RESOLVER_IMAGE: &str = "outrider.test/coredns:1";
/// Debian's `busybox-static`.
const BUSYBOX: &str = "/bin/busybox";

/// Gives the node the images that it needs itself.
///
/// # Errors
/// A program is missing, or containerd does not take an image.
pub(super) fn load_images(cluster: &Cluster) -> Result<()> {
    let present = cluster.containerd(&["images", "ls", "-q"]).output()?;
    let present = String::from_utf8_lossy(&present.stdout).into_owned();
    let images = [
        // The longest that its `sleep` takes on every machine: 68 years.
        (PAUSE_IMAGE, BUSYBOX.into(), "busybox sleep 2147483647"),
        (RESOLVER_IMAGE, Program::Coredns.path()?, "coredns"),
    ];
    for (name, program, command) in images {
        if present.lines().any(|line| line == name) {
            continue;
        }
        let mut entrypoint: Vec<String> = command.split(' ').map(str::to_owned).collect();
        entrypoint[0].insert(0, '/');
        let entry = Entry::program(&entrypoint[0], program);
        let config = ImageConfig {
            entrypoint,
            user: "65534:65534".to_owned(),
            environment: Vec::new(),
        };
        let file = Path::new(STATE).join("image.tar");
        images::write(name, &[entry], &config, &file)?;
        cluster.load_image(&file)?;
        fs::remove_file(&file).context("remove the image's file")?;
    }
    Ok(())
}

/// Applies the definitions and the resolver.
///
/// # Errors
/// The API server refuses them.
pub(super) fn apply(cluster: &Cluster) -> Result<()> {
    let definitions = fs::read_to_string(Program::GatewayApiDefinitions.path()?)?;
    cluster
        .apply(&definitions)
        .context("the Gateway API's definitions")?;
    let resolver = include_str!("resolver.yaml")
        .replace("RESOLVER_ADDRESS", RESOLVER)
        .replace("RESOLVER_IMAGE", RESOLVER_IMAGE);
    cluster.apply(&resolver).context("the resolver")
}

/// Whether the resolver serves.
///
/// # Errors
/// It does not yet.
pub(super) fn check(cluster: &Cluster) -> Result<()> {
    let path = "jsonpath={.status.readyReplicas}";
    let arguments = [
        "-n",
        "kube-system",
        "get",
        "deployment",
        "coredns",
        "-o",
        path,
    ];
    let ready = cluster.kubectl(&arguments)?;
    ensure!(ready == "1", "the resolver is not ready");
    Ok(())
}
