//! The one place where everything is wired, in the order of start-up.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use outrider_xds::ads::ResourceType;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::admin::{self, Admin, AdminError};
use crate::bootstrap::options::{Mode, Options, OptionsError};
use crate::bootstrap::{self, Bootstrap, BootstrapError, StaticResource};
use crate::config::build::context::LocalNode;
use crate::config::build::extension::DISABLED;
use crate::config::build::resource::{LENIENCY, Leniency};
use crate::config::error::{ConfigError, Problems};
use crate::config::listener::TrafficDirection;
use crate::config::source::{Origin, ResourceSource};
use crate::discovery::builtin::{self, Builtin};
use crate::discovery::dial::Dialer;
use crate::discovery::disk::{DiskCopy, StateFolder};
use crate::discovery::dump::Dump;
use crate::discovery::files::FileWatcher;
use crate::discovery::manager::{Incoming, Manager};
use crate::discovery::sds_socket::{self, SDS_SOCKET};
use crate::discovery::sources::Sources;
use crate::discovery::stats::DiscoveryStats;
use crate::discovery::streams::{Collection, Everything, Streams};
use crate::discovery::token::TokenFile;
use crate::pod::{self, Pod, Readiness};
use crate::runtime::concurrency;
use crate::runtime::drain::DrainControl;
use crate::runtime::ending::{Ending, Form, Open};
use crate::runtime::lifecycle::{Command, Lifecycle, Stage};
use crate::runtime::overload;
use crate::runtime::threads::{self, Start};
use crate::runtime_layer;
use crate::telemetry::access_log::writer::WriterThread;
use crate::telemetry::metrics::Registry;
use crate::telemetry::program_log;
use crate::telemetry::server_stats::ServerStats;

/// Why the process did not start, or did not go on.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The command line.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// The bootstrap file.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    /// Fields of the bootstrap file: all that are wrong, a line for each.
    #[error("{}", lines(.file, .error))]
    Invalid {
        /// The file.
        file: String,
        /// The fields, and why.
        error: ConfigError,
    },
    /// The environment's settings of the built-in secrets.
    #[error(transparent)]
    Builtin(#[from] builtin::SettingsError),
    /// The SDS socket without what it would serve.
    #[error("{SDS_SOCKET} is set, but not OUTRIDER_CA_ADDRESS: there are no secrets to serve")]
    NothingToServe,
    /// The servers for the pod.
    #[error(transparent)]
    Pod(#[from] pod::SocketError),
    /// The admin API.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// A file that the command line asks for cannot be written.
    #[error("{option} {}: {source}", .path.display())]
    Write {
        /// The option.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A thread or a runtime.
    #[error("cannot start: {0}")]
    System(#[from] std::io::Error),
}

fn lines(file: &str, error: &ConfigError) -> String {
    let lines = error.problems().iter();
    let lines: Vec<String> = lines.map(|problem| format!("{file}: {problem}")).collect();
    lines.join("\n")
}

/// Does what the command line asks for; returns when the process is to end.
///
/// # Errors
/// Why it could not start.
pub fn run(options: &Options) -> Result<(), AppError> {
    options.check()?;
    // Only the first of a process counts, and there is one.
    let _ = LENIENCY.set(Leniency {
        unsupported: options.allow_unsupported,
        unknown: options.ignore_unknown_dynamic_fields,
    });
    if let Some(names) = &options.disable_extensions {
        let _ = DISABLED.set(
            names
                .split(',')
                .map(|name| name.trim().to_owned())
                .collect(),
        );
    }
    write(
        "--base-id-path",
        options.base_id_path.as_deref(),
        &options.own_base_id().to_string(),
    )?;
    let mut problems = Problems::default();
    let mut bootstrap = bootstrap::load(options, |name| std::env::var_os(name), &mut problems)?;
    if let Some(pattern) = bootstrap.log_pattern.take() {
        program_log::set_pattern(pattern);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match options.mode {
            Mode::Validate => validate(&bootstrap, problems),
            Mode::Serve | Mode::InitOnly => serve(options, bootstrap, problems).await,
        }
    })
}

/// Writes a file that others read, where one is asked for.
fn write(option: &'static str, path: Option<&Path>, text: &str) -> Result<(), AppError> {
    let Some(path) = path else { return Ok(()) };
    std::fs::write(path, text).map_err(|source| AppError::Write {
        option,
        path: path.to_owned(),
        source,
    })
}

/// Builds everything and binds nothing.
fn validate(bootstrap: &Bootstrap, problems: Problems) -> Result<(), AppError> {
    // No worker: a listener has no socket. The environment is that of where it will run, so
    // the built-in secrets may be there.
    let mut manager = Manager::new(Arc::default(), Registry::default().thread(), 0);
    load_static(bootstrap, &mut manager, true, problems)?;
    println!("configuration '{}' OK", bootstrap.origin);
    Ok(())
}

/// Puts the bootstrap's own resources into the manager, in the order in which they refer to each
/// other. Returns how the servers that they name are reached; from then on, what names another is
/// refused. `builtin` says whether the built-in secrets are there, `problems` what was found wrong
/// with the file before.
fn load_static(
    bootstrap: &Bootstrap,
    manager: &mut Manager,
    builtin: bool,
    mut problems: Problems,
) -> Result<Dialer, AppError> {
    manager
        .references
        .set_default_bind(bootstrap.default_bind.clone());
    let lookup = bootstrap.default_lookup.clone();
    manager.references.set_default_lookup(lookup);
    manager.references.set_node(LocalNode {
        id: bootstrap.node.id.as_str().into(),
        cluster: bootstrap.node.cluster.as_str().into(),
    });
    // Before the first of them is built: one that is wrong in itself is not missing too.
    for cluster in &bootstrap.clusters {
        manager.references.add_cluster(&cluster.name);
    }
    let here = manager.references.key(&Origin::Ads);
    let kinds = [
        (ResourceType::Secret, &bootstrap.secrets),
        (ResourceType::Cluster, &bootstrap.clusters),
        (ResourceType::Listener, &bootstrap.listeners),
    ];
    let mut all_built = true;
    for (kind, resources) in kinds {
        for StaticResource { name, path, bytes } in resources {
            let incoming = Incoming {
                name: name.clone(),
                version: "".into(),
                bytes: bytes.clone(),
                fixed: true,
            };
            if let Err(error) = manager.accept(kind, here, &incoming) {
                problems.add(error.within(path));
                all_built = false;
            }
        }
    }
    if let Some(local) = bootstrap.local_cluster.as_ref().filter(|_| all_built) {
        let here = bootstrap.node.locality.clone().unwrap_or_default();
        let locality = format!("{}/{}/{}", here.region, here.zone, here.sub_zone);
        problems.take(manager.set_local_zone(local, locality.into()));
    }
    if let Err(error) = manager.subscribe_layers(&bootstrap.runtime) {
        problems.add(error);
    }
    let dialer = Dialer {
        node: bootstrap.node.clone(),
        aggregated: bootstrap.ads.clone(),
        clusters: manager.fixed_clusters(),
        builtin,
        token_file: TokenFile::from_environment(|name| std::env::var_os(name)),
    };
    // Without all clusters, what is missing of these says nothing.
    if all_built {
        check_references(bootstrap, manager, &dialer, &mut problems);
    }
    problems.into_error().map_err(|error| AppError::Invalid {
        file: bootstrap.origin.clone(),
        error,
    })?;
    Ok(dialer)
}

/// Whether the clusters are there by which discovery servers are reached, and those of names have
/// no other use.
fn check_references(
    bootstrap: &Bootstrap,
    manager: &Manager,
    dialer: &Dialer,
    problems: &mut Problems,
) {
    for (field, origin) in [
        ("cds_config", &bootstrap.cds),
        ("lds_config", &bootstrap.lds),
    ] {
        if let Some(Err(error)) = origin.as_ref().map(|source| dialer.check(&source.origin)) {
            let field = format_args!("dynamic_resources.{field}");
            problems.add(ConfigError::new(field, error));
        }
    }
    let checking = dialer.clone();
    let check = Box::new(move |origin: &Origin| checking.check(origin));
    problems.take(manager.references.set_check(check));
}

async fn serve(
    options: &Options,
    mut bootstrap: Bootstrap,
    problems: Problems,
) -> Result<(), AppError> {
    let started = SystemTime::now();
    let builtin = builtin::Settings::from_environment(|name| std::env::var_os(name))?;
    let workers = options
        .concurrency
        .map_or_else(concurrency::default_workers, usize::from);
    let registry = Registry::default();
    let mut rules = bootstrap.stats_rules.take().unwrap_or_default();
    rules.add_tags(options.tags()?);
    registry.set_rules(rules);
    let stats = registry.thread();
    let (lifecycle, commands) = Lifecycle::new();
    let drain = Arc::new(DrainControl::default());
    let access_log = WriterThread::new(stats.clone());
    let dump = Arc::new(Dump::default());
    dump.set_bootstrap(bootstrap.bytes.clone());

    let watcher = FileWatcher::new();
    runtime_layer::disk::start(
        runtime_layer::of_process(),
        bootstrap.runtime.clone(),
        &watcher,
    );
    // The file is checked as a whole, and what it asks for in sockets is had, before anything runs.
    let mut manager = Manager::new(dump.clone(), stats.clone(), workers);
    let dialer = load_static(&bootstrap, &mut manager, builtin.is_some(), problems)?;
    manager.bind_fixed().map_err(|error| AppError::Invalid {
        file: bootstrap.origin.clone(),
        error,
    })?;
    let form = match bootstrap.mesh.as_ref().is_some_and(|mesh| mesh.native) {
        true => Form::Native,
        false => Form::Plain,
    };
    let pod_sockets = bootstrap
        .mesh
        .as_ref()
        .map(|_| pod::Sockets::bind())
        .transpose()?;
    let state = bootstrap.mesh.as_ref().and_then(|mesh| {
        let folder = mesh.state.as_ref()?;
        Some(StateFolder::new(folder, mesh.owner()))
    });
    let sources = sources(dialer, builtin, state.clone(), watcher)?;
    let admin_listener = match &bootstrap.admin.address {
        Some(address) => Some(admin::bind(address)?),
        None => None,
    };
    if let Some(listener) = &admin_listener {
        let path = options.admin_address_path.as_deref();
        write("--admin-address-path", path, &listener.address())?;
    }

    if let Some(overload) = bootstrap.overload.take() {
        overload::start(overload, drain.clone(), &stats);
    }
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
            drain: drain.clone(),
            access_log: access_log.reopen(),
            options: admin::Options {
                concurrency: workers,
                command_line: options.clone(),
                node: bootstrap.node.encode_to_vec(),
            },
            started,
            allow_paths: std::mem::take(&mut bootstrap.admin.allow_paths),
            stats: ServerStats::new(
                &stats,
                workers,
                bootstrap.server_version,
                options.restart_epoch,
            ),
        };
        let admin = Arc::new(admin);
        tokio::spawn(admin::serve(listener, admin.clone()));
        if let (Some(mesh), Some(sockets)) = (bootstrap.mesh, pod_sockets) {
            let readiness = Readiness {
                lifecycle: lifecycle.clone(),
                secrets: sources.builtin.as_ref().map(Builtin::secrets),
            };
            Pod::new(mesh.application, &mesh.addresses, readiness, admin, &stats).serve(sockets);
        }
    }
    let collection = |source: &ResourceSource| Collection {
        origin: manager.references.key(&source.origin),
        patience: source.initial_fetch_timeout,
    };
    let everything = Everything {
        clusters: bootstrap.cds.as_ref().map(collection),
        listeners: bootstrap.lds.as_ref().map(collection),
    };
    let mut streams = Streams::new(
        manager,
        sources,
        everything,
        DiscoveryStats::new(&stats, bootstrap.cds.is_some(), bootstrap.lds.is_some()),
    );
    if let Some(folder) = state {
        let (disk, saved) = DiskCopy::open(folder);
        streams.restore(disk, saved);
    }
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        workers,
        node = bootstrap.node.id,
        file = bootstrap.origin,
        "starting"
    );
    let control = Control {
        lifecycle,
        commands,
        drain: &drain,
        registry,
        form,
        grace: Duration::from_secs(options.drain_time_s),
        ends_when_live: options.mode == Mode::InitOnly,
    };
    control.run(streams).await;
    drop(access_log);
    Ok(())
}

/// Starts what secrets and resources come from.
fn sources(
    dialer: Dialer,
    builtin: Option<builtin::Settings>,
    state: Option<StateFolder>,
    watcher: FileWatcher,
) -> Result<Rc<Sources>, AppError> {
    let builtin = builtin.map(|settings| Builtin::start(settings, &watcher, state));
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

/// What the control thread's life depends on.
struct Control<'a> {
    lifecycle: Lifecycle,
    commands: mpsc::UnboundedReceiver<Command>,
    drain: &'a DrainControl,
    registry: Registry,
    form: Form,
    grace: Duration,
    /// `--mode init_only`
    ends_when_live: bool,
}

impl Control<'_> {
    /// Discovery until the end is ordered, then the drain.
    async fn run(mut self, mut streams: Streams) {
        signals(&self.lifecycle);
        let mut ending: Option<Ending> = None;
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        streams.settle();
        loop {
            match streams.is_initialized() {
                (true, true) => {
                    self.lifecycle.reach(Stage::Live);
                    if self.ends_when_live {
                        tracing::info!("everything is there that was waited for: --mode init_only");
                        return;
                    }
                }
                (true, false) => self.lifecycle.reach(Stage::Initializing),
                (false, _) => {}
            }
            tokio::select! {
                () = streams.step() => {}
                Some(command) = self.commands.recv() => match command {
                    Command::Quit if ending.is_some() => return,
                    Command::Quit => ending = Some(self.end()),
                },
                _ = tick.tick(), if ending.is_some() => {
                    let open = self.open();
                    let now = Instant::now();
                    if ending.as_mut().is_some_and(|ending| ending.is_over(&open, now)) {
                        self.drain.begin_outbound(Duration::ZERO);
                        tracing::info!("drained");
                        return;
                    }
                }
            }
        }
    }

    fn end(&self) -> Ending {
        let Control { form, grace, .. } = self;
        tracing::info!(?grace, ?form, "draining");
        self.lifecycle.reach(Stage::Draining);
        // The grace period is short, and whoever balances over us knows already.
        self.drain.set_gradual(None);
        self.drain.begin_inbound(form.accepting(*grace), *grace);
        let deadline = self.drain.signal().state().deadline;
        Ending::new(*form, deadline.unwrap_or_else(|| Instant::now() + *grace))
    }

    fn open(&self) -> Open {
        let accepting = self.drain.signal().state().accepting;
        Open {
            inbound: self.drain.open(TrafficDirection::Inbound),
            outbound: self.drain.open(TrafficDirection::Outbound),
            accepting: accepting.is_some_and(|until| Instant::now() < until),
            activity: self.registry.activity(),
        }
    }
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
