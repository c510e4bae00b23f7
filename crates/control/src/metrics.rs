//! What the control plane counts.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::registry::cluster::Health;

/// A number that is read by scrapes. Nothing depends on the order in which numbers change.
#[derive(Debug, Default)]
pub struct Number(AtomicU64);

impl Number {
    /// One more.
    pub fn increment(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// This many now.
    pub fn set(&self, value: usize) {
        self.0.store(value as u64, Ordering::Relaxed);
    }

    fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// All that is counted.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Connected proxies.
    pub proxies: Number,
    /// States of the mesh that were pushed.
    pub pushes: Number,
    /// Responses that proxies refused.
    pub refused_resources: Number,
    /// Certificates signed.
    pub certificates: Number,
    /// Callers that were refused a stream or a certificate.
    pub refused_callers: Number,
    /// Connections that were closed at once for their number.
    pub refused_connections: Number,
    /// Tokens that the cluster was asked about.
    pub token_reviews: Number,
    /// Those of which it could not tell.
    pub token_reviews_unavailable: Number,
    /// When the certificate that signs ends, in seconds since 1970.
    pub authority_not_after: Number,
    /// 1 while the authority's Secret is wrong and its last good version is in force.
    pub authority_refused: Number,
    /// 1 while this replica leads.
    pub leads: Number,
    /// Active namespaces that have the right trust bundle, by the leader.
    pub trust_bundles: Number,
    /// Trust bundles that were written.
    pub trust_bundle_writes: Number,
    /// Those that could not be written.
    pub trust_bundle_failures: Number,
    /// Times that the trust bundle was put into the webhooks.
    pub webhook_bundles: Number,
    /// Certificates issued for the injector.
    pub webhook_certificates: Number,
    /// Times that one of the two failed.
    pub webhook_failures: Number,
    /// Files that were refused.
    pub refused_files: Number,
    /// Versions of a cluster's objects that were refused.
    pub refused_objects: Number,
    /// Statuses that were written to a cluster's objects.
    pub statuses: Number,
    /// Objects in force.
    pub objects: Number,
    /// Objects that do not do what their author wanted.
    pub warnings: Number,
    /// How the watches of a cluster's kinds are.
    pub registry: Arc<Health>,
}

impl Metrics {
    /// In the text format of Prometheus (version 0.0.4).
    pub fn render(&self) -> String {
        let rows = [
            ("proxies", "gauge", "Connected proxies.", &self.proxies),
            (
                "pushes_total",
                "counter",
                "States of the mesh that were pushed.",
                &self.pushes,
            ),
            (
                "refused_resources_total",
                "counter",
                "Responses that proxies refused.",
                &self.refused_resources,
            ),
            (
                "certificates_total",
                "counter",
                "Certificates signed.",
                &self.certificates,
            ),
            (
                "refused_callers_total",
                "counter",
                "Callers that were refused a stream or a certificate.",
                &self.refused_callers,
            ),
            (
                "refused_connections_total",
                "counter",
                "Connections that were closed at once for their number.",
                &self.refused_connections,
            ),
            (
                "token_reviews_total",
                "counter",
                "Tokens that the API server was asked about.",
                &self.token_reviews,
            ),
            (
                "token_reviews_unavailable_total",
                "counter",
                "Tokens that could not be judged, as the API server did not answer or was busy.",
                &self.token_reviews_unavailable,
            ),
            (
                "authority_not_after_seconds",
                "gauge",
                "When the certificate that signs ends (Unix time); 0 if it is not in a Secret.",
                &self.authority_not_after,
            ),
            (
                "authority_refused",
                "gauge",
                "Whether the authority's Secret is wrong now and its last good version in force.",
                &self.authority_refused,
            ),
            (
                "leads",
                "gauge",
                "Whether this replica is the one that writes to the cluster.",
                &self.leads,
            ),
            (
                "trust_bundles",
                "gauge",
                "Namespaces that have the right trust bundle, if this replica leads.",
                &self.trust_bundles,
            ),
            (
                "trust_bundle_writes_total",
                "counter",
                "Trust bundles written to namespaces.",
                &self.trust_bundle_writes,
            ),
            (
                "trust_bundle_failures_total",
                "counter",
                "Trust bundles that could not be written.",
                &self.trust_bundle_failures,
            ),
            (
                "webhook_bundles_total",
                "counter",
                "Times that the trust bundle was put into the webhooks.",
                &self.webhook_bundles,
            ),
            (
                "webhook_certificates_total",
                "counter",
                "Certificates issued for the injector.",
                &self.webhook_certificates,
            ),
            (
                "webhook_failures_total",
                "counter",
                "Failures to give the injector or its webhooks what they need.",
                &self.webhook_failures,
            ),
            (
                "refused_files_total",
                "counter",
                "Files that were refused.",
                &self.refused_files,
            ),
            (
                "refused_objects_total",
                "counter",
                "Versions of objects that were refused.",
                &self.refused_objects,
            ),
            (
                "statuses_total",
                "counter",
                "Statuses that were written to objects.",
                &self.statuses,
            ),
            ("objects", "gauge", "Objects in force.", &self.objects),
            (
                "warnings",
                "gauge",
                "Objects that do not do what their author wanted.",
                &self.warnings,
            ),
        ];
        let mut text = String::new();
        for (name, kind, help, number) in rows {
            let value = number.read();
            // Writing to a string does not fail.
            let _ = write!(
                text,
                "# HELP outrider_control_{name} {help}\n# TYPE outrider_control_{name} {kind}\n\
                 outrider_control_{name} {value}\n"
            );
        }
        self.registry.render(&mut text, Instant::now());
        text
    }
}
