//! What `/config_dump` shows: every resource as it came, with its version and how it fared.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::SystemTime;

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::slot::Slot;
use crate::config::secret::Secret;

/// The kinds of resources that are dumped, in Envoy's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `ClustersConfigDump`
    Cluster,
    /// `EndpointsConfigDump`
    Endpoints,
    /// `ListenersConfigDump`
    Listener,
    /// `RoutesConfigDump`
    Routes,
    /// `SecretsConfigDump`
    Secret,
}

impl Kind {
    /// The full name of the resource's message.
    pub const fn type_name(self) -> &'static str {
        match self {
            Kind::Cluster => "envoy.config.cluster.v3.Cluster",
            Kind::Endpoints => "envoy.config.endpoint.v3.ClusterLoadAssignment",
            Kind::Listener => "envoy.config.listener.v3.Listener",
            Kind::Routes => "envoy.config.route.v3.RouteConfiguration",
            Kind::Secret => "envoy.extensions.transport_sockets.tls.v3.Secret",
        }
    }
}

/// How far a resource has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// From the bootstrap file.
    Static,
    /// In force.
    Active,
    /// Waiting for what it refers to.
    Warming,
}

#[derive(Clone)]
struct Entry {
    bytes: Arc<[u8]>,
    version: Arc<str>,
    updated: SystemTime,
    state: State,
}

#[derive(Clone)]
struct Refused {
    version: Arc<str>,
    reason: String,
    at: SystemTime,
}

/// All resources as they came. Filled by the control thread, read by the admin API.
#[derive(Default)]
pub struct Dump {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    bootstrap: Option<(Arc<[u8]>, SystemTime)>,
    entries: BTreeMap<(Kind, Arc<str>), Entry>,
    refused: BTreeMap<(Kind, Arc<str>), Refused>,
    secrets: Vec<Weak<Slot<Secret>>>,
}

impl Dump {
    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bootstrap file as proto.
    pub fn set_bootstrap(&self, bytes: Arc<[u8]>) {
        self.lock().bootstrap = Some((bytes, SystemTime::now()));
    }

    /// A resource was accepted, or has got further.
    pub fn accepted(
        &self,
        kind: Kind,
        name: &Arc<str>,
        version: &Arc<str>,
        bytes: &Arc<[u8]>,
        state: State,
    ) {
        let mut inner = self.lock();
        inner.refused.remove(&(kind, name.clone()));
        let updated = SystemTime::now();
        let entry = Entry {
            bytes: bytes.clone(),
            version: version.clone(),
            updated,
            state,
        };
        inner.entries.insert((kind, name.clone()), entry);
    }

    /// A warming resource is in force.
    pub fn warmed(&self, kind: Kind, name: &Arc<str>) {
        if let Some(entry) = self.lock().entries.get_mut(&(kind, name.clone()))
            && entry.state == State::Warming
        {
            entry.state = State::Active;
        }
    }

    /// A resource was refused; the one before it stays.
    pub fn refused(&self, kind: Kind, name: &Arc<str>, version: &Arc<str>, reason: String) {
        let refused = Refused {
            version: version.clone(),
            reason,
            at: SystemTime::now(),
        };
        self.lock().refused.insert((kind, name.clone()), refused);
    }

    /// A resource has gone.
    pub fn removed(&self, kind: Kind, name: &Arc<str>) {
        let mut inner = self.lock();
        inner.entries.remove(&(kind, name.clone()));
        inner.refused.remove(&(kind, name.clone()));
    }

    /// A secret whose present value `/certs` shows for as long as something uses it.
    pub fn watch_secret(&self, slot: &Arc<Slot<Secret>>) {
        let mut inner = self.lock();
        inner.secrets.retain(|slot| slot.strong_count() > 0);
        inner.secrets.push(Arc::downgrade(slot));
    }

    /// Whether the bootstrap file has a resource of that name.
    pub fn is_static(&self, kind: Kind, name: &Arc<str>) -> bool {
        let inner = self.lock();
        let entry = inner.entries.get(&(kind, name.clone()));
        entry.is_some_and(|entry| entry.state == State::Static)
    }

    /// What waits for what it refers to: clusters, and listeners.
    pub fn warming(&self) -> (Vec<Arc<str>>, Vec<Arc<str>>) {
        let inner = self.lock();
        let of = |wanted: Kind| {
            let entries = inner.entries.iter();
            let warming = entries
                .filter(|((kind, _), entry)| *kind == wanted && entry.state == State::Warming);
            warming.map(|((_, name), _)| name.clone()).collect()
        };
        (of(Kind::Cluster), of(Kind::Listener))
    }

    /// The secrets in use.
    pub fn secrets(&self) -> Vec<Arc<Secret>> {
        self.lock()
            .secrets
            .iter()
            .filter_map(Weak::upgrade)
            .filter_map(|slot| slot.load())
            .collect()
    }

    /// The page, in the form of `envoy.admin.v3.ConfigDump`. Private keys and inline secrets are
    /// replaced by `[redacted]`.
    pub fn render(&self) -> Value {
        // Copied first: rendering takes long, and discovery must not wait for it.
        let (bootstrap, entries, refused) = {
            let inner = self.lock();
            (
                inner.bootstrap.clone(),
                inner.entries.clone(),
                inner.refused.clone(),
            )
        };
        let mut configs = Vec::new();
        if let Some((bytes, updated)) = bootstrap {
            configs.push(json!({
                "@type": "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump",
                "bootstrap": message("envoy.config.bootstrap.v3.Bootstrap", &bytes),
                "last_updated": rfc3339(updated),
            }));
        }
        for kind in [
            Kind::Cluster,
            Kind::Endpoints,
            Kind::Listener,
            Kind::Routes,
            Kind::Secret,
        ] {
            let of_kind = |state: State| {
                entries
                    .iter()
                    .filter(move |((k, _), entry)| *k == kind && entry.state == state)
                    .map(|((_, name), entry)| (name, entry))
            };
            let refused = refused.iter().filter(|((k, _), _)| *k == kind).map(|((_, name), refused)| {
                json!({
                    "name": &**name, "version_info": &*refused.version,
                    "error_state": {"details": refused.reason, "last_update_attempt": rfc3339(refused.at)},
                })
            });
            let render = |state| {
                of_kind(state)
                    .map(|(name, entry)| shown(kind, name, entry))
                    .collect::<Vec<_>>()
            };
            let mut fixed = render(State::Static);
            let holder = match kind {
                Kind::Routes => Some(Kind::Listener),
                Kind::Endpoints => Some(Kind::Cluster),
                Kind::Cluster | Kind::Listener | Kind::Secret => None,
            };
            // What lies within others is dumped apart too, where these are in force.
            for ((_, name), entry) in entries
                .iter()
                .filter(|((of, _), entry)| Some(*of) == holder && entry.state != State::Warming)
            {
                let resource = match holder {
                    Some(Kind::Listener) => inline_routes(entry),
                    _ => inline_endpoints(name, entry),
                };
                fixed.extend(resource);
            }
            configs.push(section(
                kind,
                fixed,
                render(State::Active),
                render(State::Warming),
                refused.collect(),
            ));
        }
        json!({ "configs": configs })
    }
}

fn message(type_name: &str, bytes: &[u8]) -> Value {
    outrider_xds::transcode::proto_to_json(type_name, bytes)
        .unwrap_or_else(|error| json!({ "error": error.to_string() }))
}

/// The route tables within the connection managers of a listener.
fn inline_routes(entry: &Entry) -> Vec<Value> {
    let listener = message(Kind::Listener.type_name(), &entry.bytes);
    let chains = listener["filter_chains"].as_array().into_iter().flatten();
    let chains = chains.chain(listener.get("default_filter_chain"));
    let filters = chains.flat_map(|chain| chain["filters"].as_array().into_iter().flatten());
    filters
        .filter_map(|filter| filter["typed_config"].get("route_config"))
        .map(|routes| {
            json!({
                "route_config": with_type(Kind::Routes, routes.clone()),
                "last_updated": rfc3339(entry.updated),
            })
        })
        .collect()
}

/// The endpoints within a cluster, which has their name unless they have one.
fn inline_endpoints(name: &str, entry: &Entry) -> Vec<Value> {
    let cluster = message(Kind::Cluster.type_name(), &entry.bytes);
    let assignment = cluster.get("load_assignment").cloned();
    let shown = assignment.map(|mut assignment| {
        assignment["cluster_name"] = name.into();
        json!({
            "endpoint_config": with_type(Kind::Endpoints, assignment),
            "last_updated": rfc3339(entry.updated),
        })
    });
    shown.into_iter().collect()
}

/// A resource with its type, which stands within an `Any` in Envoy's dump.
fn with_type(kind: Kind, mut resource: Value) -> Value {
    if let Value::Object(fields) = &mut resource {
        let url = format!("type.googleapis.com/{}", kind.type_name());
        fields.insert("@type".into(), url.into());
    }
    resource
}

fn shown(kind: Kind, name: &str, entry: &Entry) -> Value {
    let resource = with_type(kind, message(kind.type_name(), &entry.bytes));
    let (version, updated) = (&*entry.version, rfc3339(entry.updated));
    match kind {
        Kind::Cluster => {
            json!({"version_info": version, "cluster": resource, "last_updated": updated})
        }
        Kind::Endpoints => {
            json!({"version_info": version, "endpoint_config": resource, "last_updated": updated})
        }
        Kind::Routes => {
            json!({"version_info": version, "route_config": resource, "last_updated": updated})
        }
        Kind::Secret => {
            json!({"name": name, "version_info": version, "last_updated": updated, "secret": resource})
        }
        Kind::Listener if entry.state == State::Static => {
            json!({"listener": resource, "last_updated": updated})
        }
        Kind::Listener => {
            let key = if entry.state == State::Warming {
                "warming_state"
            } else {
                "active_state"
            };
            json!({"name": name, key: {"version_info": version, "listener": resource, "last_updated": updated}})
        }
    }
}

fn section(
    kind: Kind,
    fixed: Vec<Value>,
    active: Vec<Value>,
    warming: Vec<Value>,
    refused: Vec<Value>,
) -> Value {
    let (message, names): (_, &[&str]) = match kind {
        Kind::Cluster => (
            "Clusters",
            &[
                "static_clusters",
                "dynamic_active_clusters",
                "dynamic_warming_clusters",
            ],
        ),
        Kind::Endpoints => (
            "Endpoints",
            &["static_endpoint_configs", "dynamic_endpoint_configs"],
        ),
        Kind::Listener => ("Listeners", &["static_listeners", "dynamic_listeners"]),
        Kind::Routes => ("Routes", &["static_route_configs", "dynamic_route_configs"]),
        Kind::Secret => (
            "Secrets",
            &[
                "static_secrets",
                "dynamic_active_secrets",
                "dynamic_warming_secrets",
            ],
        ),
    };
    let mut section = serde_json::Map::new();
    section.insert(
        "@type".into(),
        format!("type.googleapis.com/envoy.admin.v3.{message}ConfigDump").into(),
    );
    let lists = if names.len() == 3 {
        vec![fixed, active, [warming, refused].concat()]
    } else {
        vec![fixed, [active, warming, refused].concat()]
    };
    for (name, list) in names.iter().zip(lists) {
        section.insert((*name).into(), list.into());
    }
    section.into()
}

fn rfc3339(time: SystemTime) -> String {
    OffsetDateTime::from(time)
        .format(&Rfc3339)
        .unwrap_or_default()
}
