//! The client side of TLS.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use rustls::client::{
    ClientSessionMemoryCache, ResolvesClientCert, Resumption, UnbufferedClientConnection,
};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, SignatureScheme};
use rustls_pki_types::ServerName;

use super::error::TlsError;
use super::handshake;
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
    name: ServerName<'static>,
    config: Cached<ClientConfig>,
}

impl ClientContext {
    /// Checks the settings; the secrets may come later.
    ///
    /// # Errors
    /// Settings that no secret could make work, or inline secrets that cannot be used.
    pub fn new(tls: UpstreamTls) -> Result<Arc<Self>, TlsError> {
        tls.settings.versions()?;
        let name = if tls.sni.is_empty() {
            // A name of this kind is never sent, and our own verifier looks at none.
            ServerName::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST).into())
        } else {
            ServerName::try_from(tls.sni.to_string())
                .ok()
                .filter(|name| matches!(name, ServerName::DnsName(_)))
                .ok_or_else(|| TlsError::ServerName(Arc::clone(&tls.sni)))?
        };
        let context = ClientContext {
            tls,
            name,
            config: Cached::new(),
        };
        if context.is_ready() {
            context.config()?;
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
    ) -> Result<TlsStream, TlsError> {
        let config = self.config()?;
        let alpn = self.alpn(fallback_alpn);
        let connection = UnbufferedClientConnection::new_with_alpn(config, self.name.clone(), alpn)
            .map_err(TlsError::Settings)?;
        handshake::connect(connection, socket.into()).await
    }

    /// The present configuration and the server's name, for connections that are not proxied and
    /// that a library makes.
    ///
    /// # Errors
    /// A secret has not come yet, or cannot be used.
    pub fn rustls_config(
        &self,
        fallback_alpn: &[&[u8]],
    ) -> Result<(ClientConfig, ServerName<'static>), TlsError> {
        let mut config = ClientConfig::clone(&*self.config()?);
        config.alpn_protocols = self.alpn(fallback_alpn);
        Ok((config, self.name.clone()))
    }

    fn alpn(&self, fallback: &[&[u8]]) -> Vec<Vec<u8>> {
        if self.tls.settings.alpn.is_empty() {
            fallback.iter().map(|name| name.to_vec()).collect()
        } else {
            let own = &self.tls.settings.alpn;
            own.iter().map(|name| name.to_vec()).collect()
        }
    }

    fn config(&self) -> Result<Arc<ClientConfig>, TlsError> {
        self.config
            .current(&self.tls.settings, |secrets| self.build(secrets))
    }

    fn build(&self, secrets: &Secrets) -> Result<ClientConfig, TlsError> {
        let settings = &self.tls.settings;
        let certificates = secrets.certificates(settings)?;
        let resumes = match self.tls.max_session_keys {
            0 => false,
            // A resumed session skips the verification of the server. In the mesh, where we show a
            // certificate ourselves, that must be asked for.
            DEFAULT_SESSION_KEYS => certificates.is_empty(),
            _ => true,
        };
        let mut config = ClientConfig::builder_with_provider(settings.provider())
            .with_protocol_versions(settings.versions()?)
            .map_err(TlsError::Settings)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(secrets.peer_policy(settings, false)?))
            .with_client_cert_resolver(Arc::new(Certificates(certificates)));
        config.enable_secret_extraction = true;
        config.enable_sni = !self.tls.sni.is_empty();
        config.resumption = if resumes {
            let keys = self.tls.max_session_keys as usize;
            Resumption::store(Arc::new(ClientSessionMemoryCache::new(keys)))
        } else {
            Resumption::disabled()
        };
        Ok(config)
    }
}

impl std::fmt::Debug for ClientContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ClientContext").field(&self.tls).finish()
    }
}

/// The client's certificates, in the configuration's order.
#[derive(Debug)]
struct Certificates(Vec<Arc<CertifiedKey>>);

impl ResolvesClientCert for Certificates {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        let usable =
            |certified: &&Arc<CertifiedKey>| certified.key.choose_scheme(schemes).is_some();
        self.0.iter().find(usable).cloned()
    }

    fn has_certs(&self) -> bool {
        !self.0.is_empty()
    }
}
