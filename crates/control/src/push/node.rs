//! Who a proxy says it is.

use std::collections::BTreeMap;
use std::net::IpAddr;

use outrider_xds::pb::envoy::config::core::v3::Node;
use outrider_xds::pb::envoy::config::core::v3::node::UserAgentVersionType;
use outrider_xds::pb::google::protobuf::value::Kind;
use outrider_xds::pb::google::protobuf::{Struct, Value};

use crate::authenticate::Caller;
use crate::mesh::MeshState;
use crate::translate::Proxy;

/// Why a node gets nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    /// The id is not of the form that sidecars have.
    #[error(
        "node.id {0:?} is not sidecar~<address>~<workload>.<namespace>~<namespace>.svc.<domain>"
    )]
    Id(String),
    /// A field of the metadata is not what it should be.
    #[error("node.metadata.{field}: {reason}")]
    Metadata {
        /// Which.
        field: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The node claims what its credentials do not confirm.
    #[error("{field} names {claimed:?}, but the credentials are those of {account}")]
    Another {
        /// Where it claims it.
        field: &'static str,
        /// What it claims.
        claimed: String,
        /// Whose the credentials are.
        account: String,
    },
    /// The node claims an address that is another's.
    #[error("the node claims the address {address}, which is {owner}'s, not its own")]
    Address {
        /// Which.
        address: IpAddr,
        /// Whose it is, by the registry.
        owner: String,
    },
}

/// What a node tells of itself for people to read; nothing depends on it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeDescription {
    /// The proxy's version.
    pub version: Option<String>,
    /// The revision of the mesh that it was injected by; empty for the default one.
    pub revision: String,
    /// The machine that it runs on.
    pub node: Option<String>,
}

/// The longest text that a description holds.
const MAX_DESCRIPTION: usize = 256;

impl NodeDescription {
    /// As far as the node tells.
    pub fn of(node: &Node) -> Self {
        let short = |text: &str| text.chars().take(MAX_DESCRIPTION).collect::<String>();
        let metadata = |name| match field(node.metadata.as_ref(), name) {
            Some(Kind::StringValue(text)) => Some(short(text)),
            _ => None,
        };
        let version = match &node.user_agent_version_type {
            Some(UserAgentVersionType::UserAgentVersion(version)) => Some(short(version)),
            Some(UserAgentVersionType::UserAgentBuildVersion(build)) => {
                build.version.as_ref().map(|version| {
                    let [major, minor, patch] =
                        [version.major_number, version.minor_number, version.patch];
                    format!("{major}.{minor}.{patch}")
                })
            }
            None => None,
        };
        Self {
            version,
            revision: metadata("REVISION").unwrap_or_default(),
            node: metadata("NODE_NAME"),
        }
    }
}

/// The proxy behind a node: what it says of itself, as far as its credentials confirm it.
///
/// # Errors
/// The node is malformed, or names another's namespace, account or pod.
pub fn proxy_of(node: &Node, caller: &Caller) -> Result<Proxy, NodeError> {
    let account = &caller.account;
    let (address, name, namespace) = parse_id(&node.id)?;
    let check = |field, claimed: &str, confirmed: &str| {
        if claimed == confirmed {
            return Ok(());
        }
        let (claimed, account) = (claimed.to_owned(), account.to_string());
        Err(NodeError::Another {
            field,
            claimed,
            account,
        })
    };
    check("node.id", &namespace, account.namespace())?;
    if let Some(pod) = &caller.pod
        && pod.name != name
    {
        return Err(NodeError::Another {
            field: "node.id",
            claimed: name,
            account: format!("pod {} of {account}", pod.name),
        });
    }
    let metadata = node.metadata.as_ref();
    if let Some(claimed) = text(metadata, "NAMESPACE")? {
        check("node.metadata.NAMESPACE", claimed, account.namespace())?;
    }
    if let Some(claimed) = text(metadata, "SERVICE_ACCOUNT")? {
        check("node.metadata.SERVICE_ACCOUNT", claimed, account.name())?;
    }
    let mut addresses = vec![address];
    for part in text(metadata, "INSTANCE_IPS")?
        .unwrap_or_default()
        .split(',')
    {
        let part = part.trim();
        if part.is_empty() {
            continue;
        }
        let address = part.parse().map_err(|_| NodeError::Metadata {
            field: "INSTANCE_IPS",
            reason: format!("{part:?} is not an address"),
        })?;
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    let labels = labels(metadata)?;
    Ok(Proxy {
        name: format!("{name}.{namespace}"),
        account: account.clone(),
        addresses,
        labels,
    })
}

/// Checks that what a pod claims for its addresses is not known to be another workload's. One that
/// the registry does not know (yet) is taken: it stands behind no service. Credentials that do not
/// tell the pod get nothing of another account's workload either: the translation sees to that.
///
/// # Errors
/// The registry knows an address as another's.
pub fn confirm_addresses(
    proxy: &Proxy,
    caller: &Caller,
    mesh: &MeshState,
) -> Result<(), NodeError> {
    let Some(pod) = &caller.pod else {
        return Ok(());
    };
    for address in &proxy.addresses {
        let Some(workload) = mesh.workload(*address) else {
            continue;
        };
        let name = &workload.name;
        if name.name != pod.name || name.namespace != caller.account.namespace() {
            return Err(NodeError::Address {
                address: *address,
                owner: name.to_string(),
            });
        }
    }
    Ok(())
}

fn parse_id(id: &str) -> Result<(IpAddr, String, String), NodeError> {
    let malformed = || NodeError::Id(id.chars().take(256).collect());
    let mut parts = id.split('~');
    let parts = (
        parts.next(),
        parts.next(),
        parts.next(),
        parts.next(),
        parts.next(),
    );
    let (Some("sidecar"), Some(address), Some(workload), Some(domain), None) = parts else {
        return Err(malformed());
    };
    let address = address.parse().map_err(|_| malformed())?;
    let (name, namespace) = workload.rsplit_once('.').ok_or_else(malformed)?;
    let in_domain = domain
        .strip_prefix(namespace)
        .is_some_and(|rest| rest.starts_with(".svc."));
    if name.is_empty() || namespace.is_empty() || !in_domain {
        return Err(malformed());
    }
    Ok((address, name.to_owned(), namespace.to_owned()))
}

fn field<'a>(metadata: Option<&'a Struct>, name: &str) -> Option<&'a Kind> {
    let value: &Value = metadata?.fields.get(name)?;
    value
        .kind
        .as_ref()
        .filter(|kind| !matches!(kind, Kind::NullValue(_)))
}

fn text<'a>(
    metadata: Option<&'a Struct>,
    name: &'static str,
) -> Result<Option<&'a str>, NodeError> {
    match field(metadata, name) {
        None => Ok(None),
        Some(Kind::StringValue(text)) => Ok(Some(text)),
        Some(_) => Err(NodeError::Metadata {
            field: name,
            reason: "must be a string".to_owned(),
        }),
    }
}

fn labels(metadata: Option<&Struct>) -> Result<BTreeMap<String, String>, NodeError> {
    let wrong = |reason: &str| NodeError::Metadata {
        field: "LABELS",
        reason: reason.to_owned(),
    };
    let fields = match field(metadata, "LABELS") {
        None => return Ok(BTreeMap::new()),
        Some(Kind::StructValue(labels)) => &labels.fields,
        Some(_) => return Err(wrong("must be a map of strings")),
    };
    fields
        .iter()
        .map(|(name, value)| match &value.kind {
            Some(Kind::StringValue(value)) => Ok((name.clone(), value.clone())),
            _ => Err(wrong("must be a map of strings")),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authenticate::BoundPod;
    use outrider_identity::ServiceAccount;

    fn cart(pod: Option<&str>) -> Caller {
        Caller {
            account: ServiceAccount::new("shop", "cart").unwrap(),
            pod: pod.map(|name| BoundPod {
                name: name.to_owned(),
                uid: "1".to_owned(),
            }),
        }
    }

    fn node(id: &str, metadata: &[(&str, &str)]) -> Node {
        let value = |text: &str| Value {
            kind: Some(Kind::StringValue(text.to_owned())),
        };
        let fields = metadata
            .iter()
            .map(|(name, text)| ((*name).to_owned(), value(text)));
        Node {
            id: id.to_owned(),
            metadata: Some(Struct {
                fields: fields.collect(),
            }),
            ..Node::default()
        }
    }

    const ID: &str = "sidecar~10.0.0.1~cart-1.x.shop~shop.svc.cluster.local";

    #[test]
    fn a_confirmed_node_is_a_proxy() {
        let metadata = [
            ("NAMESPACE", "shop"),
            ("SERVICE_ACCOUNT", "cart"),
            ("INSTANCE_IPS", "10.0.0.1, fd00::1"),
        ];
        let proxy = proxy_of(&node(ID, &metadata), &cart(None)).unwrap();
        assert_eq!(proxy.name, "cart-1.x.shop");
        assert_eq!(proxy.addresses.len(), 2);
        for pod in [None, Some("cart-1.x")] {
            assert!(proxy_of(&node(ID, &[]), &cart(pod)).is_ok());
        }
        let error = proxy_of(&node(ID, &[]), &cart(Some("cart-2"))).unwrap_err();
        assert_eq!(
            error.to_string(),
            "node.id names \"cart-1.x\", but the credentials are those of pod cart-2 of shop/cart"
        );
    }

    #[test]
    fn anything_else_is_refused() {
        type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);
        let cases: &[Case<'_>] = &[
            ("", &[], "node.id"),
            (
                "router~10.0.0.1~a.shop~shop.svc.cluster.local",
                &[],
                "node.id",
            ),
            ("sidecar~x~a.shop~shop.svc.cluster.local", &[], "node.id"),
            ("sidecar~10.0.0.1~a~shop.svc.cluster.local", &[], "node.id"),
            (
                "sidecar~10.0.0.1~a.shop~bank.svc.cluster.local",
                &[],
                "node.id",
            ),
            (
                "sidecar~10.0.0.1~a.bank~bank.svc.cluster.local",
                &[],
                "\"bank\"",
            ),
            (ID, &[("NAMESPACE", "bank")], "NAMESPACE"),
            (ID, &[("SERVICE_ACCOUNT", "till")], "\"till\""),
            (ID, &[("INSTANCE_IPS", "10.0.0.1,x")], "INSTANCE_IPS"),
            (ID, &[("LABELS", "x")], "LABELS"),
        ];
        for (id, metadata, part) in cases {
            let error = proxy_of(&node(id, metadata), &cart(None))
                .unwrap_err()
                .to_string();
            assert!(error.contains(part), "{error:?} should contain {part:?}");
        }
    }
}
