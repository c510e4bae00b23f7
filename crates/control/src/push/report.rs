//! What `/debug/proxies` of the monitoring port answers: the proxies of one replica, and how what
//! they were sent fared. The `outrider` command reads the same types.

use std::net::IpAddr;
use std::time::SystemTime;

use outrider_xds::ads::ResourceType;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The answer of one replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaReport {
    /// The replica's pod, or empty outside a cluster.
    pub replica: String,
    /// The control plane's version.
    pub version: String,
    /// Its revision; empty for the default one.
    #[serde(default)]
    pub revision: String,
    /// The proxies that hold a discovery stream to this replica.
    pub proxies: Vec<ProxyReport>,
}

/// One connected proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProxyReport {
    /// The pod.
    pub name: String,
    /// The pod's namespace, confirmed by the proxy's credentials.
    pub namespace: String,
    /// The service account, confirmed likewise.
    pub service_account: String,
    /// The addresses of the pod.
    pub addresses: Vec<IpAddr>,
    /// The proxy's version as it says itself (`node.user_agent_version`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// `node.metadata.REVISION`; empty for the default revision.
    #[serde(default)]
    pub revision: String,
    /// The node that it runs on (`node.metadata.NODE_NAME`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// When this stream began, RFC 3339 in UTC.
    pub connected_since: String,
    /// When the last certificate that this replica signed for the pod ends, RFC 3339 in UTC; none
    /// where another replica signed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_expires: Option<String>,
    /// One entry for each kind of resource that the proxy asked for, in [`ResourceType`]'s order.
    pub kinds: Vec<KindReport>,
}

/// How one kind of resource fared at one proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KindReport {
    /// [`kind_name`]
    pub kind: String,
    /// How many resources of this kind the proxy is to have.
    pub resources: usize,
    /// The last version that was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<String>,
    /// The last version that was accepted whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<String>,
    /// What it refused since, if the last thing it answered was a refusal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
}

/// Why a proxy keeps its last good resources.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// The version that it refused.
    pub version: String,
    /// The proxy's own words.
    pub reason: String,
    /// The objects of the mesh that the refused resources were made from.
    #[serde(default)]
    pub objects: Vec<String>,
}

/// A time as the reports have it.
pub(super) fn timestamp(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time);
    let whole = time.replace_nanosecond(0).unwrap_or(time);
    // Only years that no clock shows cannot be written.
    whole.format(&Rfc3339).unwrap_or_default()
}

/// The name of a kind in [`KindReport`]: `clusters`, `endpoints`, `listeners`, `routes`, `secrets`,
/// `runtimes`.
pub fn kind_name(kind: ResourceType) -> &'static str {
    match kind {
        ResourceType::Cluster => "clusters",
        ResourceType::Endpoint => "endpoints",
        ResourceType::Listener => "listeners",
        ResourceType::Route => "routes",
        ResourceType::Secret => "secrets",
        ResourceType::Runtime => "runtimes",
    }
}
