//! Operators without an argument.

use std::sync::LazyLock;
use std::time::Duration;

use rustls::NamedGroup;

use super::text::{address, integer, milliseconds, port, socket, spaceless, text, without_port};
use crate::config::address::Address;
use crate::config::tls::TlsVersion;
use crate::http::headers::{Headers, Name};
use crate::http::message::{BodyLength, RequestHead, ResponseHead};
use crate::http::route::split_port;
use crate::telemetry::access_log::record::Record;
use crate::tls::stream::Handshake;

macro_rules! simple {
    ($($variant:ident = $name:literal,)+) => {
        /// Operators without an argument, by the name in the format.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Simple { $(#[doc = $name] $variant,)+ }

        pub(super) const SIMPLE: &[(&str, Simple)] = &[$(($name, Simple::$variant),)+];
    };
}

simple! {
    Protocol = "PROTOCOL",
    ResponseCode = "RESPONSE_CODE",
    ConnectionTerminationDetails = "CONNECTION_TERMINATION_DETAILS",
    ResponseFlags = "RESPONSE_FLAGS",
    ResponseFlagsLong = "RESPONSE_FLAGS_LONG",
    BytesReceived = "BYTES_RECEIVED",
    BytesSent = "BYTES_SENT",
    Duration = "DURATION",
    ResponseDuration = "RESPONSE_DURATION",
    ResponseTxDuration = "RESPONSE_TX_DURATION",
    UpstreamHost = "UPSTREAM_HOST",
    UpstreamCluster = "UPSTREAM_CLUSTER",
    UpstreamClusterRaw = "UPSTREAM_CLUSTER_RAW",
    UpstreamRemoteAddress = "UPSTREAM_REMOTE_ADDRESS",
    UpstreamRemotePort = "UPSTREAM_REMOTE_PORT",
    UpstreamLocalAddress = "UPSTREAM_LOCAL_ADDRESS",
    UpstreamLocalPort = "UPSTREAM_LOCAL_PORT",
    UpstreamTransportFailureReason = "UPSTREAM_TRANSPORT_FAILURE_REASON",
    UpstreamRequestAttemptCount = "UPSTREAM_REQUEST_ATTEMPT_COUNT",
    DownstreamRemoteAddress = "DOWNSTREAM_REMOTE_ADDRESS",
    DownstreamRemotePort = "DOWNSTREAM_REMOTE_PORT",
    DownstreamDirectRemoteAddress = "DOWNSTREAM_DIRECT_REMOTE_ADDRESS",
    DownstreamDirectRemotePort = "DOWNSTREAM_DIRECT_REMOTE_PORT",
    DownstreamLocalAddress = "DOWNSTREAM_LOCAL_ADDRESS",
    DownstreamLocalPort = "DOWNSTREAM_LOCAL_PORT",
    DownstreamDirectLocalAddress = "DOWNSTREAM_DIRECT_LOCAL_ADDRESS",
    DownstreamDirectLocalPort = "DOWNSTREAM_DIRECT_LOCAL_PORT",
    DownstreamTlsVersion = "DOWNSTREAM_TLS_VERSION",
    DownstreamTlsCipher = "DOWNSTREAM_TLS_CIPHER",
    DownstreamTlsGroup = "DOWNSTREAM_TLS_GROUP",
    UpstreamTlsVersion = "UPSTREAM_TLS_VERSION",
    UpstreamTlsCipher = "UPSTREAM_TLS_CIPHER",
    UpstreamTlsGroup = "UPSTREAM_TLS_GROUP",
    RouteName = "ROUTE_NAME",
    FilterChainName = "FILTER_CHAIN_NAME",
    ListenerName = "LISTENER_NAME",
    ConnectionId = "CONNECTION_ID",
    StreamId = "STREAM_ID",
    UniqueId = "UNIQUE_ID",
    LocalReplyBody = "LOCAL_REPLY_BODY",
    RequestHeadersBytes = "REQUEST_HEADERS_BYTES",
    ResponseHeadersBytes = "RESPONSE_HEADERS_BYTES",
    ResponseTrailersBytes = "RESPONSE_TRAILERS_BYTES",
    BytesRetransmitted = "BYTES_RETRANSMITTED",
    PacketsRetransmitted = "PACKETS_RETRANSMITTED",
    RequestDuration = "REQUEST_DURATION",
    RequestTxDuration = "REQUEST_TX_DURATION",
    RoundtripDuration = "ROUNDTRIP_DURATION",
    PoolReadyDuration = "UPSTREAM_CONNECTION_POOL_READY_DURATION",
    UpstreamProtocol = "UPSTREAM_PROTOCOL",
    UpstreamHostName = "UPSTREAM_HOST_NAME",
    UpstreamHostNameWithoutPort = "UPSTREAM_HOST_NAME_WITHOUT_PORT",
    HostsAttempted = "UPSTREAM_HOSTS_ATTEMPTED",
    HostsAttemptedWithoutPort = "UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT",
    HostNamesAttempted = "UPSTREAM_HOST_NAMES_ATTEMPTED",
    HostNamesAttemptedWithoutPort = "UPSTREAM_HOST_NAMES_ATTEMPTED_WITHOUT_PORT",
    TraceId = "TRACE_ID",
    SpanId = "SPAN_ID",
    CustomFlags = "CUSTOM_FLAGS",
    DownstreamLocalEndpointId = "DOWNSTREAM_LOCAL_ADDRESS_ENDPOINT_ID",
    DownstreamDirectLocalEndpointId = "DOWNSTREAM_DIRECT_LOCAL_ADDRESS_ENDPOINT_ID",
    UpstreamRemoteEndpointId = "UPSTREAM_REMOTE_ADDRESS_ENDPOINT_ID",
    DownstreamLocalCloseReason = "DOWNSTREAM_LOCAL_CLOSE_REASON",
    AccessLogType = "ACCESS_LOG_TYPE",
    TlsJa3Fingerprint = "TLS_JA3_FINGERPRINT",
    TlsJa4Fingerprint = "TLS_JA4_FINGERPRINT",
}

impl Simple {
    /// Whether its value is a number in typed JSON.
    pub(super) fn is_number(self) -> bool {
        use Simple as S;
        matches!(
            self,
            S::ResponseCode
                | S::BytesReceived
                | S::BytesSent
                | S::BytesRetransmitted
                | S::PacketsRetransmitted
                | S::RequestHeadersBytes
                | S::ResponseHeadersBytes
                | S::ResponseTrailersBytes
                | S::Duration
                | S::RequestDuration
                | S::RequestTxDuration
                | S::ResponseDuration
                | S::ResponseTxDuration
                | S::PoolReadyDuration
                | S::UpstreamRemotePort
                | S::UpstreamLocalPort
                | S::UpstreamRequestAttemptCount
                | S::DownstreamRemotePort
                | S::DownstreamDirectRemotePort
                | S::DownstreamLocalPort
                | S::DownstreamDirectLocalPort
                | S::ConnectionId
        )
    }

    pub(super) fn write(self, record: &Record<'_>, out: &mut Vec<u8>) -> bool {
        let connection = record.connection;
        let told = record.client.map(Address::Socket);
        let client = told.as_ref().unwrap_or(&connection.peer);
        match self {
            Simple::Protocol => {
                let version = record.request.map(|request| request.version);
                version
                    .or(connection.state.http.get())
                    .is_some_and(|version| text(version.as_str().as_bytes(), out))
            }
            Simple::ResponseCode => integer(record.status.into(), out),
            Simple::ConnectionTerminationDetails => {
                let details = connection.state.termination_details.borrow();
                spaceless(details.as_bytes(), out)
            }
            Simple::DownstreamLocalCloseReason => {
                spaceless(connection.state.close_reason.get().as_bytes(), out)
            }
            Simple::TlsJa3Fingerprint | Simple::TlsJa4Fingerprint => {
                let found = connection
                    .state
                    .fingerprints
                    .as_ref()
                    .and_then(|found| match self {
                        Simple::TlsJa3Fingerprint => found.ja3.as_ref(),
                        _ => found.ja4.as_ref(),
                    });
                found.is_some_and(|found| text(found.as_bytes(), out))
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
            Simple::UpstreamHost => record.upstream_host.is_some_and(|at| address(at, out)),
            Simple::UpstreamRemoteAddress => record.reached().is_some_and(|at| address(at, out)),
            Simple::UpstreamRemotePort => record.reached().is_some_and(|at| port(at, out)),
            Simple::UpstreamCluster => record
                .upstream_cluster_told
                .is_some_and(|name| text(name.as_bytes(), out)),
            Simple::UpstreamClusterRaw => record
                .upstream_cluster
                .is_some_and(|name| text(name.as_bytes(), out)),
            Simple::UpstreamLocalAddress => record.upstream_local.is_some_and(|at| socket(at, out)),
            Simple::UpstreamLocalPort => record
                .upstream_local
                .is_some_and(|at| integer(at.port().into(), out)),
            Simple::UpstreamTransportFailureReason => {
                spaceless(record.upstream_failure.as_bytes(), out)
            }
            Simple::UpstreamRequestAttemptCount => integer(record.attempts.into(), out),
            Simple::DownstreamRemoteAddress => address(client, out),
            Simple::DownstreamRemotePort => port(client, out),
            Simple::DownstreamDirectRemoteAddress => address(&connection.direct_peer, out),
            Simple::DownstreamDirectRemotePort => port(&connection.direct_peer, out),
            Simple::DownstreamLocalAddress => address(&connection.local, out),
            Simple::DownstreamLocalPort => port(&connection.local, out),
            Simple::DownstreamDirectLocalAddress => address(&connection.direct_local, out),
            Simple::DownstreamDirectLocalPort => port(&connection.direct_local, out),
            Simple::DownstreamTlsVersion => tls_version(connection.tls.as_deref(), out),
            Simple::DownstreamTlsCipher => tls_cipher(connection.tls.as_deref(), out),
            Simple::DownstreamTlsGroup => tls_group(connection.tls.as_deref(), out),
            Simple::UpstreamTlsVersion => tls_version(record.upstream_tls, out),
            Simple::UpstreamTlsCipher => tls_cipher(record.upstream_tls, out),
            Simple::UpstreamTlsGroup => tls_group(record.upstream_tls, out),
            Simple::RouteName => text(record.route_name.as_bytes(), out),
            Simple::FilterChainName => text(connection.chain.name.as_bytes(), out),
            Simple::ListenerName => text(connection.listener.name.as_bytes(), out),
            Simple::ConnectionId => integer(connection.id, out),
            Simple::StreamId => stream_id(record, out),
            Simple::UniqueId => {
                let id = uuid::Builder::from_random_bytes(rand::random()).into_uuid();
                text(id.hyphenated().encode_lower(&mut [0; 36]).as_bytes(), out)
            }
            Simple::LocalReplyBody => {
                // Where there is none it is empty, which is a value of its own.
                out.extend_from_slice(record.local_reply_body);
                true
            }
            Simple::RequestHeadersBytes => integer(record.request.map_or(0, size_of_request), out),
            Simple::ResponseHeadersBytes => {
                // `:status` is a header, too.
                let size = |head: &ResponseHead| {
                    size_of_fields(&head.headers) + size_of_length(head.body) + 10
                };
                integer(record.response.map_or(0, size), out)
            }
            Simple::ResponseTrailersBytes => {
                integer(record.trailers.map_or(0, size_of_fields), out)
            }
            // Only QUIC counts them.
            Simple::BytesRetransmitted | Simple::PacketsRetransmitted => integer(0, out),
            Simple::RequestDuration => after(record.moments.request_end, out),
            Simple::RequestTxDuration => after(record.moments.upstream_sent, out),
            Simple::PoolReadyDuration => after(record.moments.upstream_begin, out),
            Simple::UpstreamProtocol => record
                .upstream_version
                .is_some_and(|version| text(version.as_str().as_bytes(), out)),
            Simple::UpstreamHostName => record
                .upstream_host
                .is_some_and(|at| host_name(record.upstream_hostname, at, true, out)),
            Simple::UpstreamHostNameWithoutPort => record
                .upstream_host
                .is_some_and(|at| host_name(record.upstream_hostname, at, false, out)),
            Simple::HostsAttempted => attempted(record, out, |_, at, out| address(at, out)),
            Simple::HostsAttemptedWithoutPort => {
                attempted(record, out, |_, at, out| without_port(at, out))
            }
            Simple::HostNamesAttempted => {
                attempted(record, out, |name, at, out| host_name(name, at, true, out))
            }
            Simple::HostNamesAttemptedWithoutPort => {
                attempted(record, out, |name, at, out| host_name(name, at, false, out))
            }
            // Nobody is there to give them: QUIC, tracing, filters that flag, internal listeners.
            Simple::RoundtripDuration
            | Simple::TraceId
            | Simple::SpanId
            | Simple::UpstreamRemoteEndpointId => false,
            // Likewise, but an empty value.
            Simple::CustomFlags
            | Simple::DownstreamLocalEndpointId
            | Simple::DownstreamDirectLocalEndpointId => true,
        }
    }
}

fn tls_version(tls: Option<&Handshake>, out: &mut Vec<u8>) -> bool {
    tls.is_some_and(|tls| {
        let version: &[u8] = match tls.version {
            TlsVersion::V1_2 => b"TLSv1.2",
            TlsVersion::V1_3 => b"TLSv1.3",
        };
        text(version, out)
    })
}

fn tls_cipher(tls: Option<&Handshake>, out: &mut Vec<u8>) -> bool {
    tls.is_some_and(|tls| text(tls.cipher.as_bytes(), out))
}

/// The group of the key exchange, by its name in BoringSSL.
fn tls_group(tls: Option<&Handshake>, out: &mut Vec<u8>) -> bool {
    let name: Option<&[u8]> = match tls.and_then(|tls| tls.group) {
        Some(NamedGroup::X25519) => Some(b"X25519"),
        Some(NamedGroup::secp256r1) => Some(b"P-256"),
        Some(NamedGroup::secp384r1) => Some(b"P-384"),
        Some(NamedGroup::secp521r1) => Some(b"P-521"),
        Some(NamedGroup::X25519MLKEM768) => Some(b"X25519MLKEM768"),
        _ => None,
    };
    name.is_some_and(|name| text(name, out))
}

/// A point in time as milliseconds since the request came.
fn after(moment: Option<Duration>, out: &mut Vec<u8>) -> bool {
    moment.is_some_and(|moment| milliseconds(moment, out))
}

/// `x-request-id`; of a connection a number that no other has.
fn stream_id(record: &Record<'_>, out: &mut Vec<u8>) -> bool {
    static SEED: LazyLock<u128> = LazyLock::new(rand::random);
    if let Some(request) = record.request {
        let id = request.headers.first(Name::XRequestId);
        return id.is_some_and(|id| text(id, out));
    }
    let id = *SEED ^ u128::from(record.connection.id);
    let id = uuid::Builder::from_random_bytes(id.to_be_bytes()).into_uuid();
    text(id.hyphenated().encode_lower(&mut [0; 36]).as_bytes(), out)
}

fn size_of_fields(fields: &Headers) -> u64 {
    fields.byte_len() as u64
}

fn size_of_request(request: &RequestHead) -> u64 {
    let pseudo = [
        (":method", request.method.len()),
        (":path", request.path.len()),
        (":authority", request.authority.len()),
        (":scheme", request.scheme.len()),
    ];
    let pseudo: usize = pseudo.iter().map(|(name, len)| name.len() + len).sum();
    size_of_fields(&request.headers) + size_of_length(request.body) + pseudo as u64
}

/// `content-length`, which codecs keep apart from the other fields.
fn size_of_length(body: BodyLength) -> u64 {
    match body {
        BodyLength::None | BodyLength::Sized(0) | BodyLength::Streamed => 0,
        BodyLength::Sized(length) => 15 + u64::from(length.ilog10()),
    }
}

/// The endpoint's name, or its address where it has none.
fn host_name(name: &str, at: &Address, with_port: bool, out: &mut Vec<u8>) -> bool {
    match (name.is_empty(), with_port) {
        (true, true) => address(at, out),
        (true, false) => without_port(at, out),
        (false, true) => text(name.as_bytes(), out),
        (false, false) => text(split_port(name.as_bytes()).0, out),
    }
}

/// Every endpoint that was tried, in order.
fn attempted(
    record: &Record<'_>,
    out: &mut Vec<u8>,
    write: impl Fn(&str, &Address, &mut Vec<u8>) -> bool,
) -> bool {
    for endpoint in record.upstream_before {
        write(&endpoint.hostname, &endpoint.address, out);
        out.push(b',');
    }
    record
        .reached()
        .is_some_and(|at| write(record.upstream_hostname, at, out))
}
