//! Who owns what the control plane makes in the cluster, so that `helm uninstall` collects it.

use std::sync::Arc;

use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::PartialObjectMeta;
use kube::{Api, Resource as _};
use tokio::sync::Mutex;
use tokio::time::{Duration, Instant, timeout};
use tracing::warn;

use super::describe;

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
    reference: Option<OwnerReference>,
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

    /// What goes into an object's `metadata.ownerReferences`. None when the ClusterRole does not
    /// exist or cannot be read, which is logged: then the object stays after an uninstall.
    ///
    /// It is asked for anew now and then: an object that refers to a ClusterRole of old would be
    /// collected as soon as it is made.
    pub async fn references(&self) -> Option<Vec<OwnerReference>> {
        let mut known = self.known.lock().await;
        if let Some(known) = known.as_ref().filter(|known| known.at.elapsed() < FRESH) {
            return known.reference.clone().map(|reference| vec![reference]);
        }
        let reference = match timeout(EXCHANGE, self.roles.get_metadata_opt(&self.name)).await {
            Ok(Ok(Some(role))) => reference(&role),
            Ok(Ok(None)) => {
                warn!(role = %self.name, "there is no such ClusterRole: what is made stays after an uninstall");
                None
            }
            Ok(Err(error)) => {
                warn!(role = %self.name, "reading the ClusterRole failed: {}", describe(&error));
                None
            }
            Err(_elapsed) => {
                warn!(role = %self.name, "reading the ClusterRole took too long");
                None
            }
        };
        *known = Some(Known {
            at: Instant::now(),
            reference: reference.clone(),
        });
        reference.map(|reference| vec![reference])
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
