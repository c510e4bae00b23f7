//! What the control plane does with the API server of a cluster beside reading its registry: take
//! its authority from a Secret, have tokens reviewed, elect a leader, and (the leader) keep what the
//! mesh needs in the cluster as it should be.

mod announcement;
pub mod authority;
mod election;
mod injector_certificate;
pub mod lease;
pub mod owner;
mod publication;
mod refusals;
mod retries;
mod rotation;
mod secret_texts;
pub mod status;
pub mod token_review;
pub mod trust_bundle;
pub mod webhook;

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::authenticate::Tokens;
use crate::metrics::Metrics;
use crate::signing::CurrentAuthority;

use authority::AuthoritySecret;
use trust_bundle::TrustBundles;
use webhook::WebhookUpkeep;

pub use authority::{AuthorityOptions, SecretError};
pub use lease::{Leadership, LeaseOptions};
pub use owner::Owner;
pub use token_review::{ReviewError, TokenReviewer};
pub use webhook::WebhookOptions;

/// Everything that the upkeep of a cluster is told.
#[derive(Debug)]
pub struct ClusterOptions {
    /// The pod that this runs in.
    pub pod_name: String,
    /// The revision of this control plane; empty for the default one.
    pub revision: String,
    /// The authority's Secret, in the namespace of the control plane.
    pub authority: AuthorityOptions,
    /// The injector's MutatingWebhookConfiguration, whose Service has the same name; none when
    /// somebody else gives it its certificates.
    pub webhook: Option<String>,
    /// The DNS suffix of services.
    pub cluster_domain: String,
}

impl ClusterOptions {
    /// The Lease of this revision's replicas, and its ClusterRole.
    fn lease(&self) -> String {
        self.name("outrider-control")
    }

    /// The name of one of this revision's objects.
    fn name(&self, base: &str) -> String {
        match self.revision.as_str() {
            "" => base.to_owned(),
            revision => format!("{base}-{revision}"),
        }
    }

    fn webhook(&self) -> Option<WebhookOptions> {
        let configuration = self.webhook.clone()?;
        let namespace = self.authority.namespace.clone();
        let host = format!("{configuration}.{namespace}.svc");
        Some(WebhookOptions {
            names: vec![host.clone(), format!("{host}.{}", self.cluster_domain)],
            secret: self.name("outrider-injector-tls"),
            configuration,
            namespace,
        })
    }
}

/// The upkeep of a cluster, while it lives.
#[derive(Debug)]
pub struct Upkeep {
    /// The authority in force.
    pub authority: CurrentAuthority,
    /// Who judges tokens.
    pub tokens: Tokens,
    leadership: Leadership,
    /// Of the Lease that all revisions share.
    status: Leadership,
    tasks: JoinSet<()>,
}

impl Upkeep {
    /// Opens the authority, which an empty Secret is given, and takes up everything else.
    ///
    /// # Errors
    /// There is no authority that could serve a mesh; see [`SecretError`].
    pub async fn start(
        client: kube::Client,
        options: ClusterOptions,
        metrics: Arc<Metrics>,
        stop: watch::Receiver<bool>,
    ) -> Result<Self, SecretError> {
        let control = options.lease();
        let owner = Owner::new(client.clone(), &control);
        let webhook = options.webhook();
        let lease = |name: &str| LeaseOptions {
            namespace: options.authority.namespace.clone(),
            name: name.to_owned(),
            candidate: options.pod_name.clone(),
        };
        let (own, shared) = (lease(&control), lease(status::LEASE));
        let namespace = options.authority.namespace.clone();
        let secret = AuthoritySecret::new(client.clone(), options.authority, Arc::clone(&metrics));
        let rotation = secret.open().await?;
        let (sender, authority) = watch::channel(rotation.in_force(SystemTime::now())?);
        let elect = |lease| Leadership::start(client.clone(), lease, owner.clone(), stop.clone());
        let (leadership, status) = (elect(own), elect(shared));
        let mut tasks = JoinSet::new();
        tasks.spawn(secret.follow(rotation, sender));
        tasks.spawn(count_leading(leadership.is_leader(), Arc::clone(&metrics)));
        let bundles = TrustBundles {
            client: client.clone(),
            authority: authority.clone(),
            owner,
            namespace,
            manager: control,
            metrics: Arc::clone(&metrics),
        };
        tasks.spawn(while_leading(leadership.is_leader(), move || {
            bundles.clone().keep()
        }));
        if let Some(options) = webhook {
            let webhook = WebhookUpkeep {
                client: client.clone(),
                authority: authority.clone(),
                options,
                metrics: Arc::clone(&metrics),
            };
            tasks.spawn(while_leading(leadership.is_leader(), move || {
                webhook.clone().keep()
            }));
        }
        Ok(Self {
            authority,
            tokens: Tokens::Reviewed(TokenReviewer::new(client, metrics)),
            leadership,
            status,
            tasks,
        })
    }

    /// Whether this replica is the one, of all revisions', that writes statuses.
    pub fn writes_statuses(&self) -> watch::Receiver<bool> {
        self.status.is_leader()
    }

    /// Waits, after the stop was told, until another replica may lead.
    pub async fn end(mut self) {
        self.tasks.shutdown().await;
        tokio::join!(self.leadership.released(), self.status.released());
    }
}

/// Does the work of a leader whenever this replica is one, and drops it when it is no more.
pub async fn while_leading<F>(mut leads: watch::Receiver<bool>, work: impl Fn() -> F)
where
    F: Future<Output = ()>,
{
    // An error means that the election is over.
    while leads.wait_for(|leads| *leads).await.is_ok() {
        tokio::select! {
            () = work() => {}
            _ = leads.wait_for(|leads| !*leads) => {}
        }
    }
}

async fn count_leading(mut leads: watch::Receiver<bool>, metrics: Arc<Metrics>) {
    loop {
        metrics.leads.set(usize::from(*leads.borrow_and_update()));
        if leads.changed().await.is_err() {
            return;
        }
    }
}

/// An error of the API server in its own words, or of the way to it with its causes. The text that
/// `kube` gives repeats the whole status, and names no cause.
pub(crate) fn describe(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        return if status.message.is_empty() {
            format!("status {}", status.code)
        } else {
            status.message.clone()
        };
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
