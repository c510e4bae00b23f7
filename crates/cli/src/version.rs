//! `outrider version`

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use serde::Serialize;

use crate::cluster::{Cluster, ClusterError};
use crate::flags::Global;
use crate::output::{self, OutputError, Table};
use crate::status::revision;
use crate::survey::{SidecarPod, ask_replicas, merge};

/// This program's version.
pub(crate) const OWN: &str = env!("CARGO_PKG_VERSION");

/// Show the versions of this command, the control plane and the proxies
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only this command's: no cluster is asked.
    #[arg(long)]
    client: bool,
}

/// Why the versions cannot be shown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VersionError {
    /// The cluster cannot be asked.
    #[error("{0}\n(This command is version {OWN}; --client asks for no other.)")]
    Cluster(#[from] ClusterError),
    /// The result cannot be printed.
    #[error(transparent)]
    Output(#[from] OutputError),
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Versions {
    client: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    control_plane: Option<Vec<Part>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proxies: Option<Vec<Count>>,
}

#[derive(Debug, Serialize)]
struct Part {
    replica: String,
    revision: String,
    version: String,
}

#[derive(Debug, Serialize)]
struct Count {
    version: String,
    count: usize,
}

/// Runs the verb.
///
/// # Errors
/// The cluster cannot be asked.
pub(crate) async fn run(arguments: &Arguments, flags: &Global) -> Result<(), VersionError> {
    let mut versions = Versions {
        client: OWN,
        control_plane: None,
        proxies: None,
    };
    if !arguments.client {
        let cluster = Cluster::of(flags).await?;
        let answers = ask_replicas(&cluster, &flags.system_namespace).await?;
        let namespace = flags.namespace.as_deref();
        let pods: Vec<Pod> = cluster.list(namespace, &ListParams::default()).await?;
        let pods: Vec<SidecarPod> = pods.iter().filter_map(SidecarPod::of).collect();
        let survey = merge(&answers, &pods, namespace);
        let parts = survey.control_plane.into_iter().map(|replica| Part {
            version: match (replica.version, replica.error) {
                (Some(version), _) => version,
                (None, error) => format!("unknown: {}", error.unwrap_or_default()),
            },
            replica: replica.name,
            revision: replica.revision,
        });
        versions.control_plane = Some(parts.collect());
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for proxy in survey.proxies {
            *counts
                .entry(proxy.version.unwrap_or_else(|| "unknown".to_owned()))
                .or_default() += 1;
        }
        let counts = counts
            .into_iter()
            .map(|(version, count)| Count { version, count });
        versions.proxies = Some(counts.collect());
    }
    Ok(output::print(flags.output, &versions, render)?)
}

fn render(versions: &Versions) -> String {
    let mut table = Table::new(&["WHAT", "VERSION", "REVISION"]);
    table.row([
        "this command".to_owned(),
        versions.client.to_owned(),
        String::new(),
    ]);
    for part in versions.control_plane.iter().flatten() {
        let replica = part.replica.clone();
        table.row([
            replica,
            part.version.clone(),
            revision(&part.revision).to_owned(),
        ]);
    }
    for count in versions.proxies.iter().flatten() {
        let what = match count.count {
            1 => "1 proxy".to_owned(),
            many => format!("{many} proxies"),
        };
        table.row([what, count.version.clone(), String::new()]);
    }
    let mut text = table.render("");
    if versions.control_plane.as_ref().is_some_and(Vec::is_empty) {
        text += "No control plane runs in this cluster.\n";
    }
    text
}
