//! The texts of a Secret that holds a key and certificates, in the layout that cert-manager writes.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use outrider_identity::authority::{AuthorityMaterial, Text};

use super::authority::SecretError;

/// The signer's certificate, then its chain.
pub(super) const CERTIFICATE: &str = "tls.crt";
/// The signer's private key.
pub(super) const KEY: &str = "tls.key";
/// The roots.
pub(super) const ROOTS: &str = "ca.crt";

/// The annotation of an empty Secret, and its value, that permits another root than the mesh has.
pub(super) const NEW_ROOT: (&str, &str) = ("outrider.dev/new-root", "allowed");

/// What messages call a Secret.
pub(super) fn title(namespace: &str, name: &str) -> String {
    format!("Secret {namespace}/{name}")
}

/// Whether an empty Secret may be filled although the mesh has a root.
pub(super) fn permits_new_root(secret: &Secret) -> bool {
    let annotations = secret.metadata.annotations.as_ref();
    let value = annotations.and_then(|annotations| annotations.get(NEW_ROOT.0));
    value.is_some_and(|value| value == NEW_ROOT.1)
}

/// The texts of a Secret; none if it is empty.
pub(super) fn material(
    secret: &Secret,
    title: &str,
) -> Result<Option<AuthorityMaterial>, SecretError> {
    let text = |key| part(secret, title, key);
    let (certificate, private, roots) = (text(CERTIFICATE)?, text(KEY)?, text(ROOTS)?);
    let missing = |key, what| SecretError::Key {
        secret: title.to_owned(),
        key,
        what,
    };
    match (certificate, private, roots) {
        (None, None, None) => Ok(None),
        (None, _, _) => Err(missing(
            CERTIFICATE,
            "the signer's certificate and its chain",
        )),
        (_, None, _) => Err(missing(KEY, "the private key of tls.crt")),
        // Without roots the chain has to end in one.
        (Some(certificate), Some(key), roots) => Ok(Some(AuthorityMaterial {
            key,
            certificate,
            roots,
        })),
    }
}

/// One text of a Secret, if it is there and not blank.
pub(super) fn part(
    secret: &Secret,
    title: &str,
    key: &'static str,
) -> Result<Option<Text>, SecretError> {
    let Some(ByteString(bytes)) = secret.data.as_ref().and_then(|data| data.get(key)) else {
        return Ok(None);
    };
    let pem = std::str::from_utf8(bytes).map_err(|_| SecretError::Text {
        secret: title.to_owned(),
        key,
    })?;
    if pem.trim().is_empty() {
        return Ok(None);
    }
    Ok(Some(Text {
        origin: format!("{title}, key {key}"),
        pem: pem.to_owned(),
    }))
}

/// The Secret with what was made for it.
pub(super) fn fill(mut secret: Secret, new: &AuthorityMaterial) -> Secret {
    // The permission is for one root.
    if let Some(annotations) = &mut secret.metadata.annotations {
        annotations.remove(NEW_ROOT.0);
    }
    let mut texts = texts(new);
    texts.insert(ROOTS, &new.certificate.pem);
    with_texts(secret, texts)
}

/// What a Secret has for an authority.
pub(super) fn texts(material: &AuthorityMaterial) -> BTreeMap<&'static str, &String> {
    let texts = [
        (CERTIFICATE, Some(&material.certificate)),
        (KEY, Some(&material.key)),
        (ROOTS, material.roots.as_ref()),
    ];
    let present = texts
        .into_iter()
        .filter_map(|(key, text)| Some((key, &text?.pem)));
    present.collect()
}

/// The Secret with these texts; the rest of it stays.
pub(super) fn with_texts(mut secret: Secret, texts: BTreeMap<&str, &String>) -> Secret {
    let data = secret.data.get_or_insert_default();
    for (key, text) in texts {
        data.insert(key.to_owned(), ByteString(text.clone().into_bytes()));
    }
    secret
}
