//! The flags.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Parser;
use outrider_injector::config;

const AFTER_HELP: &str = "\
WHAT IT DOES
  The API server sends it every new pod of a namespace, or with a label, outrider.dev/inject:
  enabled. It answers with what makes the pod part of the mesh: the init container that captures
  its traffic, the sidecar, its volumes, and probes that go through the sidecar. `outrider inject`
  does the same to a file.

WHAT A POD CAN SAY FOR ITSELF
  labels       outrider.dev/inject: enabled|disabled   outrider.dev/rev: REVISION
  annotations  outrider.dev/...
    include-inbound-ports exclude-inbound-ports include-outbound-ports exclude-outbound-ports
    include-cidrs exclude-cidrs exclude-interfaces          what is captured (see outrider-init)
    cpu-request cpu-limit memory-request memory-limit       of the sidecar
    log-level concurrency drain-seconds sidecar-image init-image
    native-sidecar rewrite-probes merge-metrics             true or false
  Each replaces what the configuration says for all. One that is unknown or has a bad value refuses
  the pod: the reason is in the answer, and in an event of the pod's controller.

WHAT IT LEAVES ALONE
  Pods with hostNetwork, for Windows, with a sidecar already, or labelled disabled.

HOW IT STAYS CURRENT
  The configuration and the certificate are watched; what is bad is logged and counted, and the last
  good one stays in use. It is ready once it has a certificate.

PORTS
  15017  POST /inject over TLS    15014  /healthz/live /healthz/ready /metrics

EXAMPLES
  outrider-injector                                       in a cluster, as the chart runs it
  outrider-injector --config config.yaml --tls-cert tls.crt --tls-key tls.key
                                                          outside: no events, newest Kubernetes
                                                          assumed";

/// The admission webhook of the Outrider service mesh: it gives new pods their sidecar.
#[derive(Debug, Parser)]
#[command(name = "outrider-injector", version, after_help = AFTER_HELP, max_term_width = 100)]
pub(crate) struct Cli {
    /// The configuration, YAML.
    #[arg(
        long,
        value_name = "FILE",
        default_value = config::PATH,
        env = "OUTRIDER_INJECTOR_CONFIG"
    )]
    pub(crate) config: PathBuf,
    /// The Secret with the serving certificate (tls.crt and tls.key). The control plane fills it.
    #[arg(
        long,
        value_name = "NAME",
        default_value = "outrider-injector-tls",
        conflicts_with_all = ["tls_cert", "tls_key"]
    )]
    pub(crate) tls_secret: String,
    /// The serving certificate and its chain (PEM), instead of a Secret.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The private key of --tls-cert (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// The namespace of --tls-secret: that of this pod.
    #[arg(long, value_name = "NAMESPACE", env = "POD_NAMESPACE")]
    pub(crate) namespace: Option<String>,
    /// The name of this pod, for events.
    #[arg(long, value_name = "NAME", env = "POD_NAME")]
    pub(crate) pod_name: Option<String>,
    /// The address to listen on; all, of both families, if none is given.
    #[arg(long, value_name = "IP")]
    pub(crate) address: Option<IpAddr>,
    /// The port of the webhook, over TLS; 0 lets the system choose.
    #[arg(long, value_name = "PORT", default_value_t = 15017)]
    pub(crate) port: u16,
    /// The port of health and metrics; 0 lets the system choose.
    #[arg(long, value_name = "PORT", default_value_t = 15014)]
    pub(crate) monitoring_port: u16,
    /// Seconds after SIGTERM in which connections are still taken: the API server hears of it late.
    #[arg(
        long, value_name = "SECONDS", default_value_t = 5,
        value_parser = clap::value_parser!(u64).range(..=600)
    )]
    pub(crate) drain_seconds: u64,
    /// What to log: error, warn, info, debug or trace, also per module.
    #[arg(
        long,
        value_name = "LEVEL",
        default_value = "info",
        env = "OUTRIDER_LOG"
    )]
    pub(crate) log_level: String,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn files_come_in_pairs_and_exclude_a_secret() {
        Cli::command().debug_assert();
        let parse = |arguments: &[&str]| {
            let all = std::iter::once("outrider-injector").chain(arguments.iter().copied());
            Cli::try_parse_from(all).map_err(|error| error.to_string())
        };
        assert!(parse(&[]).is_ok());
        assert!(parse(&["--tls-cert=a", "--tls-key=b"]).is_ok());
        assert!(parse(&["--tls-cert=a"]).unwrap_err().contains("--tls-key"));
        assert!(parse(&["--tls-secret=s", "--tls-cert=a", "--tls-key=b"]).is_err());
    }
}
