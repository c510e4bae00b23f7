//! The filters of HTTPRoutes and GRPCRoutes.

use std::num::NonZeroU16;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{RequestMirror, RuleProblem};
use crate::registry::FieldError;

/// One change to a request or its response.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpFilter {
    /// Which of the others is set.
    #[serde(rename = "type")]
    pub kind: FilterKind,
    /// Changes request headers.
    #[serde(default)]
    pub request_header_modifier: Option<HeaderModifier>,
    /// Changes response headers.
    #[serde(default)]
    pub response_header_modifier: Option<HeaderModifier>,
    /// Answers with a redirect.
    #[serde(default)]
    pub request_redirect: Option<RequestRedirect>,
    /// Changes host or path.
    #[serde(default)]
    pub url_rewrite: Option<UrlRewrite>,
    /// Sends a copy elsewhere.
    #[serde(default)]
    pub request_mirror: Option<RequestMirror>,
    #[serde(default)]
    cors: Option<IgnoredAny>,
    #[serde(default)]
    external_auth: Option<IgnoredAny>,
    #[serde(default)]
    extension_ref: Option<IgnoredAny>,
}

/// What a filter does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the fields of HttpFilter say it")]
pub enum FilterKind {
    RequestHeaderModifier,
    ResponseHeaderModifier,
    RequestRedirect,
    #[serde(rename = "URLRewrite")]
    UrlRewrite,
    RequestMirror,
    #[serde(rename = "CORS")]
    Cors,
    ExternalAuth,
    ExtensionRef,
    /// What a later release of the API may add.
    #[serde(other)]
    Unknown,
}

/// Where a filter stands, which decides what it can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FilterUse {
    HttpRule,
    HttpBackend,
    GrpcRule,
    GrpcBackend,
}

impl FilterUse {
    /// The types that can be applied there.
    fn supported(self) -> &'static [(FilterKind, &'static str)] {
        use FilterKind::{
            RequestHeaderModifier, RequestMirror, RequestRedirect, ResponseHeaderModifier,
            UrlRewrite,
        };
        const REQUEST: (FilterKind, &str) = (RequestHeaderModifier, "RequestHeaderModifier");
        const RESPONSE: (FilterKind, &str) = (ResponseHeaderModifier, "ResponseHeaderModifier");
        const REDIRECT: (FilterKind, &str) = (RequestRedirect, "RequestRedirect");
        const REWRITE: (FilterKind, &str) = (UrlRewrite, "URLRewrite");
        const MIRROR: (FilterKind, &str) = (RequestMirror, "RequestMirror");
        match self {
            Self::HttpRule => &[REQUEST, RESPONSE, REDIRECT, REWRITE, MIRROR],
            Self::HttpBackend => &[REQUEST, RESPONSE, REWRITE],
            Self::GrpcRule => &[REQUEST, RESPONSE, MIRROR],
            Self::GrpcBackend => &[REQUEST, RESPONSE],
        }
    }
}

/// Header changes, in the order set, add, remove.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeaderModifier {
    /// Replaces.
    #[serde(default)]
    pub set: Vec<HeaderValue>,
    /// Adds to what is there.
    #[serde(default)]
    pub add: Vec<HeaderValue>,
    /// Removes.
    #[serde(default)]
    pub remove: Vec<String>,
}

/// A header.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeaderValue {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// Where a redirect leads; what is absent stays as requested.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RequestRedirect {
    /// `http` or `https`.
    #[serde(default)]
    pub scheme: Option<String>,
    /// The host.
    #[serde(default)]
    pub hostname: Option<String>,
    /// The path.
    #[serde(default)]
    pub path: Option<PathModifier>,
    /// The port.
    #[serde(default)]
    pub port: Option<NonZeroU16>,
    /// 301, 302 (unless written), 303, 307 or 308.
    #[serde(default = "found")]
    pub status_code: u16,
}

fn found() -> u16 {
    302
}

/// What the backend sees.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UrlRewrite {
    /// The host.
    #[serde(default)]
    pub hostname: Option<String>,
    /// The path.
    #[serde(default)]
    pub path: Option<PathModifier>,
}

/// Changes a path.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PathModifier {
    /// Which of the others is set.
    #[serde(rename = "type")]
    pub kind: PathModifierKind,
    /// The new path.
    #[serde(default)]
    pub replace_full_path: Option<String>,
    /// What stands in place of the matched prefix.
    #[serde(default)]
    pub replace_prefix_match: Option<String>,
}

/// How a path is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the fields of PathModifier say it")]
pub enum PathModifierKind {
    ReplaceFullPath,
    ReplacePrefixMatch,
    /// What a later release of the API may add.
    #[serde(other)]
    Unknown,
}

/// Checks the filters of a rule or of a backend.
pub(super) fn check_all(filters: &[HttpFilter], place: FilterUse) -> Result<(), RuleProblem> {
    for (index, filter) in filters.iter().enumerate() {
        let path = format!("filters[{index}]");
        let supported = place.supported();
        if !supported.iter().any(|(kind, _)| *kind == filter.kind) {
            let names: Vec<&str> = supported.iter().map(|(_, name)| *name).collect();
            let reason = format!("is not supported here; supported are {}", names.join(", "));
            let error = FieldError::new(format!("{path}.type"), reason);
            return Err(RuleProblem::failing(error));
        }
        filter.validate().map_err(|error| error.under(&path))?;
        if place == FilterUse::HttpBackend && filter.path_modifier().is_some() {
            let reason = "is supported in the filters of a rule only";
            let error = FieldError::new(format!("{path}.urlRewrite.path"), reason);
            return Err(RuleProblem::failing(error));
        }
        let earlier = filters[..index].iter();
        let repeatable = filter.kind == FilterKind::RequestMirror;
        if !repeatable && earlier.clone().any(|other| other.kind == filter.kind) {
            let path = format!("{path}.type");
            return Err(RuleProblem::incompatible(&path, "is there twice"));
        }
        let redirects = |filter: &HttpFilter| filter.kind == FilterKind::RequestRedirect;
        let forwards = |filter: &HttpFilter| {
            matches!(
                filter.kind,
                FilterKind::UrlRewrite | FilterKind::RequestMirror
            )
        };
        let both = earlier.clone().any(|other| {
            (redirects(other) && forwards(filter)) || (forwards(other) && redirects(filter))
        });
        if both {
            let reason = "cannot redirect and also rewrite or mirror";
            return Err(RuleProblem::incompatible("filters", reason));
        }
    }
    Ok(())
}

impl HttpFilter {
    /// The path change of a redirect or a rewrite.
    pub fn path_modifier(&self) -> Option<&PathModifier> {
        let redirect = self
            .request_redirect
            .as_ref()
            .and_then(|filter| filter.path.as_ref());
        redirect.or_else(|| {
            self.url_rewrite
                .as_ref()
                .and_then(|filter| filter.path.as_ref())
        })
    }

    fn validate(&self) -> Result<(), FieldError> {
        let fields = [
            (
                "requestHeaderModifier",
                FilterKind::RequestHeaderModifier,
                self.request_header_modifier.is_some(),
            ),
            (
                "responseHeaderModifier",
                FilterKind::ResponseHeaderModifier,
                self.response_header_modifier.is_some(),
            ),
            (
                "requestRedirect",
                FilterKind::RequestRedirect,
                self.request_redirect.is_some(),
            ),
            (
                "urlRewrite",
                FilterKind::UrlRewrite,
                self.url_rewrite.is_some(),
            ),
            (
                "requestMirror",
                FilterKind::RequestMirror,
                self.request_mirror.is_some(),
            ),
            ("cors", FilterKind::Cors, self.cors.is_some()),
            (
                "externalAuth",
                FilterKind::ExternalAuth,
                self.external_auth.is_some(),
            ),
            (
                "extensionRef",
                FilterKind::ExtensionRef,
                self.extension_ref.is_some(),
            ),
        ];
        for (name, kind, is_set) in fields {
            if is_set != (kind == self.kind) {
                let reason = if is_set {
                    "does not belong to this type"
                } else {
                    "must be set"
                };
                return Err(FieldError::new(name, reason));
            }
        }
        let modifiers = [
            ("requestHeaderModifier", &self.request_header_modifier),
            ("responseHeaderModifier", &self.response_header_modifier),
        ];
        for (name, modifier) in modifiers {
            if let Some(modifier) = modifier {
                modifier.validate().map_err(|error| error.under(name))?;
            }
        }
        if let Some(redirect) = &self.request_redirect {
            redirect
                .validate()
                .map_err(|error| error.under("requestRedirect"))?;
        }
        if let Some(rewrite) = &self.url_rewrite {
            rewrite
                .validate()
                .map_err(|error| error.under("urlRewrite"))?;
        }
        if let Some(mirror) = &self.request_mirror {
            mirror
                .validate()
                .map_err(|error| error.under("requestMirror"))?;
        }
        Ok(())
    }
}

impl HeaderModifier {
    fn validate(&self) -> Result<(), FieldError> {
        for (list, headers) in [("set", &self.set), ("add", &self.add)] {
            for (index, header) in headers.iter().enumerate() {
                let path = format!("{list}[{index}]");
                check_header(&header.name).map_err(|error| error.under(&format!("{path}.name")))?;
                if http::HeaderValue::from_str(&header.value).is_err() {
                    let reason = "has characters that a header value cannot have";
                    return Err(FieldError::new(format!("{path}.value"), reason));
                }
            }
        }
        for (index, name) in self.remove.iter().enumerate() {
            check_header(name).map_err(|error| error.under(&format!("remove[{index}]")))?;
        }
        Ok(())
    }
}

fn check_header(name: &str) -> Result<(), FieldError> {
    if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
        return Err(FieldError::new(
            "",
            format!("{name:?} is not a header name"),
        ));
    }
    if name.eq_ignore_ascii_case("host") {
        let reason = "cannot be changed here: use urlRewrite.hostname";
        return Err(FieldError::new("", reason));
    }
    Ok(())
}

fn check_host(host: Option<&str>) -> Result<(), FieldError> {
    match host {
        Some(host) if rustls_pki_types::DnsName::try_from(host).is_err() => Err(FieldError::new(
            "hostname",
            format!("{host:?} is not a host name"),
        )),
        _ => Ok(()),
    }
}

impl RequestRedirect {
    fn validate(&self) -> Result<(), FieldError> {
        check_host(self.hostname.as_deref())?;
        if !matches!(self.scheme.as_deref(), None | Some("http" | "https")) {
            return Err(FieldError::new("scheme", "must be http or https"));
        }
        if !matches!(self.status_code, 301 | 302 | 303 | 307 | 308) {
            return Err(FieldError::new(
                "statusCode",
                "must be 301, 302, 303, 307 or 308",
            ));
        }
        self.path.as_ref().map_or(Ok(()), PathModifier::validate)
    }
}

impl UrlRewrite {
    fn validate(&self) -> Result<(), FieldError> {
        check_host(self.hostname.as_deref())?;
        self.path.as_ref().map_or(Ok(()), PathModifier::validate)
    }
}

impl PathModifier {
    fn validate(&self) -> Result<(), FieldError> {
        let (wanted, other) = match self.kind {
            PathModifierKind::ReplaceFullPath => {
                (&self.replace_full_path, &self.replace_prefix_match)
            }
            PathModifierKind::ReplacePrefixMatch => {
                (&self.replace_prefix_match, &self.replace_full_path)
            }
            PathModifierKind::Unknown => {
                let reason = "must be ReplaceFullPath or ReplacePrefixMatch";
                return Err(FieldError::new("path.type", reason));
            }
        };
        match wanted {
            None => Err(FieldError::new(
                "path",
                "must hold the field that its type names",
            )),
            Some(_) if other.is_some() => Err(FieldError::new(
                "path",
                "holds a field that its type does not name",
            )),
            Some(path) if !path.starts_with('/') && !path.is_empty() => Err(FieldError::new(
                "path",
                format!("{path:?} does not begin with '/'"),
            )),
            Some(_) => Ok(()),
        }
    }
}
