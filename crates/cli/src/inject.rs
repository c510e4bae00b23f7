//! `outrider inject` and `outrider uninject`

use std::io::Read as _;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::ConfigMap;
use outrider_injector::config::{ConfigError, ServerVersion};
use outrider_injector::document::{DocumentError, Edited, NoteKind};
use outrider_injector::{Config, inject_document, uninject_document};

use crate::cluster::{Cluster, ClusterError, Installation};
use crate::defaults;
use crate::flags::Global;
use crate::output::{self, OutputError};

/// Where the injector's ConfigMap keeps its file.
const KEY: &str = "config.yaml";

/// Add the sidecar to the pods of a YAML file, as the webhook would
///
/// For those who want to see it, to keep it in git, or to run without the webhook. The result goes
/// to standard output, and what was done to which object to standard error. Documents without a pod
/// are passed on byte for byte.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  outrider inject -f shop.yaml | kubectl apply -f -
  outrider inject -f shop.yaml --from-cluster > injected.yaml   with the cluster's own settings
  kubectl get deployment web -o yaml | outrider inject -f - | kubectl apply -f -

Without --config and --from-cluster the settings are those of the chart's default values, and the
control plane is the one that --system-namespace and --revision name.
A pod stays as it is that says so (label outrider.dev/inject: disabled), uses the host's network,
or has a sidecar already.")]
pub(crate) struct InjectArguments {
    #[command(flatten)]
    file: FileArgument,
    /// Take the settings from this file: what the injector's ConfigMap has in config.yaml.
    #[arg(long, value_name = "FILE", conflicts_with = "from_cluster")]
    config: Option<PathBuf>,
    /// Take the settings from the injector's ConfigMap in the cluster, and the form of the sidecar
    /// from the cluster's version.
    #[arg(long)]
    from_cluster: bool,
}

/// Take the sidecar out of the pods of a YAML file again
///
/// Undoes what outrider inject, or the webhook, did: the pod is as it was, with its own probes.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Example:
  outrider uninject -f injected.yaml > shop.yaml")]
pub(crate) struct UninjectArguments {
    #[command(flatten)]
    file: FileArgument,
}

#[derive(Debug, clap::Args)]
struct FileArgument {
    /// The file, with any number of documents; - is standard input.
    #[arg(long, short, value_name = "FILE")]
    filename: PathBuf,
}

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InjectError {
    /// The file cannot be read.
    #[error("{file}: {source}")]
    Read {
        /// Which.
        file: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A document cannot be used.
    #[error("{file}: {source}")]
    Document {
        /// Which file.
        file: String,
        /// Which document, and why.
        source: DocumentError,
    },
    /// The settings cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The cluster cannot be asked.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The cluster has no settings.
    #[error(
        "there is no ConfigMap {namespace}/{name} with the key {KEY}: is Outrider installed there? \
         (--system-namespace and --revision name another installation)"
    )]
    NoConfigMap {
        /// Where it should be.
        namespace: String,
        /// What it should be called.
        name: String,
    },
    /// The result cannot be printed.
    #[error(transparent)]
    Output(#[from] OutputError),
}

/// Runs the verb; the result is that it did.
///
/// # Errors
/// A file or the settings cannot be used; then nothing is written.
pub(crate) async fn inject(
    arguments: &InjectArguments,
    flags: &Global,
) -> Result<bool, InjectError> {
    let installation = Installation {
        namespace: flags.system_namespace.clone(),
        revision: flags.revision.clone(),
    };
    let mut namespace = flags.namespace.clone();
    let (config, server) = if arguments.from_cluster {
        let cluster = Cluster::of(flags).await?;
        namespace.get_or_insert_with(|| cluster.namespace().to_owned());
        from_cluster(&cluster, &installation).await?
    } else if let Some(path) = &arguments.config {
        (Config::load(path)?, None)
    } else {
        (defaults::configuration(&installation)?, None)
    };
    let namespace = namespace.unwrap_or_else(|| "default".to_owned());
    let (file, text) = arguments.file.read()?;
    let edited = inject_document(&text, &namespace, server, &config);
    finish(edited.map_err(|source| InjectError::Document { file, source })?)
}

/// Runs the verb; the result is that it did.
///
/// # Errors
/// The file cannot be used; then nothing is written.
pub(crate) fn uninject(arguments: &UninjectArguments) -> Result<bool, InjectError> {
    let (file, text) = arguments.file.read()?;
    let edited = uninject_document(&text, "default");
    finish(edited.map_err(|source| InjectError::Document { file, source })?)
}

fn finish(edited: Edited) -> Result<bool, InjectError> {
    for note in &edited.notes {
        let verb = match note.kind {
            NoteKind::Changed => "",
            NoteKind::Left => "left as it is: ",
            NoteKind::Warning => "warning: ",
        };
        eprintln!("{}: {verb}{}", note.object, note.message);
    }
    if edited.notes.is_empty() {
        eprintln!("no document has a pod: nothing was changed");
    }
    output::write(&edited.text)?;
    Ok(true)
}

impl FileArgument {
    fn read(&self) -> Result<(String, String), InjectError> {
        let mut text = String::new();
        let (file, read) = if self.filename == Path::new("-") {
            let read = std::io::stdin().read_to_string(&mut text).map(|_| ());
            ("standard input".to_owned(), read)
        } else {
            let read = std::fs::read_to_string(&self.filename).map(|content| text = content);
            (self.filename.display().to_string(), read)
        };
        match read {
            Ok(()) => Ok((file, text)),
            Err(source) => Err(InjectError::Read { file, source }),
        }
    }
}

async fn from_cluster(
    cluster: &Cluster,
    installation: &Installation,
) -> Result<(Config, Option<ServerVersion>), InjectError> {
    let (namespace, name) = (&installation.namespace, installation.injector());
    let map = cluster.find::<ConfigMap>(namespace, &name).await?;
    let text = map.and_then(|map| map.data?.remove(KEY));
    let Some(text) = text else {
        return Err(InjectError::NoConfigMap {
            namespace: namespace.clone(),
            name,
        });
    };
    let at = format!("ConfigMap {namespace}/{name}, {KEY}");
    let config = Config::from_yaml(&text, Path::new(&at))?;
    let info = cluster.client().apiserver_version().await;
    let info = info.map_err(|source| ClusterError::Api {
        what: "reading the API server's version".to_owned(),
        source: Box::new(source),
    })?;
    Ok((config, ServerVersion::parse(&info.major, &info.minor)))
}
