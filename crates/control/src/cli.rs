//! The flags.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use outrider_control::registry::kinds::{GatewayDuration, MutualTlsMode};
use outrider_identity::TrustDomain;
use outrider_identity::token::AUDIENCE;

/// The control plane of the Outrider service mesh: it turns the objects of a Kubernetes cluster, or
/// a directory of the same YAML, into what each sidecar does, and signs the certificates by which
/// workloads know each other.
#[derive(Debug, Parser)]
#[command(
    version,
    args_conflicts_with_subcommands = true,
    after_long_help = "A mesh on one machine:
  outrider-control --config-dir mesh --ca-dir ca &
  outrider-control root --ca-dir ca > root.pem
  outrider-control token --ca-dir ca --namespace shop --account cart > token
A sidecar with OUTRIDER_CA_ADDRESS=<this host>:15012, OUTRIDER_ROOT_FILE=root.pem and
OUTRIDER_TOKEN_FILE=token is then cart of namespace shop.

Kinds in --config-dir: Service, EndpointSlice, ServiceAccount, Namespace; HTTPRoute, GRPCRoute,
TLSRoute and TCPRoute, attached to Services; and of outrider.dev/v1alpha1 WorkloadEntry and
PeerAuthentication. The files are watched. One that is wrong is reported by file, document and
field, and its last good version stays in force."
)]
pub(crate) struct Cli {
    /// What to do; serve, if nothing is said.
    #[command(subcommand)]
    pub(crate) verb: Option<Verb>,
    #[command(flatten)]
    pub(crate) serve: ServeArguments,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Serve discovery and certificates until SIGTERM.
    Serve(Box<ServeArguments>),
    /// Print a token that proves to be a service account. Whoever has it can be that account, so
    /// keep it in a file that only the workload's sidecar can read.
    Token(TokenArguments),
    /// Print the certificates that everybody in the mesh must trust (PEM). Nothing secret.
    Root(AuthorityArguments),
}

#[derive(Debug, Args)]
pub(crate) struct ServeArguments {
    /// The directory that holds the mesh: .yaml, .yml and .json files, in subdirectories too.
    #[arg(long, value_name = "DIR", env = "OUTRIDER_CONFIG_DIR")]
    pub(crate) config_dir: Option<PathBuf>,
    /// Take the mesh from the Kubernetes cluster that this runs in, or that KUBECONFIG names.
    #[arg(long, conflicts_with = "config_dir")]
    pub(crate) kubernetes: bool,
    #[command(flatten)]
    pub(crate) cluster: ClusterArguments,
    #[command(flatten)]
    pub(crate) authority: AuthorityArguments,
    /// The address to listen on; all, of both families, if none is given.
    #[arg(long, value_name = "IP")]
    pub(crate) address: Option<IpAddr>,
    /// The port of discovery (delta ADS) and of the certificate authority, over TLS.
    #[arg(long, value_name = "PORT", default_value_t = 15012)]
    pub(crate) port: u16,
    /// The port of /healthz/live, /healthz/ready, /metrics and, for this machine or pod alone,
    /// /debug/proxies (the connected proxies and what they took or refused, as JSON).
    #[arg(long, value_name = "PORT", default_value_t = 15014)]
    pub(crate) monitoring_port: u16,
    /// How many connections --port has at most: one of each sidecar, and some more for certificates.
    #[arg(long, value_name = "NUMBER", default_value_t = 20_000)]
    pub(crate) max_connections: usize,
    /// How many of them one address of another machine has at most. Raise it where many sidecars
    /// share an address: behind a translation of addresses, or in a host's network.
    #[arg(long, value_name = "NUMBER", default_value_t = 64)]
    pub(crate) max_connections_per_address: usize,
    /// The DNS names and addresses by which sidecars reach this server; repeat, or separate by
    /// commas. They are in its certificate, which the mesh's own authority signs.
    #[arg(
        long,
        value_name = "NAME",
        value_delimiter = ',',
        default_value = "localhost,outrider-control.outrider-system.svc,127.0.0.1,::1"
    )]
    pub(crate) serving_name: Vec<String>,
    /// How long a certificate lives unless its workload asks for less.
    #[arg(long, value_name = "DURATION", default_value = "24h")]
    pub(crate) cert_ttl: GatewayDuration,
    /// How long a certificate may live if its workload asks for more than --cert-ttl; the same as
    /// that if not given.
    #[arg(long, value_name = "DURATION")]
    pub(crate) max_cert_ttl: Option<GatewayDuration>,
    /// The DNS suffix of services: web.shop.svc.<suffix>.
    #[arg(long, value_name = "SUFFIX", default_value = "cluster.local")]
    pub(crate) cluster_domain: String,
    /// The namespace whose PeerAuthentication without a selector holds for the whole mesh.
    #[arg(long, value_name = "NAMESPACE", default_value = "outrider-system")]
    pub(crate) root_namespace: String,
    /// What ports accept where no PeerAuthentication says it: STRICT (only mutual TLS), PERMISSIVE
    /// (plain text too) or DISABLED.
    #[arg(long, value_name = "MODE", value_enum, default_value_t = MutualTlsMode::Permissive, ignore_case = true)]
    pub(crate) mutual_tls: MutualTlsMode,
    /// Have every sidecar write an access log to its standard output.
    #[arg(long)]
    pub(crate) access_log: bool,
    /// What to log: error, warn, info, debug or trace, also per module.
    #[arg(
        long,
        value_name = "LEVEL",
        default_value = "info",
        env = "OUTRIDER_LOG"
    )]
    pub(crate) log_level: String,
}

/// What concerns a cluster only.
#[derive(Debug, Args)]
pub(crate) struct ClusterArguments {
    /// The revision that this control plane is of, when several run side by side; its objects are
    /// named with it.
    #[arg(long, value_name = "NAME", default_value = "", requires = "kubernetes")]
    pub(crate) revision: String,
    /// The Secret of the authority: tls.crt, tls.key and ca.crt. An empty one is filled with a new
    /// root, unless the mesh has one already.
    #[arg(
        long,
        value_name = "NAME",
        default_value = "outrider-ca",
        requires = "kubernetes"
    )]
    pub(crate) ca_secret: String,
    /// The MutatingWebhookConfiguration of the injector, whose Service has the same name, to be
    /// given certificates.
    #[arg(long, value_name = "NAME", requires = "kubernetes")]
    pub(crate) webhook: Option<String>,
    /// How long a new root in that Secret is announced before certificates are signed that only it
    /// vouches for; as long as a changed ConfigMap takes to reach every pod.
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "2m",
        requires = "kubernetes"
    )]
    pub(crate) root_propagation: GatewayDuration,
    /// The pod that this runs in, and its namespace, where the objects of the control plane are.
    #[arg(
        long,
        value_name = "NAME",
        env = "POD_NAME",
        default_value = "outrider-control"
    )]
    pub(crate) pod_name: String,
    /// See --pod-name.
    #[arg(
        long,
        value_name = "NAMESPACE",
        env = "POD_NAMESPACE",
        default_value = "outrider-system"
    )]
    pub(crate) pod_namespace: String,
}

#[derive(Debug, Args)]
pub(crate) struct AuthorityArguments {
    /// The directory of the authority's own keys. Only its owner may enter it. It is made at the
    /// first start, with a new root (authority.pem) and the key that signs tokens (token-key.pem).
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/var/lib/outrider",
        env = "OUTRIDER_CA_DIR"
    )]
    pub(crate) ca_dir: PathBuf,
    /// Sign with this private key (PEM) instead of a root of our own.
    #[arg(long, value_name = "FILE", requires = "ca_cert")]
    pub(crate) ca_key: Option<PathBuf>,
    /// The certificate of --ca-key, then its chain up to the root (PEM).
    #[arg(long, value_name = "FILE", requires = "ca_key")]
    pub(crate) ca_cert: Option<PathBuf>,
    /// The root, if it does not end --ca-cert (PEM; several may be given).
    #[arg(long, value_name = "FILE", requires = "ca_cert")]
    pub(crate) ca_root: Option<PathBuf>,
    /// The trust domain of all identities: spiffe://<domain>/ns/<namespace>/sa/<account>.
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    pub(crate) trust_domain: TrustDomain,
}

#[derive(Debug, Args)]
pub(crate) struct TokenArguments {
    /// The directory of the authority's own keys, as serve has it.
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/var/lib/outrider",
        env = "OUTRIDER_CA_DIR"
    )]
    pub(crate) ca_dir: PathBuf,
    /// The namespace of the account.
    #[arg(long, short)]
    pub(crate) namespace: String,
    /// The service account.
    #[arg(long, short)]
    pub(crate) account: String,
    /// How long the token is good.
    #[arg(long, value_name = "DURATION", default_value = "1h")]
    pub(crate) ttl: GatewayDuration,
    /// Whom the token is for. The control plane takes no other than the default.
    #[arg(long, default_value = AUDIENCE)]
    pub(crate) audience: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn flags_are_consistent_and_serving_is_what_is_done_without_a_verb() {
        Cli::command().debug_assert();
        let cli = Cli::parse_from([
            "outrider-control",
            "--config-dir",
            "mesh",
            "--cert-ttl",
            "30s",
        ]);
        assert!(cli.verb.is_none() && cli.serve.cert_ttl.0.as_secs() == 30);
        assert_eq!(cli.serve.serving_name.len(), 4);
        let verb = Cli::parse_from(["outrider-control", "serve", "--config-dir", "mesh"]).verb;
        assert!(matches!(verb, Some(Verb::Serve(_))));
        let cluster = ["outrider-control", "--kubernetes", "--revision", "canary"];
        let cli = Cli::parse_from(cluster);
        assert!(cli.serve.kubernetes && cli.serve.cluster.revision == "canary");
        assert_eq!(cli.serve.cluster.ca_secret, "outrider-ca");
        for wrong in [
            ["--cert-ttl", "30"],
            ["--trust-domain", "Upper"],
            ["--ca-key", "key.pem"],
            ["--ca-root", "root.pem"],
            ["--revision", "canary"],
            ["--kubernetes", "--config-dir=mesh"],
        ] {
            let arguments = ["outrider-control"].iter().chain(&wrong);
            assert!(Cli::try_parse_from(arguments).is_err(), "{wrong:?}");
        }
    }
}
