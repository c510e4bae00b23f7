//! `discovery.k8s.io/v1` EndpointSlice.

use std::net::IpAddr;
use std::num::NonZeroU16;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{ObjectMeta, TransportProtocol};
use crate::registry::FieldError;

const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// Addresses behind a service.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EndpointSlice {
    #[serde(rename = "apiVersion")]
    _api_version: IgnoredAny,
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    /// Name, namespace and labels; the label `kubernetes.io/service-name` names the service.
    pub metadata: ObjectMeta,
    /// The family of the addresses.
    pub address_type: AddressType,
    /// The addresses.
    #[serde(default)]
    pub endpoints: Vec<SliceEndpoint>,
    /// The ports on each of the addresses.
    #[serde(default)]
    pub ports: Vec<EndpointPort>,
}

/// The family of a slice's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum AddressType {
    /// Version 4.
    IPv4,
    /// Version 6.
    IPv6,
    /// Host names, which nothing in Kubernetes dials.
    #[serde(rename = "FQDN")]
    Fqdn,
}

/// One workload of an [`EndpointSlice`].
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SliceEndpoint {
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    #[serde(default)]
    conditions: Conditions,
    /// The zone that it is in.
    #[serde(default)]
    pub zone: Option<String>,
    #[serde(default, rename = "hostname")]
    _hostname: IgnoredAny,
    #[serde(default, rename = "nodeName")]
    _node_name: IgnoredAny,
    #[serde(default, rename = "targetRef")]
    _target_ref: IgnoredAny,
    #[serde(default, rename = "hints")]
    _hints: IgnoredAny,
    #[serde(default, rename = "deprecatedTopology")]
    _deprecated_topology: IgnoredAny,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Conditions {
    #[serde(default)]
    ready: Option<bool>,
    #[serde(default)]
    serving: Option<bool>,
    #[serde(default)]
    terminating: Option<bool>,
}

/// One port of an [`EndpointSlice`].
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EndpointPort {
    /// The name of the service's port that it serves.
    #[serde(default)]
    pub name: Option<String>,
    /// The number on the workload.
    pub port: NonZeroU16,
    /// TCP, unless another is written.
    #[serde(default)]
    pub protocol: TransportProtocol,
    #[serde(default, rename = "appProtocol")]
    _app_protocol: IgnoredAny,
}

impl SliceEndpoint {
    /// Whether it takes traffic; not knowing counts as yes (the field's documentation).
    pub fn is_ready(&self) -> bool {
        self.conditions.ready.unwrap_or(true)
    }

    /// Whether it is about to end and still answers. It takes traffic if nothing else does, as
    /// Kubernetes' own node proxy has it (KEP-1669).
    pub fn is_last_resort(&self) -> bool {
        self.conditions.terminating.unwrap_or(false) && self.conditions.serving.unwrap_or(false)
    }
}

impl EndpointSlice {
    /// The name of the service, which is in the same namespace.
    pub fn service(&self) -> &str {
        self.metadata
            .labels
            .get(SERVICE_LABEL)
            .map_or("", String::as_str)
    }

    pub(crate) fn limits(&self) -> Option<FieldError> {
        let reason = "FQDN is not supported: the addresses are not used";
        (self.address_type == AddressType::Fqdn).then(|| FieldError::new("addressType", reason))
    }

    pub(crate) fn validate(&self) -> Result<(), FieldError> {
        if self.service().is_empty() {
            let path = format!("metadata.labels[{SERVICE_LABEL}]");
            return Err(FieldError::new(
                path,
                "must name the service that the slice belongs to",
            ));
        }
        for (index, endpoint) in self.endpoints.iter().enumerate() {
            let path = format!("endpoints[{index}].addresses");
            if endpoint.addresses.is_empty() {
                return Err(FieldError::new(path, "must hold an address"));
            }
            for (position, address) in endpoint.addresses.iter().enumerate() {
                if address.is_ipv4() != (self.address_type == AddressType::IPv4) {
                    let reason = format!("{address} is not of the slice's addressType");
                    return Err(FieldError::new(format!("{path}[{position}]"), reason));
                }
            }
        }
        Ok(())
    }
}
