//! The client side of TLS.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::{ClientSessionMemoryCache, Resumption, UnbufferedClientConnection};
use rustls_pki_types::ServerName;

use super::certificates::ClientCertificates;
use super::error::TlsError;
use super::handshake;
use super::key_log::KeyLog;
use super::peer::{PeerPolicy, Use};
use super::secrets::{Cached, Secrets};
use super::socket::Socket;
use super::stream::TlsStream;
use crate::config::secret::Secret;
use crate::config::tls::UpstreamTls;
use crate::discovery::slot::Slot;

/// Envoy's `max_session_keys` where none is set.
const DEFAULT_SESSION_KEYS: u32 = 1;

/// An `UpstreamTlsContext` at work.
pub struct ClientContext {
    tls: UpstreamTls,
    /// The name of `sni`.
    name: ServerName<'static>,
    configs: Cached<Configs>,
    key_log: Option<KeyLog>,
}

/// The configurations of one moment's secrets.
struct Configs {
    usual: Arc<ClientConfig>,
    /// The same with a key log.
    logged: Option<Arc<ClientConfig>>,
}

/// Names of the server that a connection may be for, and of the protocols on it, beside what is
/// configured.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServerNames<'a> {
    /// The endpoint's host name; empty where it has none.
    pub host: &'a str,
    /// What the request or the downstream connection asks for; goes before all else.
    pub requested: Option<&'a str>,
    /// The protocols to offer before all else; empty where nobody asks for any.
    pub protocols: &'a [Box<[u8]>],
}

impl ClientContext {
    /// Checks the settings; the secrets may come later.
    ///
    /// # Errors
    /// Settings that no secret could make work, or inline secrets that cannot be used.
    pub fn new(tls: UpstreamTls) -> Result<Arc<Self>, TlsError> {
        tls.settings.versions()?;
        let name = if tls.sni.is_empty() {
            nameless()
        } else {
            dns_name(&tls.sni).ok_or_else(|| TlsError::ServerName(Arc::clone(&tls.sni)))?
        };
        let key_log = tls.settings.open_key_log()?;
        let context = ClientContext {
            tls,
            name,
            configs: Cached::new(),
            key_log,
        };
        if context.is_ready() {
            context.configs()?;
        }
        Ok(Arc::new(context))
    }

    /// Its settings.
    pub fn settings(&self) -> &UpstreamTls {
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

    /// Makes the handshake with a server. `fallback_alpn` is offered where the context has no
    /// protocols of its own. The end of the handshake may still be on its way out: it travels with
    /// the first data, or goes out at the first read or flush.
    ///
    /// # Errors
    /// [`TlsError`]; the server has been told by an alert.
    pub async fn connect(
        &self,
        socket: impl Into<Socket>,
        fallback_alpn: &[&[u8]],
        names: ServerNames<'_>,
    ) -> Result<TlsStream, TlsError> {
        let configs = self.configs()?;
        let socket = socket.into();
        let wants_log = self
            .key_log
            .as_ref()
            .is_some_and(|log| log.wants(socket.local_addr(), socket.peer_addr()));
        let config = configs
            .logged
            .as_ref()
            .filter(|_| wants_log)
            .unwrap_or(&configs.usual);
        let alpn = match names.protocols {
            [] => self.alpn(fallback_alpn),
            asked => asked.iter().map(|name| name.to_vec()).collect(),
        };
        let name = self.server_name(names)?;
        let connection = UnbufferedClientConnection::new_with_alpn(Arc::clone(config), name, alpn)
            .map_err(TlsError::Settings)?;
        handshake::connect(connection, socket).await
    }

    /// The present configuration and the server's name, for connections that are not proxied and
    /// that a library makes.
    ///
    /// # Errors
    /// A secret has not come yet, or cannot be used.
    pub fn rustls_config(
        &self,
        fallback_alpn: &[&[u8]],
        names: ServerNames<'_>,
    ) -> Result<(ClientConfig, ServerName<'static>), TlsError> {
        let mut config = ClientConfig::clone(&self.configs()?.usual);
        config.alpn_protocols = self.alpn(fallback_alpn);
        Ok((config, self.server_name(names)?))
    }

    /// The name to send. A host name that is an address cannot be sent; then none is.
    fn server_name(&self, names: ServerNames<'_>) -> Result<ServerName<'static>, TlsError> {
        if let Some(requested) = names.requested {
            return dns_name(requested).ok_or_else(|| TlsError::ServerName(requested.into()));
        }
        if self.tls.auto_host_sni && !names.host.is_empty() {
            return Ok(dns_name(names.host).unwrap_or_else(nameless));
        }
        Ok(self.name.clone())
    }

    fn alpn(&self, fallback: &[&[u8]]) -> Vec<Vec<u8>> {
        if self.tls.settings.alpn.is_empty() {
            fallback.iter().map(|name| name.to_vec()).collect()
        } else {
            let own = &self.tls.settings.alpn;
            own.iter().map(|name| name.to_vec()).collect()
        }
    }

    fn configs(&self) -> Result<Arc<Configs>, TlsError> {
        self.configs
            .current(&self.tls.settings, |secrets| self.build(secrets))
    }

    fn build(&self, secrets: &Secrets) -> Result<Configs, TlsError> {
        let settings = &self.tls.settings;
        let certificates = secrets.certificates(settings)?;
        let resumes = match self.tls.max_session_keys {
            0 => false,
            // A resumed session skips the verification of the server. In the mesh, where we show a
            // certificate ourselves, that must be asked for.
            DEFAULT_SESSION_KEYS => certificates.is_empty(),
            _ => true,
        };
        let certificates = ClientCertificates::new(&certificates, &settings.signature_schemes);
        let used = Use {
            require_certificate: false,
            match_server_name: self.tls.auto_sni_san_validation,
            bounds_sessions: false,
            schemes: settings.signature_schemes.clone(),
            provider: settings.provider(),
        };
        let policy = PeerPolicy::new(&secrets.validation(settings)?, used)?;
        let mut config = ClientConfig::builder_with_provider(settings.provider())
            .with_protocol_versions(settings.versions()?)
            .map_err(TlsError::Settings)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(policy))
            .with_client_cert_resolver(Arc::new(certificates));
        config.enable_secret_extraction = true;
        config.resumption = if resumes {
            let keys = self.tls.max_session_keys as usize;
            Resumption::store(Arc::new(ClientSessionMemoryCache::new(keys)))
        } else {
            Resumption::disabled()
        };
        let logged = self.key_log.as_ref().map(|log| {
            let mut config = config.clone();
            config.key_log = log.sink();
            Arc::new(config)
        });
        Ok(Configs {
            usual: Arc::new(config),
            logged,
        })
    }
}

/// A name of this kind is never sent, and our own verifier looks at none.
fn nameless() -> ServerName<'static> {
    ServerName::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST).into())
}

fn dns_name(name: &str) -> Option<ServerName<'static>> {
    ServerName::try_from(name.to_owned())
        .ok()
        .filter(|name| matches!(name, ServerName::DnsName(_)))
}

impl std::fmt::Debug for ClientContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ClientContext").field(&self.tls).finish()
    }
}
