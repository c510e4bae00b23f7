//! What stands beside a proxy that cannot get its certificates itself: it asks the mesh's
//! authority for them and serves them on a Unix socket.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use outrider_identity::certificate::certificates_from_pem;
use outrider_identity::{CertificateDetails, TrustBundle, WorkloadKey};
use outrider_xds::ads::ResourceType;
use outrider_xds::ads::client::{bearer, channel};
use outrider_xds::ads::server::{ResourceSet, Resources, Versioned};
use outrider_xds::certificate::{CertificateRequest, create_certificate};
use outrider_xds::pb::envoy::config::core::v3::DataSource;
use outrider_xds::pb::envoy::config::core::v3::data_source::Specifier;
use outrider_xds::pb::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use outrider_xds::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret, TlsCertificate,
};
use outrider_xds::sds;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;

/// The wait after a failure.
const RETRY: Duration = Duration::from_millis(500);

/// Where everything is.
#[derive(Debug, Clone)]
pub struct Agent {
    /// The authority, `HOST:PORT`; the host is in its certificate.
    pub authority: String,
    /// The file of the root that the authority's certificate and all peers' lead to.
    pub root_file: PathBuf,
    /// The file of the token.
    pub token_file: PathBuf,
    /// Where to serve the secrets.
    pub socket: PathBuf,
}

impl Agent {
    /// Gets a certificate, serves it, and renews it at half its life, until the process ends.
    ///
    /// # Errors
    /// When there is no first certificate, or the socket cannot be served.
    pub async fn run(self) -> Result<()> {
        let (first, mut renewal) = self.certificate().await.context("the first certificate")?;
        let (sender, secrets) = watch::channel(Arc::new(first));
        let service = sds::service(secrets, "outrider-testkit");
        let socket = self.socket.clone();
        let serving = sds::serve_unix(&socket, 0o600, service, std::future::pending::<()>());
        let renewing = async {
            loop {
                tokio::time::sleep(renewal).await;
                renewal = match self.certificate().await {
                    Ok((set, next)) => {
                        sender.send_replace(Arc::new(set));
                        println!("renewed");
                        next
                    }
                    Err(error) => {
                        eprintln!("{error:#}");
                        RETRY
                    }
                };
            }
        };
        tokio::select! {
            result = serving => Ok(result?),
            () = renewing => Ok(()),
        }
    }

    /// The secrets, and the time until they are to be renewed.
    async fn certificate(&self) -> Result<(ResourceSet, Duration)> {
        let roots = std::fs::read(&self.root_file).context("read the root certificate")?;
        let token = std::fs::read_to_string(&self.token_file).context("read the token")?;
        let key = WorkloadKey::generate()?;
        let request = CertificateRequest {
            csr: key.signing_request(None)?,
            ..CertificateRequest::default()
        };
        let metadata = bearer(&token).map_err(anyhow::Error::from_boxed)?;
        let answer = create_certificate(self.connect(&roots).await?, metadata, request)
            .await
            .context("ask the authority")?;
        let (_root, chain) = answer.cert_chain.split_last().context("an empty chain")?;
        let leaf = certificates_from_pem(chain.concat().as_bytes())?;
        let details = CertificateDetails::parse(leaf.first().context("no leaf")?)?;
        let left = details.not_after.duration_since(SystemTime::now())?;
        let certificate = Type::TlsCertificate(TlsCertificate {
            certificate_chain: Some(inline(chain.concat())),
            private_key: Some(inline(key.private_pem().expose().to_owned())),
            ..TlsCertificate::default()
        });
        let trust = Type::ValidationContext(CertificateValidationContext {
            trusted_ca: Some(inline(String::from_utf8(roots).context("the root")?)),
            ..CertificateValidationContext::default()
        });
        let secrets: Resources = [("default", certificate), ("ROOTCA", trust)]
            .into_iter()
            .map(|(name, kind)| {
                let secret = Secret {
                    name: name.to_owned(),
                    r#type: Some(kind),
                };
                let versioned = Versioned::new(ResourceType::Secret, &secret);
                (name.to_owned(), versioned)
            })
            .collect();
        let set = ResourceSet::new(details.serial).with(ResourceType::Secret, Arc::new(secrets));
        Ok((set, left / 2))
    }

    async fn connect(&self, roots: &[u8]) -> Result<tonic::transport::Channel> {
        let roots = TrustBundle::from_pem(roots)?.root_store();
        let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let connector = TlsConnector::from(Arc::new(config));
        let (host, _) = self
            .authority
            .rsplit_once(':')
            .context("the authority has no port")?;
        let name = ServerName::try_from(host.to_owned()).context("the authority's name")?;
        let target = self.authority.clone();
        let channel = channel::over(&self.authority, move || {
            let (connector, name, target) = (connector.clone(), name.clone(), target.clone());
            async move {
                let stream = TcpStream::connect(target).await?;
                connector
                    .connect(name, stream)
                    .await
                    .map_err(io::Error::other)
            }
        });
        let channel = channel.await.map_err(anyhow::Error::from_boxed);
        channel.context("connect to the authority")
    }
}

fn inline(text: String) -> DataSource {
    DataSource {
        specifier: Some(Specifier::InlineString(text)),
        ..DataSource::default()
    }
}
