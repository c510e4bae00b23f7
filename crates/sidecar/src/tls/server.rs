//! The server side of TLS.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::{NoServerSessionStorage, ProducesTickets, UnbufferedServerConnection};
use tokio::io::AsyncReadExt as _;

use super::certificates::ServerCertificates;
use super::client_hello::{self, ClientHello, Parsed};
use super::error::TlsError;
use super::handshake;
use super::key_log::KeyLog;
use super::peer::{PeerPolicy, Use};
use super::secrets::{Cached, Secrets};
use super::socket::Socket;
use super::stream::{PlainStream, TlsStream};
use super::tickets::{Remembered, Tickets};
use crate::config::secret::Secret;
use crate::config::tls::{DownstreamTls, ServerResumption, TlsVersion};
use crate::discovery::slot::Slot;

/// A `DownstreamTlsContext` at work.
pub struct ServerContext {
    tls: DownstreamTls,
    configs: Cached<Configs>,
    /// The keys of tickets where none are configured. They outlive a change of secrets, for sessions
    /// are bound to what admitted them.
    own_keys: Option<Arc<dyn ProducesTickets>>,
    key_log: Option<KeyLog>,
}

/// The configurations of one moment's secrets.
struct Configs {
    usual: ByProtocol,
    /// The same with a key log.
    logged: Option<ByProtocol>,
    policy: Arc<PeerPolicy>,
}

/// One configuration for each choice of ALPN: rustls fails a handshake where nothing overlaps, and
/// the field (BoringSSL) goes on without a protocol.
struct ByProtocol {
    protocols: Vec<(Arc<[u8]>, Arc<ServerConfig>)>,
    without: Arc<ServerConfig>,
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
        let needs_keys =
            tls.resumption == ServerResumption::Tickets && tls.settings.ticket_keys.is_none();
        let own_keys = needs_keys
            .then(rustls::crypto::aws_lc_rs::Ticketer::new)
            .transpose()
            .map_err(TlsError::Settings)?;
        let key_log = tls.settings.open_key_log()?;
        let context = ServerContext {
            tls,
            configs: Cached::new(),
            own_keys,
            key_log,
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
            None => {
                (socket, looked) = read_hello(socket, &mut read_ahead).await?;
                looked.as_ref()
            }
        };
        let wants_log = self
            .key_log
            .as_ref()
            .is_some_and(|log| log.wants(socket.local_addr(), socket.peer_addr()));
        let by_protocol = configs
            .logged
            .as_ref()
            .filter(|_| wants_log)
            .unwrap_or(&configs.usual);
        let connection = UnbufferedServerConnection::new(by_protocol.choose(hello))
            .map_err(TlsError::Settings)?;
        let asks = hello.is_some_and(|hello| hello.asks_for_staple);
        handshake::accept(connection, socket, read_ahead, asks, &configs.policy).await
    }

    fn configs(&self) -> Result<Arc<Configs>, TlsError> {
        self.configs
            .current(&self.tls.settings, |secrets| self.build(secrets))
    }

    fn build(&self, secrets: &Secrets) -> Result<Configs, TlsError> {
        let settings = &self.tls.settings;
        let certificates = ServerCertificates::new(
            &secrets.certificates(settings)?,
            &settings.signature_schemes,
            self.tls.staple_policy,
            self.tls.full_scan,
        )?;
        let used = Use {
            require_certificate: self.tls.require_client_certificate,
            match_server_name: false,
            bounds_sessions: self.tls.resumption != ServerResumption::None,
            schemes: settings.signature_schemes.clone(),
            provider: settings.provider(),
        };
        let policy = Arc::new(PeerPolicy::new(&secrets.validation(settings)?, used)?);
        let mut config = ServerConfig::builder_with_provider(settings.provider())
            .with_protocol_versions(settings.versions()?)
            .map_err(TlsError::Settings)?
            .with_client_cert_verifier(policy.clone())
            .with_cert_resolver(Arc::new(certificates));
        config.enable_secret_extraction = true;
        // The order of suites is ours for TLS 1.2 and the client's for 1.3, as in Envoy. The library
        // has one switch for both.
        let has_order =
            !settings.cipher_suites.is_empty() || settings.max_version == TlsVersion::V1_2;
        config.ignore_client_order = has_order && !self.tls.prefer_client_ciphers;
        self.let_resume(secrets, &mut config)?;
        let logged = self.key_log.as_ref().map(|log| {
            let mut config = config.clone();
            config.key_log = log.sink();
            ByProtocol::new(config, &settings.alpn)
        });
        Ok(Configs {
            usual: ByProtocol::new(config, &settings.alpn),
            logged,
            policy,
        })
    }

    /// Who may come back without a full handshake.
    fn let_resume(&self, secrets: &Secrets, config: &mut ServerConfig) -> Result<(), TlsError> {
        let settings = &self.tls.settings;
        let timeout = self.tls.session_timeout;
        let admission = || secrets.admission(settings, self.tls.require_client_certificate);
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        match self.tls.resumption {
            ServerResumption::None => {}
            ServerResumption::Remembered => {
                config.session_storage = Remembered::new(admission()?, timeout);
            }
            ServerResumption::Tickets => {
                if let Some(keys) = secrets.ticket_keys(settings)? {
                    config.ticketer = Tickets::configured(keys.to_vec(), admission()?, timeout);
                    config.send_tls13_tickets = 1;
                } else if let Some(keys) = &self.own_keys {
                    config.ticketer = Tickets::own(Arc::clone(keys), admission()?, timeout);
                    config.send_tls13_tickets = 1;
                }
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for ServerContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ServerContext").field(&self.tls).finish()
    }
}

impl ByProtocol {
    fn new(config: ServerConfig, protocols: &[Arc<[u8]>]) -> Self {
        let protocols = protocols
            .iter()
            .map(|protocol| {
                let mut config = config.clone();
                config.alpn_protocols = vec![protocol.to_vec()];
                (Arc::clone(protocol), Arc::new(config))
            })
            .collect();
        ByProtocol {
            protocols,
            without: Arc::new(config),
        }
    }

    /// The first of our protocols that the client offers, too.
    fn choose(&self, hello: Option<&ClientHello>) -> Arc<ServerConfig> {
        let offered = hello.map_or(&[][..], |hello| &hello.alpn);
        let agreed = self
            .protocols
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
