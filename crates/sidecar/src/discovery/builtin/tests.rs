//! The source against an authority on loopback, over TLS.

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::Context as _;
use outrider_identity::authority::Lifetimes;
use outrider_identity::certificate::{certificate_to_pem, certificates_from_pem};
use outrider_identity::{CertificateAuthority, CertificateDetails, TrustBundle, WorkloadKey};
use outrider_testkit::eventually_async;
use outrider_xds::ads::client::{Event, Subscription};
use outrider_xds::certificate::{
    Authority, CertificateRequest, CertificateResponse, CertificateService,
};
use outrider_xds::pb::envoy::config::core::v3::DataSource;
use outrider_xds::pb::envoy::config::core::v3::data_source::Specifier;
use outrider_xds::pb::envoy::extensions::transport_sockets::tls::v3::Secret;
use outrider_xds::pb::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Status, async_trait};

use super::issued::IssuedError;
use super::*;
use crate::discovery::testing::terminate_tls;

/// Longer than anything here takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(30);
const IDENTITY: &str = "spiffe://cluster.local/ns/shop/sa/cart";

fn authority(folder: &Path, life: u64) -> CertificateAuthority {
    let lifetimes = Lifetimes {
        default: Duration::from_secs(life),
        max: Duration::from_secs(life),
    };
    let domain = "cluster.local".parse().unwrap();
    let authority = CertificateAuthority::open_or_create(folder, &domain, SystemTime::now());
    authority.unwrap().with_lifetimes(lifetimes)
}

impl Signer {
    fn new(folder: &Path, life: u64) -> Arc<Self> {
        Arc::new(Signer {
            authority: authority(folder, life),
            serving: authority(folder, 3_600),
            tokens: Mutex::default(),
        })
    }
}

struct Signer {
    authority: CertificateAuthority,
    /// The same, for the certificate that it serves with.
    serving: CertificateAuthority,
    tokens: Mutex<Vec<String>>,
}

#[async_trait]
impl Authority for Signer {
    async fn create_certificate(
        &self,
        request: CertificateRequest,
        metadata: &MetadataMap,
        _extensions: &Extensions,
    ) -> Result<CertificateResponse, Status> {
        let token = metadata.get("authorization").map(|value| value.as_bytes());
        let token = String::from_utf8(token.unwrap_or_default().to_vec()).unwrap();
        self.tokens.lock().unwrap().push(token.clone());
        if token != "Bearer good" {
            return Err(Status::unauthenticated("the token has expired"));
        }
        let id = IDENTITY.parse().unwrap();
        let issued = self
            .authority
            .issue(&request.csr, &id, None, SystemTime::now());
        let issued = issued.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let root = self.authority.trust_bundle().to_pem();
        Ok(CertificateResponse {
            cert_chain: vec![issued.chain_pem(), root],
        })
    }
}

/// Serves the signer at `address`, for the name `localhost`, until the task is aborted.
async fn serve(signer: Arc<Signer>, address: &str) -> (String, JoinHandle<()>) {
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let inner = plain.local_addr().unwrap();
    let names = ["localhost".to_owned()];
    let (key, issued) = signer
        .serving
        .issue_serving(&names, None, SystemTime::now())
        .unwrap();
    let service = CertificateService::new(signer);
    let server = tonic::transport::Server::builder().add_service(service);
    let listener = TcpListener::bind(address).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = tokio::spawn(async move {
        tokio::select! {
            served = server.serve_with_incoming(TcpListenerStream::new(plain)) => served.unwrap(),
            () = terminate_tls(listener, issued.chain, key.private_der(), inner) => {}
        }
    });
    (format!("localhost:{port}"), serving)
}

fn settings(address: &str, folder: &Path) -> Settings {
    let variables = |name: &str| {
        Some(match name {
            "OUTRIDER_CA_ADDRESS" => address.into(),
            "OUTRIDER_TOKEN_FILE" => folder.join("token").into(),
            "OUTRIDER_ROOT_FILE" => folder.join("root.pem").into(),
            _ => return None,
        })
    };
    Settings::from_environment(variables).unwrap().unwrap()
}

fn text(source: Option<DataSource>) -> Vec<u8> {
    match source.and_then(|source| source.specifier) {
        Some(Specifier::InlineBytes(bytes)) => bytes,
        other => panic!("{:?}", other.is_some()),
    }
}

/// The next certificate and the roots, as the data path gets them.
async fn next(events: &mut mpsc::Receiver<(usize, Event)>) -> (CertificateDetails, usize) {
    let event = tokio::time::timeout(DEADLINE, events.recv()).await;
    let Ok(Some((5, Event::Update(update)))) = event else {
        panic!("no update")
    };
    let mut found = (None, 0);
    for resource in update.added {
        let secret = Secret::decode(resource.body.value.as_slice()).unwrap();
        assert_eq!(secret.name, resource.name);
        match secret.r#type {
            Some(Type::TlsCertificate(certificate)) => {
                assert_eq!(secret.name, CERTIFICATE);
                assert!(text(certificate.private_key).starts_with(b"-----BEGIN PRIVATE KEY"));
                let chain = certificates_from_pem(&text(certificate.certificate_chain)).unwrap();
                assert_eq!(chain.len(), 1);
                found.0 = Some(CertificateDetails::parse(&chain[0]).unwrap());
            }
            Some(Type::ValidationContext(context)) => {
                assert_eq!(secret.name, ROOTS);
                found.1 = certificates_from_pem(&text(context.trusted_ca))
                    .unwrap()
                    .len();
            }
            _ => panic!("a strange secret"),
        }
    }
    (found.0.expect("a certificate"), found.1)
}

#[tokio::test]
async fn certificates_come_are_renewed_and_come_back_after_an_outage() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let signer = Signer::new(&path("ca"), 4);
    let (address, serving) = serve(signer.clone(), "127.0.0.1:0").await;
    let tokens = || signer.tokens.lock().unwrap().clone();

    // Neither root nor token are there yet; then the token is bad.
    let builtin = Builtin::start(settings(&address, folder.path()), &FileWatcher::new(), None);
    let (sender, mut events) = mpsc::channel(4);
    let handle = builtin.attach(5, sender);
    let wanted = Subscription::named([CERTIFICATE, ROOTS, "other"]);
    handle.set_subscription(ResourceType::Secret, wanted);
    let Some((5, Event::Update(update))) = events.recv().await else {
        panic!("no update")
    };
    assert_eq!(
        (update.removed, update.added.len()),
        (vec!["other".to_owned()], 0)
    );
    fs::write(path("token"), "bad\n").unwrap();
    fs::write(path("root.pem"), signer.authority.trust_bundle().to_pem()).unwrap();
    eventually_async(DEADLINE, async || {
        let first = tokens().first().cloned().context("nobody asked")?;
        anyhow::ensure!(first == "Bearer bad");
        Ok(())
    })
    .await
    .unwrap();
    assert!(
        builtin
            .secrets()
            .borrow()
            .kind(ResourceType::Secret)
            .is_empty()
    );
    fs::write(path("token"), "good\n").unwrap();

    let (first, roots) = next(&mut events).await;
    assert_eq!(
        (first.uris.as_slice(), roots),
        ([IDENTITY.to_owned()].as_slice(), 1)
    );
    // Renewed in time: before the end of the first.
    let (second, roots) = next(&mut events).await;
    assert!(second.serial != first.serial && SystemTime::now() < first.not_after);
    assert_eq!(roots, 0, "the roots did not change");

    // The authority goes away for longer than the certificate lives, and comes back.
    serving.abort();
    let _ = serving.await;
    while SystemTime::now() < second.not_after + Duration::from_secs(1) {
        assert!(events.try_recv().is_err() || SystemTime::now() < second.not_after);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(
        builtin.secrets().borrow().kind(ResourceType::Secret).len(),
        2
    );
    let (_, _serving) = serve(signer.clone(), &address).await;
    let (third, _) = next(&mut events).await;
    assert!(third.not_after > SystemTime::now());

    // A root that is added to the file reaches the data path; a bad file does not.
    let other = authority(&path("other"), 4);
    let both = signer.authority.trust_bundle().to_pem() + &other.trust_bundle().to_pem();
    fs::write(path("root.pem"), "none").unwrap();
    fs::write(path("root.pem.new"), both).unwrap();
    fs::rename(path("root.pem.new"), path("root.pem")).unwrap();
    let mut secrets = builtin.secrets();
    let has_both = |set: &Arc<ResourceSet>| {
        let roots = set.kind(ResourceType::Secret).get(ROOTS).unwrap();
        let secret = Secret::decode(roots.body.value.as_slice()).unwrap();
        let Some(Type::ValidationContext(context)) = secret.r#type else {
            panic!("roots")
        };
        certificates_from_pem(&text(context.trusted_ca))
            .unwrap()
            .len()
            == 2
    };
    let arrived = tokio::time::timeout(DEADLINE, secrets.wait_for(has_both)).await;
    arrived.unwrap().unwrap();
}

#[tokio::test]
async fn an_authority_that_the_root_file_does_not_verify_gets_no_token() {
    let folder = tempfile::tempdir().unwrap();
    let signer = Signer::new(&folder.path().join("ca"), 60);
    let (address, _serving) = serve(signer.clone(), "127.0.0.1:0").await;
    let other = authority(&folder.path().join("other"), 60);
    fs::write(folder.path().join("token"), "good").unwrap();
    let settings_of = |address: &str| settings(address, folder.path());
    let error = request::certificate(&settings_of(&address), other.trust_bundle()).await;
    let text = error.unwrap_err().to_string();
    assert!(
        text.contains("cannot connect") && text.contains("invalid peer certificate"),
        "{text}"
    );
    // The name must be right too.
    let by_address = address.replace("localhost", "127.0.0.1");
    let roots = signer.authority.trust_bundle();
    let error = request::certificate(&settings_of(&by_address), roots).await;
    let text = error.unwrap_err().to_string();
    assert!(text.contains("not valid for name"), "{text}");
    assert!(signer.tokens.lock().unwrap().is_empty());
}

#[test]
fn an_answer_is_checked() {
    let folder = tempfile::tempdir().unwrap();
    let authority_of = |name: &str| authority(&folder.path().join(name), 60);
    let (ca, stranger) = (authority_of("ca"), authority_of("stranger"));
    let now = SystemTime::now();
    let id = IDENTITY.parse().unwrap();
    let issue = |ca: &CertificateAuthority, key: &WorkloadKey| {
        let request = key.signing_request(None).unwrap();
        ca.issue(&request, &id, None, now).unwrap().chain_pem()
    };
    let roots = ca.trust_bundle();
    let check = |answer: &[String], key: WorkloadKey, now| Issued::check(answer, key, roots, now);
    let key = || WorkloadKey::generate().unwrap();

    let mine = key();
    let answer = [issue(&ca, &mine), roots.to_pem()];
    let issued = check(&answer, mine, now).unwrap();
    assert_eq!(issued.id.to_string(), IDENTITY);
    assert!(!format!("{issued:?}").contains("PRIVATE"));

    let mine = key();
    let good = issue(&ca, &mine);
    let later = now + Duration::from_secs(61);
    let foreign = key();
    let untrusted = issue(&stranger, &foreign);
    // The authority may not replace the file's roots by a mere chain.
    let (serving_key, serving) = ca
        .issue_serving(&["localhost".to_owned()], None, now)
        .unwrap();
    type Expected = fn(&IssuedError) -> bool;
    let table: [(Vec<String>, WorkloadKey, SystemTime, Expected); 6] = [
        (vec![], key(), now, |e| matches!(e, IssuedError::Empty)),
        (vec!["x".to_owned()], key(), now, |e| {
            matches!(e, IssuedError::Certificate { index: 0, .. })
        }),
        (vec![good.clone()], key(), now, |e| {
            matches!(e, IssuedError::Key(_))
        }),
        (vec![good], mine, later, |e| {
            matches!(e, IssuedError::Chain(_))
        }),
        (vec![untrusted], foreign, now, |e| {
            matches!(e, IssuedError::Chain(_))
        }),
        (vec![serving.chain_pem()], serving_key, now, |e| {
            matches!(e, IssuedError::Identity { .. })
        }),
    ];
    for (index, (answer, key, now, expected)) in table.into_iter().enumerate() {
        let error = check(&answer, key, now).unwrap_err();
        assert!(expected(&error), "case {index}: {error}");
    }

    // A new root that the authority sends along is trusted besides those of the file.
    let rotated = key();
    let answer = [issue(&stranger, &rotated), stranger.trust_bundle().to_pem()];
    let issued = check(&answer, rotated, now).unwrap();
    let bundle = issued.secrets(roots);
    let secret = Secret::decode(bundle[ROOTS].body.value.as_slice()).unwrap();
    let Some(Type::ValidationContext(context)) = secret.r#type else {
        panic!("roots")
    };
    let pem = text(context.trusted_ca);
    let both = TrustBundle::from_pem(&pem).unwrap();
    assert_eq!(both.roots().len(), 2);
    let first = certificate_to_pem(&stranger.trust_bundle().roots()[0]);
    assert!(pem.starts_with(first.as_bytes()));
}
