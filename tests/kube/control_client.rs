//! A caller of the control plane that says whatever the test wants.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use outrider_identity::TrustBundle;
use outrider_testkit::cluster::Cluster;
use outrider_xds::ads::client::channel;
use outrider_xds::certificate::{CertificateRequest, create_certificate};
use outrider_xds::pb::envoy::config::core::v3::Node;
use outrider_xds::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use outrider_xds::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::Request;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;

use crate::harness::SYSTEM;

const PATIENCE: Duration = Duration::from_secs(20);
const CLUSTERS: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";

/// The control plane, by its Service.
pub struct Control {
    cluster: Cluster,
    address: SocketAddr,
    connector: TlsConnector,
}

impl Control {
    /// Verifies it by `roots` (PEM).
    pub fn new(cluster: &Cluster, roots: &str) -> Result<Self> {
        let path = "jsonpath={.spec.clusterIP}";
        let service = "service/outrider-control";
        let address = cluster.kubectl(&["get", service, "-n", SYSTEM, "-o", path])?;
        let roots = TrustBundle::from_pem(roots.as_bytes())?.root_store();
        let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self {
            cluster: cluster.clone(),
            address: SocketAddr::new(address.trim().parse()?, 15012),
            connector: TlsConnector::from(Arc::new(config)),
        })
    }

    /// Asks for a certificate: its chain, the roots last.
    pub fn certificate(&self, token: &str, csr: String) -> Result<Vec<String>> {
        self.call(async {
            let request = CertificateRequest {
                csr,
                ..CertificateRequest::default()
            };
            let answer = create_certificate(self.channel().await?, bearer(token)?, request);
            Ok(answer.await?.cert_chain)
        })
    }

    /// Opens a stream of discovery as the node of that id, and waits for its first response.
    pub fn discover(&self, token: &str, id: &str) -> Result<()> {
        self.call(async {
            let first = DeltaDiscoveryRequest {
                node: Some(Node {
                    id: id.to_owned(),
                    ..Node::default()
                }),
                type_url: CLUSTERS.to_owned(),
                ..DeltaDiscoveryRequest::default()
            };
            // It goes on for ever, as the stream of a sidecar does.
            let requests = futures_util::StreamExt::chain(
                futures_util::stream::iter([first]),
                futures_util::stream::pending(),
            );
            let mut request = Request::new(requests);
            *request.metadata_mut() = bearer(token)?;
            let mut client = AggregatedDiscoveryServiceClient::new(self.channel().await?);
            let answers = client.delta_aggregated_resources(request).await?;
            match answers.into_inner().message().await? {
                Some(_) => Ok(()),
                None => bail!("the stream ended without a response"),
            }
        })
    }

    /// Runs a call inside the node's network namespace.
    fn call<T: Send>(&self, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
        self.cluster.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                tokio::time::timeout(PATIENCE, call)
                    .await
                    .context("the control plane does not answer")?
            })
        })?
    }

    async fn channel(&self) -> Result<Channel> {
        let (address, connector) = (self.address, self.connector.clone());
        let host = format!("outrider-control.{SYSTEM}.svc");
        let name = ServerName::try_from(host.clone())?;
        let connect = move || {
            let (connector, name) = (connector.clone(), name.clone());
            async move {
                let stream = TcpStream::connect(address).await?;
                connector.connect(name, stream).await
            }
        };
        let connected = channel::over(&host, connect).await;
        connected.map_err(anyhow::Error::from_boxed)
    }
}

fn bearer(token: &str) -> Result<MetadataMap> {
    let mut metadata = MetadataMap::new();
    metadata.insert("authorization", format!("Bearer {token}").parse()?);
    Ok(metadata)
}
