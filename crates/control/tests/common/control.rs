//! A control plane in the test's own process, and callers of it.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use outrider_control::authenticate::Tokens;
use outrider_control::serve::{
    ConnectionLimits, ControlPlane, RegistrySource, Replica, ServeError, ServeOptions,
};
use outrider_identity::authority::Lifetimes;
use outrider_identity::token::AUDIENCE;
use outrider_identity::{
    CertificateAuthority, CertificateDetails, IssuedCertificate, ServiceAccount, TokenSigner,
    WorkloadKey,
};
use outrider_xds::ads::client::channel;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::Status;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;

pub const HOUR: Duration = Duration::from_secs(3600);

pub struct Control {
    pub folder: TempDir,
    pub address: std::net::SocketAddr,
    pub monitoring: std::net::SocketAddr,
    pub authority: CertificateAuthority,
    /// What the server signs with: another may be put in its place.
    pub authorities: watch::Sender<Arc<CertificateAuthority>>,
    pub tokens: TokenSigner,
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<(), ServeError>>,
}

impl Control {
    pub async fn start(mesh: &str) -> Self {
        Self::start_with(mesh, Lifetimes::default()).await
    }

    pub async fn start_with(mesh: &str, lifetimes: Lifetimes) -> Self {
        Self::start_judging(mesh, lifetimes, |tokens| Tokens::Signed(tokens.verifier())).await
    }

    /// With somebody else to judge tokens.
    pub async fn start_judging(
        mesh: &str,
        lifetimes: Lifetimes,
        judge: impl FnOnce(&TokenSigner) -> Tokens,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (ca, config) = (folder.path().join("ca"), folder.path().join("mesh"));
        fs::create_dir(&config).unwrap();
        fs::write(config.join("mesh.yaml"), super::documents(mesh)).unwrap();
        let settings = super::settings();
        let open = || {
            let domain = &settings.trust_domain;
            CertificateAuthority::open_or_create(&ca, domain, SystemTime::now()).unwrap()
        };
        let (serving, authority) = (open(), open());
        let tokens = TokenSigner::open_or_create(&ca).unwrap();
        let options = ServeOptions {
            registry: RegistrySource::Directory(config),
            address: Some("127.0.0.1".parse().unwrap()),
            port: 0,
            monitoring_port: 0,
            connections: ConnectionLimits::default(),
            serving_names: vec!["localhost".to_owned(), "127.0.0.1".to_owned()],
            settings,
            replica: Replica::default(),
            status: None,
        };
        let serving = Arc::new(serving.with_lifetimes(lifetimes));
        let (authorities, current) = watch::channel(serving);
        let judge = judge(&tokens);
        let control = ControlPlane::start(options, current, judge, Arc::default())
            .await
            .unwrap();
        let (address, monitoring) = (
            control.address().unwrap(),
            control.monitoring_address().unwrap(),
        );
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(control.run(stopped));
        Self {
            folder,
            address,
            monitoring,
            authority,
            authorities,
            tokens,
            stop,
            task,
        }
    }

    pub fn write(&self, name: &str, mesh: &str) {
        let folder = self.folder.path().join("mesh");
        fs::write(folder.join(name), super::documents(mesh)).unwrap();
    }

    pub async fn stop(self) {
        self.stop.send_replace(true);
        self.task.await.unwrap().unwrap();
    }

    pub fn token(&self, namespace: &str, account: &str) -> MetadataMap {
        self.token_for(namespace, account, AUDIENCE, SystemTime::now())
    }

    /// A token from `start`, for an hour.
    pub fn token_for(
        &self,
        namespace: &str,
        account: &str,
        audience: &str,
        start: SystemTime,
    ) -> MetadataMap {
        let account = ServiceAccount::new(namespace, account).unwrap();
        let token = self.tokens.sign(&account, audience, HOUR, start).unwrap();
        bearer(&format!("Bearer {token}"))
    }

    /// A certificate of an account, without asking the service for it.
    pub fn certificate(&self, namespace: &str, account: &str) -> (WorkloadKey, IssuedCertificate) {
        let key = WorkloadKey::generate().unwrap();
        let request = key.signing_request(None).unwrap();
        let account = ServiceAccount::new(namespace, account).unwrap();
        let id = account.spiffe_id(&super::settings().trust_domain).unwrap();
        let issued = self
            .authority
            .issue(&request, &id, None, SystemTime::now())
            .unwrap();
        (key, issued)
    }

    pub async fn channel(
        &self,
        certificate: Option<(WorkloadKey, IssuedCertificate)>,
    ) -> Result<Channel, String> {
        self.channel_trusting(self.roots(), certificate).await
    }

    /// The certificate that the port serves with at the moment.
    pub async fn serving_certificate(&self) -> CertificateDetails {
        let stream = self.connect().await;
        CertificateDetails::parse(&stream.get_ref().1.peer_certificates().unwrap()[0]).unwrap()
    }

    /// A connection on which nothing was said yet.
    pub async fn connect(&self) -> TlsStream<TcpStream> {
        let connector = TlsConnector::from(Arc::new(config(self.roots(), None)));
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        connector.connect(name, stream).await.unwrap()
    }

    fn roots(&self) -> RootCertStore {
        self.authority.trust_bundle().root_store()
    }

    pub async fn channel_trusting(
        &self,
        roots: RootCertStore,
        certificate: Option<(WorkloadKey, IssuedCertificate)>,
    ) -> Result<Channel, String> {
        let connector = TlsConnector::from(Arc::new(config(roots, certificate)));
        let address = self.address;
        let connect = move || {
            let connector = connector.clone();
            async move {
                let stream = TcpStream::connect(address).await?;
                connector
                    .connect(ServerName::try_from("localhost").unwrap(), stream)
                    .await
            }
        };
        channel::over("localhost", connect)
            .await
            .map_err(|error| format!("{error:?}"))
    }
}

pub fn bearer(header: &str) -> MetadataMap {
    let mut metadata = MetadataMap::new();
    metadata.insert("authorization", header.parse().unwrap());
    metadata
}

pub fn message(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}

fn config(
    roots: RootCertStore,
    certificate: Option<(WorkloadKey, IssuedCertificate)>,
) -> ClientConfig {
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match certificate {
        None => config.with_no_client_auth(),
        Some((key, issued)) => config
            .with_client_auth_cert(issued.chain, key.private_der())
            .unwrap(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}
