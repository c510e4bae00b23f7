use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Mutex;

use http_body_util::{BodyExt as _, Full};
use k8s_openapi::ByteString;
use serde_json::{Value, json};

use super::*;

const TITLE: &str = "Secret outrider-system/outrider-ca";

fn new() -> AuthorityMaterial {
    let domain = TrustDomain::new("cluster.local").unwrap();
    AuthorityMaterial::self_signed(&domain, SystemTime::now()).unwrap()
}

#[test]
fn an_empty_secret_is_filled_with_what_is_read_back() {
    let empty = Secret::default();
    assert_eq!(material(&empty, TITLE).unwrap(), None);
    let nothing = String::new();
    let blank = BTreeMap::from([(CERTIFICATE, &nothing), (KEY, &nothing), (ROOTS, &nothing)]);
    let blank = with_texts(Secret::default(), blank);
    assert_eq!(material(&blank, TITLE).unwrap(), None);

    let mut other = empty;
    other.data = Some(BTreeMap::from([("x".to_owned(), ByteString(vec![1]))]));
    let new = new();
    let filled = fill(other, &new);
    assert_eq!(filled.data.as_ref().unwrap().len(), 4, "the rest stays");
    let read = material(&filled, TITLE).unwrap().unwrap();
    assert_eq!(read.key.pem, new.key.pem);
    assert_eq!(read.key.origin, format!("{TITLE}, key tls.key"));
    let domain = TrustDomain::new("cluster.local").unwrap();
    let lifetimes = Lifetimes::default();
    assert!(Authority::new(read, &domain, lifetimes, SystemTime::now()).is_ok());
}

#[test]
fn what_is_missing_or_wrong_is_named_and_never_quoted() {
    let (new, other) = (new(), new());
    let secret = |texts: &[(&'static str, &String)]| {
        with_texts(Secret::default(), texts.iter().copied().collect())
    };
    let (certificate, key) = (&new.certificate.pem, &new.key.pem);
    let garbage = "garbage".to_owned();
    let cases: &[(&[(&'static str, &String)], &str)] = &[
        (&[(KEY, key), (ROOTS, certificate)], "no tls.crt"),
        (&[(CERTIFICATE, certificate)], "no tls.key"),
        (&[(ROOTS, certificate)], "no tls.crt"),
        (
            &[(CERTIFICATE, certificate), (KEY, &other.key.pem)],
            "another key than the one in Secret outrider-system/outrider-ca, key tls.key",
        ),
        (
            &[(CERTIFICATE, certificate), (KEY, &garbage)],
            "key tls.key: not a usable private key",
        ),
        (
            &[(CERTIFICATE, &garbage), (KEY, key)],
            "key tls.crt: no CERTIFICATE",
        ),
        (
            &[
                (CERTIFICATE, certificate),
                (KEY, key),
                (ROOTS, &other.certificate.pem),
            ],
            "root in Secret outrider-system/outrider-ca, key ca.crt",
        ),
    ];
    let domain = TrustDomain::new("cluster.local").unwrap();
    for (texts, reason) in cases {
        let read = material(&secret(texts), TITLE);
        let error = read
            .and_then(|read| {
                let (lifetimes, now) = (Lifetimes::default(), SystemTime::now());
                Ok(Authority::new(read.unwrap(), &domain, lifetimes, now)?)
            })
            .unwrap_err()
            .to_string();
        assert!(error.contains(TITLE) && error.contains(reason), "{error}");
        let secret_line = other.key.pem.lines().nth(1).unwrap();
        assert!(!error.contains(secret_line) && !error.contains("garbage"));
    }
}

/// An API server with the Secret, and perhaps the ConfigMap of the roots.
#[derive(Default)]
struct Stored {
    secret: Secret,
    bundle: Option<ConfigMap>,
}

impl Stored {
    fn answer(&mut self, method: &http::Method, path: &str, body: &[u8]) -> (u16, Value) {
        let (code, answer) = match (method, path.ends_with("/configmaps/outrider-root")) {
            (&http::Method::GET, true) => match &self.bundle {
                Some(bundle) => (200, json!(bundle)),
                None => (404, Value::Null),
            },
            (&http::Method::GET, false) => (200, json!(self.secret)),
            (&http::Method::PUT, false) => {
                let new: Secret = serde_json::from_slice(body).unwrap();
                if new.metadata.resource_version == self.secret.metadata.resource_version {
                    self.put(new);
                    (200, json!(self.secret))
                } else {
                    (409, Value::Null)
                }
            }
            other => panic!("{other:?} {path}"),
        };
        if answer.is_null() {
            let reason = if code == 404 { "NotFound" } else { "Conflict" };
            let status = json!({"kind": "Status", "status": "Failure", "code": code,
                "message": "no", "reason": reason});
            return (code, status);
        }
        (code, answer)
    }

    fn put(&mut self, mut secret: Secret) {
        let version = self.secret.metadata.resource_version.take();
        let version: u64 = version.map_or(0, |version| version.parse().unwrap());
        secret.metadata.resource_version = Some((version + 1).to_string());
        self.secret = secret;
    }

    fn empty(&mut self) -> Secret {
        self.put(Secret::default());
        self.secret.clone()
    }

    fn publish(&mut self, pem: &str) {
        let data = BTreeMap::from([(trust_bundle::KEY.to_owned(), pem.to_owned())]);
        self.bundle = Some(ConfigMap {
            data: Some(data),
            ..ConfigMap::default()
        });
    }
}

fn authority_in(stored: &Arc<Mutex<Stored>>) -> AuthoritySecret {
    let stored = Arc::clone(stored);
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let stored = Arc::clone(&stored);
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let mut stored = stored.lock().unwrap();
            let (code, answer) = stored.answer(&head.method, head.uri.path(), &body);
            let response = http::Response::builder().status(code);
            Ok::<_, Infallible>(response.body(Full::from(answer.to_string())).unwrap())
        }
    });
    let options = AuthorityOptions {
        namespace: "outrider-system".to_owned(),
        name: "outrider-ca".to_owned(),
        trust_domain: TrustDomain::new("cluster.local").unwrap(),
        lifetimes: Lifetimes::default(),
        propagation: Duration::from_secs(120),
    };
    let client = kube::Client::new(service, "default");
    AuthoritySecret::new(client, options, Arc::default())
}

#[tokio::test]
async fn a_start_with_a_root_that_the_mesh_does_not_have_signs_nothing() {
    let stored = Arc::new(Mutex::new(Stored::default()));
    let secret = authority_in(&stored);
    let first = secret.open().await.unwrap();
    assert!(!first.is_withheld(), "there is no mesh yet");
    let own = first.latest().signer.trust_bundle().to_pem();
    stored.lock().unwrap().publish(&own);
    assert!(!secret.open().await.unwrap().is_withheld());

    stored.lock().unwrap().publish(&new().certificate.pem);
    let restarted = secret.open().await.unwrap();
    assert!(restarted.is_withheld());
    assert!(!secret.may_sign(restarted.latest()).await);
    // The leader announces it: that it is in the bundle does not do, until its time is over.
    let announce = |seconds: u64| {
        let mut stored = stored.lock().unwrap();
        let before = stored.bundle.clone();
        let now = SystemTime::now() - Duration::from_secs(seconds);
        stored.publish(&own);
        let annotations = super::super::announcement::annotations(before.as_ref(), &own, now);
        stored.bundle.as_mut().unwrap().metadata.annotations = annotations;
    };
    announce(60);
    assert!(!secret.may_sign(restarted.latest()).await);
    assert!(
        secret.open().await.unwrap().is_withheld(),
        "another restart"
    );
    stored.lock().unwrap().publish(&new().certificate.pem);
    announce(130);
    assert!(secret.may_sign(restarted.latest()).await);
    assert!(!secret.open().await.unwrap().is_withheld());
}

#[tokio::test]
async fn an_emptied_secret_of_a_mesh_gets_no_other_root_unless_that_is_permitted() {
    let stored = Arc::new(Mutex::new(Stored::default()));
    let mut secret = authority_in(&stored);
    let mut rotation = secret.open().await.unwrap();
    let own = rotation.latest().material.clone();
    stored.lock().unwrap().publish(&own.certificate.pem);

    // A pod that starts makes no root.
    let emptied = stored.lock().unwrap().empty();
    let error = secret.read_or_fill().await.unwrap_err();
    assert!(matches!(error, SecretError::Emptied { .. }) && is_passing(&error));
    let text = error.to_string();
    assert!(text.contains("outrider.dev/new-root=allowed"), "{text}");
    assert_eq!(stored.lock().unwrap().secret, emptied);

    // One that runs writes back what it has, but not over somebody's later version.
    let (current, _authority) = watch::channel(rotation.in_force(SystemTime::now()).unwrap());
    let newer = stored.lock().unwrap().empty();
    secret.take(Some(&emptied), &mut rotation, &current);
    secret.restore(rotation.latest()).await;
    assert_eq!(stored.lock().unwrap().secret, newer);
    secret.take(Some(&newer), &mut rotation, &current);
    secret.restore(rotation.latest()).await;
    let restored = stored.lock().unwrap().secret.clone();
    assert!(rotation.is_known(&material(&restored, TITLE).unwrap().unwrap()));
    assert!(secret.read_or_fill().await.unwrap().is_known(&own));

    // With a permission another root is made, once.
    let mut permitted = Secret::default();
    let annotation = (NEW_ROOT.0.to_owned(), NEW_ROOT.1.to_owned());
    permitted.metadata.annotations = Some(BTreeMap::from([annotation]));
    stored.lock().unwrap().put(permitted);
    let seen = stored.lock().unwrap().secret.clone();
    secret.take(Some(&seen), &mut rotation, &current);
    secret.restore(rotation.latest()).await;
    assert_eq!(
        stored.lock().unwrap().secret,
        seen,
        "it is not written back"
    );
    let other = secret.read_or_fill().await.unwrap();
    assert!(!other.is_known(&own) && other.is_withheld());
    assert!(!permits_new_root(&stored.lock().unwrap().secret));
}
