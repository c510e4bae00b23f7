//! HTTP/1 over TLS, with a certificate that nobody trusts: what a kubelet's probe of scheme HTTPS
//! takes, since it does not verify.

use std::io::{BufReader, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::Server;
use super::answer::Wish;
use crate::certs::Authority;
use crate::message::read_head;

/// Answers one request a connection, with the status that `status=N` in its path's query wants.
///
/// # Errors
/// When it cannot be started.
pub fn start(listener: TcpListener) -> Result<Server> {
    let lifetime = Duration::from_secs(24 * 3600);
    let leaf = Authority::new("app")?.issue("spiffe://app.test/app", lifetime)?;
    let chain = CertificateDer::from_pem_slice(leaf.certificate.as_bytes())?;
    let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![chain], key)
        .context("the server's certificate")?;
    let config = Arc::new(config);
    Server::start(listener, move |connection| {
        let session = ServerConnection::new(Arc::clone(&config))?;
        let mut stream = BufReader::new(StreamOwned::new(session, connection));
        let Some(head) = read_head(&mut stream)? else {
            return Ok(());
        };
        let wish = Wish::parse(head.start.split(' ').nth(1).unwrap_or(""))?;
        let stream = stream.get_mut();
        let answer = format!(
            "HTTP/1.1 {} As Wished\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
            wish.status
        );
        stream.write_all(answer.as_bytes())?;
        stream.conn.send_close_notify();
        stream.flush().context("end the answer")
    })
}
