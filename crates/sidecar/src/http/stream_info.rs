//! What becomes known about one request while it passes: for the access log, for header values that
//! name operators, and for the stats.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::config::cluster::Cluster;
use crate::config::dynamic_forward_proxy::DynamicHost;
use crate::config::endpoint::Endpoint;
use crate::config::route::Route;
use crate::http::headers::Headers;
use crate::http::message::{RequestHead, ResponseHead, Version};
use crate::http::router::Followed;
use crate::listener::connection::Connection;
use crate::telemetry::access_log::flags::Flags;
use crate::telemetry::access_log::record::{LogKind, Moments, Record, RequestState};
use crate::tls::stream::Handshake;

/// The facts of one stream, filled in as they become known.
pub struct StreamInfo {
    /// The client, where x-forwarded-for is believed to tell it.
    pub client: Option<SocketAddr>,
    /// When the head had come.
    pub started: Instant,
    /// Why it ended as it did.
    pub flags: Flags,
    /// `%RESPONSE_CODE_DETAILS%`
    pub details: Cow<'static, str>,
    /// `%UPSTREAM_TRANSPORT_FAILURE_REASON%`
    pub upstream_failure: String,
    /// Body bytes from the client.
    pub bytes_received: u64,
    /// Body bytes to the client.
    pub bytes_sent: u64,
    /// From the start to the first byte of upstream's response.
    pub response_after: Option<Duration>,
    /// Further points in time.
    pub moments: Moments,
    /// The endpoint that was used last.
    pub endpoint: Option<Arc<Endpoint>>,
    /// Those that were tried before it.
    pub endpoints_before: Vec<Arc<Endpoint>>,
    /// The protocol that was spoken to it.
    pub upstream_version: Option<Version>,
    /// Our end of that connection.
    pub upstream_local: Option<SocketAddr>,
    /// What the TLS handshake of that connection agreed on.
    pub upstream_tls: Option<Rc<Handshake>>,
    /// The cluster.
    pub cluster: Option<Arc<Cluster>>,
    /// The route.
    pub route: Option<Arc<Route>>,
    /// How often an endpoint was tried.
    pub attempts: u32,
    /// `include_attempt_count_in_response`: the client is told that.
    pub tell_attempts: bool,
    /// The status sent to the client; 0 if none was.
    pub status: u16,
    /// The redirects that were followed to get here; mostly none was.
    pub followed: Option<Box<Followed>>,
    /// The host that a dynamic forward proxy connects to.
    pub dynamic_host: Option<Rc<DynamicHost>>,
    /// What filters left.
    pub state: Option<Box<RequestState>>,
}

impl StreamInfo {
    /// A stream that begins now.
    pub fn begin() -> Self {
        StreamInfo {
            client: None,
            started: Instant::now(),
            flags: Flags::NONE,
            details: Cow::Borrowed(""),
            upstream_failure: String::new(),
            bytes_received: 0,
            bytes_sent: 0,
            response_after: None,
            moments: Moments::default(),
            endpoint: None,
            endpoints_before: Vec::new(),
            upstream_version: None,
            upstream_local: None,
            upstream_tls: None,
            cluster: None,
            route: None,
            attempts: 0,
            tell_attempts: false,
            status: 0,
            followed: None,
            dynamic_host: None,
            state: None,
        }
    }

    /// The same request after a redirect that was followed here: for logs and stats a new one.
    pub fn redirected(self) -> Self {
        StreamInfo {
            client: self.client,
            followed: self.followed,
            // As in Envoy a body that is sent on counts for both places.
            bytes_received: self.bytes_received,
            ..StreamInfo::begin()
        }
    }

    /// All that is known now, as logs and header values read it.
    pub fn record<'a>(
        &'a self,
        connection: &'a Connection,
        request: Option<&'a RequestHead>,
        response: Option<&'a ResponseHead>,
        trailers: Option<&'a Headers>,
    ) -> Record<'a> {
        let duration = self.started.elapsed();
        let now = SystemTime::now();
        Record {
            kind: LogKind::NotSet,
            connection,
            client: self.client,
            started: now.checked_sub(duration).unwrap_or(now),
            request,
            response,
            trailers,
            status: self.status,
            flags: self.flags,
            details: &self.details,
            upstream_failure: &self.upstream_failure,
            bytes_received: self.bytes_received,
            bytes_sent: self.bytes_sent,
            duration,
            response_duration: self.response_after,
            moments: self.moments,
            upstream_hostname: self
                .endpoint
                .as_ref()
                .map_or("", |endpoint| &endpoint.hostname),
            upstream_before: &self.endpoints_before,
            upstream_version: self.upstream_version,
            upstream_host: self.endpoint.as_ref().map(|endpoint| &endpoint.address),
            upstream_local: self.upstream_local,
            upstream_tls: self.upstream_tls.as_deref(),
            upstream_cluster: self.cluster.as_ref().map(|cluster| &cluster.name),
            upstream_cluster_told: self.cluster.as_ref().map(|cluster| &cluster.stat_name),
            route_name: self.route.as_ref().map_or("", |route| &route.name),
            attempts: self.attempts,
            local_reply_body: b"",
            state: self.state.as_deref(),
        }
    }
}
