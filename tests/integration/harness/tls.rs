//! TLS on the test's side: a client that takes any certificate, and an app behind TLS.

use std::io::{BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use outrider_identity::certificate::CertificateDetails;
use outrider_testkit::certs::{Authority, Leaf};
use outrider_testkit::message::{Kind, Message, read_body, read_head};
use outrider_testkit::servers::Server;
use outrider_testkit::tls::AnyServer;
use rustls::StreamOwned;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};

use super::PATIENCE;

/// A root and what it signed.
pub struct Certificates {
    pub root: Authority,
    pub server: Leaf,
    pub client: Leaf,
}

impl Certificates {
    /// A server and a client of one mesh.
    pub fn new() -> Self {
        let root = Authority::new("test root").unwrap();
        let issue = |name: &str| {
            let id = format!("spiffe://cluster.local/ns/test/sa/{name}");
            root.issue(&id, Duration::from_secs(3600)).unwrap()
        };
        let (server, client) = (issue("server"), issue("client"));
        Certificates {
            root,
            server,
            client,
        }
    }

    /// A `transport_socket` of kind `DownstreamTlsContext` or `UpstreamTlsContext` with the leaf's
    /// certificate and the root, and these fields.
    pub fn socket(&self, kind: &str, leaf: Option<&Leaf>, more: &str) -> String {
        let inline = |text: &str| serde_json::json!({ "inline_string": text });
        let certificates: Vec<_> = leaf
            .iter()
            .map(|leaf| {
                serde_json::json!({
                    "certificate_chain": inline(&leaf.certificate),
                    "private_key": inline(&leaf.key),
                })
            })
            .collect();
        let mut context = serde_json::json!({
            "@type": format!("type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{kind}"),
            "common_tls_context": {
                "tls_certificates": certificates,
                "validation_context": { "trusted_ca": inline(self.root.certificate()) },
            },
        });
        super::bootstrap::merge(&mut context, super::bootstrap::yaml(more));
        serde_json::json!({ "transport_socket": { "name": "tls", "typed_config": context } })
            .to_string()
    }
}

fn chain(leaf: &Leaf) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let chain = CertificateDer::pem_slice_iter(leaf.certificate.as_bytes());
    (
        chain.map(Result::unwrap).collect(),
        PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).unwrap(),
    )
}

/// What a client says in its hello.
#[derive(Clone, Copy, Default)]
pub struct Hello<'a> {
    pub server_name: Option<&'a str>,
    pub alpn: &'a [&'a str],
    pub certificate: Option<&'a Leaf>,
}

/// The client's configuration for that hello.
pub fn client_config(hello: Hello<'_>) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(AnyServer::new());
    let mut config = match hello.certificate {
        None => builder.with_no_client_auth(),
        Some(leaf) => {
            let (chain, key) = chain(leaf);
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    config.enable_sni = hello.server_name.is_some();
    config.alpn_protocols = hello
        .alpn
        .iter()
        .map(|name| name.as_bytes().to_vec())
        .collect();
    Arc::new(config)
}

/// A client of HTTP/1 over TLS.
pub struct TlsClient {
    stream: BufReader<StreamOwned<ClientConnection, TcpStream>>,
}

impl TlsClient {
    /// # Errors
    /// When the handshake fails.
    pub fn connect(address: SocketAddr, hello: Hello<'_>) -> Result<Self> {
        let name = hello.server_name.unwrap_or("unnamed.example");
        let name = ServerName::try_from(name.to_owned()).context("server name")?;
        let connection = ClientConnection::new(client_config(hello), name)?;
        let socket = TcpStream::connect(address)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut stream = StreamOwned::new(connection, socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        let stream = BufReader::new(stream);
        Ok(TlsClient { stream })
    }

    /// The protocol that was agreed on.
    pub fn alpn(&self) -> Option<String> {
        let name = self.stream.get_ref().conn.alpn_protocol()?;
        Some(String::from_utf8_lossy(name).into_owned())
    }

    /// Sends a request and reads the response.
    pub fn exchange(&mut self, request: &str) -> Result<Message> {
        self.stream.get_mut().write_all(request.as_bytes())?;
        let head = read_head(&mut self.stream)?.context("no response")?;
        read_body(&mut self.stream, head, Kind::Response)
    }
}

/// An app behind TLS that wants a client's certificate of `certificates`, if `mutual`; it answers
/// what it learned of the client.
pub fn app(
    listener: std::net::TcpListener,
    certificates: &Certificates,
    mutual: bool,
    alpn: &[&str],
) -> Server {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(certificates.root.certificate().as_bytes());
    roots.add(root.unwrap()).unwrap();
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .unwrap();
    let builder = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = if mutual {
        builder.with_client_cert_verifier(verifier)
    } else {
        builder.with_no_client_auth()
    };
    let (chain, key) = chain(&certificates.server);
    let mut config = builder.with_single_cert(chain, key).unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let config = Arc::new(config);
    Server::start(listener, move |socket| {
        let connection = ServerConnection::new(Arc::clone(&config))?;
        let mut stream = BufReader::new(StreamOwned::new(connection, socket));
        while let Some(head) = read_head(&mut stream)? {
            read_body(&mut stream, head, Kind::Request)?;
            let connection = &stream.get_ref().conn;
            let client = connection
                .peer_certificates()
                .and_then(|chain| chain.first());
            let client = client.map(|leaf| CertificateDetails::parse(leaf).map(|leaf| leaf.uris));
            let answer = serde_json::json!({
                "server_name": connection.server_name(),
                "alpn": connection.alpn_protocol().map(String::from_utf8_lossy),
                "client": client.transpose()?,
                "version": format!("{:?}", connection.protocol_version()),
            })
            .to_string();
            let length = answer.len();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{answer}");
            stream.get_mut().write_all(head.as_bytes())?;
        }
        Ok(())
    })
    .unwrap()
}
