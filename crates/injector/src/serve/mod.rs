//! The webhook's sockets: reviews over TLS, health and metrics in plain HTTP.

mod files;
mod http;
pub(crate) mod metrics;
mod monitor;
pub(crate) mod review;
pub(crate) mod tls;
mod watch;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch as signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::cluster::{Cluster, PodSecurity};
use crate::config::{Config, ConfigError, ServerVersion};
use files::{CertificateFiles, follow_config};
use metrics::Metrics;
use review::Report;
use tls::Certificate;
use watch::FileWatch;

/// How many connections there may be at once. The API server makes one, or a few.
const CONNECTIONS: usize = 1024;
/// After a failed accept (no file descriptors, say).
const RETRY: Duration = Duration::from_secs(1);
/// How long requests may take to end on shutdown.
const SHUTDOWN: Duration = Duration::from_secs(10);

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A port cannot be listened on.
    #[error("listening on {address}: {source}")]
    Bind {
        /// Which.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The certificate is in a cluster, and there is none.
    #[error("the Secret `{name}` can only be watched in a cluster: give --tls-cert and --tls-key")]
    NoCluster {
        /// The Secret's name.
        name: String,
    },
    /// Files cannot be watched.
    #[error("watching {}: {source}", path.display())]
    Watch {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: notify::Error,
    },
}

/// Where the serving certificate comes from.
#[derive(Debug, Clone)]
pub enum CertificateSource {
    /// A Secret, watched through the API server.
    Secret {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// Two files (PEM), watched.
    Files {
        /// The chain, leaf first.
        certificate: PathBuf,
        /// The private key.
        key: PathBuf,
    },
}

/// Everything that the server is told.
#[derive(Debug)]
pub struct ServeOptions {
    /// The configuration's file.
    pub config: PathBuf,
    /// The serving certificate.
    pub certificate: CertificateSource,
    /// Where to listen; all addresses of both families when none.
    pub address: Option<IpAddr>,
    /// The port of reviews; 0 lets the system choose.
    pub port: u16,
    /// The port of health and metrics; 0 lets the system choose.
    pub monitoring_port: u16,
    /// How long after the stop new connections are still taken.
    pub drain: Duration,
}

/// What every connection sees.
pub(crate) struct Shared {
    config: ArcSwap<Config>,
    certificate: Arc<Certificate>,
    metrics: Arc<Metrics>,
    server: Option<ServerVersion>,
    pod_security: Option<PodSecurity>,
    reports: Option<crate::cluster::Reports>,
    stopping: AtomicBool,
}

impl Shared {
    fn not_ready(&self, now: SystemTime) -> Option<&'static str> {
        if self.stopping.load(Ordering::Relaxed) {
            return Some("stopping");
        }
        self.certificate.problem(now)
    }

    fn pod_security(&self, namespace: &str) -> Option<String> {
        self.pod_security.as_ref()?.enforced(namespace)
    }

    fn report(&self, report: Report) {
        if let Some(reports) = &self.reports {
            reports.send(report);
        }
    }
}

/// A server whose sockets are bound and whose configuration is read.
pub struct Injector {
    listener: TcpListener,
    monitor: TcpListener,
    shared: Arc<Shared>,
    background: TaskTracker,
    ended: CancellationToken,
    drain: Duration,
}

impl Injector {
    /// Reads the configuration, binds the sockets and starts watching. `cluster` is the API server,
    /// if there is one.
    ///
    /// # Errors
    /// One of these failed.
    pub async fn start(
        options: ServeOptions,
        cluster: Option<Cluster>,
    ) -> Result<Self, ServeError> {
        // Watched before it is read, so that no change falls in between.
        let config_watch = watch_files(&[&options.config])?;
        let config = Config::load(&options.config)?;
        let listener = listen(options.address, options.port).await?;
        let monitor = listen(options.address, options.monitoring_port).await?;
        let metrics = Arc::new(Metrics::default());
        metrics.config_loads.increment();
        let certificate = Arc::new(Certificate::default());
        let background = TaskTracker::new();
        let ended = CancellationToken::new();
        let run = |task: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| {
            let ended = ended.clone();
            background.spawn(async move { ended.run_until_cancelled(task).await });
        };
        let (server, pod_security, reports) = match &cluster {
            Some(cluster) => {
                let (pod_security, follow) = cluster.pod_security();
                run(Box::pin(follow));
                let (reports, send) = cluster.reports(Arc::clone(&metrics));
                run(Box::pin(send));
                (Some(cluster.version), Some(pod_security), Some(reports))
            }
            None => (None, None, None),
        };
        match (options.certificate, cluster) {
            (CertificateSource::Secret { namespace, name }, Some(cluster)) => {
                let certificate = Arc::clone(&certificate);
                let metrics = Arc::clone(&metrics);
                run(Box::pin(async move {
                    cluster
                        .certificate(&namespace, &name, &certificate, &metrics)
                        .await;
                }));
            }
            (CertificateSource::Secret { name, .. }, None) => {
                return Err(ServeError::NoCluster { name });
            }
            (
                CertificateSource::Files {
                    certificate: chain,
                    key,
                },
                _,
            ) => {
                let watch = watch_files(&[&chain, &key])?;
                let mut files = CertificateFiles::new(chain, key);
                files.look(&certificate, &metrics);
                let certificate = Arc::clone(&certificate);
                let metrics = Arc::clone(&metrics);
                run(Box::pin(async move {
                    files.follow(watch, &certificate, &metrics).await;
                }));
            }
        }
        let shared = Arc::new(Shared {
            config: ArcSwap::from_pointee(config),
            certificate,
            metrics,
            server,
            pod_security,
            reports,
            stopping: AtomicBool::new(false),
        });
        let following = Arc::clone(&shared);
        let path = options.config;
        run(Box::pin(async move {
            follow_config(&path, config_watch, &following).await;
        }));
        Ok(Self {
            listener,
            monitor,
            shared,
            background,
            ended,
            drain: options.drain,
        })
    }

    /// Where reviews are served.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Where health and metrics are served.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn monitoring_address(&self) -> io::Result<SocketAddr> {
        self.monitor.local_addr()
    }

    /// Serves until `stop` becomes true. Then it is not ready at once, takes connections for as
    /// long as the API server may not have heard of that, and ends what is under way.
    pub async fn run(self, mut stop: signal::Receiver<bool>) {
        let monitor = tokio::spawn(monitor::serve(self.monitor, Arc::clone(&self.shared)));
        let connections = TaskTracker::new();
        let end_connections = CancellationToken::new();
        let accept = accept(
            self.listener,
            Arc::clone(&self.shared),
            connections.clone(),
            end_connections.clone(),
        );
        let until = async {
            // An error means that whoever could stop us is gone, which is a stop too.
            let _ = stop.wait_for(|stop| *stop).await;
            info!("stopping: not ready from now on");
            self.shared.stopping.store(true, Ordering::Relaxed);
            tokio::time::sleep(self.drain).await;
        };
        tokio::select! {
            () = accept => {}
            () = until => {}
        }
        end_connections.cancel();
        connections.close();
        if tokio::time::timeout(SHUTDOWN, connections.wait())
            .await
            .is_err()
        {
            warn!("connections are still open; leaving them");
        }
        self.ended.cancel();
        self.background.close();
        self.background.wait().await;
        monitor.abort();
    }
}

async fn accept(
    listener: TcpListener,
    shared: Arc<Shared>,
    connections: TaskTracker,
    stop: CancellationToken,
) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!("accepting a connection failed: {error}");
                tokio::time::sleep(RETRY).await;
                continue;
            }
        };
        if let Err(error) = stream.set_nodelay(true) {
            warn!("a connection's delay cannot be switched off: {error}");
        }
        let connection = http::connection(stream, Arc::clone(&shared), stop.clone());
        connections.spawn(async move {
            connection.await;
            drop(place);
        });
    }
}

/// Listens on an address, or on all of both families; of IPv4 alone where there is no IPv6.
async fn listen(address: Option<IpAddr>, port: u16) -> Result<TcpListener, ServeError> {
    let all = IpAddr::from(Ipv6Addr::UNSPECIFIED);
    let wanted = SocketAddr::new(address.unwrap_or(all), port);
    let failed = |address| move |source| ServeError::Bind { address, source };
    match TcpListener::bind(wanted).await {
        Ok(listener) => Ok(listener),
        Err(error) if address.is_none() && without_ipv6(&error) => {
            let all = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
            TcpListener::bind(all).await.map_err(failed(all))
        }
        Err(error) => Err(failed(wanted)(error)),
    }
}

fn without_ipv6(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(nix::errno::Errno::EAFNOSUPPORT as i32)
}

fn watch_files(files: &[&Path]) -> Result<FileWatch, ServeError> {
    FileWatch::new(files).map_err(|source| ServeError::Watch {
        path: files
            .first()
            .map(|path| path.to_path_buf())
            .unwrap_or_default(),
        source,
    })
}
