//! `SPIFFECertValidatorConfig`: bundles of roots by trust domain.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls;
use outrider_identity::{TrustBundle, TrustBundles, TrustDomain};
use rustls_pki_types::CertificateDer;
use serde::Deserialize;
use std::collections::BTreeMap;

use super::extension::decode;
use super::fields::{Within as _, each, named, refuse};
use super::secret::Reader;
use crate::config::error::{ConfigError, Result};

/// Reads the bundles.
///
/// # Errors
///
/// A name that is no trust domain, or a bundle without roots.
pub fn build(bytes: &[u8], reader: &mut Reader) -> Result<TrustBundles> {
    let proto: tls::SpiffeCertValidatorConfig = decode(bytes)?;
    let mut bundles = TrustBundles::default();
    // As in Envoy, the one source goes before the list.
    if let Some(json) = reader.read(&proto.trust_bundles, "trust_bundles")? {
        for (name, bundle) in map(&json).within("trust_bundles")? {
            let domain = domain(&name).within("trust_bundles")?;
            bundles.insert(domain, bundle);
        }
        return Ok(bundles);
    }
    refuse(
        proto.trust_domains.is_empty(),
        "trust_domains",
        "must name at least one trust domain with its trust_bundle",
    )?;
    let domains = each("trust_domains", &proto.trust_domains, |one| {
        let domain = domain(named(&one.name, "name")?).within("name")?;
        let pem = reader
            .read(&one.trust_bundle, "trust_bundle")?
            .ok_or_else(|| ConfigError::new("trust_bundle", "must be set"))?;
        let bundle =
            TrustBundle::from_pem(&pem).map_err(|error| ConfigError::new("trust_bundle", error))?;
        Ok((domain, bundle))
    })?;
    for (index, (domain, bundle)) in domains.into_iter().enumerate() {
        let twice = bundles.insert(domain, bundle).is_some();
        refuse(
            twice,
            format_args!("trust_domains[{index}].name"),
            "is there twice: put all its roots into one trust_bundle",
        )?;
    }
    Ok(bundles)
}

fn domain(name: &str) -> Result<TrustDomain> {
    TrustDomain::new(name).map_err(|error| ConfigError::new("", error))
}

/// A map of bundles in SPIFFE's own format ("SPIFFE Trust Domain and Bundle", section 4), each
/// bundle a JWK set whose keys for X.509 have their root in `x5c`.
#[derive(Deserialize)]
struct Map {
    trust_domains: BTreeMap<String, KeySet>,
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Key>,
}

#[derive(Deserialize)]
struct Key {
    #[serde(rename = "use")]
    usage: Option<String>,
    #[serde(default)]
    x5c: Vec<String>,
}

fn map(json: &[u8]) -> Result<Vec<(String, TrustBundle)>> {
    let map: Map = serde_json::from_slice(json).map_err(|error| {
        ConfigError::new("", format_args!("is no map of SPIFFE bundles: {error}"))
    })?;
    refuse(
        map.trust_domains.is_empty(),
        "",
        "has no trust domain under `trust_domains`",
    )?;
    map.trust_domains
        .into_iter()
        .map(|(name, set)| {
            let roots = set
                .keys
                .iter()
                .filter(|key| key.usage.as_deref() == Some("x509-svid"))
                .flat_map(|key| &key.x5c)
                .map(|text| STANDARD.decode(text).map(CertificateDer::from))
                .collect::<std::result::Result<Vec<_>, _>>()
                .map_err(|error| {
                    ConfigError::new("", format_args!("{name}: x5c is not Base64: {error}"))
                })?;
            let bundle = TrustBundle::from_der(roots)
                .map_err(|error| ConfigError::new("", format_args!("{name}: {error}")))?;
            Ok((name, bundle))
        })
        .collect()
}
