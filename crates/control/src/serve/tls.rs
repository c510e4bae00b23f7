//! TLS of the discovery port: the serving certificate, which is renewed while it serves, and the
//! client's certificate, which it may bring instead of a token.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use outrider_identity::{AuthorityError, CertificateAuthority, IssuedCertificate, WorkloadKey};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;
use tracing::{debug, error, info, warn};

use super::places::{ConnectionLimits, Place, Places};
use crate::metrics::Metrics;
use crate::signing::CurrentAuthority;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a connection may last of which no call has proved who makes it.
const ANONYMOUS: Duration = Duration::from_secs(15);
/// How many connections with a finished handshake wait for the server.
const WAITING: usize = 64;
/// After a failed accept (no file descriptors, say) or renewal.
const RETRY: Duration = Duration::from_secs(1);
/// No certificate is renewed more often than this.
const SHORTEST_RENEWAL: Duration = Duration::from_secs(1);

/// Why the port cannot serve TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The authority does not sign the serving certificate.
    #[error("the serving certificate: {0}")]
    Authority(#[from] AuthorityError),
    /// rustls does not take the configuration.
    #[error("the serving certificate: {0}")]
    Rustls(#[from] rustls::Error),
    /// rustls does not take the trust bundle.
    #[error("the trust bundle: {0}")]
    Verifier(#[from] VerifierBuilderError),
}

/// The certificate that the port serves with, always fresh.
#[derive(Debug, Clone)]
pub struct ServingCertificate {
    authority: CurrentAuthority,
    names: Arc<Vec<String>>,
    current: Arc<ArcSwap<Current>>,
}

#[derive(Debug)]
struct Current {
    config: Arc<ServerConfig>,
    key: Arc<WorkloadKey>,
    issued: IssuedCertificate,
}

impl ServingCertificate {
    /// Makes a key and has it signed for `names`.
    ///
    /// # Errors
    /// The authority does not sign, for example because a name is none.
    pub fn new(
        authority: CurrentAuthority,
        names: Vec<String>,
        now: SystemTime,
    ) -> Result<Self, TlsError> {
        let current = Current::issue(&authority.borrow(), &names, now)?;
        Ok(Self {
            authority,
            names: Arc::new(names),
            current: Arc::new(ArcSwap::from_pointee(current)),
        })
    }

    /// Renews it at half of what is left of its life, and follows the authority, for ever. A
    /// failure is logged and tried again while the old one serves.
    pub(super) async fn renew(mut self) {
        loop {
            let current = self.current.load_full();
            let left = current
                .issued
                .not_after
                .duration_since(SystemTime::now())
                .unwrap_or_default();
            let next = tokio::select! {
                () = sleep((left / 2).max(SHORTEST_RENEWAL)) => {
                    let authority = Arc::clone(&self.authority.borrow());
                    Current::issue(&authority, &self.names, SystemTime::now())
                }
                authority = changed(&mut self.authority) => {
                    current.follow(&authority, &self.names, SystemTime::now())
                }
            };
            match next {
                Ok(next) => {
                    let renewed = next.issued.chain[0] != current.issued.chain[0];
                    self.current.store(Arc::new(next));
                    if renewed {
                        info!("renewed the serving certificate");
                    }
                }
                Err(error) => {
                    error!("{error}; the old one stays in use");
                    sleep(RETRY).await;
                }
            }
        }
    }

    fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.current.load().config))
    }
}

/// The authority after its next change. One that never changes again is waited for in vain.
async fn changed(authority: &mut CurrentAuthority) -> Arc<CertificateAuthority> {
    if authority.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
    Arc::clone(&authority.borrow_and_update())
}

impl Current {
    fn issue(
        authority: &CertificateAuthority,
        names: &[String],
        now: SystemTime,
    ) -> Result<Self, TlsError> {
        let (key, issued) = authority.issue_serving(names, None, now)?;
        Ok(Self {
            config: Arc::new(configure(authority, &key, &issued)?),
            key: Arc::new(key),
            issued,
        })
    }

    /// Trusts clients by another authority's roots. The certificate itself stays for as long as
    /// those roots vouch for it: a client that has not learnt of a new root yet knows it by the old
    /// one, and who has the bundle knows both.
    fn follow(
        &self,
        authority: &CertificateAuthority,
        names: &[String],
        now: SystemTime,
    ) -> Result<Self, TlsError> {
        if authority.verify(&self.issued.chain, now).is_err() {
            return Self::issue(authority, names, now);
        }
        Ok(Self {
            config: Arc::new(configure(authority, &self.key, &self.issued)?),
            key: Arc::clone(&self.key),
            issued: self.issued.clone(),
        })
    }
}

fn configure(
    authority: &CertificateAuthority,
    key: &WorkloadKey,
    issued: &IssuedCertificate,
) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(default_provider());
    let roots = Arc::new(authority.trust_bundle().root_store());
    // A certificate is welcome but not needed: the first that a workload asks for is its own.
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider))
        .allow_unauthenticated()
        .build()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(issued.chain.clone(), key.private_der())?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would bring a certificate that nobody looks at again.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok(config)
}

/// The certificate that a caller made its connection with, verified against the trust bundle.
#[derive(Debug, Clone)]
pub struct PeerCertificate(CertificateDer<'static>);

impl PeerCertificate {
    /// The certificate.
    pub fn der(&self) -> &[u8] {
        &self.0
    }
}

/// What is known of a caller's connection.
#[derive(Debug, Clone)]
pub struct Peer {
    pub(super) address: SocketAddr,
    certificate: Option<PeerCertificate>,
    authenticated: Arc<AtomicBool>,
}

impl Peer {
    /// Where it calls from.
    pub(crate) fn address(&self) -> IpAddr {
        self.address.ip().to_canonical()
    }

    /// Notes that a call on its connection proved who makes it: the connection may stay.
    pub(crate) fn authenticated(&self) {
        self.authenticated.store(true, Ordering::Relaxed);
    }

    pub(crate) fn certificate(&self) -> Option<&PeerCertificate> {
        self.certificate.as_ref()
    }
}

/// Accepts connections, each with its handshake on its own, so that a slow one holds up nobody.
/// Those beyond `limits` are closed at once.
pub(super) fn incoming(
    listener: TcpListener,
    certificate: ServingCertificate,
    limits: ConnectionLimits,
    metrics: Arc<Metrics>,
) -> ReceiverStream<io::Result<Connection>> {
    let (sender, receiver) = mpsc::channel(WAITING);
    let places = Places::new(limits);
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = sender.closed() => return,
            };
            match accepted {
                Ok((stream, address)) => {
                    let Some(place) = places.take(address.ip()) else {
                        metrics.refused_connections.increment();
                        debug!(%address, "too many connections");
                        continue;
                    };
                    let handshake = shake_hands(stream, address, place, certificate.acceptor());
                    let sender = sender.clone();
                    tokio::spawn(async move {
                        if let Some(connection) = handshake.await {
                            // The server is gone: so is the connection.
                            let _ = sender.send(Ok(connection)).await;
                        }
                    });
                }
                Err(error) => {
                    warn!("accepting a connection failed: {error}");
                    sleep(RETRY).await;
                }
            }
        }
    });
    ReceiverStream::new(receiver)
}

async fn shake_hands(
    stream: TcpStream,
    address: SocketAddr,
    place: Place,
    acceptor: TlsAcceptor,
) -> Option<Connection> {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%address, "a connection went at once: {error}");
        return None;
    }
    match timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            let chain = stream.get_ref().1.peer_certificates();
            let leaf = chain.and_then(|chain| chain.first());
            let certificate = leaf.map(|leaf| PeerCertificate(leaf.clone().into_owned()));
            Some(Connection {
                stream,
                peer: Peer {
                    address,
                    certificate,
                    authenticated: Arc::default(),
                },
                anonymous: Some(Box::pin(sleep(ANONYMOUS))),
                _place: place,
            })
        }
        // A probe of the port.
        Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => None,
        Ok(Err(error)) => {
            warn!(%address, "TLS handshake failed: {error}");
            None
        }
        Err(_elapsed) => {
            warn!(%address, "TLS handshake took too long");
            None
        }
    }
}

/// A connection after its handshake.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    /// When it ends unless a call has proved who makes it; none once one has.
    anonymous: Option<Pin<Box<Sleep>>>,
    _place: Place,
}

impl Connection {
    /// An error when the time of an anonymous connection is over. The server, which reads always,
    /// is woken then.
    fn may_stay(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let Some(anonymous) = &mut self.anonymous else {
            return Ok(());
        };
        if self.peer.authenticated.load(Ordering::Relaxed) {
            self.anonymous = None;
        } else if anonymous.as_mut().poll(context).is_ready() {
            debug!(address = %self.peer.address, "nobody proved in time who it is");
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.may_stay(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
