//! The injector's program.

mod cli;

use std::io::IsTerminal as _;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use clap::Parser as _;
use outrider_injector::cluster::Cluster;
use outrider_injector::serve::{CertificateSource, Injector, ServeOptions};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{info, warn};
use tracing_subscriber::EnvFilter;

use cli::Cli;

fn main() -> std::process::ExitCode {
    match run(Cli::parse()) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("outrider-injector: {}", told_once(&error));
            std::process::ExitCode::FAILURE
        }
    }
}

/// An error with its causes, but for those that its text has already.
fn told_once(error: &anyhow::Error) -> String {
    error
        .chain()
        .skip(1)
        .fold(error.to_string(), |text, cause| {
            let cause = cause.to_string();
            match text.contains(&cause) {
                true => text,
                false => format!("{text}: {cause}"),
            }
        })
}

fn run(cli: Cli) -> Result<()> {
    let filter = EnvFilter::try_new(&cli.log_level).context("--log-level")?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| anyhow!("another provider of cryptography is in use"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(serve(cli))
}

async fn serve(cli: Cli) -> Result<()> {
    // Before anything that takes time, so that a signal meanwhile is not lost.
    let stopped = stop_on_signal()?;
    let certificate = match (cli.tls_cert, cli.tls_key) {
        (Some(certificate), Some(key)) => CertificateSource::Files { certificate, key },
        _ => CertificateSource::Secret {
            namespace: cli.namespace.context(
                "--namespace is missing: the namespace of --tls-secret (POD_NAMESPACE), or give \
                 --tls-cert and --tls-key to run outside a cluster",
            )?,
            name: cli.tls_secret,
        },
    };
    let options = ServeOptions {
        config: cli.config,
        certificate,
        address: cli.address,
        port: cli.port,
        monitoring_port: cli.monitoring_port,
        drain: Duration::from_secs(cli.drain_seconds),
    };
    // Kubernetes sets it in every pod.
    let in_pod = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
    let needs_cluster = matches!(options.certificate, CertificateSource::Secret { .. });
    let start = async {
        let cluster = match in_pod || needs_cluster {
            true => Some(Cluster::connect(cli.pod_name).await?),
            false => None,
        };
        let outside = cluster.is_none();
        let injector = Injector::start(options, cluster).await?;
        if outside {
            info!("no cluster: no events, and native sidecars unless the configuration says not");
        }
        anyhow::Ok(injector)
    };
    let mut stopped_early = stopped.clone();
    let injector = tokio::select! {
        injector = start => injector?,
        _ = stopped_early.wait_for(|stop| *stop) => return Ok(()),
    };
    info!(
        address = %injector.address()?,
        monitoring = %injector.monitoring_address()?,
        "serving"
    );
    injector.run(stopped).await;
    info!("stopped");
    Ok(())
}

/// Becomes true with the first signal; the second ends the process.
fn stop_on_signal() -> Result<watch::Receiver<bool>> {
    let (stop, stopped) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        for times in 1.. {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if times > 1 {
                warn!("told again to stop: ending at once");
                std::process::exit(1);
            }
            stop.send_replace(true);
        }
    });
    Ok(stopped)
}
