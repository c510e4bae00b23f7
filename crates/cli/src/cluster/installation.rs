//! The names of what an installation puts into a cluster.

use crate::flags::Global;

/// One control plane: the namespace and the revision make all of its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Installation {
    /// The release's namespace.
    pub(crate) namespace: String,
    /// Empty for the default revision.
    pub(crate) revision: String,
}

/// The label that asks for a sidecar, of a namespace or a pod.
pub(crate) const INJECT: &str = "outrider.dev/inject";
/// The label that chooses a revision, and asks for a sidecar of it.
pub(crate) const REVISION: &str = "outrider.dev/rev";
/// The ConfigMap with the trust bundle, and its key.
pub(crate) const ROOT: (&str, &str) = ("outrider-root", "root.pem");
/// The Secret of the certificate authority, unless the chart is given another.
pub(crate) const AUTHORITY: &str = "outrider-ca";

impl Installation {
    /// What the flags name. `-n` counts for verbs that are about no other namespace.
    pub(crate) fn of(flags: &Global) -> Self {
        let namespace = flags.namespace.as_ref().unwrap_or(&flags.system_namespace);
        Self {
            namespace: namespace.clone(),
            revision: flags.revision.clone(),
        }
    }

    /// Deployment, Service and ServiceAccount of the control plane.
    pub(crate) fn control(&self) -> String {
        self.named("outrider-control")
    }

    /// Deployment, Service, ServiceAccount, ConfigMap and webhook configuration of the injector.
    pub(crate) fn injector(&self) -> String {
        self.named("outrider-injector")
    }

    /// The Secret of the injector's serving certificate.
    pub(crate) fn injector_tls(&self) -> String {
        self.named("outrider-injector-tls")
    }

    fn named(&self, name: &str) -> String {
        if self.revision.is_empty() {
            name.to_owned()
        } else {
            format!("{name}-{}", self.revision)
        }
    }
}
