//! Parts of what a request asks for: its path, its query, the server's name.

use super::text::text;
use crate::http::headers::Name;
use crate::http::message::RequestHead;
use crate::telemetry::access_log::record::Record;

const ORIGINAL_HOST: &[u8] = b"x-envoy-original-host";

/// Whether the value before a rewrite is meant, or the one after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Original,
    Present,
    OriginalOrPresent,
}

impl Source {
    fn choose<'a>(self, original: Option<&'a [u8]>, present: &'a [u8]) -> Option<&'a [u8]> {
        match self {
            Source::Original => original,
            Source::Present => Some(present),
            Source::OriginalOrPresent => original.or(Some(present)),
        }
    }
}

/// `PATH(X:Y)`
#[derive(Debug)]
pub(super) struct PathView {
    query: bool,
    source: Source,
}

impl PathView {
    pub(super) fn parse(argument: Option<&str>) -> Result<PathView, &'static str> {
        let (query, source) = argument
            .unwrap_or_default()
            .split_once(':')
            .unwrap_or((argument.unwrap_or_default(), ""));
        Ok(PathView {
            query: match query {
                "" | "WQ" => true,
                "NQ" => false,
                _ => return Err("the first must be WQ or NQ, for with or without the query"),
            },
            source: match source {
                "" | "ORIG_OR_PATH" => Source::OriginalOrPresent,
                "ORIG" => Source::Original,
                "PATH" => Source::Present,
                _ => return Err("the second must be ORIG, PATH or ORIG_OR_PATH"),
            },
        })
    }

    pub(super) fn write(&self, request: &RequestHead, out: &mut Vec<u8>) -> bool {
        let original = request.headers.first(Name::XEnvoyOriginalPath);
        let path = self.source.choose(original, &request.path);
        path.is_some_and(|path| match memchr::memchr(b'?', path) {
            Some(end) if !self.query => text(&path[..end], out),
            _ => text(path, out),
        })
    }
}

/// `QUERY_PARAM(X)` and `QUERY_PARAMS(X)`
#[derive(Debug)]
pub(super) enum Query {
    One(Box<[u8]>),
    All { decoded: bool },
}

impl Query {
    pub(super) fn parse(argument: Option<&str>) -> Result<Query, &'static str> {
        match argument {
            None | Some("" | "ORIG") => Ok(Query::All { decoded: false }),
            Some("DECODED") => Ok(Query::All { decoded: true }),
            Some(_) => Err("must be ORIG or DECODED"),
        }
    }

    pub(super) fn write(&self, request: &RequestHead, out: &mut Vec<u8>) -> bool {
        let Some(start) = memchr::memchr(b'?', &request.path) else {
            return false;
        };
        let query = &request.path[start + 1..];
        match self {
            Query::All { decoded: false } => text(query, out),
            Query::All { decoded: true } => text(&decoded(query), out),
            Query::One(name) => {
                let mut parameters = query.split(|byte| *byte == b'&');
                let value = parameters.find_map(|parameter| {
                    let end = memchr::memchr(b'=', parameter).unwrap_or(parameter.len());
                    let value = parameter.get(end + 1..).unwrap_or_default();
                    (parameter[..end] == **name).then_some(value)
                });
                value.is_some_and(|value| text(value, out))
            }
        }
    }
}

/// With `%XX` as the bytes that they stand for.
fn decoded(text: &[u8]) -> Vec<u8> {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        let escaped = (*first == b'%')
            .then(|| digit(tail.first()).zip(digit(tail.get(1))))
            .flatten();
        match escaped {
            Some((high, low)) => {
                out.push((high << 4 | low) as u8);
                rest = &tail[2..];
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

/// `REQUESTED_SERVER_NAME(X:Y)`
#[derive(Debug)]
pub(super) struct ServerName {
    /// What the TLS handshake asked for is wanted, before the host.
    sni: bool,
    host: Option<Source>,
}

impl ServerName {
    pub(super) fn parse(argument: Option<&str>) -> Result<ServerName, &'static str> {
        let argument = argument.unwrap_or_default();
        let (first, source) = argument.split_once(':').unwrap_or((argument, ""));
        let source = match source {
            "" | "ORIG_OR_HOST" => Source::OriginalOrPresent,
            "ORIG" => Source::Original,
            "HOST" => Source::Present,
            _ => return Err("the second must be ORIG, HOST or ORIG_OR_HOST"),
        };
        Ok(match first {
            "" | "SNI_ONLY" => ServerName {
                sni: true,
                host: None,
            },
            "SNI_FIRST" => ServerName {
                sni: true,
                host: Some(source),
            },
            "HOST_FIRST" => ServerName {
                sni: false,
                host: Some(source),
            },
            _ => return Err("the first must be SNI_ONLY, SNI_FIRST or HOST_FIRST"),
        })
    }

    pub(super) fn write(&self, record: &Record<'_>, out: &mut Vec<u8>) -> bool {
        let sni = |out: &mut Vec<u8>| {
            let name = record.connection.server_name.as_ref();
            name.is_some_and(|name| text(name.as_bytes(), out))
        };
        let host = |out: &mut Vec<u8>| {
            let Some((source, request)) = self.host.zip(record.request) else {
                return false;
            };
            let original = request.headers.named(ORIGINAL_HOST).next();
            let host = source.choose(original, &request.authority);
            host.is_some_and(|host| text(host, out))
        };
        // The one that is not first stands in for it.
        let sni_first = self.sni && sni(out);
        sni_first || host(out) || (!self.sni && sni(out))
    }
}
