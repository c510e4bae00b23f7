//! The operators: their names, their arguments, and where their values come from.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::certificate::PeerFact;
use super::connection_state::{FilterStateView, MetadataPath};
use super::parse::FormatError;
use super::time::TimeFormat;
use crate::config::address::Address;
use crate::config::tls::TlsVersion;
use crate::http::headers::{Headers, Name};
use crate::http::message::RequestHead;
use crate::telemetry::access_log::record::Record;

/// One operator, ready to be written.
#[derive(Debug)]
pub(super) enum Operator {
    /// `REQ`: a header of the request, or the second one where the first is absent.
    Request(Header, Option<Header>),
    /// `RESP`
    Response(Header, Option<Header>),
    /// `TRAILER`
    Trailer(Header, Option<Header>),
    StartTime(TimeFormat),
    Peer(PeerFact),
    /// `ENVIRONMENT` and `HOSTNAME`: read when the format is parsed.
    Constant(Option<Box<[u8]>>),
    GrpcStatus,
    FilterState(FilterStateView),
    DynamicMetadata(MetadataPath),
    Simple(Simple),
}

/// The name of a header, recognised once.
#[derive(Debug)]
pub(super) struct Header {
    known: Name,
    /// In lower case.
    text: Box<[u8]>,
}

macro_rules! simple {
    ($($variant:ident = $name:literal,)+) => {
        /// Operators without an argument, by the name in the format.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Simple { $(#[doc = $name] $variant,)+ }

        const SIMPLE: &[(&str, Simple)] = &[$(($name, Simple::$variant),)+];
    };
}

simple! {
    Protocol = "PROTOCOL",
    ResponseCode = "RESPONSE_CODE",
    ResponseCodeDetails = "RESPONSE_CODE_DETAILS",
    ConnectionTerminationDetails = "CONNECTION_TERMINATION_DETAILS",
    ResponseFlags = "RESPONSE_FLAGS",
    ResponseFlagsLong = "RESPONSE_FLAGS_LONG",
    BytesReceived = "BYTES_RECEIVED",
    BytesSent = "BYTES_SENT",
    Duration = "DURATION",
    ResponseDuration = "RESPONSE_DURATION",
    ResponseTxDuration = "RESPONSE_TX_DURATION",
    GrpcStatusNumber = "GRPC_STATUS_NUMBER",
    UpstreamHost = "UPSTREAM_HOST",
    UpstreamCluster = "UPSTREAM_CLUSTER",
    UpstreamClusterRaw = "UPSTREAM_CLUSTER_RAW",
    UpstreamRemoteAddress = "UPSTREAM_REMOTE_ADDRESS",
    UpstreamRemoteAddressWithoutPort = "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    UpstreamRemotePort = "UPSTREAM_REMOTE_PORT",
    UpstreamLocalAddress = "UPSTREAM_LOCAL_ADDRESS",
    UpstreamLocalAddressWithoutPort = "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    UpstreamLocalPort = "UPSTREAM_LOCAL_PORT",
    UpstreamTransportFailureReason = "UPSTREAM_TRANSPORT_FAILURE_REASON",
    UpstreamRequestAttemptCount = "UPSTREAM_REQUEST_ATTEMPT_COUNT",
    DownstreamRemoteAddress = "DOWNSTREAM_REMOTE_ADDRESS",
    DownstreamRemoteAddressWithoutPort = "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    DownstreamRemotePort = "DOWNSTREAM_REMOTE_PORT",
    DownstreamDirectRemoteAddress = "DOWNSTREAM_DIRECT_REMOTE_ADDRESS",
    DownstreamDirectRemoteAddressWithoutPort = "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
    DownstreamDirectRemotePort = "DOWNSTREAM_DIRECT_REMOTE_PORT",
    DownstreamLocalAddress = "DOWNSTREAM_LOCAL_ADDRESS",
    DownstreamLocalAddressWithoutPort = "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    DownstreamLocalPort = "DOWNSTREAM_LOCAL_PORT",
    DownstreamDirectLocalAddress = "DOWNSTREAM_DIRECT_LOCAL_ADDRESS",
    DownstreamDirectLocalAddressWithoutPort = "DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT",
    DownstreamDirectLocalPort = "DOWNSTREAM_DIRECT_LOCAL_PORT",
    DownstreamTlsVersion = "DOWNSTREAM_TLS_VERSION",
    DownstreamTlsCipher = "DOWNSTREAM_TLS_CIPHER",
    RequestedServerName = "REQUESTED_SERVER_NAME",
    RouteName = "ROUTE_NAME",
    FilterChainName = "FILTER_CHAIN_NAME",
    ListenerName = "LISTENER_NAME",
    ConnectionId = "CONNECTION_ID",
    DownstreamLocalCloseReason = "DOWNSTREAM_LOCAL_CLOSE_REASON",
    AccessLogType = "ACCESS_LOG_TYPE",
}

const WITH_ARGUMENT: &[&str] = &[
    "REQ",
    "RESP",
    "TRAILER",
    "START_TIME",
    "ENVIRONMENT",
    "GRPC_STATUS",
    "FILTER_STATE",
    "DYNAMIC_METADATA",
    "HOSTNAME",
    "DOWNSTREAM_PEER_URI_SAN",
    "DOWNSTREAM_PEER_DNS_SAN",
    "DOWNSTREAM_PEER_IP_SAN",
    "DOWNSTREAM_PEER_EMAIL_SAN",
    "DOWNSTREAM_PEER_SUBJECT",
    "DOWNSTREAM_PEER_ISSUER",
    "DOWNSTREAM_PEER_SERIAL",
    "DOWNSTREAM_PEER_FINGERPRINT_256",
    "DOWNSTREAM_PEER_CERT",
    "DOWNSTREAM_PEER_CERT_V_START",
    "DOWNSTREAM_PEER_CERT_V_END",
];

/// All names, for the error about one that is unknown.
pub(super) fn names() -> String {
    let simple = SIMPLE.iter().map(|(name, _)| *name);
    let all: Vec<_> = WITH_ARGUMENT.iter().copied().chain(simple).collect();
    all.join(", ")
}

impl Operator {
    pub(super) fn parse(name: &str, argument: Option<&str>) -> Result<Operator, FormatError> {
        if let Some((name, simple)) = SIMPLE.iter().find(|(known, _)| *known == name) {
            return match argument {
                None => Ok(Operator::Simple(*simple)),
                Some(_) => Err(FormatError::TakesNoArgument(name)),
            };
        }
        let Some(name) = WITH_ARGUMENT.iter().copied().find(|known| *known == name) else {
            return Err(FormatError::Unknown { name: name.into() });
        };
        let time = || {
            let pattern = argument.unwrap_or_default();
            TimeFormat::parse(pattern).map_err(|reason| FormatError::Argument {
                operator: name,
                argument: pattern.to_owned(),
                reason,
            })
        };
        Ok(match name {
            "REQ" => headers(name, argument).map(|(h, or)| Operator::Request(h, or))?,
            "RESP" => headers(name, argument).map(|(h, or)| Operator::Response(h, or))?,
            "TRAILER" => headers(name, argument).map(|(h, or)| Operator::Trailer(h, or))?,
            "START_TIME" => Operator::StartTime(time()?),
            "DOWNSTREAM_PEER_CERT_V_START" => Operator::Peer(PeerFact::ValidFrom(time()?)),
            "DOWNSTREAM_PEER_CERT_V_END" => Operator::Peer(PeerFact::ValidUntil(time()?)),
            "ENVIRONMENT" => {
                let variable = argument.ok_or(FormatError::NeedsArgument(name))?;
                let value = std::env::var_os(variable);
                Operator::Constant(value.map(|value| value.into_encoded_bytes().into()))
            }
            "GRPC_STATUS" => match argument {
                None | Some("CAMEL_STRING") => Operator::GrpcStatus,
                Some("NUMBER") => Operator::Simple(Simple::GrpcStatusNumber),
                Some(other) => {
                    return Err(FormatError::Argument {
                        operator: name,
                        argument: other.to_owned(),
                        reason: "supported are CAMEL_STRING and NUMBER",
                    });
                }
            },
            "FILTER_STATE" => Operator::FilterState(FilterStateView::parse(name, argument)?),
            "DYNAMIC_METADATA" => Operator::DynamicMetadata(MetadataPath::parse(name, argument)?),
            _ if argument.is_some() => return Err(FormatError::TakesNoArgument(name)),
            "HOSTNAME" => Operator::Constant(hostname()),
            "DOWNSTREAM_PEER_URI_SAN" => Operator::Peer(PeerFact::UriSan),
            "DOWNSTREAM_PEER_DNS_SAN" => Operator::Peer(PeerFact::DnsSan),
            "DOWNSTREAM_PEER_IP_SAN" => Operator::Peer(PeerFact::IpSan),
            "DOWNSTREAM_PEER_EMAIL_SAN" => Operator::Peer(PeerFact::EmailSan),
            "DOWNSTREAM_PEER_SUBJECT" => Operator::Peer(PeerFact::Subject),
            "DOWNSTREAM_PEER_ISSUER" => Operator::Peer(PeerFact::Issuer),
            "DOWNSTREAM_PEER_SERIAL" => Operator::Peer(PeerFact::Serial),
            "DOWNSTREAM_PEER_FINGERPRINT_256" => Operator::Peer(PeerFact::Fingerprint),
            "DOWNSTREAM_PEER_CERT" => Operator::Peer(PeerFact::Certificate),
            other => return Err(FormatError::Unknown { name: other.into() }),
        })
    }

    /// Whether its value is a number in typed JSON.
    pub(super) fn is_number(&self) -> bool {
        use Simple as S;
        matches!(
            self,
            Operator::Simple(
                S::ResponseCode
                    | S::BytesReceived
                    | S::BytesSent
                    | S::Duration
                    | S::ResponseDuration
                    | S::ResponseTxDuration
                    | S::GrpcStatusNumber
                    | S::UpstreamRemotePort
                    | S::UpstreamLocalPort
                    | S::UpstreamRequestAttemptCount
                    | S::DownstreamRemotePort
                    | S::DownstreamDirectRemotePort
                    | S::DownstreamLocalPort
                    | S::DownstreamDirectLocalPort
                    | S::ConnectionId
            )
        )
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
            Operator::StartTime(format) => {
                format.write(record.started, out);
                true
            }
            Operator::Peer(fact) => fact.write(record.connection.tls.as_deref(), out),
            Operator::Constant(value) => value.as_ref().is_some_and(|value| text(value, out)),
            Operator::GrpcStatus => {
                grpc_status(record).is_some_and(|code| {
                    match usize::try_from(code).ok().and_then(|at| GRPC_CODES.get(at)) {
                        Some(name) => text(name.as_bytes(), out),
                        None => integer(code, out),
                    }
                })
            }
            Operator::FilterState(view) => view.write(record.connection, out),
            Operator::DynamicMetadata(path) => path.write(record.connection, out),
            Operator::Simple(simple) => simple.write(record, out),
        }
    }

    /// The value in typed JSON, where it is more than text or a number.
    pub(super) fn json(&self, record: &Record<'_>) -> Option<serde_json::Value> {
        match self {
            Operator::FilterState(view) => view.json(record.connection),
            Operator::DynamicMetadata(path) => path.json(record.connection),
            _ => None,
        }
    }
}

impl Simple {
    fn write(self, record: &Record<'_>, out: &mut Vec<u8>) -> bool {
        let connection = record.connection;
        let told = record.client.map(Address::Socket);
        let client = told.as_ref().unwrap_or(&connection.peer);
        match self {
            Simple::Protocol => record
                .request
                .is_some_and(|request| text(request.version.as_str().as_bytes(), out)),
            Simple::ResponseCode => integer(record.status.into(), out),
            Simple::ResponseCodeDetails => spaceless(record.details.as_bytes(), out),
            Simple::ConnectionTerminationDetails => {
                let details = connection.state.termination_details.borrow();
                spaceless(details.as_bytes(), out)
            }
            Simple::DownstreamLocalCloseReason => {
                spaceless(connection.state.close_reason.get().as_bytes(), out)
            }
            Simple::AccessLogType => text(record.kind.as_str().as_bytes(), out),
            // No flag is a value of its own, written `-` everywhere.
            Simple::ResponseFlags => {
                record.flags.write_short(out);
                true
            }
            Simple::ResponseFlagsLong => {
                record.flags.write_long(out);
                true
            }
            Simple::BytesReceived => integer(record.bytes_received, out),
            Simple::BytesSent => integer(record.bytes_sent, out),
            Simple::Duration => milliseconds(record.duration, out),
            Simple::ResponseDuration => record
                .response_duration
                .is_some_and(|duration| milliseconds(duration, out)),
            Simple::ResponseTxDuration => record
                .response_duration
                .is_some_and(|first| milliseconds(record.duration.saturating_sub(first), out)),
            Simple::GrpcStatusNumber => grpc_status(record).is_some_and(|code| integer(code, out)),
            Simple::UpstreamHost | Simple::UpstreamRemoteAddress => {
                record.upstream_host.is_some_and(|at| address(at, out))
            }
            Simple::UpstreamRemoteAddressWithoutPort => {
                record.upstream_host.is_some_and(|at| without_port(at, out))
            }
            Simple::UpstreamRemotePort => record.upstream_host.is_some_and(|at| port(at, out)),
            Simple::UpstreamCluster | Simple::UpstreamClusterRaw => record
                .upstream_cluster
                .is_some_and(|name| text(name.as_bytes(), out)),
            Simple::UpstreamLocalAddress => record.upstream_local.is_some_and(|at| socket(at, out)),
            Simple::UpstreamLocalAddressWithoutPort => {
                record.upstream_local.is_some_and(|at| ip(at.ip(), out))
            }
            Simple::UpstreamLocalPort => record
                .upstream_local
                .is_some_and(|at| integer(at.port().into(), out)),
            Simple::UpstreamTransportFailureReason => {
                spaceless(record.upstream_failure.as_bytes(), out)
            }
            Simple::UpstreamRequestAttemptCount => integer(record.attempts.into(), out),
            Simple::DownstreamRemoteAddress => address(client, out),
            Simple::DownstreamRemoteAddressWithoutPort => without_port(client, out),
            Simple::DownstreamRemotePort => port(client, out),
            Simple::DownstreamDirectRemoteAddress => address(&connection.direct_peer, out),
            Simple::DownstreamDirectRemoteAddressWithoutPort => {
                without_port(&connection.direct_peer, out)
            }
            Simple::DownstreamDirectRemotePort => port(&connection.direct_peer, out),
            Simple::DownstreamLocalAddress => address(&connection.local, out),
            Simple::DownstreamLocalAddressWithoutPort => without_port(&connection.local, out),
            Simple::DownstreamLocalPort => port(&connection.local, out),
            Simple::DownstreamDirectLocalAddress => address(&connection.direct_local, out),
            Simple::DownstreamDirectLocalAddressWithoutPort => {
                without_port(&connection.direct_local, out)
            }
            Simple::DownstreamDirectLocalPort => port(&connection.direct_local, out),
            Simple::DownstreamTlsVersion => connection.tls.as_ref().is_some_and(|tls| {
                let version: &[u8] = match tls.version {
                    TlsVersion::V1_2 => b"TLSv1.2",
                    TlsVersion::V1_3 => b"TLSv1.3",
                };
                text(version, out)
            }),
            Simple::DownstreamTlsCipher => connection
                .tls
                .as_ref()
                .is_some_and(|tls| text(tls.cipher.as_bytes(), out)),
            Simple::RequestedServerName => connection
                .server_name
                .as_ref()
                .is_some_and(|name| text(name.as_bytes(), out)),
            Simple::RouteName => text(record.route_name.as_bytes(), out),
            Simple::FilterChainName => text(connection.chain.name.as_bytes(), out),
            Simple::ListenerName => text(connection.listener.name.as_bytes(), out),
            Simple::ConnectionId => integer(connection.id, out),
        }
    }
}

/// Reads `NAME` or `NAME?OTHER`.
fn headers(
    operator: &'static str,
    argument: Option<&str>,
) -> Result<(Header, Option<Header>), FormatError> {
    let argument = argument
        .filter(|argument| !argument.is_empty())
        .ok_or(FormatError::NeedsArgument(operator))?;
    let (first, second) = match argument.split_once('?') {
        Some((first, second)) => (first, Some(second)),
        None => (argument, None),
    };
    if first.is_empty() || second.is_some_and(|name| name.is_empty() || name.contains('?')) {
        return Err(FormatError::Argument {
            operator,
            argument: argument.to_owned(),
            reason: "must be a header, or two with a ? between them",
        });
    }
    Ok((Header::new(first), second.map(Header::new)))
}

fn either(
    first: &Header,
    second: &Option<Header>,
    out: &mut Vec<u8>,
    write: impl Fn(&Header, &mut Vec<u8>) -> bool,
) -> bool {
    write(first, out) || second.as_ref().is_some_and(|second| write(second, out))
}

impl Header {
    fn new(name: &str) -> Header {
        let text = name.to_ascii_lowercase().into_bytes().into_boxed_slice();
        Header {
            known: Name::recognise(&text),
            text,
        }
    }

    fn of_request(&self, request: &RequestHead, out: &mut Vec<u8>) -> bool {
        match &*self.text {
            b":method" => text(&request.method, out),
            b":path" => text(&request.path, out),
            b":authority" | b"host" => text(&request.authority, out),
            b":scheme" => text(request.scheme.as_bytes(), out),
            b":protocol" => request.protocol.as_ref().is_some_and(|p| text(p, out)),
            _ => self.of_fields(&request.headers, out),
        }
    }

    fn of_fields(&self, fields: &Headers, out: &mut Vec<u8>) -> bool {
        let value = match self.known {
            Name::Other => fields.named(&self.text).next(),
            known => fields.first(known),
        };
        value.is_some_and(|value| {
            out.extend_from_slice(value);
            true
        })
    }
}

fn text(value: &[u8], out: &mut Vec<u8>) -> bool {
    visible(value, out);
    !value.is_empty()
}

/// Appends text without control characters.
pub(super) fn visible(value: &[u8], out: &mut Vec<u8>) {
    out.extend(value.iter().filter(|byte| !byte.is_ascii_control()));
}

/// Appends a reason with `_` for each space, as Envoy writes them: fields of a line stay apart.
fn spaceless(value: &[u8], out: &mut Vec<u8>) -> bool {
    let start = out.len();
    visible(value, out);
    for byte in &mut out[start..] {
        if *byte == b' ' {
            *byte = b'_';
        }
    }
    !value.is_empty()
}

fn integer(value: u64, out: &mut Vec<u8>) -> bool {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    true
}

fn milliseconds(duration: Duration, out: &mut Vec<u8>) -> bool {
    integer(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX), out)
}

fn ip(address: IpAddr, out: &mut Vec<u8>) -> bool {
    use std::io::Write as _;
    write!(out, "{}", address.to_canonical()).is_ok()
}

fn socket(address: SocketAddr, out: &mut Vec<u8>) -> bool {
    use std::io::Write as _;
    let canonical = SocketAddr::new(address.ip().to_canonical(), address.port());
    write!(out, "{canonical}").is_ok()
}

/// With its port; a Unix socket by its path.
fn address(address: &Address, out: &mut Vec<u8>) -> bool {
    match address {
        Address::Socket(at) => socket(*at, out),
        Address::Pipe(path) => text(path.as_os_str().as_encoded_bytes(), out),
    }
}

fn without_port(at: &Address, out: &mut Vec<u8>) -> bool {
    match at {
        Address::Socket(at) => ip(at.ip(), out),
        Address::Pipe(_) => address(at, out),
    }
}

fn port(address: &Address, out: &mut Vec<u8>) -> bool {
    address.port().is_some_and(|port| integer(port.into(), out))
}

/// The kernel's name of this machine or pod.
fn hostname() -> Option<Box<[u8]>> {
    let name = std::fs::read("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim_ascii().into())
}

/// `grpc-status` of the trailers, or of a response that is trailers only.
fn grpc_status(record: &Record<'_>) -> Option<u64> {
    let in_trailers = record.trailers.and_then(|t| t.first(Name::GrpcStatus));
    let in_headers = || {
        let response = record.response?;
        response.headers.first(Name::GrpcStatus)
    };
    let value = in_trailers.or_else(in_headers)?;
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// gRPC's status codes by number (its documentation, "Status codes and their use").
const GRPC_CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];
