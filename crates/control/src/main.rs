//! The control program.

mod cli;

use std::io::{IsTerminal as _, Write as _};
use std::time::SystemTime;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser as _;
use outrider_control::mesh::MeshSettings;
use outrider_control::serve::{ControlPlane, RegistrySource, ServeOptions};
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
        Some(Verb::Serve(arguments)) => serve(arguments),
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
    let filter = EnvFilter::try_new(&arguments.log_level).context("--log-level")?;
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
    let authority = authority(&arguments.authority)?.with_lifetimes(lifetimes);
    let tokens = TokenSigner::open_or_create(&arguments.authority.ca_dir)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let registry = match arguments.config_dir {
        Some(directory) => RegistrySource::Directory(directory),
        None if arguments.kubernetes => RegistrySource::Cluster(runtime.block_on(cluster())?),
        None => bail!(
            "--config-dir is missing: name the directory that holds the mesh's YAML, or give \
             --kubernetes to take it from the cluster (see --help)"
        ),
    };
    let options = ServeOptions {
        registry,
        address: arguments.address,
        port: arguments.port,
        monitoring_port: arguments.monitoring_port,
        serving_names: arguments.serving_name,
        settings: MeshSettings {
            trust_domain: arguments.authority.trust_domain,
            cluster_domain: arguments.cluster_domain,
            root_namespace: arguments.root_namespace,
            access_log: arguments.access_log,
        },
    };
    runtime.block_on(async {
        let (stop, stopped) = watch::channel(false);
        // Before anything that takes time, so that a signal meanwhile is not lost.
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
        let control = ControlPlane::start(options, authority, &tokens).await?;
        control.run(stopped).await?;
        Ok(())
    })
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
