//! Peers that are not who they should be.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use outrider_testkit::certs::Authority;
use outrider_testkit::clients::http1::Client;
use outrider_testkit::eventually;
use outrider_testkit::mesh::Sidecar;
use outrider_testkit::tls::AnyServer;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{HOST, HTTP, Pair, TCP, for_pairs};
use crate::common::listen;

for_pairs!(all: strangers another_identity);

/// TLS from outside of the mesh: without a certificate, or with one of another authority that
/// claims to be the client. Neither reaches the app.
fn strangers(pair: Pair) {
    pair.mesh.mutual_tls("STRICT").unwrap();
    let mut pair = pair.start(&[]);
    let http = pair.http_app();
    let tcp = outrider_testkit::servers::tcp::banner(listen(&pair.server.pod, TCP), b"hello");
    let tcp = tcp.unwrap();
    let authority = Authority::new("another root").unwrap();
    let leaf = authority
        .issue(&pair.client.identity(), Duration::from_secs(3600))
        .unwrap();
    let root = std::fs::read(pair.mesh.control().root_file()).unwrap();
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(&root).unwrap())
        .unwrap();
    let certificate = CertificateDer::from_pem_slice(leaf.certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = || {
        ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(AnyServer::new())
    };
    let nobody = builder().with_no_client_auth();
    let liar = builder()
        .with_client_auth_cert(vec![certificate], key)
        .unwrap();
    for config in [nobody, liar].map(Arc::new) {
        for port in [HTTP, TCP] {
            let name = format!("outbound_.{port}_._.server.bank.svc.cluster.local");
            let (config, target) = (Arc::clone(&config), (pair.server.pod.v4(), port));
            let speak = || async move {
                let tcp = tokio::net::TcpStream::connect(target).await?;
                let connector = tokio_rustls::TlsConnector::from(config);
                let mut tls = connector.connect(ServerName::try_from(name)?, tcp).await?;
                tls.write_all(b"GET / HTTP/1.1\r\nHost: server\r\n\r\n")
                    .await?;
                let mut bytes = Vec::new();
                tls.read_to_end(&mut bytes).await?;
                anyhow::Ok(bytes)
            };
            let answer = pair.outside.block_on(speak).unwrap();
            assert!(answer.as_ref().map_or(true, Vec::is_empty), "{answer:?}");
        }
    }
    assert_eq!(http.accepted(), 0);
    // Envoy's tcp_proxy dials before it knows who calls, and then sends nothing.
    if pair.sidecars[1] == Sidecar::Outrider {
        assert_eq!(tcp.accepted(), 0);
    }
}

/// A workload that has taken over an address, but not the identity that is expected there, is not
/// spoken to.
fn another_identity(pair: Pair) {
    pair.mesh.mutual_tls("STRICT").unwrap();
    let pair = pair.start(&[]);
    let app = pair.http_app();
    let mut client = Client::connect_from(&pair.client.pod, (HOST, HTTP)).unwrap();
    assert_eq!(client.get(HOST, "/").unwrap().status().unwrap(), 200);
    let (v4, v6) = (pair.server.pod.v4(), pair.server.pod.v6());
    let entry = format!(
        "apiVersion: outrider.dev/v1alpha1\nkind: WorkloadEntry\n\
         metadata: {{name: server, namespace: bank, labels: {{app: server}}}}\n\
         spec: {{serviceAccount: till, addresses: [{v4}, \"{v6}\"]}}\n"
    );
    pair.mesh.write("workload-bank-server", &entry).unwrap();
    eventually(Duration::from_secs(10), || -> Result<()> {
        let status = client.get(HOST, "/")?.status()?;
        ensure!(status == 503, "status {status}");
        Ok(())
    })
    .unwrap();
    let before = app.accepted();
    let mut client = Client::connect_from(&pair.client.pod, (HOST, HTTP)).unwrap();
    assert_eq!(client.get(HOST, "/").unwrap().status().unwrap(), 503);
    if pair.sidecars[1] == Sidecar::Outrider {
        assert_eq!(app.accepted(), before);
    }
}
