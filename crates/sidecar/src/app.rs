//! The one place where everything is wired, in the order of start-up.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use outrider_xds::ads::ResourceType;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::admin::{self, Admin, AdminError};
use crate::bootstrap::options::{Mode, Options};
use crate::bootstrap::{self, Bootstrap, BootstrapError, StaticResource};
use crate::config::error::ConfigError;
use crate::config::listener::TrafficDirection;
use crate::config::source::Origin;
use crate::discovery::builtin::{self, Builtin};
use crate::discovery::dial::Dialer;
use crate::discovery::dump::Dump;
use crate::discovery::files::FileWatcher;
use crate::discovery::manager::{Incoming, Manager};
use crate::discovery::sds_socket::{self, SDS_SOCKET};
use crate::discovery::sources::{Sources, checker};
use crate::discovery::stats::DiscoveryStats;
use crate::discovery::streams::{Everything, Streams};
use crate::discovery::token::TokenFile;
use crate::runtime::concurrency;
use crate::runtime::drain::DrainControl;
use crate::runtime::lifecycle::{Command, Lifecycle, Stage};
use crate::runtime::threads::{self, Start};
use crate::telemetry::access_log::writer::WriterThread;
use crate::telemetry::metrics::Registry;
use crate::telemetry::server_stats::ServerStats;

/// Why the process did not start, or did not go on.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The bootstrap file.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    /// A static resource of the bootstrap file.
    #[error("{file}: {error}")]
    Static {
        /// The file.
        file: String,
        /// The field, and why.
        error: ConfigError,
    },
    /// The environment's settings of the built-in secrets.
    #[error(transparent)]
    Builtin(#[from] builtin::SettingsError),
    /// The SDS socket without what it would serve.
    #[error("{SDS_SOCKET} is set, but not OUTRIDER_CA_ADDRESS: there are no secrets to serve")]
    NothingToServe,
    /// The admin API.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// A thread or a runtime.
    #[error("cannot start: {0}")]
    System(#[from] std::io::Error),
}

/// Does what the command line asks for; returns when the process is to end.
///
/// # Errors
/// Why it could not start.
pub fn run(options: &Options) -> Result<(), AppError> {
    let bootstrap = bootstrap::load(options)?;
    if options.mode == Mode::Validate {
        return validate(options, &bootstrap);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(serve(options, bootstrap))
}

/// Builds everything and binds nothing.
fn validate(options: &Options, bootstrap: &Bootstrap) -> Result<(), AppError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    // No worker: a listener has no socket.
    runtime
        .block_on(async { load_static(options, bootstrap, &mut Manager::new(Arc::default(), 0)) })
}

/// Puts the bootstrap's own resources into the manager, in the order in which they refer to each
/// other.
fn load_static(
    options: &Options,
    bootstrap: &Bootstrap,
    manager: &mut Manager,
) -> Result<(), AppError> {
    manager.references.set_default_bind(bootstrap.default_bind);
    let here = manager.references.key(&Origin::Ads);
    let kinds = [
        (ResourceType::Secret, &bootstrap.secrets),
        (ResourceType::Cluster, &bootstrap.clusters),
        (ResourceType::Listener, &bootstrap.listeners),
    ];
    for (kind, resources) in kinds {
        for StaticResource { name, path, bytes } in resources {
            let incoming = Incoming {
                name: name.clone(),
                version: "".into(),
                bytes: bytes.clone(),
                fixed: true,
            };
            manager
                .accept(kind, here, &incoming)
                .map_err(|error| AppError::Static {
                    file: options.config_path.display().to_string(),
                    error: error.within(path),
                })?;
        }
    }
    Ok(())
}

async fn serve(options: &Options, bootstrap: Bootstrap) -> Result<(), AppError> {
    let started = SystemTime::now();
    let workers = options
        .concurrency
        .map_or_else(concurrency::default_workers, usize::from);
    let registry = Registry::default();
    let stats = registry.thread();
    let (lifecycle, commands) = Lifecycle::new();
    let drain = Arc::new(DrainControl::default());
    let access_log = WriterThread::start(&stats)?;
    let dump = Arc::new(Dump::default());
    dump.set_bootstrap(bootstrap.bytes.clone());

    // The file is checked as a whole, and what it asks for in sockets is had, before anything runs.
    let mut manager = Manager::new(dump.clone(), workers);
    load_static(options, &bootstrap, &mut manager)?;
    let sources = sources(&bootstrap, &manager)?;
    check_sources(&bootstrap, &manager, &sources).map_err(|error| AppError::Static {
        file: options.config_path.display().to_string(),
        error,
    })?;
    let admin_listener = match bootstrap.admin {
        Some(address) => Some(admin::bind(address).await?),
        None => None,
    };

    let snapshots = manager.snapshots();
    for index in 0..workers {
        threads::spawn(Start {
            index,
            snapshots: snapshots.clone(),
            stats: registry.thread(),
            drain: drain.signal(),
            access_log: access_log.handle(),
        })?;
    }
    if let Some(listener) = admin_listener {
        let admin = Admin {
            registry: registry.clone(),
            snapshot: snapshots.clone(),
            dump: dump.clone(),
            lifecycle: lifecycle.clone(),
            options: admin::Options {
                concurrency: workers,
                drain_seconds: options.drain_time_s,
                config_path: options.config_path.display().to_string(),
                node_id: bootstrap.node.id.clone(),
                node_cluster: bootstrap.node.cluster.clone(),
            },
            started,
            stats: ServerStats::new(&stats, workers),
        };
        tokio::spawn(admin::serve(listener, Arc::new(admin)));
    }
    let key = |origin: &Origin| manager.references.key(origin);
    let everything = Everything {
        clusters: bootstrap.cds.as_ref().map(key),
        listeners: bootstrap.lds.as_ref().map(key),
    };
    let streams = Streams::new(manager, sources, everything, DiscoveryStats::new(&stats));
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        workers,
        node = bootstrap.node.id,
        file = %options.config_path.display(),
        "starting"
    );
    let grace = Duration::from_secs(options.drain_time_s);
    control(streams, lifecycle, commands, &drain, grace).await;
    drop(access_log);
    Ok(())
}

/// Whether all sources that the file names can be asked; from now on, what names another is refused.
fn check_sources(
    bootstrap: &Bootstrap,
    manager: &Manager,
    sources: &Rc<Sources>,
) -> Result<(), ConfigError> {
    for (field, origin) in [
        ("cds_config", &bootstrap.cds),
        ("lds_config", &bootstrap.lds),
    ] {
        if let Some(origin) = origin {
            let field = format!("dynamic_resources.{field}");
            let checked = sources.check(origin);
            checked.map_err(|error| ConfigError::new(field, error))?;
        }
    }
    manager.references.set_check(checker(sources))
}

/// Where resources come from: as the bootstrap file and the environment have it.
fn sources(bootstrap: &Bootstrap, manager: &Manager) -> Result<Rc<Sources>, AppError> {
    let variable = |name: &str| std::env::var_os(name);
    let watcher = FileWatcher::new();
    let settings = builtin::Settings::from_environment(variable)?;
    let builtin = settings.map(|settings| Builtin::start(settings, &watcher));
    if let Some(path) = sds_socket::from_environment(variable) {
        let builtin = builtin.as_ref().ok_or(AppError::NothingToServe)?;
        tokio::spawn(sds_socket::serve(path, builtin.secrets()));
    }
    Ok(Rc::new(Sources {
        dialer: Dialer {
            node: bootstrap.node.clone(),
            aggregated: bootstrap.ads.clone(),
            clusters: manager.fixed_clusters(),
            token_file: TokenFile::from_environment(variable),
        },
        builtin,
        watcher,
    }))
}

/// How long inbound listeners go on accepting after SIGTERM, at most: what the removal of our
/// endpoint takes to reach every client. A tenth of the grace period, where that is less.
const ENDPOINT_REMOVAL: Duration = Duration::from_secs(5);

/// The control thread's life: discovery until the end is ordered, then the drain.
async fn control(
    mut streams: Streams,
    lifecycle: Lifecycle,
    mut commands: mpsc::UnboundedReceiver<Command>,
    drain: &DrainControl,
    grace: Duration,
) {
    signals(&lifecycle);
    let mut ending = false;
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    streams.settle();
    loop {
        match streams.is_initialized() {
            (true, true) => lifecycle.reach(Stage::Live),
            (true, false) => lifecycle.reach(Stage::Initializing),
            (false, _) => {}
        }
        tokio::select! {
            () = streams.step() => {}
            Some(command) = commands.recv() => match command {
                Command::DrainInbound => drain.begin_inbound(Duration::ZERO, grace),
                Command::DrainListeners => {
                    drain.begin_inbound(Duration::ZERO, grace);
                    drain.begin_outbound();
                }
                Command::Quit if ending => return,
                Command::Quit => {
                    tracing::info!(?grace, "draining");
                    lifecycle.reach(Stage::Draining);
                    drain.begin_inbound((grace / 10).min(ENDPOINT_REMOVAL), grace);
                    ending = true;
                }
            },
            _ = tick.tick(), if ending => {
                if drained(drain) {
                    tracing::info!("drained");
                    return;
                }
            }
        }
    }
}

/// Whether nothing is left to wait for: no inbound connection, then no outbound one, or the deadline.
fn drained(drain: &DrainControl) -> bool {
    let state = drain.signal().state();
    if state
        .deadline
        .is_some_and(|deadline| Instant::now() >= deadline)
    {
        return true;
    }
    let accepting = state.accepting.is_some_and(|until| Instant::now() < until);
    if accepting || drain.open(TrafficDirection::Inbound) > 0 {
        return false;
    }
    // The application may still be calling others while it ends: outbound listeners stay open as
    // long as it does.
    if drain.open(TrafficDirection::Outbound) == 0 {
        drain.begin_outbound();
        return true;
    }
    false
}

/// SIGTERM and SIGINT drain; a second one ends at once.
fn signals(lifecycle: &Lifecycle) {
    use tokio::signal::unix::{SignalKind, signal};
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let lifecycle = lifecycle.clone();
        match signal(kind) {
            Ok(mut signal) => {
                tokio::spawn(async move {
                    while signal.recv().await.is_some() {
                        lifecycle.command(Command::Quit);
                    }
                });
            }
            Err(error) => tracing::warn!(%error, "cannot listen for signals"),
        }
    }
}
