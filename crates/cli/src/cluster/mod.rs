//! Access to the cluster, with errors that say what was asked for.

mod forward;
mod installation;

use std::fmt::Debug;

use kube::api::ListParams;
use kube::client::UpgradeConnectionError;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, Resource};
use serde::de::DeserializeOwned;

use crate::flags::Global;

pub(crate) use forward::{ForwardError, Forwarder};
pub(crate) use installation::{AUTHORITY, INJECT, Installation, REVISION, ROOT};

/// Why the cluster did not give what was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClusterError {
    /// The file cannot be read, or names no such context.
    #[error("{file}: {source}")]
    Kubeconfig {
        /// Which file.
        file: String,
        /// What is wrong with it.
        source: Box<kube::config::KubeconfigError>,
    },
    /// Neither a kubeconfig nor a pod's own credentials.
    #[error(
        "no cluster is known: {0}; give --kubeconfig FILE, or set KUBECONFIG, or run in a pod \
         with a service account"
    )]
    NoConfiguration(Box<kube::config::InferConfigError>),
    /// The configuration of the connection does not work.
    #[error("connecting to {server}: {source}")]
    Client {
        /// The API server.
        server: String,
        /// Why.
        source: Box<kube::Error>,
    },
    /// The API server refused or could not be reached.
    #[error("{what}: {}", describe(.source))]
    Api {
        /// What was tried.
        what: String,
        /// Why not.
        source: Box<kube::Error>,
    },
}

impl ClusterError {
    /// Whether the API server answered, and that this caller may not.
    pub(crate) fn is_forbidden(&self) -> bool {
        matches!(self, Self::Api { source, .. } if is_forbidden(source))
    }
}

/// Whether an error is the API server's refusal to this caller.
pub(crate) fn is_forbidden(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => status.code == 403,
        kube::Error::UpgradeConnection(UpgradeConnectionError::ProtocolSwitch(status)) => {
            *status == http::StatusCode::FORBIDDEN
        }
        _ => false,
    }
}

/// The words of an error without the noise around them.
pub(crate) fn describe(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        return status.message.clone();
    }
    let mut text = String::new();
    let mut next: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = next {
        let line = error.to_string();
        // Most layers repeat the words of the one below.
        if !text.contains(&line) {
            let separator = if text.is_empty() { "" } else { ": " };
            text = format!("{text}{separator}{line}");
        }
        next = error.source();
    }
    text
}

/// A cluster that can be asked.
#[derive(Clone)]
pub(crate) struct Cluster {
    client: Client,
    server: String,
    namespace: String,
}

impl Cluster {
    /// Prepares the connection; nothing is sent yet.
    ///
    /// # Errors
    /// There is no usable configuration.
    pub(crate) fn prepare(config: Config) -> Result<Self, ClusterError> {
        let server = config.cluster_url.to_string();
        let namespace = config.default_namespace.clone();
        let client = Client::try_from(config).map_err(|source| ClusterError::Client {
            server: server.clone(),
            source: Box::new(source),
        })?;
        Ok(Self {
            client,
            server,
            namespace,
        })
    }

    /// The cluster that the flags name.
    ///
    /// # Errors
    /// There is no usable configuration.
    pub(crate) async fn of(flags: &Global) -> Result<Self, ClusterError> {
        let options = KubeConfigOptions {
            context: flags.context.clone(),
            ..KubeConfigOptions::default()
        };
        let file = flags.kubeconfig.as_ref();
        let config = match file {
            Some(path) => match Kubeconfig::read_from(path) {
                Ok(config) => Config::from_custom_kubeconfig(config, &options).await,
                Err(error) => Err(error),
            },
            None if options.context.is_some() => Config::from_kubeconfig(&options).await,
            None => {
                let config = Config::infer().await;
                return Self::prepare(
                    config.map_err(|error| ClusterError::NoConfiguration(Box::new(error)))?,
                );
            }
        };
        Self::prepare(config.map_err(|source| ClusterError::Kubeconfig {
            file: file.map_or_else(
                || "the kubeconfig".to_owned(),
                |path| path.display().to_string(),
            ),
            source: Box::new(source),
        })?)
    }

    /// The client, for what has no method here.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// The API server's address.
    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    /// The namespace of the context.
    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// All objects of a kind, in one namespace or in all.
    ///
    /// # Errors
    /// The API server refuses or cannot be reached.
    pub(crate) async fn list<K>(
        &self,
        namespace: Option<&str>,
        parameters: &ListParams,
    ) -> Result<Vec<K>, ClusterError>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + DeserializeOwned,
    {
        let api: Api<K> = match namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        all(&api, parameters).await
    }

    /// All objects of a kind that has no namespace.
    ///
    /// # Errors
    /// The API server refuses or cannot be reached.
    pub(crate) async fn list_global<K>(&self) -> Result<Vec<K>, ClusterError>
    where
        K: Resource<Scope = k8s_openapi::ClusterResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + DeserializeOwned,
    {
        all(&Api::<K>::all(self.client.clone()), &ListParams::default()).await
    }

    /// One object, or none if there is none of that name.
    ///
    /// # Errors
    /// The API server refuses or cannot be reached.
    pub(crate) async fn find<K>(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<K>, ClusterError>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + DeserializeOwned,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let found = api.get_opt(name).await;
        found.map_err(|source| ClusterError::Api {
            what: format!("reading {} {namespace}/{name}", K::kind(&())),
            source: Box::new(source),
        })
    }

    /// One object of a kind that has no namespace.
    ///
    /// # Errors
    /// The API server refuses or cannot be reached.
    pub(crate) async fn find_global<K>(&self, name: &str) -> Result<Option<K>, ClusterError>
    where
        K: Resource<Scope = k8s_openapi::ClusterResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + DeserializeOwned,
    {
        let found = Api::<K>::all(self.client.clone()).get_opt(name).await;
        found.map_err(|source| ClusterError::Api {
            what: format!("reading {} {name}", K::kind(&())),
            source: Box::new(source),
        })
    }
}

/// How many objects a page of a list has: enough to be few requests, few enough to be light ones.
const PAGE: u32 = 500;

async fn all<K>(api: &Api<K>, parameters: &ListParams) -> Result<Vec<K>, ClusterError>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let mut objects = Vec::new();
    let mut parameters = parameters.clone().limit(PAGE);
    loop {
        let page = api.list(&parameters).await;
        let page = page.map_err(|source| ClusterError::Api {
            what: format!("listing {}", K::plural(&())),
            source: Box::new(source),
        })?;
        objects.extend(page.items);
        match page.metadata.continue_.filter(|next| !next.is_empty()) {
            Some(next) => parameters = parameters.continue_token(&next),
            None => return Ok(objects),
        }
    }
}
