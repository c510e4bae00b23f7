//! Certificates of a file of cases, and TLS on the judge's side.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use outrider_testkit::tls::AnyServer;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData as _,
    RevokedCertParams, SanType,
};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};

use super::file::{Certificate, ClientTls, ServerTls};

/// All certificates of a file, by name.
#[derive(Default)]
pub(super) struct Certificates {
    all: BTreeMap<String, Made>,
}

struct Made {
    params: CertificateParams,
    key: KeyPair,
    /// Its certificate and those of its authorities but the root.
    chain: String,
    der: CertificateDer<'static>,
    is_root: bool,
    /// Its authority, and whether that has revoked it.
    by: String,
    revoked: bool,
}

impl Certificates {
    /// Those that are always there (authorities `root` and `stranger`, certificates `server`,
    /// `client`, and `forger`, which the stranger signed) and these.
    ///
    /// # Errors
    /// When one cannot be made.
    pub(super) fn new(more: &BTreeMap<String, Certificate>) -> Result<Self> {
        let mut made = Self::default();
        for name in ["root", "stranger"] {
            made.make(
                name,
                &Certificate {
                    by: String::new(),
                    authority: true,
                    ..Certificate::default()
                },
            )?;
        }
        let usual = |name: &str, by: &str| Certificate {
            by: by.to_owned(),
            dns: vec![format!("{name}.example"), format!("*.{name}.example")],
            uri: vec![format!("spiffe://conform.example/{name}")],
            ..Certificate::default()
        };
        for (name, by) in [
            ("server", "root"),
            ("client", "root"),
            ("forger", "stranger"),
        ] {
            if !more.contains_key(name) {
                made.make(name, &usual(name, by))?;
            }
        }
        let mut waiting: Vec<(&String, &Certificate)> = more.iter().collect();
        while !waiting.is_empty() {
            let before = waiting.len();
            let mut later = Vec::new();
            for (name, wanted) in waiting {
                if wanted.by.is_empty() || made.all.contains_key(&wanted.by) {
                    made.make(name, wanted)
                        .with_context(|| format!("certificates.{name}"))?;
                } else {
                    later.push((name, wanted));
                }
            }
            if later.len() == before {
                bail!("certificates.{}.by: there is no such authority", later[0].0);
            }
            waiting = later;
        }
        Ok(made)
    }

    fn make(&mut self, name: &str, wanted: &Certificate) -> Result<()> {
        let key = match wanted.key.as_deref() {
            None | Some("p256") => KeyPair::generate(),
            Some("p384") => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
            Some("ed25519") => KeyPair::generate_for(&rcgen::PKCS_ED25519),
            Some("rsa") => {
                KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048)
            }
            Some(other) => bail!("key {other:?}: p256, p384, rsa or ed25519"),
        }
        .context("make a key")?;
        let mut params = CertificateParams::default();
        let common_name = wanted.common_name.as_deref().unwrap_or(name);
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        let text = |text: &String| Ia5String::try_from(text.as_str()).context("not ASCII");
        for name in &wanted.dns {
            params.subject_alt_names.push(SanType::DnsName(text(name)?));
        }
        for uri in &wanted.uri {
            params.subject_alt_names.push(SanType::URI(text(uri)?));
        }
        for email in &wanted.email {
            params
                .subject_alt_names
                .push(SanType::Rfc822Name(text(email)?));
        }
        for address in &wanted.ip {
            params.subject_alt_names.push(SanType::IpAddress(*address));
        }
        if let Some(user) = &wanted.user {
            const PRINCIPAL: &[u64] = &[1, 3, 6, 1, 4, 1, 311, 20, 2, 3];
            let name = (PRINCIPAL.to_vec(), user.clone().into());
            params.subject_alt_names.push(SanType::OtherName(name));
        }
        if wanted.authority {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        } else {
            params.key_usages = vec![
                KeyUsagePurpose::DigitalSignature,
                KeyUsagePurpose::KeyEncipherment,
            ];
            params.extended_key_usages = vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ];
        }
        let now = time::OffsetDateTime::now_utc();
        let day = time::Duration::days(1);
        params.not_before = now - day * 2;
        params.not_after = if wanted.expired { now - day } else { now + day };
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some((self.all.len() as u64 + 1).into());
        let is_root = wanted.by.is_empty();
        let (certificate, above) = if is_root {
            (params.self_signed(&key)?, String::new())
        } else {
            let authority = self
                .all
                .get(&wanted.by)
                .context("by: there is no such authority")?;
            let issuer = Issuer::from_params(&authority.params, &authority.key);
            let above = if authority.is_root {
                String::new()
            } else {
                authority.chain.clone()
            };
            (params.signed_by(&key, &issuer)?, above)
        };
        let made = Made {
            chain: certificate.pem() + &above,
            der: certificate.der().clone(),
            params,
            key,
            is_root,
            by: wanted.by.clone(),
            revoked: wanted.revoked,
        };
        self.all.insert(name.to_owned(), made);
        Ok(())
    }

    /// Writes `NAME.crt` and `NAME.key` of each, and `NAME.crl` of an authority, and tells the
    /// placeholders and their paths. `NAME.hash` and `NAME.spki` are the hashes that pins are.
    ///
    /// # Errors
    /// When that fails.
    pub(super) fn write(&self, folder: &Path) -> Result<Vec<(String, String)>> {
        let mut paths = Vec::new();
        for (name, made) in &self.all {
            for (ending, text) in [
                ("crt", made.chain.clone()),
                ("key", made.key.serialize_pem()),
            ] {
                let name = format!("{name}.{ending}");
                let path = folder.join(&name);
                std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
                paths.push((name, path.display().to_string()));
            }
            let digest = |bytes: &[u8]| digest::digest(&digest::SHA256, bytes);
            let hash = digest(&made.der);
            let hash = hash.as_ref().iter().map(|byte| format!("{byte:02x}"));
            paths.push((format!("{name}.hash"), hash.collect()));
            let key = digest(&made.key.subject_public_key_info());
            paths.push((format!("{name}.spki"), STANDARD.encode(key)));
            if made.params.is_ca != IsCa::NoCa {
                let path = folder.join(format!("{name}.crl"));
                std::fs::write(&path, self.revocations(name, made)?)
                    .with_context(|| format!("write {}", path.display()))?;
                paths.push((format!("{name}.crl"), path.display().to_string()));
            }
        }
        Ok(paths)
    }

    /// The list of an authority's certificates that it has revoked.
    fn revocations(&self, authority: &str, made: &Made) -> Result<String> {
        let now = time::OffsetDateTime::now_utc();
        let revoked = self
            .all
            .values()
            .filter(|one| one.revoked && one.by == authority)
            .filter_map(|one| {
                Some(RevokedCertParams {
                    serial_number: one.params.serial_number.clone()?,
                    revocation_time: now - time::Duration::hours(1),
                    reason_code: None,
                    invalidity_date: None,
                })
            });
        let list = CertificateRevocationListParams {
            this_update: now - time::Duration::hours(1),
            next_update: now + time::Duration::days(1),
            crl_number: 1.into(),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        let issuer = Issuer::from_params(&made.params, &made.key);
        Ok(list.signed_by(&issuer)?.pem()?)
    }

    /// The name of a certificate that a peer showed.
    pub(super) fn name_of(&self, certificate: Option<&CertificateDer<'_>>) -> String {
        let Some(shown) = certificate else {
            return "none".to_owned();
        };
        let known = self
            .all
            .iter()
            .find(|(_, made)| made.der.as_ref() == shown.as_ref());
        known.map_or_else(|| "unknown".to_owned(), |(name, _)| name.clone())
    }

    fn identity(
        &self,
        name: &str,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
        let made = self
            .all
            .get(name)
            .with_context(|| format!("there is no certificate {name}"))?;
        let chain = CertificateDer::pem_slice_iter(made.chain.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .context("read the chain")?;
        let key = PrivateKeyDer::from_pem_slice(made.key.serialize_pem().as_bytes())
            .context("read the key")?;
        Ok((chain, key))
    }

    /// A client that takes any server.
    ///
    /// # Errors
    /// When its certificate is unknown.
    pub(super) fn client(&self, tls: &ClientTls) -> Result<Arc<ClientConfig>> {
        let kind = tls.verifies.as_ref().map(|kind| kind.to_ascii_uppercase());
        let kind = kind.as_deref();
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&versions(tls.version.as_deref())?)?
            .dangerous()
            .with_custom_certificate_verifier(AnyServer::that_verifies(|scheme| {
                kind.is_none_or(|kind| format!("{scheme:?}").starts_with(kind))
            }));
        let mut config = match &tls.certificate {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let (chain, key) = self.identity(name)?;
                builder.with_client_auth_cert(chain, key)?
            }
        };
        config.enable_sni = tls.sni.is_some();
        config.alpn_protocols = tls
            .alpn
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Arc::new(config))
    }

    /// A scripted server.
    ///
    /// # Errors
    /// When its certificate or authority is unknown.
    pub(super) fn server(&self, tls: &ServerTls) -> Result<Arc<ServerConfig>> {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&versions(tls.version.as_deref())?)?;
        let builder = match &tls.require {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let made = self
                    .all
                    .get(authority)
                    .context("require: there is no such authority")?;
                let mut roots = RootCertStore::empty();
                roots.add(made.der.clone())?;
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
                        .build()?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let (chain, key) = self.identity(&tls.certificate)?;
        let mut config = builder.with_single_cert(chain, key)?;
        config.alpn_protocols = tls
            .alpn
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        Ok(Arc::new(config))
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn versions(version: Option<&str>) -> Result<Vec<&'static SupportedProtocolVersion>> {
    Ok(match version {
        None => rustls::ALL_VERSIONS.to_vec(),
        Some("TLSv1.2") => vec![&rustls::version::TLS12],
        Some("TLSv1.3") => vec![&rustls::version::TLS13],
        Some(other) => bail!("version {other:?}: TLSv1.2 or TLSv1.3"),
    })
}
