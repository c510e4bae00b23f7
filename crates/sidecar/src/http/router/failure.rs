//! What the client gets when a request could not be carried through, with Envoy's flags, statuses and
//! texts.

use std::borrow::Cow;
use std::rc::Rc;

use super::relay::RelayError;
use super::{Forwarded, Stream};
use crate::http::connection_manager::local_reply::LocalReply;
use crate::http::error::{Fault, StreamError};
use crate::http::message::Version;
use crate::telemetry::access_log::flags::Flags;
use crate::upstream::{Cluster, UpstreamError};

/// gRPC's code for it.
const DEADLINE_EXCEEDED: u8 = 4;

/// How far a request had come when it failed.
#[derive(Clone, Copy, Debug, Default)]
pub struct State {
    /// The head of the response has gone to the client.
    pub started: bool,
    /// The request was read to its end.
    pub request_ended: bool,
    /// How it travelled towards the endpoint, if it did.
    pub version: Option<Version>,
}

/// No endpoint or no connection could be had.
pub fn no_exchange(
    stream: &mut Stream<'_, '_>,
    cluster: &Rc<Cluster>,
    error: &UpstreamError,
) -> Forwarded {
    stream.info.upstream_failure = error.transport_failure().into_owned();
    stream.count_response(cluster, error.status());
    if matches!(error, UpstreamError::Overflow) {
        // As in Envoy, a circuit breaker speaks for the cluster and for no endpoint.
        stream.info.endpoint = None;
    }
    let mut answer = LocalReply::new(error.status(), "", "", error.flags());
    answer.body = match error.body() {
        Cow::Borrowed(text) => text.as_bytes().into(),
        Cow::Owned(text) => text.into_bytes().into(),
    };
    answer.details = error.details();
    answer.overloaded = matches!(error, UpstreamError::Overflow);
    if let UpstreamError::Dropped { all } = error {
        answer.dropped = Some(*all);
    }
    Forwarded::Reply(answer)
}

/// A relay that failed; without a state, before it began.
pub fn reply(
    stream: &mut Stream<'_, '_>,
    cluster: &Rc<Cluster>,
    error: RelayError,
    state: Option<State>,
) -> Forwarded {
    let State {
        started,
        request_ended,
        version,
    } = state.unwrap_or_default();
    let http = &stream.context.stats;
    let upstream = cluster.stats();
    if version == Some(Version::Http2) && !matches!(error, RelayError::Upstream(_)) {
        upstream.rq_tx_reset.increment(1);
    }
    let answer = match error {
        RelayError::Downstream(error) => return downstream(stream, &error, started),
        RelayError::Upstream(error) => {
            stream.info.upstream_failure = error.to_string();
            if matches!(error, StreamError::Reset(_) | StreamError::Refused) {
                upstream.rq_rx_reset.increment(1);
            }
            let answer = reset(&error, started, version);
            if !started {
                stream.count_response(cluster, answer.status);
            }
            answer
        }
        RelayError::Timeout => {
            upstream.rq_timeout.increment(1);
            for stats in stream.counted.iter() {
                stats.timeout.increment(1);
            }
            if !started {
                stream.count_response(cluster, 504);
            }
            LocalReply::new(
                504,
                "upstream request timeout",
                "response_timeout",
                Flags::UPSTREAM_REQUEST_TIMEOUT,
            )
        }
        RelayError::Idle => {
            http.downstream_rq_idle_timeout.increment(1);
            LocalReply::new(
                if request_ended { 504 } else { 408 },
                "stream timeout",
                "stream_idle_timeout",
                Flags::STREAM_IDLE_TIMEOUT,
            )
        }
        RelayError::RequestTimeout => {
            http.downstream_rq_timeout.increment(1);
            LocalReply::new(
                408,
                "request timeout",
                "request_overall_timeout",
                Flags::NONE,
            )
        }
        RelayError::MaxDuration => {
            http.downstream_rq_max_duration_reached.increment(1);
            LocalReply::new(
                if request_ended { 504 } else { 408 },
                "downstream duration timeout",
                "max_duration_timeout",
                Flags::NONE,
            )
            .with_grpc_status(DEADLINE_EXCEEDED)
        }
    };
    if started {
        // Part of an answer is out: only a reset can tell the client that the rest will not come.
        stream.info.flags |= answer.flags;
        stream.info.details = answer.details;
        http.downstream_rq_tx_reset.increment(1);
        return Forwarded::Broken;
    }
    Forwarded::Reply(answer)
}

/// The client went away, or broke the protocol in the middle of its request.
fn downstream(stream: &mut Stream<'_, '_>, error: &StreamError, started: bool) -> Forwarded {
    let http = &stream.context.stats;
    if error.fault() == Fault::Peer {
        http.downstream_cx_protocol_error.increment(1);
        let details = "http1.codec_error";
        if !started {
            let flags = Flags::DOWNSTREAM_PROTOCOL_ERROR;
            let answer = LocalReply::new(400, "Bad Request", details, flags);
            tracing::debug!(%error, "request broken off");
            return Forwarded::Reply(answer.closing());
        }
        stream.info.flags |= Flags::DOWNSTREAM_PROTOCOL_ERROR;
        stream.info.details = details.into();
    } else {
        stream.info.flags |= Flags::DOWNSTREAM_CONNECTION_TERMINATION;
        stream.info.details = "downstream_remote_disconnect".into();
    }
    http.downstream_rq_rx_reset.increment(1);
    Forwarded::Broken
}

/// The endpoint ended the exchange before its response was whole.
fn reset(error: &StreamError, started: bool, version: Option<Version>) -> LocalReply {
    // RFC 9112, section 8: a connection of HTTP/1 that ends within a response breaks the protocol.
    let truncated = started && version == Some(Version::Http11) && error.is_departure();
    let (status, reason, flags) = match error {
        _ if truncated || error.fault() == Fault::Peer => {
            (502, "protocol error", Flags::UPSTREAM_PROTOCOL_ERROR)
        }
        StreamError::Unrepresentable(_) => (502, "protocol error", Flags::UPSTREAM_PROTOCOL_ERROR),
        StreamError::Reset(_) => (503, "remote reset", Flags::UPSTREAM_REMOTE_RESET),
        StreamError::Refused => (
            503,
            "remote refused stream reset",
            Flags::UPSTREAM_REMOTE_RESET,
        ),
        _ => (
            503,
            "connection termination",
            Flags::UPSTREAM_CONNECTION_TERMINATION,
        ),
    };
    let when = if started { "after" } else { "before" };
    let mut answer = LocalReply::new(status, "", "", flags);
    answer.details = format!(
        "upstream_reset_{when}_response_started{{{}}}",
        reason.replace(' ', "_")
    )
    .into();
    answer.body = format!(
        "upstream connect error or disconnect/reset before headers. reset reason: {reason}"
    )
    .into_bytes()
    .into();
    answer
}
