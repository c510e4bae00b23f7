//! `gateway.networking.k8s.io/v1` TLSRoute, attached to a Service.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::route::validate_parents;
use super::tcp_route::{StreamRule, validate_rules};
use super::{ObjectMeta, ParentRef};
use crate::registry::FieldError;

/// Routes the TLS connections to a service by the server name that they ask for. Nothing is
/// decrypted.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TlsRoute {
    #[serde(rename = "apiVersion")]
    _api_version: IgnoredAny,
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    /// Name and namespace.
    pub metadata: ObjectMeta,
    /// What it does.
    pub spec: TlsRouteSpec,
    #[serde(default, rename = "status")]
    _status: IgnoredAny,
}

/// The body of a [`TlsRoute`].
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TlsRouteSpec {
    /// The services whose connections it routes.
    #[serde(default)]
    pub parent_refs: Vec<ParentRef>,
    /// The server names, of which the first label may be `*`. The one match that the kind has, so it
    /// counts for a Service too.
    #[serde(default)]
    pub hostnames: Vec<String>,
    /// Its rule.
    #[serde(default)]
    pub rules: Vec<StreamRule>,
    /// Concerns Gateways only.
    #[serde(default, rename = "useDefaultGateways")]
    _use_default_gateways: IgnoredAny,
}

impl TlsRoute {
    /// What is wrong with its names, from the object's top.
    ///
    /// # Errors
    /// The first field at fault.
    pub fn check_hostnames(&self) -> Result<(), FieldError> {
        if self.spec.hostnames.is_empty() {
            let reason = "must hold a server name";
            return Err(FieldError::new("spec.hostnames", reason));
        }
        for (index, name) in self.spec.hostnames.iter().enumerate() {
            let host = name.strip_prefix("*.").unwrap_or(name);
            if rustls_pki_types::DnsName::try_from(host).is_err() {
                let reason = format!("{name:?} is neither a host name nor *. and one");
                return Err(FieldError::new(format!("spec.hostnames[{index}]"), reason));
            }
        }
        Ok(())
    }

    pub(crate) fn limits(&self) -> Option<FieldError> {
        self.strict().err()
    }

    /// The stricter rule for documents that nobody but the mesh reads. In a cluster each rule is
    /// judged by itself, and the status tells.
    fn strict(&self) -> Result<(), FieldError> {
        validate_parents(&self.spec.parent_refs)?;
        self.check_hostnames()?;
        validate_rules(&self.spec.rules)
    }
}
