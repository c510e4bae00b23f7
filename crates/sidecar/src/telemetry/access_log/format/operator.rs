//! The operators: their names and their arguments.

use super::certificate::PeerFact;
use super::connection_state::{FilterStateView, MetadataPath};
use super::grpc::{self, Style};
use super::header::{Header, either, headers};
use super::masked::Masked;
use super::moments::Between;
use super::parse::FormatError;
use super::simple::{SIMPLE, Simple};
use super::target::{PathView, Query, ServerName};
use super::text::{integer, spaceless, text};
use super::time::TimeFormat;
use super::write_limited;
use crate::telemetry::access_log::record::Record;

/// One operator, ready to be written.
#[derive(Debug)]
pub(super) enum Operator {
    /// `REQUEST_HEADER`, `REQ`: a header of the request, or the second one where the first is absent.
    Request(Header, Option<Header>),
    /// `REQ_WITHOUT_QUERY`
    RequestWithoutQuery(Header, Option<Header>),
    /// `RESPONSE_HEADER`, `RESP`
    Response(Header, Option<Header>),
    /// `RESPONSE_TRAILER`, `TRAILER`
    Trailer(Header, Option<Header>),
    /// `PATH`
    Path(PathView),
    /// `QUERY_PARAM`, `QUERY_PARAMS`
    Query(Query),
    /// `REQUESTED_SERVER_NAME`
    ServerName(ServerName),
    StartTime(TimeFormat),
    EmitTime(TimeFormat),
    /// `COMMON_DURATION`
    Between(Between),
    /// An address without its port, or a network of it.
    Masked(Masked),
    Peer(PeerFact),
    /// The same of the endpoint's certificate, and of the one that it was shown.
    UpstreamPeer(PeerFact),
    /// `ENVIRONMENT` and `HOSTNAME`: read when the format is parsed.
    Constant(Option<Box<[u8]>>),
    GrpcStatus(Style),
    /// `RESPONSE_CODE_DETAILS`, with its spaces or without.
    Details {
        spaces: bool,
    },
    FilterState(FilterStateView),
    DynamicMetadata(MetadataPath),
    /// `COALESCE`: the first that has a value, each cut to its length.
    Coalesce(Vec<(Operator, Option<usize>)>),
    Simple(Simple),
}

const WITH_ARGUMENT: &[&str] = &[
    "REQUEST_HEADER",
    "REQ",
    "REQ_WITHOUT_QUERY",
    "RESPONSE_HEADER",
    "RESP",
    "RESPONSE_TRAILER",
    "TRAILER",
    "PATH",
    "QUERY_PARAM",
    "QUERY_PARAMS",
    "REQUESTED_SERVER_NAME",
    "START_TIME",
    "START_TIME_LOCAL",
    "EMIT_TIME",
    "EMIT_TIME_LOCAL",
    "COMMON_DURATION",
    "RESPONSE_CODE_DETAILS",
    "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT",
    "ENVIRONMENT",
    "GRPC_STATUS",
    "GRPC_STATUS_NUMBER",
    "FILTER_STATE",
    "DYNAMIC_METADATA",
    "METADATA",
    "COALESCE",
    "HOSTNAME",
    "UPSTREAM_PEER_URI_SAN",
    "UPSTREAM_PEER_DNS_SAN",
    "UPSTREAM_PEER_IP_SAN",
    "UPSTREAM_PEER_SUBJECT",
    "UPSTREAM_PEER_ISSUER",
    "UPSTREAM_PEER_CERT",
    "UPSTREAM_PEER_CERT_V_START",
    "UPSTREAM_PEER_CERT_V_END",
    "UPSTREAM_LOCAL_URI_SAN",
    "UPSTREAM_LOCAL_DNS_SAN",
    "UPSTREAM_LOCAL_IP_SAN",
    "DOWNSTREAM_PEER_URI_SAN",
    "DOWNSTREAM_PEER_DNS_SAN",
    "DOWNSTREAM_PEER_IP_SAN",
    "DOWNSTREAM_PEER_EMAIL_SAN",
    "DOWNSTREAM_PEER_SUBJECT",
    "DOWNSTREAM_PEER_ISSUER",
    "DOWNSTREAM_PEER_SERIAL",
    "DOWNSTREAM_PEER_FINGERPRINT_256",
    "DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256",
    "DOWNSTREAM_PEER_CHAIN_SERIALS",
    "DOWNSTREAM_PEER_CERT",
    "DOWNSTREAM_PEER_CERT_V_START",
    "DOWNSTREAM_PEER_CERT_V_END",
    "DOWNSTREAM_LOCAL_URI_SAN",
    "DOWNSTREAM_LOCAL_DNS_SAN",
    "DOWNSTREAM_LOCAL_IP_SAN",
    "DOWNSTREAM_LOCAL_EMAIL_SAN",
    "DOWNSTREAM_LOCAL_SUBJECT",
];

/// Operators that Envoy has and we lack, by how their names begin, with the reason.
const LACKING: &[(&str, &str)] = &[
    ("CEL", "CEL expressions in formats are not supported"),
    ("TYPED_CEL", "CEL expressions in formats are not supported"),
    ("SECRET", "secrets are never written to a log or header"),
    (
        "FILE_CONTENT",
        "files are not read while requests are served; use ENVIRONMENT",
    ),
    (
        "UPSTREAM_FILTER_STATE",
        "it is only for the log of an upstream connection",
    ),
    (
        "UPSTREAM_TLS_SESSION_ID",
        "sessions are not told apart; use UPSTREAM_TLS_VERSION, TLS_CIPHER or TLS_GROUP",
    ),
    (
        "UPSTREAM_SERVER_NAME",
        "use UPSTREAM_HOST_NAME, or UPSTREAM_PEER_DNS_SAN for who answered",
    ),
    ("CLUSTER_METADATA", "the metadata of clusters is not kept"),
    ("UPSTREAM_METADATA", "the metadata of endpoints is not kept"),
    (
        "VIRTUAL_CLUSTER_NAME",
        "virtual clusters have statistics only; use ROUTE_NAME",
    ),
    (
        "DOWNSTREAM_WIRE_BYTES",
        "what the framing of a message costs is not counted; use BYTES_SENT and BYTES_RECEIVED",
    ),
    (
        "DOWNSTREAM_HEADER_BYTES",
        "heads are counted without their encoding; use REQUEST_HEADERS_BYTES and RESPONSE_HEADERS_BYTES",
    ),
    (
        "DOWNSTREAM_DECOMPRESSED_HEADER_BYTES",
        "use REQUEST_HEADERS_BYTES and RESPONSE_HEADERS_BYTES",
    ),
    (
        "UPSTREAM_WIRE_BYTES",
        "what the framing of a message costs is not counted; use BYTES_SENT and BYTES_RECEIVED",
    ),
    (
        "UPSTREAM_HEADER_BYTES",
        "heads are counted without their encoding; use REQUEST_HEADERS_BYTES and RESPONSE_HEADERS_BYTES",
    ),
    (
        "UPSTREAM_DECOMPRESSED_HEADER_BYTES",
        "use REQUEST_HEADERS_BYTES and RESPONSE_HEADERS_BYTES",
    ),
    (
        "UPSTREAM_CONNECTION_ID",
        "connections to endpoints have no number",
    ),
    (
        "UPSTREAM_DETECTED_CLOSE_TYPE",
        "how an endpoint closes a pooled connection is not kept",
    ),
    (
        "UPSTREAM_LOCAL_CLOSE_REASON",
        "why a pooled connection is closed is not kept",
    ),
    (
        "UPSTREAM_",
        "of a connection to an endpoint there are its addresses, UPSTREAM_TLS_VERSION, TLS_CIPHER, TLS_GROUP, and what is in certificates",
    ),
    (
        "DOWNSTREAM_DETECTED_CLOSE_TYPE",
        "a request is logged before its connection has closed",
    ),
    (
        "DOWNSTREAM_TRANSPORT_FAILURE_REASON",
        "a connection whose handshake failed is logged nowhere",
    ),
    ("DOWNSTREAM_HANDSHAKE_DURATION", "handshakes are not timed"),
    (
        "DOWNSTREAM_CX_RTT",
        "the round trip time of a connection is not asked for",
    ),
    (
        "DOWNSTREAM_TLS_",
        "of a handshake there are DOWNSTREAM_TLS_VERSION, TLS_CIPHER and TLS_GROUP",
    ),
    (
        "DOWNSTREAM_LOCAL_",
        "of our own certificate there are DOWNSTREAM_LOCAL_URI_SAN, DNS_SAN, IP_SAN, EMAIL_SAN, SUBJECT",
    ),
    (
        "DOWNSTREAM_PEER_FINGERPRINT_1",
        "SHA-1 identifies nothing any more; use DOWNSTREAM_PEER_FINGERPRINT_256",
    ),
    (
        "DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_1",
        "SHA-1 identifies nothing any more; use DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256",
    ),
    (
        "DOWNSTREAM_PEER_OTHERNAME_SAN",
        "names of other kinds are not read",
    ),
    (
        "DOWNSTREAM_PEER_ISSUER_",
        "the authority's own certificate is not kept with the connection",
    ),
];

/// All names, for the error about one that is unknown.
pub(super) fn names() -> String {
    let simple = SIMPLE.iter().map(|(name, _)| *name);
    let all: Vec<_> = WITH_ARGUMENT.iter().copied().chain(simple).collect();
    all.join(", ")
}

fn unknown(name: &str) -> FormatError {
    let lacking = LACKING.iter().find(|(start, _)| name.starts_with(start));
    match lacking {
        Some((_, reason)) => FormatError::Lacking {
            name: name.into(),
            reason,
        },
        None => FormatError::Unknown { name: name.into() },
    }
}

impl Operator {
    pub(super) fn parse(name: &str, argument: Option<&str>) -> Result<Operator, FormatError> {
        if let Some((name, simple)) = SIMPLE.iter().find(|(known, _)| *known == name) {
            return match argument {
                None | Some("") => Ok(Operator::Simple(*simple)),
                Some(_) => Err(FormatError::TakesNoArgument(name)),
            };
        }
        let Some(name) = WITH_ARGUMENT.iter().copied().find(|known| *known == name) else {
            return Err(unknown(name));
        };
        let invalid = |reason| FormatError::Argument {
            operator: name,
            argument: argument.unwrap_or_default().to_owned(),
            reason,
        };
        let shown = |fact| Operator::UpstreamPeer(PeerFact::Own(Box::new(fact)));
        let own = |fact| Operator::Peer(PeerFact::Own(Box::new(fact)));
        let time = |local| TimeFormat::parse(argument.unwrap_or_default(), local).map_err(invalid);
        if let Some(masked) = Masked::parse(name, argument) {
            return masked.map(Operator::Masked).map_err(invalid);
        }
        Ok(match name {
            "REQUEST_HEADER" | "REQ" => {
                headers(name, argument).map(|(h, or)| Operator::Request(h, or))?
            }
            "REQ_WITHOUT_QUERY" => {
                headers(name, argument).map(|(h, or)| Operator::RequestWithoutQuery(h, or))?
            }
            "RESPONSE_HEADER" | "RESP" => {
                headers(name, argument).map(|(h, or)| Operator::Response(h, or))?
            }
            "RESPONSE_TRAILER" | "TRAILER" => {
                headers(name, argument).map(|(h, or)| Operator::Trailer(h, or))?
            }
            "PATH" => Operator::Path(PathView::parse(argument).map_err(invalid)?),
            "QUERY_PARAM" => {
                let parameter = argument.filter(|name| !name.is_empty());
                let parameter = parameter.ok_or(FormatError::NeedsArgument(name))?;
                Operator::Query(Query::One(parameter.as_bytes().into()))
            }
            "QUERY_PARAMS" => Operator::Query(Query::parse(argument).map_err(invalid)?),
            "REQUESTED_SERVER_NAME" => {
                Operator::ServerName(ServerName::parse(argument).map_err(invalid)?)
            }
            "START_TIME" => Operator::StartTime(time(false)?),
            "START_TIME_LOCAL" => Operator::StartTime(time(true)?),
            "EMIT_TIME" => Operator::EmitTime(time(false)?),
            "EMIT_TIME_LOCAL" => Operator::EmitTime(time(true)?),
            "COMMON_DURATION" => {
                let points = argument.ok_or(FormatError::NeedsArgument(name))?;
                Operator::Between(Between::parse(points).map_err(invalid)?)
            }
            "RESPONSE_CODE_DETAILS" => match argument {
                None | Some("") => Operator::Details { spaces: false },
                Some("ALLOW_WHITESPACES") => Operator::Details { spaces: true },
                Some(_) => return Err(invalid("supported is ALLOW_WHITESPACES")),
            },
            "UPSTREAM_PEER_CERT_V_START" => {
                Operator::UpstreamPeer(PeerFact::ValidFrom(time(false)?))
            }
            "UPSTREAM_PEER_CERT_V_END" => {
                Operator::UpstreamPeer(PeerFact::ValidUntil(time(false)?))
            }
            "DOWNSTREAM_PEER_CERT_V_START" => Operator::Peer(PeerFact::ValidFrom(time(false)?)),
            "DOWNSTREAM_PEER_CERT_V_END" => Operator::Peer(PeerFact::ValidUntil(time(false)?)),
            "ENVIRONMENT" => {
                let variable = argument.ok_or(FormatError::NeedsArgument(name))?;
                let value = std::env::var_os(variable);
                Operator::Constant(value.map(|value| value.into_encoded_bytes().into()))
            }
            "GRPC_STATUS" => Operator::GrpcStatus(match argument {
                None | Some("" | "CAMEL_STRING") => Style::Camel,
                Some("SNAKE_STRING") => Style::Snake,
                Some("NUMBER") => Style::Number,
                Some(_) => {
                    return Err(invalid(
                        "supported are CAMEL_STRING, SNAKE_STRING and NUMBER",
                    ));
                }
            }),
            "FILTER_STATE" => Operator::FilterState(FilterStateView::parse(name, argument)?),
            "DYNAMIC_METADATA" => Operator::DynamicMetadata(MetadataPath::parse(name, argument)?),
            "METADATA" => match argument.and_then(|argument| argument.split_once(':')) {
                Some(("DYNAMIC", path)) => {
                    Operator::DynamicMetadata(MetadataPath::parse(name, Some(path))?)
                }
                _ => {
                    return Err(invalid(
                        "supported is DYNAMIC:NAMESPACE:KEY...; the metadata of resources is not kept",
                    ));
                }
            },
            "COALESCE" => Operator::Coalesce(coalesce(argument.unwrap_or_default(), invalid)?),
            _ if argument.is_some_and(|argument| !argument.is_empty()) => {
                return Err(FormatError::TakesNoArgument(name));
            }
            "GRPC_STATUS_NUMBER" => Operator::GrpcStatus(Style::Number),
            "HOSTNAME" => Operator::Constant(hostname()),
            "UPSTREAM_PEER_URI_SAN" => Operator::UpstreamPeer(PeerFact::UriSan),
            "UPSTREAM_PEER_DNS_SAN" => Operator::UpstreamPeer(PeerFact::DnsSan),
            "UPSTREAM_PEER_IP_SAN" => Operator::UpstreamPeer(PeerFact::IpSan),
            "UPSTREAM_PEER_SUBJECT" => Operator::UpstreamPeer(PeerFact::Subject),
            "UPSTREAM_PEER_ISSUER" => Operator::UpstreamPeer(PeerFact::Issuer),
            "UPSTREAM_PEER_CERT" => Operator::UpstreamPeer(PeerFact::Certificate),
            "UPSTREAM_LOCAL_URI_SAN" => shown(PeerFact::UriSan),
            "UPSTREAM_LOCAL_DNS_SAN" => shown(PeerFact::DnsSan),
            "UPSTREAM_LOCAL_IP_SAN" => shown(PeerFact::IpSan),
            "DOWNSTREAM_PEER_URI_SAN" => Operator::Peer(PeerFact::UriSan),
            "DOWNSTREAM_PEER_DNS_SAN" => Operator::Peer(PeerFact::DnsSan),
            "DOWNSTREAM_PEER_IP_SAN" => Operator::Peer(PeerFact::IpSan),
            "DOWNSTREAM_PEER_EMAIL_SAN" => Operator::Peer(PeerFact::EmailSan),
            "DOWNSTREAM_PEER_SUBJECT" => Operator::Peer(PeerFact::Subject),
            "DOWNSTREAM_PEER_ISSUER" => Operator::Peer(PeerFact::Issuer),
            "DOWNSTREAM_PEER_SERIAL" => Operator::Peer(PeerFact::Serial),
            "DOWNSTREAM_PEER_FINGERPRINT_256" => Operator::Peer(PeerFact::Fingerprint),
            "DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256" => Operator::Peer(PeerFact::Fingerprints),
            "DOWNSTREAM_PEER_CHAIN_SERIALS" => Operator::Peer(PeerFact::Serials),
            "DOWNSTREAM_PEER_CERT" => Operator::Peer(PeerFact::Certificate),
            "DOWNSTREAM_LOCAL_URI_SAN" => own(PeerFact::UriSan),
            "DOWNSTREAM_LOCAL_DNS_SAN" => own(PeerFact::DnsSan),
            "DOWNSTREAM_LOCAL_IP_SAN" => own(PeerFact::IpSan),
            "DOWNSTREAM_LOCAL_EMAIL_SAN" => own(PeerFact::EmailSan),
            "DOWNSTREAM_LOCAL_SUBJECT" => own(PeerFact::Subject),
            other => return Err(FormatError::Unknown { name: other.into() }),
        })
    }

    /// Whether its value is a number in typed JSON.
    pub(super) fn is_number(&self) -> bool {
        match self {
            Operator::Simple(simple) => simple.is_number(),
            Operator::Between(_) | Operator::GrpcStatus(Style::Number) => true,
            _ => false,
        }
    }

    /// Appends the value; says whether there is one. What the network chose and no codec has
    /// checked is written without control characters, for it may become a header.
    pub(super) fn write(&self, record: &Record<'_>, out: &mut Vec<u8>) -> bool {
        match self {
            Operator::Request(header, or) => record.request.is_some_and(|request| {
                either(header, or, out, |header, out| {
                    header.of_request(request, out)
                })
            }),
            Operator::RequestWithoutQuery(header, or) => record.request.is_some_and(|request| {
                let start = out.len();
                let present = either(header, or, out, |header, out| {
                    header.of_request(request, out)
                });
                if let Some(query) = memchr::memchr(b'?', &out[start..]) {
                    out.truncate(start + query);
                }
                present
            }),
            Operator::Response(header, or) => record.response.is_some_and(|response| {
                either(header, or, out, |header, out| {
                    if &*header.text == b":status" {
                        return integer(response.status.into(), out);
                    }
                    header.of_fields(&response.headers, out)
                })
            }),
            Operator::Trailer(header, or) => record.trailers.is_some_and(|trailers| {
                either(header, or, out, |header, out| {
                    header.of_fields(trailers, out)
                })
            }),
            Operator::Path(view) => record
                .request
                .is_some_and(|request| view.write(request, out)),
            Operator::Query(query) => record
                .request
                .is_some_and(|request| query.write(request, out)),
            Operator::ServerName(name) => name.write(record, out),
            Operator::StartTime(format) => {
                format.write(record.started, out);
                true
            }
            Operator::EmitTime(format) => {
                format.write(std::time::SystemTime::now(), out);
                true
            }
            Operator::Between(between) => between.write(record, out),
            Operator::Masked(masked) => masked.write(record, out),
            Operator::Peer(fact) => fact.write(record.connection.tls.as_deref(), out),
            Operator::UpstreamPeer(fact) => fact.write(record.upstream_tls, out),
            Operator::Constant(value) => value.as_ref().is_some_and(|value| text(value, out)),
            Operator::GrpcStatus(style) => {
                // Who sent no gRPC request got no gRPC status.
                if !record.request.is_some_and(|request| request.is_grpc()) {
                    return false;
                }
                grpc::status(record).is_some_and(|code| match grpc::name(code, *style) {
                    Some(name) => text(name.as_bytes(), out),
                    None => integer(code, out),
                })
            }
            Operator::Details { spaces: true } => text(record.details.as_bytes(), out),
            Operator::Details { spaces: false } => spaceless(record.details.as_bytes(), out),
            Operator::FilterState(view) => view.write(record, out),
            Operator::DynamicMetadata(path) => path.write(record, out),
            Operator::Coalesce(operators) => operators.iter().any(|(operator, limit)| {
                let start = out.len();
                let present = write_limited(operator, *limit, record, out) && out.len() > start;
                if !present {
                    out.truncate(start);
                }
                present
            }),
            Operator::Simple(simple) => simple.write(record, out),
        }
    }

    /// The value in typed JSON, where it is more than text or a number.
    pub(super) fn json(&self, record: &Record<'_>) -> Option<serde_json::Value> {
        match self {
            Operator::FilterState(view) => view.json(record),
            Operator::DynamicMetadata(path) => path.json(record),
            _ => None,
        }
    }
}

/// The operators of `COALESCE`: names, or objects with a `command`, `param` and `max_length`.
fn coalesce(
    argument: &str,
    invalid: impl Fn(&'static str) -> FormatError,
) -> Result<Vec<(Operator, Option<usize>)>, FormatError> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Choices {
        operators: Vec<Choice>,
    }
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Choice {
        Name(String),
        Full {
            command: String,
            #[serde(default)]
            param: Option<String>,
            #[serde(default)]
            max_length: Option<usize>,
        },
    }
    let choices: Choices = serde_json::from_str(argument).map_err(|_| {
        invalid("must be a JSON object with a list of `operators`, each a name, or an object with `command`, `param` and `max_length`")
    })?;
    if choices.operators.is_empty() {
        return Err(invalid("`operators` must not be empty"));
    }
    let choices = choices.operators.into_iter().map(|choice| match choice {
        Choice::Name(name) => Ok((Operator::parse(&name, None)?, None)),
        Choice::Full {
            command,
            param,
            max_length,
        } => Ok((Operator::parse(&command, param.as_deref())?, max_length)),
    });
    choices.collect()
}

/// The kernel's name of this machine or pod.
fn hostname() -> Option<Box<[u8]>> {
    let name = std::fs::read("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim_ascii().into())
}
