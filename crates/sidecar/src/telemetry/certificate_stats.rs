//! When certificates expire, and how often secrets came: read off the contexts in force whenever
//! somebody looks at the stats, so that nothing is kept for those who do not.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use metrics::{Counter, Gauge};

use crate::config::listener::{DownstreamTransport, FilterChain};
use crate::config::secret::Secret;
use crate::discovery::slot::Slot;
use crate::runtime::snapshot::Snapshot;
use crate::telemetry::metrics::{Family, Scope, Stats};

/// What Envoy calls certificates that are defined in place: the end is the digest of no name.
const UNNAMED: &str = "unnamed_cert_e3b0c442";
const UNNAMED_AUTHORITY: &str = "unnamed_ca_cert_e3b0c442";

/// `ssl.certificate.<name>.expiration_unix_time_seconds` and `ssl_context_update_by_sds` of
/// listeners and clusters, and `server.days_until_first_cert_expiring`.
pub struct CertificateStats {
    stats: Stats,
    days: Gauge,
    shown: Mutex<Shown>,
}

#[derive(Default)]
struct Shown {
    expirations: BTreeMap<(Family, String), (Gauge, Scope)>,
    updates: BTreeMap<(Family, String), (Counter, Scope)>,
}

/// What is to be shown at one moment.
#[derive(Default)]
struct Found {
    /// Seconds since 1970.
    expirations: BTreeMap<(Family, String), u64>,
    updates: BTreeMap<(Family, String), u64>,
}

impl Found {
    fn add<'s>(
        &mut self,
        family: Family,
        subject: &str,
        slots: impl Iterator<Item = &'s Arc<Slot<Secret>>>,
    ) {
        let updates = self.updates.entry((family, subject.to_owned()));
        let updates = updates.or_default();
        for slot in slots {
            *updates += slot.replaced();
            let (unnamed, expires) = match slot.load().as_deref() {
                Some(Secret::Certificate(certificate)) => (UNNAMED, certificate.expires),
                Some(Secret::Validation(context)) => (UNNAMED_AUTHORITY, context.expires),
                Some(Secret::TicketKeys(_)) | None => continue,
            };
            let Some(expires) = expires else { continue };
            let name = match &**slot.name() {
                "" => unnamed,
                name => name,
            };
            let since = expires.duration_since(SystemTime::UNIX_EPOCH);
            let seconds = since.map_or(0, |since| since.as_secs());
            let subject = format!("{subject}.ssl.certificate.{name}");
            let earliest = self.expirations.entry((family, subject));
            let earliest = earliest.or_insert(seconds);
            *earliest = seconds.min(*earliest);
        }
    }

    fn of(snapshot: &Snapshot) -> Self {
        let mut found = Found::default();
        for listener in snapshot.listeners.values() {
            let config = &listener.config;
            let chains = config.filter_chains.iter();
            for chain in chains.chain(&config.default_filter_chain) {
                let chain: &FilterChain = chain;
                if let DownstreamTransport::Tls(context) = &chain.transport {
                    found.add(Family::Listener, &config.stat_prefix, context.slots());
                }
            }
        }
        for cluster in snapshot.clusters.values() {
            let config = &cluster.config;
            let matched = config.transport_socket_matches.iter();
            let sockets = matched.map(|matched| &matched.transport);
            for context in sockets
                .chain([&config.transport_socket])
                .filter_map(|socket| socket.tls())
            {
                found.add(Family::Cluster, &config.stat_name, context.slots());
            }
        }
        found
    }
}

impl CertificateStats {
    /// Resolves what is always there. `server` is the scope of `server.*`.
    pub fn new(stats: &Stats, server: &Scope) -> Self {
        CertificateStats {
            stats: stats.clone(),
            days: server.gauge("days_until_first_cert_expiring"),
            shown: Mutex::default(),
        }
    }

    /// Brings them up to date.
    pub fn update(&self, snapshot: &Snapshot, now: SystemTime) {
        let found = Found::of(snapshot);
        self.days.set(f64::from(days_until_first(&found, now)));
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown
            .expirations
            .retain(|key, _| found.expirations.contains_key(key));
        shown
            .updates
            .retain(|key, _| found.updates.contains_key(key));
        for ((family, subject), seconds) in found.expirations {
            let (gauge, _) = shown
                .expirations
                .entry((family, subject))
                .or_insert_with_key(|(family, subject)| {
                    let scope = self.stats.scope(*family, subject);
                    (scope.gauge("expiration_unix_time_seconds"), scope)
                });
            gauge.set(seconds as f64);
        }
        for ((family, subject), count) in found.updates {
            let (counter, _) =
                shown
                    .updates
                    .entry((family, subject))
                    .or_insert_with_key(|(family, subject)| {
                        let scope = self.stats.scope(*family, subject);
                        let name = match family {
                            Family::Listener => {
                                "server_ssl_socket_factory.ssl_context_update_by_sds"
                            }
                            _ => "client_ssl_socket_factory.ssl_context_update_by_sds",
                        };
                        (scope.counter(name), scope)
                    });
            counter.absolute(count);
        }
    }
}

/// Whole days; 0 where a certificate has expired, and the most there is where there is none.
fn days_until_first(found: &Found, now: SystemTime) -> u32 {
    let now = now.duration_since(SystemTime::UNIX_EPOCH);
    let now = now.map_or(0, |since| since.as_secs());
    let first = found.expirations.values().min();
    first.map_or(u32::MAX, |first| {
        u32::try_from(first.saturating_sub(now) / 86_400).unwrap_or(u32::MAX)
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_first_certificate_to_expire_counts() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let mut found = Found::default();
        assert_eq!(days_until_first(&found, now), u32::MAX);
        for (name, seconds, days) in [
            ("a", 1_000_000 + 5 * 86_400 + 1, 5),
            ("b", 1_000_000 + 86_399, 0),
            ("c", 1, 0),
        ] {
            let key = (Family::Cluster, name.to_owned());
            found.expirations.insert(key, seconds);
            assert_eq!(days_until_first(&found, now), days, "{name}");
        }
    }
}
