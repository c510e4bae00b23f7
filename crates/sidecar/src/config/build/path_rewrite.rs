//! What becomes of the path of a request: `prefix_rewrite`, `regex_rewrite`, `path_rewrite` and
//! `path_rewrite_policy`.

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::path::rewrite::uri_template::v3::UriTemplateRewriteConfig;
use envoy_types::pb::envoy::r#type::matcher::v3::RegexMatchAndSubstitute;

use super::extension::decode;
use super::fields::{Within as _, header_text, named, refuse, required, uri_text};
use super::{regex, uri_template};
use crate::config::error::{ConfigError, Result};
use crate::config::matcher::Regex;
use crate::config::route::{PathMatch, PathRewrite};
use crate::telemetry::access_log::format::{Format, Missing};

const URI_TEMPLATE: &str = "envoy.extensions.path.rewrite.uri_template.v3.UriTemplateRewriteConfig";

/// A query it may have: the request's own follows it, as in Envoy.
const NO_FRAGMENT: &str = "must not hold #: no request line may have a fragment (RFC 9112)";

/// The rewrite of a `RouteAction`, at most one of the four.
pub fn of_route(
    prefix: &str,
    regex: &Option<RegexMatchAndSubstitute>,
    path: &str,
    policy: &Option<core::TypedExtensionConfig>,
    matched: Option<&PathMatch>,
) -> Result<Option<PathRewrite>> {
    let set = [
        ("prefix_rewrite", !prefix.is_empty()),
        ("regex_rewrite", regex.is_some()),
        ("path_rewrite", !path.is_empty()),
        ("path_rewrite_policy", policy.is_some()),
    ];
    let mut set = set.iter().filter(|(_, set)| *set);
    if let (Some((one, _)), Some((other, _))) = (set.next(), set.next()) {
        let reason = format_args!("{one} is set too, and only one of them can be");
        return Err(ConfigError::new(other, reason));
    }
    if let Some(regex) = regex {
        return regex_rewrite(regex).map(Some).within("regex_rewrite");
    }
    if let Some(policy) = policy {
        // Without it there is an error already.
        let rewrite = matched.map(|matched| template(policy, matched));
        return rewrite.transpose().within("path_rewrite_policy");
    }
    if !path.is_empty() {
        return format(path, "path_rewrite").map(Some);
    }
    if !prefix.is_empty() {
        return prefix_rewrite(prefix).map(Some);
    }
    Ok(None)
}

/// `prefix_rewrite`
pub fn prefix_rewrite(prefix: &str) -> Result<PathRewrite> {
    refuse(prefix.contains('#'), "prefix_rewrite", NO_FRAGMENT)?;
    let prefix = uri_text(prefix, "prefix_rewrite")?;
    Ok(PathRewrite::Prefix(prefix.into()))
}

/// `regex_rewrite`
pub fn regex_rewrite(proto: &RegexMatchAndSubstitute) -> Result<PathRewrite> {
    refuse(
        proto.substitution.contains('#'),
        "substitution",
        NO_FRAGMENT,
    )?;
    let (pattern, substitution) = substitute(proto)?;
    Ok(PathRewrite::Regex {
        pattern,
        substitution,
    })
}

/// `RegexMatchAndSubstitute`: a pattern that matches anywhere, and the replacement in the regex
/// crate's syntax.
pub fn substitute(proto: &RegexMatchAndSubstitute) -> Result<(::regex::bytes::Regex, Box<[u8]>)> {
    let pattern = required(&proto.pattern, "pattern")?;
    let pattern = named(&pattern.regex, "regex")
        .and_then(|pattern| regex::anywhere(pattern, "regex"))
        .within("pattern")?;
    let by = regex::substitution(&proto.substitution, &pattern, "substitution")?;
    Ok((pattern, by))
}

/// A path as text with operators, of which those that have no value write nothing.
pub fn format(text: &str, field: &str) -> Result<PathRewrite> {
    operators(text, Missing::Nothing, field).map(PathRewrite::Format)
}

/// Text with operators.
pub fn operators(text: &str, missing: Missing, field: &str) -> Result<Format> {
    header_text(text.as_bytes(), field)?;
    Format::text(text, missing).map_err(|error| ConfigError::new(field, error))
}

fn template(policy: &core::TypedExtensionConfig, matched: &PathMatch) -> Result<PathRewrite> {
    let any = required(&policy.typed_config, "typed_config")?;
    if any.type_url.rsplit_once('/').map(|(_, name)| name) != Some(URI_TEMPLATE) {
        return Err(ConfigError::new(
            "typed_config",
            format_args!(
                "`{}` is not a supported path rewriter; supported: {URI_TEMPLATE}",
                any.type_url
            ),
        ));
    }
    let proto: UriTemplateRewriteConfig = decode(&any.value).within("typed_config")?;
    let PathMatch::Template(Regex { compiled }) = matched else {
        return Err(ConfigError::new(
            "typed_config",
            "a URI template can only rewrite what a URI template in path_match_policy matched",
        ));
    };
    let matched = Regex {
        compiled: compiled.clone(),
    };
    let pieces = uri_template::rewrite(
        &proto.path_template_rewrite,
        &matched,
        "path_template_rewrite",
    )
    .within("typed_config")?;
    Ok(PathRewrite::Template {
        pattern: matched.compiled,
        pieces,
    })
}
