//! Service-account tokens, judged by the cluster that made them (authentication.k8s.io/v1
//! TokenReview), and bound to a pod (KEP-1205).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::Api;
use kube::api::PostParams;
use outrider_identity::ServiceAccount;
use outrider_identity::certificate::sha256;
use outrider_identity::token::AUDIENCE;
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::warn;

use super::describe;
use crate::authenticate::{BoundPod, Caller};
use crate::metrics::Metrics;

/// For how long an answer is remembered at most; as long may a deleted pod's token work.
const REMEMBERED: Duration = Duration::from_secs(60);
/// For how long a refusal is remembered.
const REFUSED: Duration = Duration::from_secs(5);
/// How many answers of either kind are remembered at most, each of about 300 bytes.
const MAX_REMEMBERED: usize = 20_000;
/// How many reviews the API server does for us at a time.
const PARALLEL: usize = 16;
/// How many wait for their turn at most.
const MAX_WAITING: usize = 4096;
/// How many of those come from one address at most.
const MAX_WAITING_OF_ONE: usize = 8;
/// The longest that a review may take, the wait for its turn included.
const PATIENCE: Duration = Duration::from_secs(10);
/// A token of a cluster has 1 to 2 KiB.
const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// The longest text of the API server that goes into an error.
const MAX_REASON: usize = 512;

const USER_PREFIX: &str = "system:serviceaccount:";
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// Why a token vouches for nobody. Never holds a token or a part of one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReviewError {
    /// It is not a JWT that a cluster makes.
    #[error("malformed token: {0}")]
    Malformed(&'static str),
    /// It is for somebody else.
    #[error(
        "the token is for another audience than {AUDIENCE:?}: mount a projected token with that one"
    )]
    Audience,
    /// Its time is over.
    #[error("the token expired {} s ago: read the projected file anew", .ago.as_secs())]
    Expired {
        /// How long ago, by our clock.
        ago: Duration,
    },
    /// The API server does not accept it.
    #[error("the API server refuses the token: {0}")]
    Refused(String),
    /// It is good, but not a service account's.
    #[error("the token is not a service account's")]
    Subject,
    /// It is good, but would outlive its pod.
    #[error("the token is not bound to a pod: mount a projected one, do not use a token Secret")]
    Unbound,
    /// Nobody can tell at the moment.
    #[error("the token cannot be judged at the moment, try again: {0}")]
    Unavailable(String),
}

type Outcome = Result<Caller, ReviewError>;
type Running = Shared<BoxFuture<'static, Outcome>>;
type Digest = [u8; 32];

/// Asks the API server, and remembers for a moment what it said.
#[derive(Clone)]
pub struct TokenReviewer {
    shared: Arc<Reviewer>,
}

struct Reviewer {
    reviews: Api<TokenReview>,
    turns: Semaphore,
    state: Mutex<State>,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct State {
    remembered: Remembered,
    running: HashMap<Digest, Running>,
    waiting: Waiting,
}

impl TokenReviewer {
    /// Reviews by the API server behind `client`.
    pub fn new(client: kube::Client, metrics: Arc<Metrics>) -> Self {
        let shared = Reviewer {
            reviews: Api::all(client),
            turns: Semaphore::new(PARALLEL),
            state: Mutex::default(),
            metrics,
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Whom a token vouches for that comes from an address. Callers with the same token share one
    /// review.
    ///
    /// # Errors
    /// [`ReviewError`], by what is wrong. One that cannot be judged is not accepted.
    pub async fn review(&self, token: &str, peer: Option<IpAddr>, now: SystemTime) -> Outcome {
        let left = life(token, now)?;
        let digest = sha256(token.as_bytes());
        let running = {
            let mut state = self.shared.state();
            if let Some(outcome) = state.remembered.outcome(&digest, Instant::now()) {
                return outcome;
            }
            if let Some(running) = state.running.get(&digest) {
                running.clone()
            } else if state.running.len() >= MAX_WAITING {
                self.shared.metrics.token_reviews_unavailable.increment();
                let reason = "too many other tokens are waiting for their review";
                return Err(ReviewError::Unavailable(reason.to_owned()));
            } else if !state.waiting.enter(peer) {
                self.shared.metrics.token_reviews_unavailable.increment();
                let reason = "too many other tokens of this address are waiting for their review";
                return Err(ReviewError::Unavailable(reason.to_owned()));
            } else {
                let running = self.start(token.to_owned(), peer, digest, left);
                state.running.insert(digest, running.clone());
                running
            }
        };
        running.await
    }

    /// A task of its own, so that it ends even if nobody waits for it any more.
    fn start(
        &self,
        token: String,
        peer: Option<IpAddr>,
        digest: Digest,
        left: Duration,
    ) -> Running {
        let reviewer = Arc::clone(&self.shared);
        let task = tokio::spawn(async move {
            let outcome = reviewer.ask(token).await;
            let mut state = reviewer.state();
            state.running.remove(&digest);
            state.waiting.leave(peer);
            state
                .remembered
                .remember(digest, &outcome, left, Instant::now());
            outcome
        });
        let outcome = task.map(|ended| {
            ended.unwrap_or_else(|error| Err(ReviewError::Unavailable(error.to_string())))
        });
        outcome.boxed().shared()
    }
}

impl Reviewer {
    async fn ask(&self, token: String) -> Outcome {
        let review = TokenReview {
            spec: TokenReviewSpec {
                audiences: Some(vec![AUDIENCE.to_owned()]),
                token: Some(token),
            },
            ..TokenReview::default()
        };
        let answer = timeout(PATIENCE, async {
            // The semaphore is never closed.
            let _turn = self.turns.acquire().await;
            let parameters = PostParams::default();
            self.reviews.create(&parameters, &review).await
        });
        let outcome = match answer.await {
            Ok(Ok(review)) => judge(&review.status.unwrap_or_default()),
            Ok(Err(error)) => Err(ReviewError::Unavailable(shorten(&describe(&error)))),
            Err(_elapsed) => Err(ReviewError::Unavailable(
                "the API server did not answer in time".to_owned(),
            )),
        };
        self.metrics.token_reviews.increment();
        if let Err(error @ ReviewError::Unavailable(_)) = &outcome {
            self.metrics.token_reviews_unavailable.increment();
            warn!("{error}");
        }
        outcome
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is whole before the lock is let go.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for TokenReviewer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("TokenReviewer")
    }
}

/// How many reviews each address waits for: whoever sends forged tokens does not take the turns of
/// all others.
#[derive(Default)]
struct Waiting(HashMap<IpAddr, usize>);

impl Waiting {
    /// One more, unless the address has enough.
    fn enter(&mut self, peer: Option<IpAddr>) -> bool {
        let Some(peer) = peer else {
            return true;
        };
        let count = self.0.entry(peer).or_default();
        let enters = *count < MAX_WAITING_OF_ONE;
        *count += usize::from(enters);
        enters
    }

    fn leave(&mut self, peer: Option<IpAddr>) {
        if let Some(peer) = peer
            && let Entry::Occupied(mut count) = self.0.entry(peer)
        {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// What was found, by the SHA-256 of the token.
#[derive(Default)]
struct Remembered {
    callers: Memory<Caller>,
    refusals: Memory<ReviewError>,
}

impl Remembered {
    fn outcome(&self, digest: &Digest, now: Instant) -> Option<Outcome> {
        let caller = self.callers.recall(digest, now).map(Ok);
        caller.or_else(|| self.refusals.recall(digest, now).map(Err))
    }

    /// Remembers a caller, but never longer than its token lives, and a refusal for a moment. That
    /// nobody could tell is not remembered.
    fn remember(&mut self, digest: Digest, outcome: &Outcome, left: Duration, now: Instant) {
        match outcome {
            Ok(caller) => {
                let until = now + left.min(REMEMBERED);
                self.callers.remember(digest, caller.clone(), until, now);
            }
            Err(ReviewError::Unavailable(_)) => {}
            Err(refusal) => {
                let until = now + REFUSED;
                self.refusals.remember(digest, refusal.clone(), until, now);
            }
        }
    }
}

/// Outcomes of one kind. When there are too many, a new one is forgotten at once: that costs a
/// review more, not a caller.
struct Memory<T>(HashMap<Digest, (T, Instant)>);

impl<T> Default for Memory<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T: Clone> Memory<T> {
    fn recall(&self, digest: &Digest, now: Instant) -> Option<T> {
        let (value, until) = self.0.get(digest)?;
        (now < *until).then(|| value.clone())
    }

    fn remember(&mut self, digest: Digest, value: T, until: Instant, now: Instant) {
        if self.0.len() >= MAX_REMEMBERED {
            self.0.retain(|_, (_, until)| now < *until);
        }
        if self.0.len() < MAX_REMEMBERED {
            self.0.insert(digest, (value, until));
        }
    }
}

/// What is read of a token before its signature is judged: only reasons to refuse it.
#[derive(Deserialize)]
struct Claims {
    exp: u64,
    aud: Audience,
    sub: String,
}

/// RFC 7519 section 4.1.3: one string, or an array of them.
#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

/// How long a token still claims to live. What is refused here costs the API server nothing, so
/// that strangers cannot keep it busy with garbage.
fn life(token: &str, now: SystemTime) -> Result<Duration, ReviewError> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(ReviewError::Malformed("longer than 16 KiB"));
    }
    let mut parts = token.split('.');
    let (Some(_), Some(claims), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(ReviewError::Malformed("not of three parts"));
    };
    let claims = URL_SAFE_NO_PAD
        .decode(claims)
        .map_err(|_| ReviewError::Malformed("the claims are not base64url"))?;
    let claims: Claims = serde_json::from_slice(&claims)
        .map_err(|_| ReviewError::Malformed("the claims lack exp, aud or sub"))?;
    let for_us = match &claims.aud {
        Audience::One(audience) => audience == AUDIENCE,
        Audience::Many(audiences) => audiences.iter().any(|audience| audience == AUDIENCE),
    };
    if !for_us {
        return Err(ReviewError::Audience);
    }
    account(&claims.sub)?;
    let now = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let end = Duration::from_secs(claims.exp);
    match end.checked_sub(now) {
        Some(left) if !left.is_zero() => Ok(left),
        _ => Err(ReviewError::Expired { ago: now - end }),
    }
}

fn account(user: &str) -> Result<ServiceAccount, ReviewError> {
    let names = user.strip_prefix(USER_PREFIX);
    let (namespace, name) = names
        .and_then(|names| names.split_once(':'))
        .ok_or(ReviewError::Subject)?;
    ServiceAccount::new(namespace, name).map_err(|_| ReviewError::Subject)
}

/// What the API server's answer says.
fn judge(status: &TokenReviewStatus) -> Outcome {
    if status.authenticated != Some(true) {
        let reason = status.error.as_deref().unwrap_or("no reason given");
        return Err(ReviewError::Refused(shorten(reason)));
    }
    // A server that knows nothing of audiences names none, and would take any token.
    let audiences = status.audiences.iter().flatten();
    if !audiences.into_iter().any(|audience| audience == AUDIENCE) {
        return Err(ReviewError::Audience);
    }
    let user = status.user.as_ref().ok_or(ReviewError::Subject)?;
    let account = account(user.username.as_deref().unwrap_or_default())?;
    let extra = |key: &str| match user.extra.as_ref()?.get(key)?.as_slice() {
        [value] if !value.is_empty() => Some(value.clone()),
        _ => None,
    };
    let (Some(name), Some(uid)) = (extra(POD_NAME), extra(POD_UID)) else {
        return Err(ReviewError::Unbound);
    };
    Ok(Caller {
        account,
        pod: Some(BoundPod { name, uid }),
    })
}

fn shorten(text: &str) -> String {
    text.chars().take(MAX_REASON).collect()
}

#[cfg(test)]
#[path = "token_review_tests.rs"]
mod tests;
