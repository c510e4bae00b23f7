use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};

use http_body_util::{BodyExt as _, Full};
use k8s_openapi::api::authentication::v1::UserInfo;
use serde_json::json;

use super::*;

const HOUR: u64 = 3600;

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn token(claims: &serde_json::Value) -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.{}", part("{}"), part(&claims.to_string()), part("x"))
}

fn good() -> serde_json::Value {
    json!({
        "aud": ["outrider"],
        "exp": 1_800_000_000 + HOUR,
        "sub": "system:serviceaccount:shop:cart",
    })
}

fn status() -> TokenReviewStatus {
    let extra = [(POD_NAME, "cart-1"), (POD_UID, "u-1")]
        .map(|(key, value)| (key.to_owned(), vec![value.to_owned()]));
    TokenReviewStatus {
        authenticated: Some(true),
        audiences: Some(vec!["outrider".to_owned()]),
        user: Some(UserInfo {
            username: Some("system:serviceaccount:shop:cart".to_owned()),
            extra: Some(BTreeMap::from(extra)),
            ..UserInfo::default()
        }),
        error: None,
    }
}

fn cart() -> Caller {
    Caller {
        account: ServiceAccount::new("shop", "cart").unwrap(),
        pod: Some(BoundPod {
            name: "cart-1".to_owned(),
            uid: "u-1".to_owned(),
        }),
    }
}

#[test]
fn garbage_is_refused_without_asking_anybody() {
    let with = |key: &str, value: serde_json::Value| {
        let mut claims = good();
        claims[key] = value;
        token(&claims)
    };
    let cases = [
        ("", "three parts"),
        ("a.b", "three parts"),
        ("a.b.c.d", "three parts"),
        ("a.!.c", "base64url"),
        ("a.e30.c", "lack"),
        (&"x".repeat(20_000), "16 KiB"),
        (&with("aud", json!("vault")), "audience"),
        (
            &with("aud", json!(["https://kubernetes.default.svc"])),
            "audience",
        ),
        (&with("aud", json!(7)), "lack"),
        (&with("exp", json!(1_800_000_000)), "expired 0 s"),
        (&with("exp", json!(1_799_999_990)), "expired 10 s"),
        (&with("sub", json!("system:node:n")), "service account"),
        (
            &with("sub", json!("system:serviceaccount:shop")),
            "service account",
        ),
        (
            &with("sub", json!("system:serviceaccount:sh/op:x")),
            "service account",
        ),
    ];
    for (token, reason) in cases {
        let error = life(token, now()).unwrap_err().to_string();
        assert!(error.contains(reason), "{error:?} should say {reason:?}");
    }
    let left = Duration::from_secs(HOUR);
    assert_eq!(life(&token(&good()), now()), Ok(left));
    assert_eq!(life(&with("aud", json!("outrider")), now()), Ok(left));
}

#[test]
fn an_answer_is_judged_by_all_of_its_parts() {
    assert_eq!(judge(&status()), Ok(cart()));
    let with = |change: fn(&mut TokenReviewStatus)| {
        let mut status = status();
        change(&mut status);
        judge(&status).unwrap_err()
    };
    fn extra(status: &mut TokenReviewStatus) -> &mut BTreeMap<String, Vec<String>> {
        status.user.as_mut().unwrap().extra.as_mut().unwrap()
    }
    let refused = with(|status| {
        status.authenticated = Some(false);
        status.error = Some("the pod is gone".to_owned());
    });
    assert_eq!(refused, ReviewError::Refused("the pod is gone".to_owned()));
    assert!(matches!(
        with(|status| status.authenticated = None),
        ReviewError::Refused(_)
    ));
    assert_eq!(
        with(|status| status.audiences = None),
        ReviewError::Audience
    );
    assert_eq!(
        with(|status| status.audiences = Some(vec!["vault".to_owned()])),
        ReviewError::Audience
    );
    assert_eq!(with(|status| status.user = None), ReviewError::Subject);
    let node = |status: &mut TokenReviewStatus| {
        status.user.as_mut().unwrap().username = Some("system:node:n".to_owned());
    };
    assert_eq!(with(node), ReviewError::Subject);
    for change in [
        (|status| drop(extra(status).remove(POD_NAME))) as fn(&mut TokenReviewStatus),
        |status| drop(extra(status).remove(POD_UID)),
        |status| extra(status).get_mut(POD_UID).unwrap().clear(),
        |status| {
            extra(status)
                .get_mut(POD_NAME)
                .unwrap()
                .push("other".to_owned())
        },
    ] {
        assert_eq!(with(change), ReviewError::Unbound);
    }
}

#[test]
fn a_caller_is_remembered_briefly_and_never_beyond_its_token() {
    let mut remembered = Remembered::default();
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let hour = Duration::from_secs(HOUR);
    let refusal = Err(ReviewError::Refused("forged".to_owned()));
    let unavailable = Err(ReviewError::Unavailable("away".to_owned()));
    remembered.remember([1; 32], &Ok(cart()), hour, start);
    remembered.remember([2; 32], &Ok(cart()), Duration::from_secs(5), start);
    remembered.remember([3; 32], &refusal, hour, start);
    remembered.remember([4; 32], &unavailable, hour, start);
    for (digest, seconds, known) in [
        (1, 59, Some(Ok(cart()))),
        (1, 60, None),
        (2, 4, Some(Ok(cart()))),
        (2, 5, None),
        (3, 4, Some(refusal.clone())),
        (3, 5, None),
        (4, 0, None),
        (5, 0, None),
    ] {
        let outcome = remembered.outcome(&[digest; 32], at(seconds));
        assert_eq!(outcome, known, "{digest} after {seconds} s");
    }
    for number in 0..MAX_REMEMBERED as u64 + 10 {
        let digest = sha256(&number.to_be_bytes());
        remembered.remember(digest, &Ok(cart()), hour, start);
        remembered.remember(digest, &refusal, hour, start);
    }
    assert_eq!(remembered.callers.0.len(), MAX_REMEMBERED);
    assert_eq!(remembered.refusals.0.len(), MAX_REMEMBERED);
    remembered.remember([9; 32], &Ok(cart()), hour, at(60));
    assert_eq!(remembered.callers.0.len(), 1, "those of the past make room");
}

/// An API server that answers reviews with `answer`, after it was allowed to.
fn reviewer(
    answer: impl Fn() -> (u16, serde_json::Value) + Clone + Send + Sync + 'static,
    gate: Arc<Semaphore>,
) -> (TokenReviewer, Arc<AtomicUsize>, Arc<Metrics>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let (answer, gate, counter) = (answer.clone(), Arc::clone(&gate), Arc::clone(&counter));
        async move {
            assert_eq!(
                request.uri().path(),
                "/apis/authentication.k8s.io/v1/tokenreviews"
            );
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(body["spec"]["audiences"], json!(["outrider"]));
            counter.fetch_add(1, Ordering::SeqCst);
            gate.acquire().await.unwrap().forget();
            let (code, body) = answer();
            let response = http::Response::builder().status(code);
            Ok::<_, Infallible>(response.body(Full::from(body.to_string())).unwrap())
        }
    });
    let metrics = Arc::new(Metrics::default());
    let client = kube::Client::new(service, "default");
    (
        TokenReviewer::new(client, Arc::clone(&metrics)),
        asked,
        metrics,
    )
}

fn answered(status: &TokenReviewStatus) -> serde_json::Value {
    json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {},
        "status": status,
    })
}

#[tokio::test]
async fn callers_with_one_token_share_a_review_and_its_memory() {
    let gate = Arc::new(Semaphore::new(0));
    let (reviewer, asked, _) = reviewer(|| (201, answered(&status())), Arc::clone(&gate));
    let token = token(&good());
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (reviewer, token) = (reviewer.clone(), token.clone());
        callers.spawn(async move { reviewer.review(&token, None, now()).await });
    }
    outrider_testkit::eventually_async(Duration::from_secs(5), async || {
        anyhow::ensure!(asked.load(Ordering::SeqCst) == 1);
        Ok(())
    })
    .await
    .unwrap();
    gate.add_permits(1);
    while let Some(outcome) = callers.join_next().await {
        assert_eq!(outcome.unwrap(), Ok(cart()));
    }
    assert_eq!(reviewer.review(&token, None, now()).await, Ok(cart()));
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_api_server_that_fails_makes_nobody_good_and_nobody_bad() {
    let failure = || {
        let status = json!({
            "kind": "Status", "status": "Failure", "code": 500,
            "message": "etcd is away", "reason": "InternalError",
        });
        (500, status)
    };
    let (reviewer, asked, metrics) = reviewer(failure, Arc::new(Semaphore::new(10)));
    let token = token(&good());
    for round in 1..3 {
        let error = reviewer.review(&token, None, now()).await.unwrap_err();
        assert_eq!(error, ReviewError::Unavailable("etcd is away".to_owned()));
        assert_eq!(asked.load(Ordering::SeqCst), round, "it is asked again");
    }
    assert!(
        metrics
            .render()
            .contains("token_reviews_unavailable_total 2")
    );
    let status = tonic::Status::from(crate::authenticate::AuthenticateError::from(
        ReviewError::Unavailable("x".to_owned()),
    ));
    assert_eq!(status.code(), tonic::Code::Unavailable);
}

/// Forged tokens of one address wait among themselves.
#[tokio::test]
async fn one_address_does_not_take_the_turns_of_others() {
    let gate = Arc::new(Semaphore::new(0));
    let (reviewer, asked, _) = reviewer(|| (201, answered(&status())), Arc::clone(&gate));
    let numbered = |number: u64| {
        let mut claims = good();
        claims["jti"] = json!(number);
        token(&claims)
    };
    let [busy, other] = ["10.0.0.1", "10.0.0.2"].map(|address| address.parse().ok());
    let mut callers = tokio::task::JoinSet::new();
    for number in 0..MAX_WAITING_OF_ONE as u64 {
        let (reviewer, token) = (reviewer.clone(), numbered(number));
        callers.spawn(async move { reviewer.review(&token, busy, now()).await });
    }
    outrider_testkit::eventually_async(Duration::from_secs(5), async || {
        anyhow::ensure!(asked.load(Ordering::SeqCst) == MAX_WAITING_OF_ONE);
        Ok(())
    })
    .await
    .unwrap();
    let refused = reviewer.review(&numbered(100), busy, now()).await;
    assert!(
        matches!(&refused, Err(ReviewError::Unavailable(reason)) if reason.contains("this address")),
        "{refused:?}"
    );
    let (another, token) = (reviewer.clone(), numbered(101));
    callers.spawn(async move { another.review(&token, other, now()).await });
    gate.add_permits(MAX_WAITING_OF_ONE + 2);
    while let Some(outcome) = callers.join_next().await {
        assert_eq!(outcome.unwrap(), Ok(cart()));
    }
    assert_eq!(
        reviewer.review(&numbered(100), busy, now()).await,
        Ok(cart())
    );
    assert!(reviewer.shared.state().waiting.0.is_empty());
}
