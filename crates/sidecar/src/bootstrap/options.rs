//! The command line, in Envoy's names.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// The data plane of the Outrider service mesh.
///
/// Takes its configuration as an Envoy v3 bootstrap file: static listeners and clusters, or a
/// discovery server (ADS) to get them from. What the file asks for and this program cannot do is an
/// error that names the field; nothing is skipped in silence.
///
/// Try a file without starting:  outrider-sidecar -c bootstrap.yaml --mode validate
/// See what it does:             curl -s 127.0.0.1:15000/help   (the file's admin address)
#[derive(Clone, Debug, Parser)]
#[command(version, verbatim_doc_comment, after_long_help = ENVIRONMENT)]
pub struct Options {
    /// The bootstrap file, YAML or (if it ends in .json) JSON
    #[arg(short = 'c', long = "config-path", value_name = "FILE")]
    pub config_path: PathBuf,

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

const ENVIRONMENT: &str = "\
Environment (the built-in certificate source, which answers secrets of the SDS cluster `sds-grpc`):
  OUTRIDER_CA_ADDRESS   host:port of the control plane's certificate authority
  OUTRIDER_TOKEN_FILE   the token that proves who we are; read again at each use
  OUTRIDER_ROOT_FILE    the roots (PEM) that verify the authority and the mesh's peers
  OUTRIDER_SDS_SOCKET   a Unix socket at which other programs of the pod get the same secrets";

/// `--mode`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Run.
    Serve,
    /// Check the file and end.
    Validate,
}
