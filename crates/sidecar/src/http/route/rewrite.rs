//! Rewriting the path of a request.

use super::matching::split_query;
use crate::config::route::{PathMatch, PathRewrite, RouteMatch, TemplatePiece};
use crate::telemetry::access_log::format::Format;

/// Appends the path that `rewrite` makes of a request's `path`, which `matcher` has matched. The
/// query stays as it was. The result always begins with a slash, for nothing else can be sent.
/// Says whether the path was rewritten: as in Envoy, a rewrite to nothing is none. `render` writes
/// what a format stands for.
pub fn rewrite_path(
    rewrite: &PathRewrite,
    matcher: &RouteMatch,
    path: &[u8],
    render: impl FnOnce(&Format, &mut Vec<u8>),
    out: &mut Vec<u8>,
) -> bool {
    let start = out.len();
    let (plain, query) = split_query(path);
    match rewrite {
        PathRewrite::Prefix(replacement) => {
            let matched = match &matcher.path {
                PathMatch::Prefix(prefix) | PathMatch::SeparatedPrefix(prefix) => {
                    prefix.len().min(plain.len())
                }
                PathMatch::Exact(_)
                | PathMatch::Regex(_)
                | PathMatch::Template(_)
                | PathMatch::Connect => plain.len(),
            };
            out.extend_from_slice(replacement);
            out.extend_from_slice(&plain[matched..]);
        }
        PathRewrite::Regex {
            pattern,
            substitution,
        } => out.extend_from_slice(&pattern.replace_all(plain, &**substitution)),
        PathRewrite::Template { pattern, pieces } => {
            if let Some(captures) = pattern.captures(plain) {
                for piece in pieces {
                    out.extend_from_slice(match piece {
                        TemplatePiece::Literal(text) => text,
                        TemplatePiece::Group(number) => captures
                            .get(*number)
                            .map_or(&b""[..], |group| group.as_bytes()),
                    });
                }
            }
        }
        PathRewrite::Format(format) => render(format, out),
    }
    let rewritten = out.len() > start;
    if !rewritten {
        out.extend_from_slice(plain);
    }
    if out.get(start) != Some(&b'/') {
        out.insert(start, b'/');
    }
    out.extend_from_slice(query);
    rewritten
}
