//! The control program.

mod cli;

use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser as _;
use outrider_control::authenticate::Tokens;
use outrider_control::kubernetes::status::StatusOptions;
use outrider_control::kubernetes::{AuthorityOptions, ClusterOptions, Upkeep};
use outrider_control::mesh::MeshSettings;
use outrider_control::metrics::Metrics;
use outrider_control::serve::{
    ConnectionLimits, ControlPlane, RegistrySource, Replica, ServeOptions,
};
use outrider_identity::authority::{AuthorityFiles, AuthorityMaterial, Lifetimes};
use outrider_identity::{CertificateAuthority, ServiceAccount, TokenSigner};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

use cli::{AuthorityArguments, Cli, ServeArguments, TokenArguments, Verb};

fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.verb {
        Some(Verb::Token(arguments)) => token(&arguments),
        Some(Verb::Root(arguments)) => root(&arguments),
        Some(Verb::Serve(arguments)) => serve(*arguments),
        None => serve(cli.serve),
    };
    match outcome {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("outrider-control: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn serve(arguments: ServeArguments) -> Result<()> {
    let mut filter = EnvFilter::try_new(&arguments.log_level).context("--log-level")?;
    for chatty in ["kube_client", "kube_runtime"] {
        // They log every attempt at an API server that is away, which we say once.
        if !arguments.log_level.contains("kube") {
            filter = filter.add_directive(format!("{chatty}=off").parse()?);
        }
    }
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    let lifetimes = Lifetimes {
        default: arguments.cert_ttl.0,
        max: arguments
            .max_cert_ttl
            .map_or(arguments.cert_ttl.0, |longest| longest.0),
    };
    ensure!(!lifetimes.default.is_zero(), "--cert-ttl must not be zero");
    ensure!(
        lifetimes.max >= lifetimes.default,
        "--max-cert-ttl must not be less than --cert-ttl"
    );
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run(arguments, lifetimes))
}

async fn run(arguments: ServeArguments, lifetimes: Lifetimes) -> Result<()> {
    // Before anything that takes time, so that a signal meanwhile is not lost.
    let stop = stop_signal()?;
    let metrics = Arc::new(Metrics::default());
    let settings = MeshSettings {
        trust_domain: arguments.authority.trust_domain.clone(),
        cluster_domain: arguments.cluster_domain.clone(),
        root_namespace: arguments.root_namespace.clone(),
        mutual_tls: arguments.mutual_tls,
        access_log: arguments.access_log,
    };
    let mut status = None;
    let (registry, upkeep) = match &arguments.config_dir {
        Some(directory) => (RegistrySource::Directory(directory.clone()), None),
        None if arguments.kubernetes => {
            let client = cluster().await?;
            let options = cluster_options(&arguments, lifetimes);
            let namespace = options.authority.namespace.clone();
            let metrics = Arc::clone(&metrics);
            let upkeep = Upkeep::start(client.clone(), options, metrics, stop.clone());
            let mut stopped = stop.clone();
            let upkeep = tokio::select! {
                upkeep = upkeep => upkeep?,
                _ = stopped.wait_for(|stop| *stop) => return Ok(()),
            };
            status = Some(StatusOptions {
                client: client.clone(),
                leads: upkeep.writes_statuses(),
                namespace,
            });
            (RegistrySource::Cluster(client), Some(upkeep))
        }
        None => bail!(
            "--config-dir is missing: name the directory that holds the mesh's YAML, or give \
             --kubernetes to take it from the cluster (see --help)"
        ),
    };
    let (authority, tokens) = match &upkeep {
        Some(upkeep) => (upkeep.authority.clone(), upkeep.tokens.clone()),
        None => {
            let authority = authority(&arguments.authority)?.with_lifetimes(lifetimes);
            let tokens = TokenSigner::open_or_create(&arguments.authority.ca_dir)?;
            let (_, authority) = watch::channel(Arc::new(authority));
            (authority, Tokens::Signed(tokens.verifier()))
        }
    };
    let options = ServeOptions {
        registry,
        address: arguments.address,
        port: arguments.port,
        monitoring_port: arguments.monitoring_port,
        connections: ConnectionLimits {
            total: arguments.max_connections,
            per_address: arguments.max_connections_per_address,
        },
        serving_names: arguments.serving_name,
        settings,
        replica: Replica {
            name: upkeep
                .as_ref()
                .map_or_else(String::new, |_| arguments.cluster.pod_name),
            revision: arguments.cluster.revision,
        },
        status,
    };
    let control = ControlPlane::start(options, authority, tokens, metrics).await?;
    control.run(stop).await?;
    if let Some(upkeep) = upkeep {
        upkeep.end().await;
    }
    Ok(())
}

/// Becomes true at SIGTERM or SIGINT.
fn stop_signal() -> Result<watch::Receiver<bool>> {
    let (stop, stopped) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.send_replace(true);
        // The sender lives on, or its end would be taken for another stop.
        std::future::pending::<()>().await;
    });
    Ok(stopped)
}

fn cluster_options(arguments: &ServeArguments, lifetimes: Lifetimes) -> ClusterOptions {
    let cluster = &arguments.cluster;
    ClusterOptions {
        pod_name: cluster.pod_name.clone(),
        revision: cluster.revision.clone(),
        authority: AuthorityOptions {
            namespace: cluster.pod_namespace.clone(),
            name: cluster.ca_secret.clone(),
            trust_domain: arguments.authority.trust_domain.clone(),
            lifetimes,
            propagation: cluster.root_propagation.0,
        },
        webhook: cluster.webhook.clone(),
        cluster_domain: arguments.cluster_domain.clone(),
    }
}

/// Talks to the cluster that KUBECONFIG names, else to the one that this runs in.
async fn cluster() -> Result<kube::Client> {
    let config = kube::Config::infer()
        .await
        .context("--kubernetes: neither KUBECONFIG nor a pod's service account is there")?;
    let address = config.cluster_url.clone();
    kube::Client::try_from(config).with_context(|| format!("the API server at {address}"))
}

fn authority(arguments: &AuthorityArguments) -> Result<CertificateAuthority> {
    let now = SystemTime::now();
    let authority = match (&arguments.ca_key, &arguments.ca_cert) {
        (Some(key), Some(certificate)) => {
            let (key, certificate) = (key.clone(), certificate.clone());
            let files = AuthorityFiles {
                key,
                certificate,
                root: arguments.ca_root.clone(),
            };
            let material = AuthorityMaterial::read(&files)?;
            CertificateAuthority::new(&material, &arguments.trust_domain, now)?
        }
        _ => CertificateAuthority::open_or_create(&arguments.ca_dir, &arguments.trust_domain, now)?,
    };
    Ok(authority)
}

fn token(arguments: &TokenArguments) -> Result<()> {
    let account = ServiceAccount::new(&arguments.namespace, &arguments.account)?;
    let signer = TokenSigner::open_or_create(&arguments.ca_dir)?;
    let token = signer.sign(
        &account,
        &arguments.audience,
        arguments.ttl.0,
        SystemTime::now(),
    )?;
    print(&format!("{token}\n"))
}

fn root(arguments: &AuthorityArguments) -> Result<()> {
    print(&authority(arguments)?.trust_bundle().to_pem())
}

fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .context("writing to stdout")
}
