//! `v1` Service.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU16;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::ObjectMeta;
use crate::registry::FieldError;

/// A name by which workloads are reached, at addresses of its own or at theirs.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Service {
    #[serde(rename = "apiVersion")]
    _api_version: IgnoredAny,
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    /// Name, namespace and labels.
    pub metadata: ObjectMeta,
    /// What it does.
    pub spec: ServiceSpec,
    #[serde(default, rename = "status")]
    _status: IgnoredAny,
}

/// The body of a [`Service`].
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceSpec {
    #[serde(default, rename = "clusterIP")]
    cluster_ip: Option<String>,
    #[serde(default, rename = "clusterIPs")]
    cluster_ips: Vec<String>,
    /// The families of its addresses, the preferred one first.
    #[serde(default)]
    pub ip_families: Vec<IpFamily>,
    /// Its ports.
    #[serde(default)]
    pub ports: Vec<ServicePort>,
    /// The labels of the workloads behind it; empty when an EndpointSlice names them.
    #[serde(default)]
    pub selector: BTreeMap<String, String>,
    /// Whether workloads that are not ready are reached too.
    #[serde(default)]
    pub publish_not_ready_addresses: bool,
    #[serde(default, rename = "type")]
    service_type: Option<String>,
    #[serde(default)]
    session_affinity: Option<String>,
    #[serde(default)]
    internal_traffic_policy: Option<String>,
    #[serde(default, rename = "ipFamilyPolicy")]
    _ip_family_policy: IgnoredAny,
    #[serde(default, rename = "externalTrafficPolicy")]
    _external_traffic_policy: IgnoredAny,
    #[serde(default, rename = "externalIPs")]
    _external_ips: IgnoredAny,
    #[serde(default, rename = "allocateLoadBalancerNodePorts")]
    _allocate_load_balancer_node_ports: IgnoredAny,
    #[serde(default, rename = "healthCheckNodePort")]
    _health_check_node_port: IgnoredAny,
    #[serde(default, rename = "loadBalancerClass")]
    _load_balancer_class: IgnoredAny,
    #[serde(default, rename = "loadBalancerIP")]
    _load_balancer_ip: IgnoredAny,
    #[serde(default, rename = "loadBalancerSourceRanges")]
    _load_balancer_source_ranges: IgnoredAny,
    #[serde(default, rename = "trafficDistribution")]
    _traffic_distribution: IgnoredAny,
}

/// An address family, as Kubernetes writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
pub enum IpFamily {
    /// Version 4.
    IPv4,
    /// Version 6.
    IPv6,
}

impl IpFamily {
    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() {
            Self::IPv4
        } else {
            Self::IPv6
        }
    }
}

/// One port of a [`Service`].
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServicePort {
    /// Its name; the part before the first '-' can say the protocol.
    #[serde(default)]
    pub name: String,
    /// The number that clients dial.
    pub port: NonZeroU16,
    /// The workload's port; the same number when none is written.
    #[serde(default)]
    pub target_port: Option<PortName>,
    /// TCP, unless another is written. Only TCP is captured.
    #[serde(default)]
    pub protocol: TransportProtocol,
    /// What is spoken on it; stronger than the name.
    #[serde(default)]
    pub app_protocol: Option<String>,
    #[serde(default, rename = "nodePort")]
    _node_port: IgnoredAny,
}

/// The protocol under the application's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum TransportProtocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// A port of a workload, by number or by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortName {
    /// By number.
    Number(NonZeroU16),
    /// By the name that the workload gives it.
    Name(String),
}

impl std::fmt::Display for PortName {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => write!(formatter, "{number}"),
            Self::Name(name) => write!(formatter, "{name:?}"),
        }
    }
}

impl<'de> Deserialize<'de> for PortName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = PortName;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("a port number from 1 to 65535, or a port name")
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<PortName, E> {
                u16::try_from(number)
                    .ok()
                    .and_then(NonZeroU16::new)
                    .map(PortName::Number)
                    .ok_or_else(|| E::invalid_value(serde::de::Unexpected::Unsigned(number), &self))
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<PortName, E> {
                if name.is_empty() {
                    return Err(E::invalid_value(serde::de::Unexpected::Str(name), &self));
                }
                Ok(PortName::Name(name.to_owned()))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl Service {
    /// Its own addresses; none when it is headless.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.address_texts()
            .filter_map(|(_, text)| text.parse().ok())
            .collect()
    }

    /// Whether clients dial the workloads' addresses.
    pub fn is_headless(&self) -> bool {
        self.address_texts()
            .next()
            .is_none_or(|(_, text)| text == "None")
    }

    /// Gives it an address where an API server would: a file that is yet to be applied has none.
    pub fn allot(&mut self, address: IpAddr) {
        if self.is_served() && self.address_texts().next().is_none() {
            self.spec.cluster_ip = Some(address.to_string());
        }
    }

    fn address_texts(&self) -> impl Iterator<Item = (String, &str)> {
        let listed = self.spec.cluster_ips.iter().enumerate();
        let listed =
            listed.map(|(index, text)| (format!("spec.clusterIPs[{index}]"), text.as_str()));
        // Kubernetes repeats the first of clusterIPs in clusterIP.
        let single = self
            .spec
            .cluster_ip
            .as_deref()
            .filter(|_| self.spec.cluster_ips.is_empty());
        let single = single.filter(|text| !text.is_empty());
        listed.chain(single.map(|text| ("spec.clusterIP".to_owned(), text)))
    }

    /// Whether the mesh has anything to do with it. An ExternalName is an alias that clients
    /// resolve themselves; their connections then go where the name leads.
    pub fn is_served(&self) -> bool {
        matches!(
            self.service_type(),
            "ClusterIP" | "NodePort" | "LoadBalancer"
        )
    }

    fn service_type(&self) -> &str {
        self.spec.service_type.as_deref().unwrap_or("ClusterIP")
    }

    pub(crate) fn limits(&self) -> Vec<FieldError> {
        let spec = &self.spec;
        let fields = [
            ("spec.sessionAffinity", &spec.session_affinity, "None"),
            (
                "spec.internalTrafficPolicy",
                &spec.internal_traffic_policy,
                "Cluster",
            ),
        ];
        let mut limits = Vec::new();
        if !self.is_served() {
            let reason = format!("{:?} is not supported: use ClusterIP", self.service_type());
            limits.push(FieldError::new("spec.type", reason));
        }
        for (path, value, supported) in fields {
            if let Some(value) = value.as_ref().filter(|value| *value != supported) {
                let reason = format!("{value:?} is not supported: use {supported}");
                limits.push(FieldError::new(path, reason));
            }
        }
        limits
    }

    pub(crate) fn validate(&self) -> Result<(), FieldError> {
        if !self.is_served() {
            return Ok(());
        }
        let count = self.address_texts().count();
        for (path, text) in self.address_texts() {
            let address = text.parse::<IpAddr>();
            let usable = address.is_ok_and(|address| {
                !address.is_unspecified() && !address.is_loopback() && !address.is_multicast()
            });
            let headless = text == "None" && count == 1;
            if !usable && !headless {
                return Err(FieldError::new(
                    path,
                    format!("{text:?} is not a unicast address"),
                ));
            }
        }
        self.validate_ports()
    }

    fn validate_ports(&self) -> Result<(), FieldError> {
        let ports = &self.spec.ports;
        for (index, port) in ports.iter().enumerate() {
            let path = format!("spec.ports[{index}]");
            if ports.len() > 1 && port.name.is_empty() {
                let reason = "needs a name, for the service has several ports";
                return Err(FieldError::new(format!("{path}.name"), reason));
            }
            let earlier = &ports[..index];
            if earlier.iter().any(|other| other.name == port.name) {
                let reason = format!("{:?} names an earlier port of the service", port.name);
                return Err(FieldError::new(format!("{path}.name"), reason));
            }
            let same =
                |other: &ServicePort| other.port == port.port && other.protocol == port.protocol;
            if earlier.iter().any(same) {
                let reason = format!("{} is an earlier port of the service", port.port);
                return Err(FieldError::new(format!("{path}.port"), reason));
            }
        }
        Ok(())
    }
}
