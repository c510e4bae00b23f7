//! One request to the certificate authority.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use outrider_identity::{KeyError, TrustBundle, WorkloadKey};
use outrider_xds::ads::client::channel;
use outrider_xds::certificate::{CertificateRequest, create_certificate};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::Channel;

use super::issued::{Issued, IssuedError};
use super::roots::RootFileError;
use super::settings::Settings;
use crate::discovery::resolve;
use crate::discovery::token::TokenFileError;

/// How long one request may take as a whole.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection to one of several addresses may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Why there is no certificate. No text shows the token or the key.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// There is nothing to prove who we are with.
    #[error(transparent)]
    Token(#[from] TokenFileError),
    /// There is nothing to verify the authority with.
    #[error(transparent)]
    Roots(#[from] RootFileError),
    /// The key could not be made.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The settings of TLS do not work.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The authority cannot be reached.
    #[error("cannot connect to the certificate authority at {address}: {reason}")]
    Connect {
        /// Where.
        address: String,
        /// Why, in one line.
        reason: String,
    },
    /// The authority answered with an error, such as that it does not accept the token.
    #[error("the certificate authority at {address} refused: {code:?}: {message:?}")]
    Refused {
        /// Where.
        address: String,
        /// The kind of error.
        code: tonic::Code,
        /// What it says.
        message: String,
    },
    /// What it gave cannot be used.
    #[error(
        "the certificate authority at {address} gave a certificate that cannot be used: {source}"
    )]
    Unusable {
        /// Where.
        address: String,
        /// What is wrong.
        source: IssuedError,
    },
    /// It did not answer in time.
    #[error("the certificate authority at {address} did not answer within {TIMEOUT:?}")]
    Timeout {
        /// Where.
        address: String,
    },
}

/// Makes a key and gets a certificate for it, over a connection of its own that `roots` verify.
///
/// # Errors
/// [`RequestError`]
pub async fn certificate(settings: &Settings, roots: &TrustBundle) -> Result<Issued, RequestError> {
    let address = || settings.address.to_string();
    let asking = tokio::time::timeout(TIMEOUT, ask(settings, roots));
    let (key, chain) = asking
        .await
        .map_err(|_| RequestError::Timeout { address: address() })??;
    Issued::check(&chain, key, roots, SystemTime::now()).map_err(|source| RequestError::Unusable {
        address: address(),
        source,
    })
}

async fn ask(
    settings: &Settings,
    roots: &TrustBundle,
) -> Result<(WorkloadKey, Vec<String>), RequestError> {
    let metadata = settings.token_file.metadata()?;
    let key = WorkloadKey::generate()?;
    let request = CertificateRequest {
        csr: key.signing_request(None)?,
        // How long certificates live is the authority's to say.
        validity_duration: 0,
        metadata: None,
    };
    let channel = connect(settings, roots).await?;
    let response = create_certificate(channel, metadata, request).await;
    let response = response.map_err(|status| RequestError::Refused {
        address: settings.address.to_string(),
        code: status.code(),
        message: status.message().to_owned(),
    })?;
    Ok((key, response.cert_chain))
}

async fn connect(settings: &Settings, roots: &TrustBundle) -> Result<Channel, RequestError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots.root_store())
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let settings_of_stream = settings.clone();
    let stream = move || {
        let (settings, connector) = (settings_of_stream.clone(), connector.clone());
        async move {
            let tcp = connect_tcp(&settings).await?;
            let tls = connector.connect(settings.server_name, tcp).await?;
            if tls.get_ref().1.alpn_protocol() != Some(b"h2") {
                return Err(io::Error::other(
                    "the server does not speak HTTP/2 (ALPN h2)",
                ));
            }
            Ok(tls)
        }
    };
    let connected = channel::over(settings.address.as_str(), stream).await;
    connected.map_err(|error| RequestError::Connect {
        address: settings.address.to_string(),
        reason: one_line(error.as_ref()),
    })
}

/// Connects to the first of the authority's addresses that can be connected to.
async fn connect_tcp(settings: &Settings) -> io::Result<TcpStream> {
    let (host, port) = settings.host_and_port();
    let mut failures = Vec::new();
    for address in resolve::addresses(host, port).await? {
        let attempt = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address));
        match attempt.await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Ok(Err(error)) => failures.push(format!("{address}: {error}")),
            Err(_) => failures.push(format!(
                "{address}: no connection within {CONNECT_TIMEOUT:?}"
            )),
        }
    }
    Err(io::Error::other(failures.join("; ")))
}

/// An error and what caused it.
fn one_line(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let cause = error.to_string();
        if !text.ends_with(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        next = error.source();
    }
    text
}
