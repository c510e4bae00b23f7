//! The control plane's sockets: discovery and signing over TLS, health and metrics in plain HTTP.

mod bind;
mod monitor;
mod tls;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use outrider_identity::{AuthorityError, CertificateAuthority, TokenSigner, TrustDomain};
use outrider_xds::ads;
use outrider_xds::certificate::CertificateService;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::Extensions;
use tonic::transport::Server;
use tracing::{error, info, warn};

use crate::authenticate::Authenticator;
use crate::mesh::{MeshSettings, MeshState, Warning};
use crate::metrics::Metrics;
use crate::push::Publisher;
use crate::registry::watch::Watch;
use crate::registry::{Directory, RegistryError, Scan};
use crate::signing::SigningService;

pub use tls::{Peer, PeerCertificate, ServingCertificate, TlsError};

/// What clients see as the name of this server.
const IDENTIFIER: &str = concat!("outrider-control/", env!("CARGO_PKG_VERSION"));
/// How often streams that have lasted long enough are looked for.
const HOUSEKEEPING: Duration = Duration::from_secs(30);
/// How long the end of streams may take on shutdown.
const SHUTDOWN: Duration = Duration::from_secs(5);
/// Before the authority's own certificate ends, there is a warning for this long: 30 days.
const AUTHORITY_WARNING: Duration = Duration::from_secs(30 * 24 * 3600);
/// A stream that is silent is asked whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Why the server cannot start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The registry's directory cannot be used.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A port cannot be listened on.
    #[error("listening on {address}: {source}")]
    Bind {
        /// Which.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The serving certificate cannot be made.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The authority's certificate cannot serve.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The gRPC server failed.
    #[error("serving: {0}")]
    Transport(#[from] tonic::transport::Error),
}

/// Everything that the server is told.
#[derive(Debug)]
pub struct ServeOptions {
    /// The directory of the registry.
    pub config_directory: PathBuf,
    /// Where to listen; all addresses of both families when none.
    pub address: Option<IpAddr>,
    /// The port of discovery and signing; 0 lets the system choose.
    pub port: u16,
    /// The port of health and metrics; 0 lets the system choose.
    pub monitoring_port: u16,
    /// The names of the serving certificate.
    pub serving_names: Vec<String>,
    /// What holds for the whole mesh.
    pub settings: MeshSettings,
}

/// A server whose sockets are bound and whose first configuration is read.
#[derive(Debug)]
pub struct ControlPlane {
    listener: TcpListener,
    monitor: TcpListener,
    certificate: ServingCertificate,
    publisher: Arc<Publisher>,
    signing: Arc<SigningService>,
    registry: Registry,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct Registry {
    directory: Directory,
    watch: Watch,
    settings: Arc<MeshSettings>,
    metrics: Arc<Metrics>,
}

impl ControlPlane {
    /// Reads the configuration, makes the serving certificate and binds the sockets.
    ///
    /// # Errors
    /// One of these failed. A wrong file is no failure: it is logged and left out.
    pub async fn start(
        options: ServeOptions,
        authority: CertificateAuthority,
        tokens: &TokenSigner,
    ) -> Result<Self, ServeError> {
        let metrics = Arc::new(Metrics::default());
        let authority = Arc::new(authority);
        let left = authority
            .signer_not_after()
            .duration_since(SystemTime::now());
        let left = left.unwrap_or_default();
        if left < AUTHORITY_WARNING {
            let days = left.as_secs() / (24 * 3600);
            warn!(
                days,
                "the authority's own certificate ends soon, and all others with it"
            );
        }
        let trust_domain: TrustDomain = options.settings.trust_domain.clone();
        let authenticator = Authenticator::new(tokens.verifier(), trust_domain);
        let certificate = ServingCertificate::new(
            Arc::clone(&authority),
            options.serving_names,
            SystemTime::now(),
        )?;
        // Watched before it is read, so that no change falls in between.
        let watch = Watch::new(&options.config_directory)?;
        let mut registry = Registry {
            directory: Directory::new(options.config_directory),
            watch,
            settings: Arc::new(options.settings),
            metrics: Arc::clone(&metrics),
        };
        let scan = registry.directory.scan()?;
        let mesh = registry.digest(&scan, &BTreeSet::new());
        let listener = bind::listen(options.address, options.port)?;
        let monitor = bind::listen(options.address, options.monitoring_port)?;
        let publisher = Publisher::new(authenticator.clone(), mesh, Arc::clone(&metrics));
        let signing = SigningService::new(authenticator, authority, Arc::clone(&metrics));
        Ok(Self {
            listener,
            monitor,
            certificate,
            publisher: Arc::new(publisher),
            signing: Arc::new(signing),
            registry,
            metrics,
        })
    }

    /// Where discovery and signing are served.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Where health and metrics are served.
    pub fn monitoring_address(&self) -> std::io::Result<SocketAddr> {
        self.monitor.local_addr()
    }

    /// Serves until `stop` becomes true, then ends all streams and returns.
    ///
    /// # Errors
    /// The gRPC server failed.
    pub async fn run(self, stop: watch::Receiver<bool>) -> Result<(), ServeError> {
        let address = self
            .listener
            .local_addr()
            .map(|address| address.to_string());
        info!(
            address = address.unwrap_or_default(),
            "serving discovery and certificates"
        );
        let publisher = Arc::clone(&self.publisher);
        let background = [
            tokio::spawn(monitor::serve(self.monitor, self.metrics, stop.clone())),
            tokio::spawn(self.registry.follow(Arc::clone(&publisher))),
            tokio::spawn(keep_house(Arc::clone(&publisher))),
            tokio::spawn(self.certificate.clone().renew()),
        ];
        let stopped = {
            let (mut stop, publisher) = (stop.clone(), Arc::clone(&publisher));
            async move {
                // An error means that whoever could stop us is gone, which is a stop too.
                let _ = stop.wait_for(|stop| *stop).await;
                info!("stopping");
                publisher.end_all_streams();
            }
        };
        let mut abandoned = stop;
        let incoming = tls::incoming(self.listener, self.certificate);
        let serving = Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE))
            .add_service(ads::server::service(publisher, IDENTIFIER))
            .add_service(CertificateService::new(self.signing))
            .serve_with_incoming_shutdown(incoming, stopped);
        let result = tokio::select! {
            result = serving => result.map_err(ServeError::from),
            () = async {
                let _ = abandoned.wait_for(|stop| *stop).await;
                tokio::time::sleep(SHUTDOWN).await;
            } => {
                warn!("connections are still open; leaving them");
                Ok(())
            }
        };
        for task in background {
            task.abort();
        }
        result
    }
}

impl Registry {
    /// Logs what a scan found, and puts together what is in force.
    fn digest(&self, scan: &Scan, known: &BTreeSet<Warning>) -> MeshState {
        for refused in &scan.refused {
            self.metrics.refused_files.increment();
            error!("{refused}; the last good version of the file, if any, stays in force");
        }
        for path in &scan.recovered {
            info!("{} is in force again", path.display());
        }
        let mesh = MeshState::build(Arc::clone(&self.settings), self.directory.objects());
        self.metrics.objects.set(self.directory.objects().count());
        self.metrics.warnings.set(mesh.warnings.len());
        for warning in mesh.warnings.difference(known) {
            warn!("{warning}");
        }
        mesh
    }

    async fn follow(mut self, publisher: Arc<Publisher>) {
        loop {
            self.watch.changed().await;
            let publisher = Arc::clone(&publisher);
            // Files and translations would hold up the streams.
            let look = tokio::task::spawn_blocking(move || {
                self.look(&publisher);
                self
            });
            match look.await {
                Ok(registry) => self = registry,
                Err(error) => {
                    error!("following the registry ended: {error}");
                    return;
                }
            }
        }
    }

    fn look(&mut self, publisher: &Publisher) {
        let scan = match self.directory.scan() {
            Ok(scan) => scan,
            Err(error) => {
                error!("{error}; everything stays as it is");
                return;
            }
        };
        if !scan.changed && scan.refused.is_empty() && scan.recovered.is_empty() {
            return;
        }
        let mesh = self.digest(&scan, &publisher.mesh().warnings);
        if scan.changed {
            publisher.publish(mesh);
        }
    }
}

async fn keep_house(publisher: Arc<Publisher>) {
    let mut ticks = tokio::time::interval(HOUSEKEEPING);
    loop {
        ticks.tick().await;
        publisher.end_old_streams(Instant::now());
    }
}

/// The address of a caller, for logs.
pub(crate) fn peer_of(extensions: &Extensions) -> String {
    extensions
        .get::<Peer>()
        .map_or_else(String::new, |peer| peer.address.to_string())
}
