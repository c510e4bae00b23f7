//! The control plane's sockets: discovery and signing over TLS, health and metrics in plain HTTP.

mod bind;
mod monitor;
mod places;
mod registry;
mod tls;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use outrider_identity::{AuthorityError, TrustDomain};
use outrider_xds::ads;
use outrider_xds::certificate::CertificateService;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::Extensions;
use tonic::transport::Server;
use tracing::{info, warn};

use crate::authenticate::{Authenticator, Tokens};
use crate::kubernetes::status::{self, StatusOptions};
use crate::mesh::MeshSettings;
use crate::metrics::Metrics;
use crate::push::Publisher;
use crate::registry::RegistryError;
use crate::signing::{CurrentAuthority, SigningService};

use monitor::Monitor;
use registry::Registry;

pub use places::ConnectionLimits;
pub use registry::RegistrySource;
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
/// Calls at a time on one connection. A sidecar has one stream, and asks for a certificate now and
/// then.
const CALLS: u32 = 16;
/// How many bytes of one call, and of one connection, are taken before anybody wants them.
const CALL_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = 256 << 10;

/// Why the server cannot start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The registry's directory cannot be used.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The task that follows the registry is gone, which it never is by itself.
    #[error("following the registry ended; the log says why")]
    RegistryEnded,
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
    /// Where the objects come from.
    pub registry: RegistrySource,
    /// Where to listen; all addresses of both families when none.
    pub address: Option<IpAddr>,
    /// The port of discovery and signing; 0 lets the system choose.
    pub port: u16,
    /// The port of health and metrics; 0 lets the system choose.
    pub monitoring_port: u16,
    /// How many connections discovery and signing have at most.
    pub connections: ConnectionLimits,
    /// The names of the serving certificate.
    pub serving_names: Vec<String>,
    /// What holds for the whole mesh.
    pub settings: MeshSettings,
    /// Which of several this is.
    pub replica: Replica,
    /// Who writes statuses to a cluster's objects; nobody in a directory.
    pub status: Option<StatusOptions>,
}

/// One process of the control plane.
#[derive(Debug, Clone, Default)]
pub struct Replica {
    /// Its pod; empty outside of a cluster.
    pub name: String,
    /// Its revision; empty for the default one.
    pub revision: String,
}

/// A server whose sockets are bound. Those of a directory have read it.
#[derive(Debug)]
pub struct ControlPlane {
    listener: TcpListener,
    monitor: TcpListener,
    connections: ConnectionLimits,
    certificate: ServingCertificate,
    publisher: Arc<Publisher>,
    signing: Arc<SigningService>,
    registry: Registry,
    metrics: Arc<Metrics>,
    replica: Replica,
    status: Option<StatusOptions>,
}

impl ControlPlane {
    /// Reads the directory if there is one, makes the serving certificate and binds the sockets.
    ///
    /// # Errors
    /// One of these failed. A wrong file is no failure: it is logged and left out.
    pub async fn start(
        options: ServeOptions,
        authority: CurrentAuthority,
        tokens: Tokens,
        metrics: Arc<Metrics>,
    ) -> Result<Self, ServeError> {
        let left = authority
            .borrow()
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
        let authenticator = Authenticator::new(tokens, trust_domain);
        let certificate =
            ServingCertificate::new(authority.clone(), options.serving_names, SystemTime::now())?;
        let settings = Arc::new(options.settings);
        let mut registry = Registry::open(options.registry, settings, Arc::clone(&metrics))?;
        let mesh = registry.mesh();
        let listener = bind::listen(options.address, options.port)?;
        let monitor = bind::listen(options.address, options.monitoring_port)?;
        let publisher = Publisher::new(authenticator.clone(), mesh, Arc::clone(&metrics));
        let signing = SigningService::new(authenticator, authority, Arc::clone(&metrics));
        Ok(Self {
            listener,
            monitor,
            connections: options.connections,
            certificate,
            publisher: Arc::new(publisher),
            signing: Arc::new(signing),
            registry,
            metrics,
            replica: options.replica,
            status: options.status,
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

    /// Serves until `stop` becomes true, then ends all streams and returns. Nobody is answered
    /// before a cluster's objects were read: proxies would give up what they have.
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
            "listening for discovery and for certificate requests"
        );
        let publisher = Arc::clone(&self.publisher);
        let metrics = Arc::clone(&self.metrics);
        let (synced, ready) = watch::channel(false);
        let monitor = Monitor {
            metrics: Arc::clone(&self.metrics),
            publisher: Arc::clone(&publisher),
            issued: Arc::clone(self.signing.issued()),
            replica: self.replica,
            ready: ready.clone(),
            stop: stop.clone(),
        };
        let mut background = JoinSet::new();
        background.spawn(monitor.serve(self.monitor));
        if let Some(options) = self.status {
            let (publisher, presents) = (Arc::clone(&publisher), self.registry.presents());
            background.spawn(status::keep(options, publisher, presents, self.metrics));
        }
        background.spawn(self.registry.follow(Arc::clone(&publisher), synced));
        background.spawn(keep_house(Arc::clone(&publisher)));
        background.spawn(self.certificate.clone().renew());
        if !first_sync(ready, stop.clone()).await? {
            info!("stopping");
            return Ok(());
        }
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
        let incoming = tls::incoming(self.listener, self.certificate, self.connections, metrics);
        let serving = Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE))
            .max_concurrent_streams(CALLS)
            .initial_stream_window_size(CALL_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
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
        background.shutdown().await;
        result
    }
}

/// Waits until everything was read once; false if the server is to stop before.
async fn first_sync(
    mut ready: watch::Receiver<bool>,
    mut stop: watch::Receiver<bool>,
) -> Result<bool, ServeError> {
    tokio::select! {
        synced = ready.wait_for(|ready| *ready) => match synced {
            Ok(_) => Ok(true),
            Err(_ended) => Err(ServeError::RegistryEnded),
        },
        _ = stop.wait_for(|stop| *stop) => Ok(false),
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
