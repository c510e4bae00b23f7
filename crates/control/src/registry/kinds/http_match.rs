//! What an HTTPRoute's rule matches.

use serde::Deserialize;

use crate::registry::FieldError;

/// All of its parts must match.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpMatch {
    /// The path.
    #[serde(default)]
    pub path: PathMatch,
    /// The headers.
    #[serde(default)]
    pub headers: Vec<ValueMatch>,
    /// The query parameters.
    #[serde(default)]
    pub query_params: Vec<ValueMatch>,
    /// The method.
    #[serde(default)]
    pub method: Option<Method>,
}

/// Matches the path.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PathMatch {
    /// How.
    #[serde(default, rename = "type")]
    pub kind: PathMatchKind,
    /// Against what.
    #[serde(default = "slash")]
    pub value: String,
}

fn slash() -> String {
    "/".to_owned()
}

impl Default for PathMatch {
    fn default() -> Self {
        Self {
            kind: PathMatchKind::PathPrefix,
            value: slash(),
        }
    }
}

/// How a path is matched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum PathMatchKind {
    /// The whole path.
    Exact,
    /// The first segments of the path.
    #[default]
    PathPrefix,
    /// The whole path, by an RE2 expression.
    RegularExpression,
    /// What a later release of the API may add.
    #[serde(other)]
    Unknown,
}

/// Matches a header or a query parameter.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ValueMatch {
    /// How.
    #[serde(default, rename = "type")]
    pub kind: MatchKind,
    /// Its name.
    pub name: String,
    /// Against what.
    pub value: String,
}

/// How a value is matched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum MatchKind {
    /// Equal.
    #[default]
    Exact,
    /// The whole value, by an RE2 expression.
    RegularExpression,
    /// What a later release of the API may add.
    #[serde(other)]
    Unknown,
}

impl MatchKind {
    pub(super) fn unknown() -> FieldError {
        FieldError::new("type", "must be Exact or RegularExpression")
    }
}

/// The methods that a route can match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[expect(
    missing_docs,
    reason = "they are HTTP's own names (RFC 9110 section 9.3, RFC 5789)"
)]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Connect,
    Options,
    Trace,
    Patch,
    /// What a later release of the API may add.
    #[serde(other)]
    Unknown,
}

impl Method {
    /// As it is on the wire; nothing can be matched by an unknown one.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
            Self::Options => "OPTIONS",
            Self::Trace => "TRACE",
            Self::Patch => "PATCH",
            Self::Unknown => "",
        }
    }
}

impl HttpMatch {
    pub(super) fn validate(&self) -> Result<(), FieldError> {
        let path = &self.path;
        if path.kind == PathMatchKind::Unknown {
            let reason = "must be Exact, PathPrefix or RegularExpression";
            return Err(FieldError::new("path.type", reason));
        }
        if self.method == Some(Method::Unknown) {
            return Err(FieldError::new("method", "is not a method of HTTP"));
        }
        if path.kind == PathMatchKind::RegularExpression {
            check_expression(&path.value).map_err(|error| error.under("path.value"))?;
        } else if !path.value.starts_with('/') || path.value.contains(['?', '#']) {
            let reason = format!(
                "{:?} is not a path: it begins with '/', without query",
                path.value
            );
            return Err(FieldError::new("path.value", reason));
        }
        check_headers(&self.headers)?;
        for (index, parameter) in self.query_params.iter().enumerate() {
            let path = format!("queryParams[{index}]");
            if parameter.name.is_empty() {
                return Err(FieldError::new(format!("{path}.name"), "is empty"));
            }
            parameter.validate().map_err(|error| error.under(&path))?;
        }
        Ok(())
    }
}

pub(super) fn check_headers(headers: &[ValueMatch]) -> Result<(), FieldError> {
    for (index, header) in headers.iter().enumerate() {
        let path = format!("headers[{index}]");
        if http::HeaderName::from_bytes(header.name.as_bytes()).is_err() {
            let reason = format!("{:?} is not a header name", header.name);
            return Err(FieldError::new(format!("{path}.name"), reason));
        }
        header.validate().map_err(|error| error.under(&path))?;
    }
    Ok(())
}

impl ValueMatch {
    fn validate(&self) -> Result<(), FieldError> {
        match self.kind {
            MatchKind::Exact => Ok(()),
            MatchKind::RegularExpression => {
                check_expression(&self.value).map_err(|error| error.under("value"))
            }
            MatchKind::Unknown => Err(MatchKind::unknown()),
        }
    }
}

/// The `regex` crate and RE2 share their syntax, so what compiles here compiles in the proxies.
pub(super) fn check_expression(expression: &str) -> Result<(), FieldError> {
    match regex::Regex::new(expression) {
        Ok(_) => Ok(()),
        Err(error) => Err(FieldError::new(
            "",
            format!("not a regular expression: {error}"),
        )),
    }
}
