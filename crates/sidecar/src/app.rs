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
use crate::discovery::sources::Sources;
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
    runtime.block_on(async {
        // No worker: a listener has no socket. The environment is that of where it will run, so
        // the built-in secrets may be there.
        let mut manager = Manager::new(Arc::default(), 0);
        load_static(options, bootstrap, &mut manager, true).map(drop)
    })
}

/// Puts the bootstrap's own resources into the manager, in the order in which they refer to each
/// other. Returns how the servers that they name are reached; from then on, what names another is
/// refused. `builtin` says whether the built-in secrets are there.
fn load_static(
    options: &Options,
    bootstrap: &Bootstrap,
    manager: &mut Manager,
    builtin: bool,
) -> Result<Dialer, AppError> {
    let refused = |error| AppError::Static {
        file: options.config_path.display().to_string(),
        error,
    };
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
                .map_err(|error| refused(error.within(path)))?;
        }
    }
    let dialer = Dialer {
        node: bootstrap.node.clone(),
        aggregated: bootstrap.ads.clone(),
        clusters: manager.fixed_clusters(),
        builtin,
        token_file: TokenFile::from_environment(|name| std::env::var_os(name)),
    };
    for (field, origin) in [
        ("cds_config", &bootstrap.cds),
        ("lds_config", &bootstrap.lds),
    ] {
        if let Some(Err(error)) = origin.as_ref().map(|origin| dialer.check(origin)) {
            let field = format_args!("dynamic_resources.{field}");
            return Err(refused(ConfigError::new(field, error)));
        }
    }
    let checking = dialer.clone();
    let check = Box::new(move |origin: &Origin| checking.check(origin));
    manager.references.set_check(check).map_err(refused)?;
    Ok(dialer)
}

async fn serve(options: &Options, bootstrap: Bootstrap) -> Result<(), AppError> {
    let started = SystemTime::now();
    let builtin = builtin::Settings::from_environment(|name| std::env::var_os(name))?;
    let workers = options
        .concurrency
        .map_or_else(concurrency::default_workers, usize::from);
    let registry = Registry::default();
    let stats = registry.thread();
    let (lifecycle, commands) = Lifecycle::new();
    let drain = Arc::new(DrainControl::default());
    let access_log = WriterThread::new(stats.clone());
    let dump = Arc::new(Dump::default());
    dump.set_bootstrap(bootstrap.bytes.clone());

    // The file is checked as a whole, and what it asks for in sockets is had, before anything runs.
    let mut manager = Manager::new(dump.clone(), workers);
    let dialer = load_static(options, &bootstrap, &mut manager, builtin.is_some())?;
    manager.bind_fixed().map_err(|error| AppError::Static {
        file: options.config_path.display().to_string(),
        error,
    })?;
    let sources = sources(dialer, builtin)?;
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

/// Starts what secrets and resources come from.
fn sources(dialer: Dialer, builtin: Option<builtin::Settings>) -> Result<Rc<Sources>, AppError> {
    let watcher = FileWatcher::new();
    let builtin = builtin.map(|settings| Builtin::start(settings, &watcher));
    if let Some(path) = sds_socket::from_environment(|name| std::env::var_os(name)) {
        let builtin = builtin.as_ref().ok_or(AppError::NothingToServe)?;
        tokio::spawn(sds_socket::serve(path, builtin.secrets()));
    }
    Ok(Rc::new(Sources {
        dialer,
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
