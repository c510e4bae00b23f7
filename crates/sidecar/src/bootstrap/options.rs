//! The command line, in Envoy's names.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

/// The data plane of the Outrider service mesh.
///
/// Takes its configuration as an Envoy v3 bootstrap file: static listeners and clusters, or a
/// discovery server (ADS) to get them from. What the file asks for and this program cannot do is an
/// error that names the field; nothing is skipped in silence. Without a file it is the sidecar of a
/// pod, which the environment describes, and gets everything from the control plane.
///
/// Try a file without starting:  outrider-sidecar -c bootstrap.yaml --mode validate
/// See what it does:             curl -s 127.0.0.1:15000/help   (the file's admin address)
#[derive(Clone, Debug, Parser)]
#[command(version, verbatim_doc_comment, after_long_help = ENVIRONMENT)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Options {
    /// What to do instead of being a sidecar
    #[command(subcommand)]
    pub verb: Option<Verb>,

    /// The bootstrap file, YAML or (if it ends in .json) JSON; unset: the environment of a pod
    #[arg(short = 'c', long = "config-path", value_name = "FILE")]
    pub config_path: Option<PathBuf>,

    /// serve: run; validate: check the file and end with 0, or 1 and the field that is wrong
    #[arg(long, value_enum, default_value_t = Mode::Serve)]
    pub mode: Mode,

    /// Worker threads; unset: the CPU quota of the cgroup rounded up, else the CPUs there are
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub concurrency: Option<u16>,

    /// off, error, warn, info, debug or trace, for all parts or by part (info,outrider_sidecar::tls=debug)
    #[arg(short = 'l', long, value_name = "LEVEL", default_value = "info")]
    pub log_level: String,

    /// Seconds from SIGTERM to the end, whatever is left by then: the pod's grace period
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub drain_time_s: u64,

    /// `node.id`, instead of the file's
    #[arg(long, value_name = "ID")]
    pub service_node: Option<String>,

    /// `node.cluster`, instead of the file's
    #[arg(long, value_name = "NAME")]
    pub service_cluster: Option<String>,
}

/// A thing to do beside the sidecar.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum Verb {
    /// Wait until the sidecar of this pod is ready: for a postStart hook, so that the containers
    /// after it start with a network
    Wait {
        /// How long; it ends with 1 and the reason if that is not enough
        #[arg(long, value_name = "SECONDS", default_value_t = 60)]
        timeout_s: u64,
    },
}

const ENVIRONMENT: &str = "\
Environment (the built-in certificate source, which answers secrets of the SDS cluster `sds-grpc`):
  OUTRIDER_CA_ADDRESS   host:port of the control plane's certificate authority
  OUTRIDER_TOKEN_FILE   the token that proves who we are; read again at each use
  OUTRIDER_ROOT_FILE    the roots (PEM) that verify the authority and the mesh's peers
  OUTRIDER_SDS_SOCKET   a Unix socket at which other programs of the pod get the same secrets

Environment of a pod (used if there is no -c):
  POD_NAME, POD_NAMESPACE, POD_IPS, SERVICE_ACCOUNT, NODE_NAME   who we are
  OUTRIDER_CA_ADDRESS          as above; discovery is there too
  OUTRIDER_DISCOVERY_ADDRESS   host:port of discovery, if it is elsewhere
  OUTRIDER_CLUSTER_DOMAIN, OUTRIDER_TRUST_DOMAIN   unset: cluster.local
  OUTRIDER_REVISION            the revision of the mesh
  OUTRIDER_LABELS_FILE         the pod's labels, as the downward API writes them
  OUTRIDER_STATE_DIR           a folder of this pod, in memory: the last configuration, and the key and
                               the certificate, for a restart while the control plane is down
  OUTRIDER_NATIVE              true: SIGTERM means that the application has ended
  OUTRIDER_PROBES              the application's own probes (JSON), by the path at which they are asked
  OUTRIDER_APP_METRICS         where the application's metrics are (JSON: port, path, scheme)";

/// `--mode`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Run.
    Serve,
    /// Check the file and end.
    Validate,
}
