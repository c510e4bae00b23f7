//! A discovery server for one proxy: the static listeners and clusters of the case, and more.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use outrider_xds::ads::ResourceType;
use outrider_xds::ads::server::{self, Answer, ResourceSet, Source, Versioned};
use outrider_xds::pb::envoy::config::core::v3::Node;
use outrider_xds::transcode::json_to_proto;
use serde_json::{Value, json};
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinHandle;
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Status, async_trait};

use super::connection::PATIENCE;
use super::file::{Resources, Setup};
use super::names::Names;

/// The name of the static cluster of the server.
const CLUSTER: &str = "conform-xds";

pub(super) struct Discovery {
    set: watch::Sender<Arc<ResourceSet>>,
    answers: Mutex<mpsc::UnboundedReceiver<Answer>>,
    /// What it begins with, placeholders and all.
    first: Resources,
    server: JoinHandle<()>,
}

struct Everybody {
    set: watch::Receiver<Arc<ResourceSet>>,
    answers: mpsc::UnboundedSender<Answer>,
}

#[async_trait]
impl Source for Everybody {
    type Caller = ();
    type Client = ();

    async fn authenticate(&self, _: &MetadataMap, _: &Extensions) -> Result<(), Status> {
        Ok(())
    }

    async fn admit(&self, _: Node, (): ()) -> Result<(), Status> {
        Ok(())
    }

    fn watch(&self, (): &()) -> watch::Receiver<Arc<ResourceSet>> {
        self.set.clone()
    }

    fn answered(&self, (): &(), answer: Answer) {
        let _ = self.answers.send(answer);
    }
}

impl Discovery {
    /// Starts a server, and makes a bootstrap get its listeners and clusters from it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) fn start(bootstrap: &mut Value, setup: &Setup, names: &mut Names) -> Result<Self> {
        let mut first = setup.xds.clone();
        let resources = &mut bootstrap["static_resources"];
        let mut moved = |key: &str| {
            resources[key]
                .take()
                .as_array()
                .cloned()
                .unwrap_or_default()
        };
        first
            .listeners
            .get_or_insert_default()
            .extend(moved("listeners"));
        first
            .clusters
            .get_or_insert_default()
            .extend(moved("clusters"));
        let listener = TcpListener::bind("127.0.0.1:0").context("bind the discovery server")?;
        listener.set_nonblocking(true)?;
        names.port("xds", listener.local_addr()?.port());
        add_server(bootstrap);
        let (set, receiver) = watch::channel(Arc::new(ResourceSet::new("0")));
        let (sender, answers) = mpsc::unbounded_channel();
        let source = Everybody {
            set: receiver,
            answers: sender,
        };
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let server = tokio::spawn(async move {
            let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
            let service = server::service(Arc::new(source), "conform");
            let served = tonic::transport::Server::builder().add_service(service);
            if let Err(error) = served.serve_with_incoming(incoming).await {
                eprintln!("conform: the discovery server ended: {error}");
            }
        });
        Ok(Self {
            set,
            answers: Mutex::new(answers),
            first,
            server,
        })
    }

    /// Gives it what it begins with.
    ///
    /// # Errors
    /// When a resource cannot be encoded.
    pub(super) fn fill(&self, names: &Names) -> Result<()> {
        self.put(&self.first, names)?;
        Ok(())
    }

    /// Replaces resources, and waits until the proxy has said what it makes of them.
    ///
    /// # Errors
    /// When a resource cannot be encoded.
    pub(super) async fn update(&self, update: &Resources, names: &Names) -> Result<Vec<String>> {
        let mut answers = self.answers.lock().await;
        while answers.try_recv().is_ok() {}
        let mut waiting: BTreeSet<ResourceType> = self.put(update, names)?;
        let version = self.set.borrow().version().to_owned();
        let mut lines = Vec::new();
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !waiting.is_empty() {
            match tokio::time::timeout_at(deadline, answers.recv()).await {
                Ok(Some(answer)) if answer.version == version => {
                    if waiting.remove(&answer.resource_type) {
                        let verdict = if answer.refusal.is_some() {
                            "refused"
                        } else {
                            "taken"
                        };
                        lines.push(format!("xds {}: {verdict}", answer.resource_type));
                    }
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => break,
            }
        }
        lines.extend(
            waiting
                .into_iter()
                .map(|kind| format!("xds {kind}: not answered")),
        );
        lines.sort();
        Ok(lines)
    }

    /// Which kinds changed.
    fn put(&self, resources: &Resources, names: &Names) -> Result<BTreeSet<ResourceType>> {
        let kinds = [
            (ResourceType::Cluster, &resources.clusters),
            (ResourceType::Endpoint, &resources.endpoints),
            (ResourceType::Listener, &resources.listeners),
            (ResourceType::Route, &resources.routes),
            (ResourceType::Secret, &resources.secrets),
            (ResourceType::Runtime, &resources.runtimes),
        ];
        let before = Arc::clone(&self.set.borrow());
        let number: u64 = before.version().parse().context("version")?;
        let mut set = before.as_ref().clone().versioned((number + 1).to_string());
        let mut changed = BTreeSet::new();
        for (kind, values) in kinds {
            let Some(values) = values else { continue };
            let mut all = server::Resources::new();
            for value in values {
                let mut value = value.clone();
                names.fill_value(&mut value)?;
                let key = if kind == ResourceType::Endpoint {
                    "cluster_name"
                } else {
                    "name"
                };
                let name = value[key]
                    .as_str()
                    .with_context(|| format!("a {kind} without {key}"))?;
                let bytes = json_to_proto(kind.message_name(), &value)
                    .with_context(|| format!("{kind} {name}"))?;
                all.insert(name.to_owned(), Versioned::encoded(kind, &bytes));
            }
            set = set.with(kind, Arc::new(all));
            changed.insert(kind);
        }
        self.set.send_replace(Arc::new(set));
        Ok(changed)
    }
}

impl Drop for Discovery {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn add_server(bootstrap: &mut Value) {
    let key = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    bootstrap["static_resources"] = json!({ "clusters": [{
        "name": CLUSTER,
        "type": "STATIC",
        "connect_timeout": "5s",
        "typed_extension_protocol_options": { key: {
            "@type": format!("type.googleapis.com/{key}"),
            "explicit_http_config": { "http2_protocol_options": {} },
        }},
        "load_assignment": {
            "cluster_name": CLUSTER,
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": { "socket_address": {
                "address": "127.0.0.1", "port_value": "${xds}",
            }}}}]}],
        },
    }]});
    let ads = json!({ "ads": {}, "resource_api_version": "V3" });
    bootstrap["dynamic_resources"] = json!({
        "ads_config": {
            "api_type": "DELTA_GRPC",
            "transport_api_version": "V3",
            "grpc_services": [{ "envoy_grpc": { "cluster_name": CLUSTER } }],
        },
        "cds_config": ads.clone(),
        "lds_config": ads,
    });
}
