//! `outrider proxy`: what one proxy has and does.

mod action;
mod certs;
mod clusters;
mod config;
mod dump;
mod endpoints;
mod listeners;
mod matches;
mod routes;
mod stats;
#[cfg(test)]
mod tests;

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::Value;

use crate::cluster::{Cluster, ClusterError, ForwardError, Forwarder};
use crate::flags::Global;
use crate::output::{self, OutputError, Table};

pub(crate) use certs::{Certificate, own_certificate};

/// Where proxies have their admin API: on the pod's loopback.
pub(crate) const ADMIN_PORT: u16 = 15000;

/// Show what a proxy has: its clusters, endpoints, routes, listeners, certificates and stats
///
/// The proxy is asked itself, over a forwarded port, so this is what is in force and not what
/// should be. Pages that were saved before are read with --file, without a cluster; Envoy's pages
/// are read as well.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Why does my request not arrive? Follow it:
  outrider proxy listeners cart-0.shop --contains 10.96.0.7   which listener takes the address?
  outrider proxy routes cart-0.shop --contains reviews        which cluster does the path go to?
  outrider proxy endpoints cart-0.shop --contains reviews     is there a healthy address in it?
  outrider proxy clusters cart-0.shop --contains reviews      with which identity must it answer?")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    page: Page,
}

#[derive(Debug, clap::Subcommand)]
enum Page {
    /// Every resource that the proxy was sent: in force, warming or refused, and why
    Config(Target),
    /// The groups of endpoints that it can send to, and how it speaks to them
    Clusters(Target),
    /// The addresses behind the clusters: health, weight, open connections
    Endpoints(Target),
    /// Which requests go where: match and action
    Routes(Target),
    /// The certificates in use: identity and remaining life
    Certs(Target),
    /// Which addresses are taken, and what happens to their connections
    Listeners(Target),
    /// Counters that are not zero
    Stats(Target),
}

/// Whose page.
#[derive(Debug, clap::Args)]
struct Target {
    /// The pod. Its namespace is after the dot, or -n, or that of the context.
    #[arg(value_name = "POD[.NAMESPACE]", required_unless_present = "file")]
    pod: Option<String>,
    /// Read the page from this file (- is standard input) instead of a pod: /config_dump for
    /// config, clusters, routes and listeners; /clusters?format=json for endpoints; /certs for
    /// certs; /stats?format=json for stats.
    #[arg(long, value_name = "FILE", conflicts_with = "pod")]
    file: Option<PathBuf>,
    /// Only the rows of the table that contain this text.
    #[arg(long, value_name = "TEXT")]
    contains: Option<String>,
}

/// Why a page cannot be shown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProxyError {
    /// The cluster cannot be asked.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The proxy cannot be asked.
    #[error(
        "{source}\nDoes the pod have a sidecar that runs? See: kubectl get pod -n {namespace} \
         {pod} -o wide"
    )]
    Forward {
        /// The pod's namespace.
        namespace: String,
        /// The pod.
        pod: String,
        /// Why.
        source: Box<ForwardError>,
    },
    /// The file cannot be read.
    #[error("{file}: {source}")]
    Read {
        /// Which.
        file: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not JSON.
    #[error("{file}: not JSON: {source}")]
    Json {
        /// Which.
        file: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// It is JSON, but of another page.
    #[error("{from}: has no `{field}`, so it is not what {path} of a proxy answers")]
    OtherPage {
        /// Where it came from.
        from: String,
        /// What should have been there.
        field: &'static str,
        /// What was meant.
        path: &'static str,
    },
    /// The result cannot be printed.
    #[error(transparent)]
    Output(#[from] OutputError),
}

/// One kind of page.
struct View {
    path: &'static str,
    /// What every such page has at its top.
    field: &'static str,
    /// What programs get of it.
    part: fn(Value) -> Value,
    table: fn(&Value, SystemTime) -> Table,
    /// What is said when nothing is left to show.
    nothing: &'static str,
}

const DUMP: &str = "/config_dump";

impl Page {
    fn parts(&self) -> (&Target, View) {
        let dump = |part, table, nothing| View {
            path: DUMP,
            field: "configs",
            part,
            table,
            nothing,
        };
        match self {
            Self::Config(target) => (target, dump(|dump| dump, config::table, "No resources.")),
            Self::Clusters(target) => (
                target,
                dump(
                    |page| dump::only(page, &["Clusters"]),
                    clusters::table,
                    "No clusters.",
                ),
            ),
            Self::Routes(target) => (
                target,
                // Routes are in the listeners too, where a table is not shared.
                dump(
                    |page| dump::only(page, &["Routes", "Listeners"]),
                    routes::table,
                    "No routes.",
                ),
            ),
            Self::Listeners(target) => (
                target,
                dump(
                    |page| dump::only(page, &["Listeners"]),
                    listeners::table,
                    "No listeners.",
                ),
            ),
            Self::Endpoints(target) => (
                target,
                View {
                    path: "/clusters?format=json",
                    field: "cluster_statuses",
                    part: |page| page,
                    table: endpoints::table,
                    nothing: "No endpoints.",
                },
            ),
            Self::Certs(target) => (
                target,
                View {
                    path: certs::PATH,
                    field: "certificates",
                    part: |page| page,
                    table: certs::table,
                    nothing: "No certificates: the proxy has not got one yet. See its log, and \
                              that the control plane is ready (outrider check --installed).",
                },
            ),
            Self::Stats(target) => (
                target,
                View {
                    path: "/stats?format=json&usedonly",
                    field: "stats",
                    part: |page| page,
                    table: stats::table,
                    nothing: "No stats.",
                },
            ),
        }
    }
}

/// Runs the verb.
///
/// # Errors
/// The page cannot be had, or is not what it should be.
pub(crate) async fn run(arguments: &Arguments, flags: &Global) -> Result<(), ProxyError> {
    let (target, view) = arguments.page.parts();
    let (from, page) = match (&target.file, &target.pod) {
        (Some(file), _) => (file.display().to_string(), read(file)?),
        (None, pod) => {
            let cluster = Cluster::of(flags).await?;
            let pod = pod.as_deref().unwrap_or_default();
            let (namespace, pod) = place(pod, flags.namespace.as_deref(), cluster.namespace());
            let forwarder = Forwarder::new(&cluster);
            let page = forwarder
                .json(&namespace, &pod, ADMIN_PORT, view.path)
                .await;
            let shown = format!("{namespace}/{pod}");
            let page = page.map_err(|error| ProxyError::Forward {
                namespace,
                pod,
                source: Box::new(error),
            })?;
            (shown, page)
        }
    };
    if page.get(view.field).is_none() {
        let (field, path) = (view.field, view.path);
        return Err(ProxyError::OtherPage { from, field, path });
    }
    let page = (view.part)(page);
    let table = |page: &Value| {
        let mut table = (view.table)(page, output::now());
        if let Some(text) = &target.contains {
            table.retain(text);
        }
        table.render(view.nothing)
    };
    Ok(output::print(flags.output, &page, table)?)
}

/// The namespace and name of a pod that was named on the command line.
fn place(pod: &str, namespace: Option<&str>, default: &str) -> (String, String) {
    match (namespace, pod.rsplit_once('.')) {
        // The name itself may have dots in it.
        (Some(namespace), _) => (namespace.to_owned(), pod.to_owned()),
        (None, Some((pod, namespace))) => (namespace.to_owned(), pod.to_owned()),
        (None, None) => (default.to_owned(), pod.to_owned()),
    }
}

fn read(path: &Path) -> Result<Value, ProxyError> {
    let file = path.display().to_string();
    let mut text = Vec::new();
    let read = if path == Path::new("-") {
        std::io::stdin().lock().read_to_end(&mut text).map(|_| ())
    } else {
        std::fs::read(path).map(|content| text = content)
    };
    if let Err(source) = read {
        return Err(ProxyError::Read { file, source });
    }
    serde_json::from_slice(&text).map_err(|source| ProxyError::Json { file, source })
}
