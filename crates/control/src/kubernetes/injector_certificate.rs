//! Whether the injector's serving certificate, as its Secret has it, will do. Pure.

use std::time::{Duration, SystemTime};

use k8s_openapi::api::core::v1::Secret;
use outrider_identity::certificate::certificates_from_pem;
use outrider_identity::{CertificateAuthority, CertificateDetails};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;

use super::secret_texts::{CERTIFICATE, KEY, ROOTS, part};

/// What to do about the certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing until then.
    Keep {
        /// Half of its life.
        renew_at: SystemTime,
    },
    /// Issue another one.
    Issue {
        /// Why, for the log.
        reason: String,
    },
}

/// Judges what a Secret holds. `title` is what messages call it.
pub(super) fn judge(
    secret: &Secret,
    title: &str,
    authority: &CertificateAuthority,
    names: &[String],
    now: SystemTime,
) -> Verdict {
    match check(secret, title, authority, names, now) {
        Ok(renew_at) => Verdict::Keep { renew_at },
        Err(reason) => Verdict::Issue { reason },
    }
}

fn check(
    secret: &Secret,
    title: &str,
    authority: &CertificateAuthority,
    names: &[String],
    now: SystemTime,
) -> Result<SystemTime, String> {
    let text = |key| {
        part(secret, title, key)
            .map_err(|error| error.to_string())?
            .ok_or_else(|| format!("there is no {key}"))
    };
    let (certificate, key, roots) = (text(CERTIFICATE)?, text(KEY)?, text(ROOTS)?);
    let chain = certificates_from_pem(certificate.pem.as_bytes())
        .map_err(|error| format!("{CERTIFICATE} is {error}"))?;
    let details = CertificateDetails::parse(&chain[0])
        .map_err(|error| format!("{CERTIFICATE} is {error}"))?;
    // rustls compares the two. Nothing of the key goes into the reason.
    PrivateKeyDer::from_pem_slice(key.pem.as_bytes())
        .ok()
        .and_then(|key| CertifiedKey::from_der(chain.clone(), key, &default_provider()).ok())
        .ok_or_else(|| format!("{KEY} is not the key of {CERTIFICATE}"))?;
    if !authority.signed(&chain[0], now) {
        return Err("the certificate is not of the authority, or has expired".to_owned());
    }
    authority
        .verify(&chain, now)
        .map_err(|error| format!("the chain does not lead to the root: {error}"))?;
    if roots.pem != authority.trust_bundle().to_pem() {
        return Err(format!("{ROOTS} is not the trust bundle"));
    }
    let mut wanted: Vec<&String> = names.iter().collect();
    let mut present: Vec<&String> = details.dns_names.iter().collect();
    wanted.sort();
    present.sort();
    if wanted != present {
        return Err("the certificate is for other names".to_owned());
    }
    let life = details
        .not_after
        .duration_since(details.not_before)
        .unwrap_or(Duration::ZERO);
    let renew_at = details.not_before + life / 2;
    if now >= renew_at {
        return Err("half of its life is over".to_owned());
    }
    Ok(renew_at)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use outrider_identity::TrustDomain;
    use outrider_identity::authority::AuthorityMaterial;

    use super::super::secret_texts::with_texts;
    use super::*;

    const TITLE: &str = "Secret outrider-system/outrider-injector-tls";

    #[test]
    fn what_was_issued_is_kept_and_what_was_spoilt_is_issued_anew() {
        let now = SystemTime::now();
        let hour = Duration::from_secs(3600);
        let domain = TrustDomain::new("cluster.local").unwrap();
        let root = || {
            let material = AuthorityMaterial::self_signed(&domain, now).unwrap();
            CertificateAuthority::new(&material, &domain, now).unwrap()
        };
        let (authority, other) = (root(), root());
        let names = ["i.ns.svc".to_owned(), "i.ns.svc.cluster.local".to_owned()];
        let issue = |names: &[String]| {
            let (key, issued) = authority.issue_serving(names, Some(hour), now).unwrap();
            (key.private_pem().expose().to_owned(), issued.chain_pem())
        };
        let (key, chain) = issue(&names);
        let (other_key, other_names) = issue(&names[..1]);
        let roots = authority.trust_bundle().to_pem();
        let both = format!("{roots}{}", other.trust_bundle().to_pem());
        let secret = |chain: &String, key: &String, roots: &String| {
            let texts = BTreeMap::from([(CERTIFICATE, chain), (KEY, key), (ROOTS, roots)]);
            with_texts(Secret::default(), texts)
        };
        let good = secret(&chain, &key, &roots);
        // It began two minutes ago, for clocks that are behind.
        let half = now - Duration::from_secs(120) + Duration::from_secs(3720 / 2);
        let Verdict::Keep { renew_at } = judge(&good, TITLE, &authority, &names, now) else {
            panic!("it should be kept");
        };
        let difference = half.duration_since(renew_at).unwrap_or_default();
        assert!(difference <= Duration::from_secs(1), "{difference:?}");

        let garbage = "garbage".to_owned();
        for (secret, authority, at, reason) in [
            (&Secret::default(), &authority, now, "no tls.crt"),
            (
                &secret(&garbage, &key, &roots),
                &authority,
                now,
                "tls.crt is no",
            ),
            (
                &secret(&chain, &garbage, &roots),
                &authority,
                now,
                "tls.key is not",
            ),
            (
                &secret(&chain, &other_key, &roots),
                &authority,
                now,
                "tls.key is not",
            ),
            (
                &secret(&chain, &key, &both),
                &authority,
                now,
                "ca.crt is not",
            ),
            (
                &secret(&other_names, &other_key, &roots),
                &authority,
                now,
                "other names",
            ),
            (&good, &other, now, "not of the authority"),
            (&good, &authority, now + hour / 2, "half of its life"),
            (&good, &authority, now + 2 * hour, "expired"),
        ] {
            let Verdict::Issue { reason: given } = judge(secret, TITLE, authority, &names, at)
            else {
                panic!("not refused: {reason}");
            };
            assert!(given.contains(reason), "{given:?} should say {reason:?}");
        }
    }
}
