//! The authority's Secret, the trust bundles, and the webhook's certificate.

use std::time::{Duration, SystemTime};

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::api::ListParams;
use outrider_identity::certificate::{CertificateDetails, certificates_from_pem};
use outrider_identity::trust::TrustBundle;
use outrider_identity::verify::{PeerRole, unix_time, verify_chain};

use super::finding::{Finding, some};
use crate::cluster::{Cluster, Installation, ROOT};
use crate::output::{lifetime, rfc3339};

const CHECK: &str = "certificate authority";
const BUNDLES: &str = "trust bundle";
/// An authority that ends within this time needs somebody's attention.
const SOON: Duration = Duration::from_secs(30 * 24 * 3600);

/// Whether a bundle verifies the certificate that is served for a name.
///
/// # Errors
/// Why it does not.
pub(super) fn serving(
    bundle: &[u8],
    served: &[u8],
    host: &str,
    now: SystemTime,
) -> Result<String, String> {
    if bundle.is_empty() {
        return Err("it has no caBundle, so the API server trusts nobody".to_owned());
    }
    let bundle = TrustBundle::from_pem(bundle);
    let bundle = bundle.map_err(|error| format!("its caBundle: {error}"))?;
    let chain = certificates_from_pem(served);
    let chain = chain.map_err(|error| format!("the injector's certificate: {error}"))?;
    let Some((leaf, rest)) = chain.split_first() else {
        return Err("the injector has no certificate".to_owned());
    };
    verify_chain(
        bundle.anchors(),
        leaf,
        rest,
        PeerRole::Server,
        unix_time(now),
    )
    .map_err(|error| format!("its caBundle does not verify the injector's certificate: {error}"))?;
    let details = CertificateDetails::parse(leaf);
    let details = details.map_err(|error| format!("the injector's certificate: {error}"))?;
    if !details.dns_names.iter().any(|name| name == host) {
        let names = details.dns_names.join(", ");
        return Err(format!(
            "the injector's certificate is for {names}, not for {host}"
        ));
    }
    let left = lifetime(details.not_after, now);
    Ok(format!(
        "its caBundle verifies the injector, whose certificate lasts {left}"
    ))
}

/// The Secret that signs, and whether each namespace trusts it.
pub(super) async fn check(
    cluster: &Cluster,
    installation: &Installation,
    name: &str,
    namespaces: &[Namespace],
    findings: &mut Vec<Finding>,
) {
    let named = ListParams::default().fields(&format!("metadata.name={}", ROOT.0));
    let maps = cluster.list::<ConfigMap>(None, &named).await;
    let secret = cluster.find::<Secret>(&installation.namespace, name).await;
    let mut roots = Vec::new();
    match secret {
        Err(error) => findings.push(Finding::unknown(CHECK, &error)),
        Ok(secret) => {
            let mut data = secret.and_then(|secret| secret.data).unwrap_or_default();
            let mut key = |name: &str| data.remove(name).map(|value| value.0).unwrap_or_default();
            let certificate = key("tls.crt");
            let has_key = !key("tls.key").is_empty();
            let now = SystemTime::now();
            findings.push(authority(name, &certificate, has_key, installation, now));
            roots = key("ca.crt");
            if roots.is_empty() {
                roots = certificate;
            }
        }
    }
    let maps = match maps {
        Ok(maps) => maps,
        Err(error) => return findings.push(Finding::unknown(BUNDLES, &error)),
    };
    if roots.is_empty() {
        // Without the Secret, what the control plane has in its own namespace counts.
        let own = bundle(&maps, &installation.namespace).unwrap_or_default();
        roots = own.as_bytes().to_vec();
    }
    findings.push(bundles(&roots, namespaces, &maps, installation));
}

/// The bundle of a namespace.
fn bundle<'a>(maps: &'a [ConfigMap], namespace: &str) -> Option<&'a str> {
    let own = |map: &&ConfigMap| map.metadata.namespace.as_deref() == Some(namespace);
    let data = maps.iter().find(own)?.data.as_ref()?;
    data.get(ROOT.1).map(String::as_str)
}

fn authority(
    name: &str,
    certificate: &[u8],
    has_key: bool,
    installation: &Installation,
    now: SystemTime,
) -> Finding {
    let logs = format!(
        "the control plane fills Secret {name} at its first start; see why it does not: \
         kubectl logs -n {} deployment/{}",
        installation.namespace,
        installation.control()
    );
    if certificate.is_empty() || !has_key {
        return Finding::failure(
            CHECK,
            format!(
                "Secret {}/{name} has no certificate and key",
                installation.namespace
            ),
            logs,
        );
    }
    let details = certificates_from_pem(certificate).and_then(|chain| {
        let leaf = chain.first().map(AsRef::as_ref).unwrap_or_default();
        CertificateDetails::parse(leaf)
    });
    let details = match details {
        Ok(details) => details,
        Err(error) => {
            return Finding::failure(CHECK, format!("Secret {name}, tls.crt: {error}"), logs);
        }
    };
    let validity = format!(
        "{}, from {} to {} ({})",
        details.subject,
        rfc3339(details.not_before),
        rfc3339(details.not_after),
        lifetime(details.not_after, now)
    );
    let renew = "put a new certificate and key into the Secret (tls.crt, tls.key, and ca.crt with \
                 the old root and the new one); it is taken while the control plane runs";
    if details.not_after <= now {
        Finding::failure(CHECK, format!("it has expired: {validity}"), renew)
    } else if details.not_before > now {
        Finding::failure(
            CHECK,
            format!("it is not valid yet: {validity}"),
            "set the clocks right",
        )
    } else if details.not_after <= now + SOON {
        Finding::warning(CHECK, format!("it expires soon: {validity}"), renew)
    } else {
        Finding::pass(CHECK, validity)
    }
}

fn bundles(
    roots: &[u8],
    namespaces: &[Namespace],
    maps: &[ConfigMap],
    installation: &Installation,
) -> Finding {
    let wanted = certificates_from_pem(roots).unwrap_or_default();
    let (mut missing, mut other) = (Vec::new(), Vec::new());
    for name in namespaces
        .iter()
        .filter_map(|each| each.metadata.name.as_ref())
    {
        let Some(bundle) = bundle(maps, name) else {
            missing.push(name.clone());
            continue;
        };
        let bundle = certificates_from_pem(bundle.as_bytes()).unwrap_or_default();
        if wanted.is_empty() || !wanted.iter().all(|root| bundle.contains(root)) {
            other.push(name.clone());
        }
    }
    let fix = format!(
        "the leader of the control plane writes ConfigMap {} into every namespace; see why it does \
         not: kubectl logs -n {} deployment/{}",
        ROOT.0,
        installation.namespace,
        installation.control()
    );
    if !missing.is_empty() {
        return Finding::failure(BUNDLES, format!("missing in {}", some(&missing)), fix);
    }
    if !other.is_empty() {
        let message = format!("does not have the authority's root in {}", some(&other));
        return Finding::failure(BUNDLES, message, fix);
    }
    Finding::pass(BUNDLES, format!("in all {} namespaces", namespaces.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::finding::Outcome;
    use outrider_identity::{CertificateAuthority, TrustDomain};
    use serde_json::json;

    fn installation() -> Installation {
        Installation {
            namespace: "outrider-system".to_owned(),
            revision: String::new(),
        }
    }

    fn made(directory: &std::path::Path) -> CertificateAuthority {
        let domain = TrustDomain::new("cluster.local").unwrap();
        let path = directory.join("ca");
        CertificateAuthority::open_or_create(&path, &domain, SystemTime::now()).unwrap()
    }

    #[test]
    fn the_bundle_must_verify_what_is_served_for_the_name() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (ours, others) = (made(one.path()), made(two.path()));
        let now = SystemTime::now();
        let host = "outrider-injector.outrider-system.svc";
        let (_, issued) = ours.issue_serving(&[host.to_owned()], None, now).unwrap();
        let served = issued.chain_pem();
        let bundle = ours.trust_bundle().to_pem();
        let judge = |bundle: &str, served: &str, host, now| {
            serving(bundle.as_bytes(), served.as_bytes(), host, now)
        };
        assert!(judge(&bundle, &served, host, now).is_ok());
        let foreign = others.trust_bundle().to_pem();
        let late = now + Duration::from_secs(400 * 24 * 3600);
        for (bundle, served, host, now, expected) in [
            ("", served.as_str(), host, now, "no caBundle"),
            (&foreign, &served, host, now, "does not verify"),
            (&bundle, "", host, now, "no CERTIFICATE section"),
            (&bundle, &served, "other.svc", now, "not for other.svc"),
            (&bundle, &served, host, late, "expired"),
        ] {
            let error = judge(bundle, served, host, now).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn an_authority_is_judged_by_its_dates() {
        let directory = tempfile::tempdir().unwrap();
        let pem = made(directory.path()).trust_bundle().to_pem();
        let now = SystemTime::now();
        let at = |now| authority("ca", pem.as_bytes(), true, &installation(), now).outcome;
        let days = |count: u64| Duration::from_secs(count * 24 * 3600);
        assert_eq!(at(now), Outcome::Pass);
        assert_eq!(at(now + days(3640)), Outcome::Warning);
        assert_eq!(at(now + days(3700)), Outcome::Failure);
        assert_eq!(at(now - days(1)), Outcome::Failure);
        let keyless = authority("ca", pem.as_bytes(), false, &installation(), now);
        assert_eq!(keyless.outcome, Outcome::Failure);
    }

    #[test]
    fn every_namespace_needs_the_root() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let ours = made(one.path()).trust_bundle().to_pem();
        let old = made(two.path()).trust_bundle().to_pem();
        let namespace = |name: &str| -> Namespace {
            serde_json::from_value(json!({"metadata": {"name": name}})).unwrap()
        };
        let map = |namespace: &str, text: &str| -> ConfigMap {
            let map = json!({"metadata": {"name": ROOT.0, "namespace": namespace},
                "data": {ROOT.1: text}});
            serde_json::from_value(map).unwrap()
        };
        let namespaces = [namespace("a"), namespace("b")];
        let judge = |maps: &[ConfigMap]| {
            bundles(ours.as_bytes(), &namespaces, maps, &installation()).message
        };
        let rotating = map("b", &format!("{old}{ours}"));
        assert_eq!(judge(&[map("a", &ours), rotating]), "in all 2 namespaces");
        assert_eq!(judge(&[map("a", &ours)]), "missing in b");
        let stale = judge(&[map("a", &ours), map("b", &old)]);
        assert_eq!(stale, "does not have the authority's root in b");
    }
}
