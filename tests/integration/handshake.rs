//! What a server shows in a TLS handshake.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use outrider_identity::verify::unix_time;
use outrider_identity::{CertificateDetails, PeerRole, TrustBundle, verify_chain};
use outrider_testkit::tls::AnyServer;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

/// The certificate that the server on a port of loopback shows, which must be good at this moment
/// and lead to `root`, in PEM.
pub fn shown(port: u16, root: &[u8]) -> Result<CertificateDetails> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(AnyServer::new())
        .with_no_client_auth();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut socket = std::net::TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    let name = ServerName::try_from("server.test")?;
    let mut connection = ClientConnection::new(Arc::new(config), name)?;
    while connection.is_handshaking() {
        connection.complete_io(&mut socket)?;
    }
    let chain = connection.peer_certificates().context("no certificate")?;
    let (leaf, intermediates) = chain.split_first().context("no certificate")?;
    let bundle = TrustBundle::from_pem(root)?;
    let now = unix_time(SystemTime::now());
    verify_chain(bundle.anchors(), leaf, intermediates, PeerRole::Server, now)?;
    Ok(CertificateDetails::parse(leaf)?)
}
