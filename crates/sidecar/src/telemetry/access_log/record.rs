//! What is known about one request or connection when its line is written, or when a header is
//! added whose value names an operator.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::flags::Flags;
use crate::config::address::Address;
use crate::config::endpoint::Endpoint;
use crate::http::headers::Headers;
use crate::http::message::{RequestHead, ResponseHead, Version};
use crate::listener::connection::Connection;
use crate::network::filter_state::{FilterState, Value};
use crate::network::state::Metadata;
use crate::tls::stream::Handshake;

/// Why a line is written (`%ACCESS_LOG_TYPE%`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogKind {
    /// For no access log, or by a listener.
    #[default]
    NotSet,
    /// tcp_proxy begins.
    TcpConnectionStart,
    /// tcp_proxy has connected to an endpoint.
    TcpUpstreamConnected,
    /// A tcp_proxy's connection lasts.
    TcpPeriodic,
    /// A tcp_proxy's connection has ended.
    TcpConnectionEnd,
    /// A request has come.
    DownstreamStart,
    /// A request lasts.
    DownstreamPeriodic,
    /// A tunnel has been established.
    DownstreamTunnelEstablished,
    /// A request has ended.
    DownstreamEnd,
}

impl LogKind {
    /// Envoy's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            LogKind::NotSet => "NotSet",
            LogKind::TcpConnectionStart => "TcpConnectionStart",
            LogKind::TcpUpstreamConnected => "TcpUpstreamConnected",
            LogKind::TcpPeriodic => "TcpPeriodic",
            LogKind::TcpConnectionEnd => "TcpConnectionEnd",
            LogKind::DownstreamStart => "DownstreamStart",
            LogKind::DownstreamPeriodic => "DownstreamPeriodic",
            LogKind::DownstreamTunnelEstablished => "DownstreamTunnelSuccessfullyEstablished",
            LogKind::DownstreamEnd => "DownstreamEnd",
        }
    }
}

/// The facts of one stream; what is not known yet is `None`.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    /// Why it is written.
    pub kind: LogKind,
    /// The downstream connection: addresses, TLS, peer certificate, listener and chain.
    pub connection: &'a Connection,
    /// The client as x-forwarded-for tells it, where the configuration says to believe that; else
    /// the connection's peer is the client.
    pub client: Option<SocketAddr>,
    /// When the request's first byte (or the connection) came.
    pub started: SystemTime,
    /// The request as it came, with the headers as they were sent upstream. None for TCP.
    pub request: Option<&'a RequestHead>,
    /// The response as it was sent. None for TCP, or where none was sent.
    pub response: Option<&'a ResponseHead>,
    /// The response's trailers.
    pub trailers: Option<&'a Headers>,
    /// 0 where no response was sent.
    pub status: u16,
    /// Why it ended as it did.
    pub flags: Flags,
    /// `%RESPONSE_CODE_DETAILS%`, for example `via_upstream`; empty if unknown.
    pub details: &'a str,
    /// `%UPSTREAM_TRANSPORT_FAILURE_REASON%`; empty if none.
    pub upstream_failure: &'a str,
    /// Body bytes from the client (all bytes for TCP).
    pub bytes_received: u64,
    /// Body bytes to the client (all bytes for TCP).
    pub bytes_sent: u64,
    /// From the first byte of the request to the last byte of the response.
    pub duration: Duration,
    /// From the first byte of the request to the first byte of the response from upstream.
    pub response_duration: Option<Duration>,
    /// Further points in time.
    pub moments: Moments,
    /// The endpoint that was used.
    pub upstream_host: Option<&'a Address>,
    /// Its name; empty if it has none.
    pub upstream_hostname: &'a str,
    /// The endpoints that were tried before it.
    pub upstream_before: &'a [Arc<Endpoint>],
    /// The protocol that was spoken to it.
    pub upstream_version: Option<Version>,
    /// Our own address of the upstream connection.
    pub upstream_local: Option<SocketAddr>,
    /// What the TLS handshake of that connection agreed on.
    pub upstream_tls: Option<&'a Handshake>,
    /// The cluster that was used.
    pub upstream_cluster: Option<&'a Arc<str>>,
    /// The same by its `alt_stat_name`, where it has one.
    pub upstream_cluster_told: Option<&'a Arc<str>>,
    /// `%ROUTE_NAME%`; empty if none.
    pub route_name: &'a str,
    /// `%UPSTREAM_REQUEST_ATTEMPT_COUNT%`
    pub attempts: u32,
    /// `%LOCAL_REPLY_BODY%`; empty where the answer is not ours.
    pub local_reply_body: &'a [u8],
    /// What filters left on the request.
    pub state: Option<&'a RequestState>,
}

/// Points in time of a request, counted from its begin; `None` where it never came to them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moments {
    /// The whole request has come.
    pub request_end: Option<Duration>,
    /// The request begins to go to the endpoint.
    pub upstream_begin: Option<Duration>,
    /// All of it has gone there.
    pub upstream_sent: Option<Duration>,
    /// The whole response has come from there.
    pub response_end: Option<Duration>,
}

/// What filters left on one request.
#[derive(Debug, Default)]
pub struct RequestState {
    /// Typed values by name; those of the connection come after them.
    pub filter_state: FilterState,
    /// Dynamic metadata; likewise.
    pub metadata: Metadata,
}

impl<'a> Record<'a> {
    /// The endpoint, if there was a connection to it.
    pub fn reached(&self) -> Option<&'a Address> {
        self.upstream_host
            .filter(|_| self.upstream_local.is_some() || self.upstream_version.is_some())
    }

    /// Looks at the filter state of that key: the request's, else the connection's.
    pub fn with_filter_state<R>(&self, key: &str, look: impl FnOnce(Option<&Value>) -> R) -> R {
        let of_request = self.state.and_then(|state| state.filter_state.value(key));
        if of_request.is_some() {
            return look(of_request);
        }
        look(self.connection.state.filter_state.borrow().value(key))
    }

    /// Looks at the dynamic metadata of that namespace: the request's, else the connection's.
    pub fn with_metadata<R>(
        &self,
        namespace: &str,
        look: impl FnOnce(Option<&serde_json::Map<String, serde_json::Value>>) -> R,
    ) -> R {
        let of_request = self.state.and_then(|state| state.metadata.get(namespace));
        if of_request.is_some() {
            return look(of_request);
        }
        look(self.connection.state.metadata.borrow().get(namespace))
    }

    /// What is known of a connection by itself.
    pub fn of_connection(connection: &'a Connection) -> Self {
        Record {
            kind: LogKind::NotSet,
            connection,
            client: None,
            started: connection.accepted_at,
            request: None,
            response: None,
            trailers: None,
            status: 0,
            flags: Flags::NONE,
            details: "",
            upstream_failure: "",
            bytes_received: 0,
            bytes_sent: 0,
            duration: connection.accepted.elapsed(),
            response_duration: None,
            moments: Moments::default(),
            upstream_host: None,
            upstream_hostname: "",
            upstream_before: &[],
            upstream_version: None,
            upstream_local: None,
            upstream_tls: None,
            upstream_cluster: None,
            upstream_cluster_told: None,
            route_name: "",
            attempts: 0,
            local_reply_body: b"",
            state: None,
        }
    }
}
