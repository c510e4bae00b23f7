//! The server side of TLS.

use std::sync::Arc;

use outrider_identity::certificate::CertificateDetails;
use rustls::ServerConfig;
use rustls::server::{
    ClientHello as RustlsHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert,
    UnbufferedServerConnection,
};
use rustls::sign::CertifiedKey;
use tokio::io::AsyncReadExt as _;

use super::client_hello::{self, ClientHello, Parsed};
use super::error::TlsError;
use super::handshake;
use super::secrets::{Cached, Secrets};
use super::socket::Socket;
use super::stream::{PlainStream, TlsStream};
use crate::config::secret::Secret;
use crate::config::tls::{DownstreamTls, Validation};
use crate::discovery::slot::Slot;

/// A `DownstreamTlsContext` at work.
pub struct ServerContext {
    tls: DownstreamTls,
    configs: Cached<Configs>,
    /// Where clients are not verified, they may resume. Where they are, they may not: rustls takes
    /// the client's chain from the ticket as it was, so a ticket would outlive a revocation.
    ticketer: Option<Arc<dyn ProducesTickets>>,
}

/// One configuration for each choice of ALPN: rustls fails a handshake where nothing overlaps, and
/// the field (BoringSSL) goes on without a protocol.
struct Configs {
    by_protocol: Vec<(Arc<[u8]>, Arc<ServerConfig>)>,
    without: Arc<ServerConfig>,
    /// The first URI name of the first certificate.
    own_uri: Option<Arc<str>>,
}

impl ServerContext {
    /// Checks the settings; the secrets may come later.
    ///
    /// # Errors
    /// Settings that no secret could make work, or inline secrets that cannot be used.
    pub fn new(tls: DownstreamTls) -> Result<Arc<Self>, TlsError> {
        tls.settings.versions()?;
        if tls.settings.certificates.is_empty() {
            return Err(TlsError::NoCertificate);
        }
        let verifies =
            tls.require_client_certificate || !matches!(tls.settings.validation, Validation::None);
        let ticketer = if verifies {
            None
        } else {
            Some(rustls::crypto::aws_lc_rs::Ticketer::new().map_err(TlsError::Settings)?)
        };
        let context = ServerContext {
            tls,
            configs: Cached::new(),
            ticketer,
        };
        if context.is_ready() {
            context.configs()?;
        }
        Ok(Arc::new(context))
    }

    /// What was configured.
    #[cfg(test)]
    pub fn settings(&self) -> &DownstreamTls {
        &self.tls
    }

    /// The secrets that it needs.
    pub fn slots(&self) -> impl Iterator<Item = &Arc<Slot<Secret>>> {
        self.tls.settings.slots()
    }

    /// Whether all secrets have come. Until then handshakes are refused.
    pub fn is_ready(&self) -> bool {
        self.slots().all(|slot| slot.is_filled())
    }

    /// Makes the handshake with a client. `read_ahead` was received already; `hello` is what it
    /// was found to be, if somebody looked.
    ///
    /// # Errors
    /// [`TlsError`]; the client has been told by an alert.
    pub async fn accept(
        &self,
        socket: impl Into<Socket>,
        hello: Option<&ClientHello>,
        mut read_ahead: Vec<u8>,
    ) -> Result<TlsStream, TlsError> {
        let configs = self.configs()?;
        let mut socket = socket.into();
        let looked;
        let hello = match hello {
            Some(hello) => Some(hello),
            None if configs.by_protocol.is_empty() => None,
            None => {
                (socket, looked) = read_hello(socket, &mut read_ahead).await?;
                looked.as_ref()
            }
        };
        let connection =
            UnbufferedServerConnection::new(configs.choose(hello)).map_err(TlsError::Settings)?;
        handshake::accept(connection, socket, read_ahead, configs.own_uri.clone()).await
    }

    fn configs(&self) -> Result<Arc<Configs>, TlsError> {
        self.configs
            .current(&self.tls.settings, |secrets| self.build(secrets))
    }

    fn build(&self, secrets: &Secrets) -> Result<Configs, TlsError> {
        let settings = &self.tls.settings;
        let certificates = Certificates(secrets.certificates(settings)?);
        let own_uri = certificates
            .0
            .first()
            .and_then(|own| own.cert.first())
            .and_then(|leaf| {
                let details = CertificateDetails::parse(leaf).ok()?;
                details.uris.into_iter().next().map(Arc::from)
            });
        let policy = secrets.peer_policy(settings, self.tls.require_client_certificate)?;
        let mut config = ServerConfig::builder_with_provider(settings.provider())
            .with_protocol_versions(settings.versions()?)
            .map_err(TlsError::Settings)?
            .with_client_cert_verifier(Arc::new(policy))
            .with_cert_resolver(Arc::new(certificates));
        config.enable_secret_extraction = true;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        match &self.ticketer {
            Some(ticketer) => {
                config.ticketer = Arc::clone(ticketer);
                config.send_tls13_tickets = 1;
            }
            None => config.send_tls13_tickets = 0,
        }
        let by_protocol = settings
            .alpn
            .iter()
            .map(|protocol| {
                let mut config = config.clone();
                config.alpn_protocols = vec![protocol.to_vec()];
                (Arc::clone(protocol), Arc::new(config))
            })
            .collect();
        Ok(Configs {
            by_protocol,
            without: Arc::new(config),
            own_uri,
        })
    }
}

impl std::fmt::Debug for ServerContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ServerContext").field(&self.tls).finish()
    }
}

impl Configs {
    /// The first of our protocols that the client offers, too.
    fn choose(&self, hello: Option<&ClientHello>) -> Arc<ServerConfig> {
        let offered = hello.map_or(&[][..], |hello| &hello.alpn);
        let agreed = self
            .by_protocol
            .iter()
            .find(|(protocol, _)| offered.iter().any(|offer| **offer == **protocol));
        Arc::clone(agreed.map_or(&self.without, |(_, config)| config))
    }
}

/// Receives until the hello is whole. What is no hello is left to rustls to refuse.
async fn read_hello(
    socket: Socket,
    received: &mut Vec<u8>,
) -> Result<(Socket, Option<ClientHello>), TlsError> {
    let mut socket = PlainStream::new(socket, Vec::new());
    loop {
        match client_hello::parse(received) {
            Parsed::Hello(hello) => return Ok((socket.into_socket(), Some(hello))),
            Parsed::NotTls => return Ok((socket.into_socket(), None)),
            Parsed::NeedMore => {}
        }
        received.reserve(2048);
        if socket.read_buf(received).await? == 0 {
            return Err(TlsError::Closed);
        }
    }
}

/// The server's certificates, in the configuration's order.
#[derive(Debug)]
struct Certificates(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for Certificates {
    /// The first whose key the client can verify and whose names cover the server name that it
    /// asks for; else the first whose key it can verify.
    fn resolve(&self, hello: RustlsHello<'_>) -> Option<Arc<CertifiedKey>> {
        let usable = |certified: &&Arc<CertifiedKey>| {
            certified
                .key
                .choose_scheme(hello.signature_schemes())
                .is_some()
        };
        let mut candidates = self.0.iter().filter(usable);
        let first = candidates.next()?;
        let covers = |certified: &&Arc<CertifiedKey>| {
            let name = hello
                .server_name()
                .and_then(|name| rustls_pki_types::ServerName::try_from(name).ok());
            match (name, certified.end_entity_cert().ok()) {
                (Some(name), Some(leaf)) => webpki::EndEntityCert::try_from(leaf)
                    .is_ok_and(|leaf| leaf.verify_is_valid_for_subject_name(&name).is_ok()),
                _ => false,
            }
        };
        if self.0.len() == 1 || covers(&first) {
            return Some(Arc::clone(first));
        }
        let better = candidates.find(covers);
        Some(Arc::clone(better.unwrap_or(first)))
    }
}
