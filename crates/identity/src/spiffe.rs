//! SPIFFE ids of the one form that the mesh issues:
//! `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
//!
//! Validation follows the SPIFFE-ID standard (sections 2.1 to 2.3) for the trust domain, and
//! Kubernetes' naming rules (RFC 1123 label and subdomain) for the two names.

use std::fmt;
use std::str::FromStr;

/// Why a text is not an id that the mesh uses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeError {
    /// It does not begin with `spiffe://`.
    #[error("{0:?} does not begin with spiffe://")]
    Scheme(String),
    /// The trust domain breaks the standard's rules.
    #[error(
        "{0:?} is not a trust domain: 1 to 255 of lower-case letters, digits, '.', '-' and '_'"
    )]
    TrustDomain(String),
    /// The path is not `/ns/<namespace>/sa/<service account>`.
    #[error("{0:?} does not have the form spiffe://<trust domain>/ns/<namespace>/sa/<account>")]
    Path(String),
    /// The namespace is not an RFC 1123 label.
    #[error(
        "{0:?} is not a namespace: 1 to 63 of lower-case letters, digits and '-', no '-' at an end"
    )]
    Namespace(String),
    /// The service account is not an RFC 1123 subdomain.
    #[error(
        "{0:?} is not a service account: 1 to 253 of lower-case letters, digits, '-' and '.', \
         no '-' or '.' at the end of a part"
    )]
    ServiceAccount(String),
}

/// The name of one trust root, such as `cluster.local`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(String);

impl TrustDomain {
    /// Checks `name` and wraps it.
    ///
    /// # Errors
    /// [`SpiffeError::TrustDomain`] when it is empty, too long, or has a character that the
    /// standard does not allow (upper case included).
    pub fn new(name: &str) -> Result<Self, SpiffeError> {
        let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
        if name.is_empty() || name.len() > 255 || !name.bytes().all(allowed) {
            return Err(SpiffeError::TrustDomain(name.to_owned()));
        }
        Ok(Self(name.to_owned()))
    }

    /// The bare name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromStr for TrustDomain {
    type Err = SpiffeError;

    fn from_str(name: &str) -> Result<Self, SpiffeError> {
        Self::new(name)
    }
}

/// The identity of one workload.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    trust_domain: TrustDomain,
    namespace: String,
    service_account: String,
}

impl SpiffeId {
    /// Builds the id of a service account.
    ///
    /// # Errors
    /// The namespace or the account is not a Kubernetes name.
    pub fn new(
        trust_domain: TrustDomain,
        namespace: &str,
        service_account: &str,
    ) -> Result<Self, SpiffeError> {
        check_namespace(namespace)?;
        check_service_account(service_account)?;
        Ok(Self {
            trust_domain,
            namespace: namespace.to_owned(),
            service_account: service_account.to_owned(),
        })
    }

    /// Whose root vouches for it.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The namespace of the account.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The name of the account.
    pub fn service_account(&self) -> &str {
        &self.service_account
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            trust_domain,
            namespace,
            service_account,
        } = self;
        write!(
            formatter,
            "spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}"
        )
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeError;

    fn from_str(uri: &str) -> Result<Self, SpiffeError> {
        let rest = uri
            .strip_prefix("spiffe://")
            .ok_or_else(|| SpiffeError::Scheme(uri.to_owned()))?;
        let (domain, path) = rest
            .split_once('/')
            .ok_or_else(|| SpiffeError::Path(uri.to_owned()))?;
        let mut segments = path.split('/');
        match (
            segments.next(),
            segments.next(),
            segments.next(),
            segments.next(),
            segments.next(),
        ) {
            (Some("ns"), Some(namespace), Some("sa"), Some(account), None) => {
                Self::new(TrustDomain::new(domain)?, namespace, account)
            }
            _ => Err(SpiffeError::Path(uri.to_owned())),
        }
    }
}

/// Checks that a namespace is an RFC 1123 label.
///
/// # Errors
/// [`SpiffeError::Namespace`].
pub fn check_namespace(namespace: &str) -> Result<(), SpiffeError> {
    if is_label(namespace) {
        return Ok(());
    }
    Err(SpiffeError::Namespace(namespace.to_owned()))
}

/// Checks that a service account's name is an RFC 1123 subdomain.
///
/// # Errors
/// [`SpiffeError::ServiceAccount`].
pub fn check_service_account(account: &str) -> Result<(), SpiffeError> {
    if account.len() <= 253 && account.split('.').all(is_label) {
        return Ok(());
    }
    Err(SpiffeError::ServiceAccount(account.to_owned()))
}

fn is_label(text: &str) -> bool {
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    !text.is_empty()
        && text.len() <= 63
        && text.bytes().all(allowed)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    type Expected = fn(&SpiffeError) -> bool;

    #[test]
    fn a_valid_id_reads_and_prints_the_same() {
        for text in [
            "spiffe://cluster.local/ns/default/sa/reviews",
            "spiffe://a_b-c.1/ns/n/sa/some.dotted.name",
        ] {
            assert_eq!(text.parse::<SpiffeId>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn anything_else_is_refused_with_the_part_at_fault() {
        let long = format!("spiffe://d/ns/{}/sa/a", "n".repeat(64));
        let cases: &[(&str, Expected)] = &[
            ("https://d/ns/n/sa/a", |error| {
                matches!(error, SpiffeError::Scheme(_))
            }),
            ("SPIFFE://d/ns/n/sa/a", |error| {
                matches!(error, SpiffeError::Scheme(_))
            }),
            ("spiffe://d", |error| matches!(error, SpiffeError::Path(_))),
            ("spiffe://d/ns/n/sa/a/", |error| {
                matches!(error, SpiffeError::Path(_))
            }),
            ("spiffe://d/ns/n/sa/a/b", |error| {
                matches!(error, SpiffeError::Path(_))
            }),
            ("spiffe://d//ns/n/sa/a", |error| {
                matches!(error, SpiffeError::Path(_))
            }),
            ("spiffe://d/workload", |error| {
                matches!(error, SpiffeError::Path(_))
            }),
            ("spiffe:///ns/n/sa/a", |error| {
                matches!(error, SpiffeError::TrustDomain(_))
            }),
            ("spiffe://D/ns/n/sa/a", |error| {
                matches!(error, SpiffeError::TrustDomain(_))
            }),
            ("spiffe://d:80/ns/n/sa/a", |error| {
                matches!(error, SpiffeError::TrustDomain(_))
            }),
            ("spiffe://u@d/ns/n/sa/a", |error| {
                matches!(error, SpiffeError::TrustDomain(_))
            }),
            ("spiffe://d/ns//sa/a", |error| {
                matches!(error, SpiffeError::Namespace(_))
            }),
            ("spiffe://d/ns/N/sa/a", |error| {
                matches!(error, SpiffeError::Namespace(_))
            }),
            ("spiffe://d/ns/a.b/sa/a", |error| {
                matches!(error, SpiffeError::Namespace(_))
            }),
            (&long, |error| matches!(error, SpiffeError::Namespace(_))),
            ("spiffe://d/ns/n/sa/", |error| {
                matches!(error, SpiffeError::ServiceAccount(_))
            }),
            ("spiffe://d/ns/n/sa/..", |error| {
                matches!(error, SpiffeError::ServiceAccount(_))
            }),
            ("spiffe://d/ns/n/sa/a?x=y", |error| {
                matches!(error, SpiffeError::ServiceAccount(_))
            }),
            ("spiffe://d/ns/n/sa/%61", |error| {
                matches!(error, SpiffeError::ServiceAccount(_))
            }),
            ("spiffe://d/ns/n/sa/a ", |error| {
                matches!(error, SpiffeError::ServiceAccount(_))
            }),
        ];
        for (text, expected) in cases {
            let error = text.parse::<SpiffeId>().unwrap_err();
            assert!(expected(&error), "{text}: {error:?}");
        }
    }
}
