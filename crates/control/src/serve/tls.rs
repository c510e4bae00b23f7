//! TLS of the discovery port: the serving certificate, which is renewed while it serves, and the
//! client's certificate, which it may bring instead of a token.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use outrider_identity::{AuthorityError, CertificateAuthority};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;
use tracing::{debug, error, info, warn};

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
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
    authority: Arc<CertificateAuthority>,
    names: Arc<Vec<String>>,
    current: Arc<ArcSwap<Current>>,
}

#[derive(Debug)]
struct Current {
    config: Arc<ServerConfig>,
    not_after: SystemTime,
}

impl ServingCertificate {
    /// Makes a key and has it signed for `names`.
    ///
    /// # Errors
    /// The authority does not sign, for example because a name is none.
    pub fn new(
        authority: Arc<CertificateAuthority>,
        names: Vec<String>,
        now: SystemTime,
    ) -> Result<Self, TlsError> {
        let current = issue(&authority, &names, now)?;
        Ok(Self {
            authority,
            names: Arc::new(names),
            current: Arc::new(ArcSwap::from_pointee(current)),
        })
    }

    /// Renews it at half of what is left of its life, for ever. A failure is logged and tried
    /// again while the old one serves.
    pub(super) async fn renew(self) {
        loop {
            let left = self
                .current
                .load()
                .not_after
                .duration_since(SystemTime::now());
            sleep((left.unwrap_or_default() / 2).max(SHORTEST_RENEWAL)).await;
            match issue(&self.authority, &self.names, SystemTime::now()) {
                Ok(current) => {
                    self.current.store(Arc::new(current));
                    info!("renewed the serving certificate");
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

fn issue(
    authority: &CertificateAuthority,
    names: &[String],
    now: SystemTime,
) -> Result<Current, TlsError> {
    let (key, issued) = authority.issue_serving(names, None, now)?;
    let provider = Arc::new(default_provider());
    let roots = Arc::new(authority.trust_bundle().root_store());
    // A certificate is welcome but not needed: the first that a workload asks for is its own.
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider))
        .allow_unauthenticated()
        .build()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(issued.chain, key.private_der())?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would bring a certificate that nobody looks at again.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok(Current {
        config: Arc::new(config),
        not_after: issued.not_after,
    })
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
}

impl Peer {
    pub(crate) fn certificate(&self) -> Option<&PeerCertificate> {
        self.certificate.as_ref()
    }
}

/// Accepts connections, each with its handshake on its own, so that a slow one holds up nobody.
pub(super) fn incoming(
    listener: TcpListener,
    certificate: ServingCertificate,
) -> ReceiverStream<io::Result<Connection>> {
    let (sender, receiver) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = sender.closed() => return,
            };
            match accepted {
                Ok((stream, address)) => {
                    let handshake = shake_hands(stream, address, certificate.acceptor());
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
                },
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
