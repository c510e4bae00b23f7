//! The command line, in Envoy's names: a command line of Envoy's works as it is.

mod check;

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

pub use check::OptionsError;

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

    /// The bootstrap file: YAML, JSON (if it ends in .json) or binary (.pb); unset, and no
    /// --config-yaml: the environment of a pod
    #[arg(short = 'c', long = "config-path", value_name = "FILE")]
    pub config_path: Option<PathBuf>,

    /// YAML that is merged over the file: a value replaces, a list is appended, a message is merged
    #[arg(long, value_name = "YAML")]
    pub config_yaml: Option<String>,

    /// What to do with the file
    #[arg(long, value_enum, default_value_t = Mode::Serve)]
    pub mode: Mode,

    /// Worker threads; unset: the CPU quota of the cgroup rounded up, else the CPUs there are
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub concurrency: Option<u16>,

    /// Fields that are not supported are left alone, with a warning that names each; unset, they
    /// are errors
    #[arg(long)]
    pub allow_unsupported: bool,

    /// Fields that do not exist in the bootstrap file are left alone, with a warning that names each
    #[arg(long, alias = "allow-unknown-fields")]
    pub allow_unknown_static_fields: bool,

    /// Fields that do not exist in discovered resources are errors: so it is unless
    /// --ignore-unknown-dynamic-fields is set
    #[arg(long, conflicts_with = "ignore_unknown_dynamic_fields")]
    pub reject_unknown_dynamic_fields: bool,

    /// Fields that do not exist in discovered resources are left alone
    #[arg(long)]
    pub ignore_unknown_dynamic_fields: bool,

    /// The admin address of the file may be reached by others than this machine: whoever reaches it
    /// commands the proxy, for the admin API knows no passwords
    #[arg(long)]
    pub allow_remote_admin: bool,

    /// A file to which the admin address is written that was bound, such as 127.0.0.1:43211
    #[arg(long, value_name = "FILE")]
    pub admin_address_path: Option<PathBuf>,

    /// `node.id`, instead of the file's
    #[arg(long, value_name = "ID")]
    pub service_node: Option<String>,

    /// `node.cluster`, instead of the file's
    #[arg(long, value_name = "NAME")]
    pub service_cluster: Option<String>,

    /// `node.locality.zone`, instead of the file's
    #[arg(long, value_name = "ZONE")]
    pub service_zone: Option<String>,

    /// off, critical, error, warning, info, debug or trace, for all parts or by part
    /// (info,outrider_sidecar::tls=debug)
    #[arg(short = 'l', long, value_name = "LEVEL", default_value = "info")]
    pub log_level: String,

    /// Levels by Envoy's names of components, such as upstream:debug,config:trace
    #[arg(long, value_name = "LEVELS")]
    pub component_log_level: Option<String>,

    /// The lines of the program's own log, as spdlog's pattern, such as '[%Y-%m-%d %T.%e][%l] %v'
    #[arg(long, value_name = "PATTERN")]
    pub log_format: Option<String>,

    /// In the messages of the program's own log, line feeds and the like become escape sequences
    #[arg(long)]
    pub log_format_escaped: bool,

    /// The program's own log goes to this file instead of standard error
    #[arg(long, value_name = "FILE")]
    pub log_path: Option<PathBuf>,

    /// Seconds from SIGTERM to the end, whatever is left by then: the pod's grace period
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub drain_time_s: u64,

    /// How /drain_listeners?graceful ends connections: all at their next request, or more and more
    /// of them until --drain-time-s is over. SIGTERM always ends them at their next request
    #[arg(long, value_enum, default_value_t = DrainStrategy::Gradual)]
    pub drain_strategy: DrainStrategy,

    /// How many restarts came before, for /server_info. Above 0, Envoy asks the process before it
    /// for its sockets and ends if there is none; there never is one here, so then
    /// --skip-hot-restart-on-no-parent or --disable-hot-restart must be set
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub restart_epoch: u32,

    /// Go on where --restart-epoch is above 0
    #[arg(long)]
    pub skip_hot_restart_on_no_parent: bool,

    /// Go on where --restart-epoch is above 0: there is no hot restart here in any case
    #[arg(long)]
    pub disable_hot_restart: bool,

    /// Print the version of the hot restart protocol, which is `disabled`, and end
    #[arg(long)]
    pub hot_restart_version: bool,

    /// A tag on every statistic, as `tag:value`; may be given several times
    #[arg(long, value_name = "TAG:VALUE")]
    pub stats_tag: Vec<String>,

    /// The number of this process among Envoys of a machine, written to --base-id-path. It keeps
    /// the shared memory of hot restarts apart, which there is none of here
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = ELSEWHERE)]
    pub base_id: u32,

    /// Takes the process id as the base id; not with --restart-epoch above 0
    #[arg(long, help_heading = ELSEWHERE)]
    pub use_dynamic_base_id: bool,

    /// A file to which the base id is written
    #[arg(long, value_name = "FILE", help_heading = ELSEWHERE)]
    pub base_id_path: Option<PathBuf>,

    /// For hot restarts: when the process before is told to end. There is none
    #[arg(long, value_name = "SECONDS", default_value_t = 900, help_heading = ELSEWHERE)]
    pub parent_shutdown_time_s: u64,

    /// For hot restarts: statistics are never taken over here
    #[arg(long, help_heading = ELSEWHERE)]
    pub skip_hot_restart_parent_stats: bool,

    /// For hot restarts: no such socket is opened here
    #[arg(long, value_name = "PATH", help_heading = ELSEWHERE)]
    pub socket_path: Option<String>,

    /// For hot restarts: no such socket is opened here
    #[arg(long, value_name = "MODE", help_heading = ELSEWHERE)]
    pub socket_mode: Option<String>,

    /// Which address of its machine Envoy writes into x-forwarded-for for a client on loopback
    #[arg(long, value_enum, default_value_t = IpVersion::V4, help_heading = ELSEWHERE)]
    pub local_address_ip_version: IpVersion,

    /// Access logs are written when their buffers hold this much; a fixed 32 KiB here
    #[arg(long, value_name = "KB", help_heading = ELSEWHERE)]
    pub file_flush_min_size_kb: Option<u32>,

    /// Access logs are written at least this often; every 200 ms here
    #[arg(long, value_name = "MILLISECONDS", help_heading = ELSEWHERE)]
    pub file_flush_interval_msec: Option<u32>,

    /// Levels by file are those of modules here: -l info,outrider_sidecar::tls=debug
    #[arg(long, help_heading = ELSEWHERE)]
    pub enable_fine_grain_logging: bool,

    /// No stack traces are logged
    #[arg(long, help_heading = ELSEWHERE)]
    pub log_stacktrace_single_entry: bool,

    /// Deprecated fields are not warned of in any case
    #[arg(long, help_heading = ELSEWHERE)]
    pub skip_deprecated_logs: bool,

    /// The CPUs that a cpuset leaves are counted in any case
    #[arg(long, help_heading = ELSEWHERE)]
    pub cpuset_threads: bool,

    /// Mutexes are not traced: no request waits for one
    #[arg(long, help_heading = ELSEWHERE)]
    pub enable_mutex_tracing: bool,

    /// Core dumps are as the system's limits (ulimit -c) have them
    #[arg(long, help_heading = ELSEWHERE)]
    pub enable_core_dump: bool,

    /// Extensions whose use is an error, by Envoy's names: envoy.filters.http.router,...
    #[arg(long, value_name = "NAMES")]
    pub disable_extensions: Option<String>,
}

/// The heading in the help of what is accepted for the sake of Envoy's command lines.
const ELSEWHERE: &str = "Accepted, so that Envoy's command lines work; without effect, as said";

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
    /// Run
    Serve,
    /// Check the file, print everything that is wrong in it, and end: with 0, or with 1
    Validate,
    /// Run until everything is there that a first connection would need, then end with 0
    #[value(name = "init_only", alias = "init-only")]
    InitOnly,
}

/// `--drain-strategy`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DrainStrategy {
    /// One after the other
    Gradual,
    /// All at once
    Immediate,
}

/// `--local-address-ip-version`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum IpVersion {
    /// IPv4
    V4,
    /// IPv6
    V6,
}
