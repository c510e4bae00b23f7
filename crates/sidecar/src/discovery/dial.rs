//! How to reach the discovery servers that the bootstrap's clusters name.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use outrider_xds::ads::client::{
    ChannelFactory, MetadataSource, Options, Service, Variant, channel,
};
use outrider_xds::pb::envoy::config::core::v3::Node;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap};

use super::builtin;
use super::resolve;
use super::token::TokenFile;
use crate::config::address::Address;
use crate::config::cluster::{AssignmentSource, Cluster, ClusterDiscovery};
use crate::config::dns::{Dns, LookupFamily, LookupSettings, Name};
use crate::config::endpoint::{Endpoint, LoadAssignment};
use crate::config::secret::{Secret, ValidationContext};
use crate::config::source::{GrpcSource, Origin};
use crate::config::tls::{UpstreamTls, Validation};
use crate::tls::client::ServerNames;
use crate::upstream::{connect, transport_of};

/// What can be asked: the clusters that servers are reached by, and as whom.
#[derive(Clone, Debug)]
pub struct Dialer {
    /// Who we are.
    pub node: Node,
    /// `dynamic_resources.ads_config`
    pub aggregated: Option<GrpcSource>,
    /// The bootstrap's static clusters, by name. Discovered ones cannot be used: they come from
    /// what is to be reached here.
    pub clusters: BTreeMap<Arc<str>, Arc<Cluster>>,
    /// Whether the built-in secrets are there.
    pub builtin: bool,
    /// What proves to the aggregated server who we are.
    pub token_file: Option<TokenFile>,
}

/// Why an origin cannot be asked.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// There is no aggregated stream.
    #[error("names ads, but the bootstrap has no dynamic_resources.ads_config")]
    NoAggregated,
    /// There is no such cluster.
    #[error(
        "names the cluster `{0}`, which is not among the bootstrap's static_resources.clusters{hint}",
        hint = builtin_hint(.0)
    )]
    NoCluster(Arc<str>),
    /// The cluster does not say where its endpoints are.
    #[error(
        "names the cluster `{0}`, which must be STATIC, STRICT_DNS or LOGICAL_DNS to reach a \
         discovery server by"
    )]
    NotStatic(Arc<str>),
    /// It is a file.
    #[error("a file is no server")]
    File,
}

fn builtin_hint(cluster: &str) -> &'static str {
    match cluster {
        builtin::CLUSTER => " (the built-in source of that name needs OUTRIDER_CA_ADDRESS)",
        _ => "",
    }
}

impl Dialer {
    /// Whether `origin` can be asked at all, so that what names it can be refused.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, origin: &Origin) -> Result<(), DialError> {
        match origin {
            Origin::File { .. } => Ok(()),
            _ if self.is_builtin(origin) => Ok(()),
            _ => self.options(origin).map(drop),
        }
    }

    /// Whether the origin means the built-in secrets.
    pub fn is_builtin(&self, origin: &Origin) -> bool {
        match origin {
            Origin::Grpc(source) => {
                let named = &*source.cluster == builtin::CLUSTER;
                named && self.builtin && !self.clusters.contains_key(&source.cluster)
            }
            Origin::Ads | Origin::File { .. } => false,
        }
    }

    /// What a stream to the server of `origin` takes.
    ///
    /// # Errors
    /// [`DialError`]: the origin cannot be asked, now or later.
    pub fn options(&self, origin: &Origin) -> Result<Options, DialError> {
        let (source, service) = match origin {
            Origin::Ads => {
                let source = self.aggregated.as_ref().ok_or(DialError::NoAggregated)?;
                (source, Service::Aggregated)
            }
            Origin::Grpc(source) => (source, Service::Secrets),
            Origin::File { .. } => return Err(DialError::File),
        };
        let cluster = self
            .clusters
            .get(&source.cluster)
            .ok_or_else(|| DialError::NoCluster(source.cluster.clone()))?;
        match &cluster.discovery {
            ClusterDiscovery::Assignment {
                source: AssignmentSource::Static | AssignmentSource::Dns(_),
                ..
            } => {}
            _ => return Err(DialError::NotStatic(source.cluster.clone())),
        }
        let variant = match source.delta {
            true => Variant::Delta,
            false => Variant::StateOfTheWorld,
        };
        let authority = match &*source.authority {
            "" => authority_of(&source.cluster),
            authority => authority.to_owned(),
        };
        let target = cluster.clone();
        let channel: ChannelFactory = Arc::new(move || {
            let (cluster, authority) = (target.clone(), authority.clone());
            Box::pin(async move {
                let open = move || {
                    let cluster = cluster.clone();
                    async move { open(&cluster).await }
                };
                channel::over(&authority, open).await
            })
        });
        let mut options = Options::new(service, variant, self.node.clone(), channel);
        if let Some(bytes) = source.max_message_bytes {
            options.max_response = bytes as usize;
        }
        let token_file = match service {
            Service::Aggregated => self.token_file.clone(),
            Service::Secrets => None,
        };
        options.metadata = metadata(source, cluster.clone(), token_file);
        Ok(options)
    }
}

/// Envoy sends the cluster's name as the host. Names such as `outbound|80||svc` are no authority,
/// and what a server makes of one is nothing that matters.
fn authority_of(cluster: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let valid = !cluster.is_empty() && cluster.bytes().all(plain);
    if valid { cluster } else { "localhost" }.to_owned()
}

/// The headers of a stream: `initial_metadata`, and the token where it is safe with the server.
fn metadata(
    source: &GrpcSource,
    cluster: Arc<Cluster>,
    token_file: Option<TokenFile>,
) -> MetadataSource {
    let initial = source.metadata.clone();
    Arc::new(move || {
        let mut metadata = MetadataMap::new();
        if let Some(file) = &token_file {
            match token_is_safe(&cluster) {
                Ok(()) => metadata = file.metadata()?,
                Err(reason) => tracing::warn!(
                    cluster = %cluster.name,
                    "the token of {} is not sent to the discovery server: {reason}",
                    file.path().display()
                ),
            }
        }
        for header in &initial {
            // Neither is invalid: the configuration was checked. The error does not show the value.
            let name: AsciiMetadataKey = header.name.parse()?;
            let mut value: AsciiMetadataValue = header
                .value
                .parse()
                .map_err(|_| format!("initial_metadata `{}` is no header's value", header.name))?;
            value.set_sensitive(true);
            metadata.append(name, value);
        }
        Ok(metadata)
    })
}

/// A token goes only to a server that is certain to be the right one: whoever has it can be us.
fn token_is_safe(cluster: &Cluster) -> Result<(), &'static str> {
    let sockets = cluster.transport_socket_matches.iter();
    let transports = sockets.map(|socket| &socket.transport);
    for transport in transports.chain([&cluster.transport_socket]) {
        let Some(context) = transport.tls() else {
            return Err("the cluster's transport_socket is not TLS");
        };
        verifies(context.settings())?;
    }
    Ok(())
}

fn verifies(tls: &UpstreamTls) -> Result<(), &'static str> {
    let (defaults, slot) = match &tls.settings.validation {
        Validation::None => (None, None),
        Validation::Context(slot) => (None, Some(slot)),
        Validation::Combined { defaults, slot } => (Some(defaults), Some(slot)),
    };
    let secret = slot.and_then(|slot| slot.load());
    let discovered = match secret.as_deref() {
        Some(Secret::Validation(context)) => Some(context),
        _ => None,
    };
    let contexts: Vec<&ValidationContext> = defaults
        .map(AsRef::as_ref)
        .into_iter()
        .chain(discovered)
        .collect();
    if contexts.iter().any(|context| {
        !context.certificate_hashes.is_empty() || !context.public_key_hashes.is_empty()
    }) {
        return Ok(());
    }
    let has_roots = contexts
        .iter()
        .any(|context| !context.trusted_ca.is_empty() || context.spiffe.is_some());
    if !has_roots || contexts.iter().any(|context| context.accept_untrusted) {
        return Err("the cluster's validation_context does not verify the server: set trusted_ca");
    }
    let by_server_name = tls.auto_sni_san_validation && !tls.sni.is_empty();
    if !by_server_name
        && contexts
            .iter()
            .all(|context| context.subject_alt_names.is_empty())
    {
        return Err(
            "the cluster's validation_context takes any certificate of the mesh for the server's: \
             set match_typed_subject_alt_names",
        );
    }
    Ok(())
}

/// Any stream of bytes.
trait Connection: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Connection for T {}

/// An endpoint's `transport_socket_match`.
type Metadata = BTreeMap<String, serde_json::Value>;

/// Connects to the first address of the first endpoint that can be connected to, within
/// `connect_timeout` each. Names are resolved now.
async fn open(cluster: &Cluster) -> io::Result<Box<dyn Connection>> {
    let ClusterDiscovery::Assignment { slot, source } = &cluster.discovery else {
        return Err(io::Error::other("the cluster has no endpoints of its own"));
    };
    let mut failures = Vec::new();
    if let AssignmentSource::Dns(dns) = source {
        for endpoint in by_priority(&dns.assignment) {
            let Name { host, port } = &endpoint.address;
            let addresses = resolve::addresses_by(host, *port, &settings(dns)).await;
            match addresses {
                Ok(addresses) => {
                    for address in addresses {
                        let address = Address::Socket(address);
                        let metadata = &endpoint.transport_socket_match;
                        match open_in_time(cluster, &address, metadata).await {
                            Ok(stream) => return Ok(stream),
                            Err(failure) => failures.push(format!("{host}: {failure}")),
                        }
                    }
                }
                Err(error) => failures.push(error.to_string()),
            }
        }
    } else {
        for endpoint in by_priority(&slot.load().unwrap_or_default()) {
            let metadata = &endpoint.transport_socket_match;
            match open_in_time(cluster, &endpoint.address, metadata).await {
                Ok(stream) => return Ok(stream),
                Err(failure) => failures.push(failure),
            }
        }
    }
    let reason = match failures.is_empty() {
        true => "it has no endpoints".to_owned(),
        false => failures.join("; "),
    };
    Err(io::Error::other(format!(
        "cluster `{}`: {reason}",
        cluster.name
    )))
}

fn by_priority<P>(assignment: &LoadAssignment<P>) -> impl Iterator<Item = &Arc<Endpoint<P>>> {
    let mut localities: Vec<_> = assignment.localities.iter().collect();
    localities.sort_by_key(|locality| locality.priority);
    localities
        .into_iter()
        .flat_map(|locality| &locality.endpoints)
}

/// How the names of a discovery server are looked up: as the cluster says, but where it prefers a
/// family the other one is tried as well, since each address is tried in its turn.
fn settings(dns: &Dns) -> LookupSettings {
    let mut settings = dns.lookup.clone();
    if matches!(
        settings.family,
        LookupFamily::Auto | LookupFamily::V4Preferred
    ) {
        settings.family = LookupFamily::All;
    }
    settings
}

/// One attempt, or why it failed.
async fn open_in_time(
    cluster: &Cluster,
    address: &Address,
    metadata: &Metadata,
) -> Result<Box<dyn Connection>, String> {
    let limit = cluster.connect_timeout;
    match tokio::time::timeout(limit, open_one(cluster, address, metadata)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(format!("{address}: {error}")),
        Err(_) => Err(format!("{address}: no connection within {limit:?}")),
    }
}

async fn open_one(
    cluster: &Cluster,
    address: &Address,
    metadata: &Metadata,
) -> io::Result<Box<dyn Connection>> {
    let socket: Box<dyn Connection> = match address {
        Address::Socket(address) => Box::new(open_tcp(cluster, *address).await?),
        Address::Pipe(path) => Box::new(connect::connect_pipe(path).await?),
    };
    let transport = transport_of(cluster, metadata);
    if transport.proxy_protocol().is_some() {
        return Err(io::Error::other(
            "upstream_proxy_protocol has no client to tell of towards a discovery server",
        ));
    }
    let Some(context) = transport.tls() else {
        return Ok(socket);
    };
    let (config, name) = context
        .rustls_config(&[b"h2"], ServerNames::default())
        .map_err(io::Error::other)?;
    let tls = TlsConnector::from(Arc::new(config))
        .connect(name, socket)
        .await?;
    // A server that ignores ALPN may speak HTTP/2 all the same.
    match tls.get_ref().1.alpn_protocol() {
        None | Some(b"h2") => Ok(Box::new(tls)),
        Some(_) => Err(io::Error::other(
            "the server chose another protocol than HTTP/2",
        )),
    }
}

async fn open_tcp(cluster: &Cluster, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = connect::new_socket(address, cluster.keepalive.as_ref())?;
    if let Some(bind) = &cluster.bind {
        connect::prepare(&socket, bind, address).map_err(io::Error::other)?;
    }
    socket.connect(address).await
}

#[cfg(test)]
#[path = "dial_tests.rs"]
mod tests;
