//! Who owns what the control plane makes in the cluster, so that `helm uninstall` collects it.

use std::sync::Arc;

use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::PartialObjectMeta;
use kube::{Api, Resource as _};
use tokio::sync::Mutex;
use tokio::time::{Duration, Instant, timeout};
use tracing::warn;

/// How long an answer is taken for true.
const FRESH: Duration = Duration::from_secs(30);
/// The longest that the API server may take.
const EXCHANGE: Duration = Duration::from_secs(4);

/// The ClusterRole of the release. It is the one object of it that has no namespace, and objects in
/// other namespaces cannot be owned by one that has.
#[derive(Clone)]
pub struct Owner {
    roles: Api<ClusterRole>,
    name: Arc<str>,
    known: Arc<Mutex<Option<Known>>>,
}

struct Known {
    at: Instant,
    references: Option<Vec<OwnerReference>>,
}

impl Owner {
    /// Names the ClusterRole.
    pub fn new(client: kube::Client, name: &str) -> Self {
        Self {
            roles: Api::all(client),
            name: name.into(),
            known: Arc::default(),
        }
    }

    /// What goes into an object's `metadata.ownerReferences`. None when there is no such ClusterRole,
    /// which is logged: then the object stays after an uninstall.
    ///
    /// It is asked for anew now and then: an object that refers to a ClusterRole of old would be
    /// collected as soon as it is made.
    ///
    /// # Errors
    /// The ClusterRole could not be read. That says nothing of whether it exists: an object must not
    /// be written without its owner for that.
    pub async fn references(&self) -> Result<Option<Vec<OwnerReference>>, kube::Error> {
        let mut known = self.known.lock().await;
        if let Some(known) = known.as_ref().filter(|known| known.at.elapsed() < FRESH) {
            return Ok(known.references.clone());
        }
        let role = match timeout(EXCHANGE, self.roles.get_metadata_opt(&self.name)).await {
            Ok(role) => role?,
            Err(_elapsed) => {
                let reason = format!("reading ClusterRole {} took too long", self.name);
                return Err(kube::Error::Service(reason.into()));
            }
        };
        if role.is_none() {
            warn!(role = %self.name, "there is no such ClusterRole: what is made stays after an uninstall");
        }
        let references = role.as_ref().and_then(reference).map(|one| vec![one]);
        *known = Some(Known {
            at: Instant::now(),
            references: references.clone(),
        });
        Ok(references)
    }
}

fn reference(role: &PartialObjectMeta<ClusterRole>) -> Option<OwnerReference> {
    Some(OwnerReference {
        api_version: ClusterRole::api_version(&()).into_owned(),
        kind: ClusterRole::kind(&()).into_owned(),
        name: role.metadata.name.clone()?,
        uid: role.metadata.uid.clone()?,
        ..OwnerReference::default()
    })
}

impl std::fmt::Debug for Owner {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Owner").field(&self.name).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http_body_util::Full;
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn a_role_that_cannot_be_read_is_not_an_absent_one() {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let service = tower::service_fn(move |_: http::Request<kube::client::Body>| {
            let status = match count.fetch_add(1, Ordering::Relaxed) {
                0 => 403,
                1 => 500,
                _ => 200,
            };
            let body = match status {
                200 => json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
                    "metadata": {"name": "outrider-control", "uid": "u-1"}}),
                _ => json!({"apiVersion": "v1", "kind": "Status", "status": "Failure",
                    "message": "no", "code": status}),
            };
            let answer = http::Response::builder().status(status);
            let answer = answer.body(Full::from(body.to_string())).unwrap();
            std::future::ready(Ok::<_, Infallible>(answer))
        });
        let owner = Owner::new(kube::Client::new(service, "default"), "outrider-control");
        assert!(owner.references().await.is_err());
        assert!(owner.references().await.is_err(), "it is asked anew");
        for _ in 0..2 {
            let references = owner.references().await.unwrap().unwrap();
            assert_eq!(references[0].uid, "u-1");
        }
        assert_eq!(asked.load(Ordering::Relaxed), 3, "what is known is kept");
    }

    #[tokio::test]
    async fn an_absent_role_owns_nothing() {
        let service = tower::service_fn(|_: http::Request<kube::client::Body>| {
            let body = json!({"apiVersion": "v1", "kind": "Status", "status": "Failure",
                "reason": "NotFound", "message": "none", "code": 404});
            let answer = http::Response::builder().status(404);
            let answer = answer.body(Full::from(body.to_string())).unwrap();
            std::future::ready(Ok::<_, Infallible>(answer))
        });
        let owner = Owner::new(kube::Client::new(service, "default"), "outrider-control");
        assert_eq!(owner.references().await.unwrap(), None);
    }
}
