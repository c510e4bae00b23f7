//! The serving certificate, which is replaced while it serves.

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use outrider_identity::{CertificateDetails, CertificateError};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use tokio_rustls::TlsAcceptor;
use tracing::{error, info};

use super::metrics::Metrics;

/// Why a certificate cannot serve.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// The certificate cannot be read.
    #[error("the certificate: {0}")]
    Certificate(#[from] CertificateError),
    /// The key cannot be read.
    #[error("the private key: {0}")]
    Key(#[from] rustls_pki_types::pem::Error),
    /// It has ended already.
    #[error("the certificate has expired")]
    Expired,
    /// The key is of another certificate, or of a kind that is not known.
    #[error("the certificate and its private key: {0}")]
    Rustls(#[from] rustls::Error),
}

struct Serving {
    config: Arc<ServerConfig>,
    not_after: SystemTime,
}

/// The certificate in use: none at first.
#[derive(Default)]
pub(crate) struct Certificate(ArcSwapOption<Serving>);

impl Certificate {
    /// Takes a new one for the next handshakes. One that cannot be used is reported, and the last
    /// good one stays. `origin` is where it came from, for messages.
    pub(crate) fn take(&self, chain: &[u8], key: &[u8], origin: &str, metrics: &Metrics) {
        match read(chain, key, SystemTime::now()) {
            Ok(serving) => {
                metrics.certificate_loads.increment();
                metrics.certificate_ends(serving.not_after);
                let left = serving.not_after.duration_since(SystemTime::now());
                let hours = left.unwrap_or_default().as_secs() / 3600;
                info!("serving with the certificate of {origin}, which ends in {hours} hours");
                self.0.store(Some(Arc::new(serving)));
            }
            Err(problem) => {
                metrics.certificate_errors.increment();
                let meanwhile = match self.0.load().is_some() {
                    true => "the last good one stays in use",
                    false => "no pod can be injected until that is mended",
                };
                error!("{origin}: {problem}; {meanwhile}");
            }
        }
    }

    /// What accepts the next connection.
    pub(crate) fn acceptor(&self) -> Option<TlsAcceptor> {
        let serving = self.0.load();
        let config = Arc::clone(&serving.as_ref()?.config);
        Some(TlsAcceptor::from(config))
    }

    /// Why it cannot serve now, if it cannot.
    pub(crate) fn problem(&self, now: SystemTime) -> Option<&'static str> {
        match self.0.load().as_ref() {
            None => Some("there is no serving certificate yet"),
            Some(serving) if serving.not_after <= now => {
                Some("the serving certificate has expired")
            }
            Some(_) => None,
        }
    }
}

fn read(chain: &[u8], key: &[u8], now: SystemTime) -> Result<Serving, TlsError> {
    let chain = outrider_identity::certificate::certificates_from_pem(chain)?;
    let leaf = chain.first().ok_or(CertificateError::Empty)?;
    let not_after = CertificateDetails::parse(leaf)?.not_after;
    if not_after <= now {
        return Err(TlsError::Expired);
    }
    let key = PrivateKeyDer::from_pem_slice(key)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Serving {
        config: Arc::new(config),
        not_after,
    })
}
