//! The router: takes a routed request to an endpoint of its cluster and brings the answer back.

mod header_changes;
mod relay;
mod request;
mod response;

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::route::{Forward, Route};
use crate::http::connection_manager::context::Context;
use crate::http::connection_manager::local_reply::LocalReply;
use crate::http::downstream::Downstream;
use crate::http::error::{Fault, StreamError};
use crate::http::headers::Headers;
use crate::http::message::{RequestHead, ResponseHead};
use crate::http::route::ChosenCluster;
use crate::http::stream_info::StreamInfo;
use crate::runtime::timer::Timer;
use crate::telemetry::access_log::flags::Flags;
use crate::upstream::exchange::Exchange;
use crate::upstream::{Cluster, ExchangeRequest};

pub use header_changes::Levels;
use relay::{Deadlines, Relay, RelayError, Replay};
use response::ResponseRules;
pub use response::change_headers as change_response_headers;

/// How a forwarded request ended.
pub enum Forwarded {
    /// The whole response has been sent; `request_done` tells whether the request was read to its
    /// end, too. Trailers are for the access log.
    Done {
        request_done: bool,
        trailers: Option<Headers>,
    },
    /// The endpoint accepted the upgrade, and the client has been told: raw bytes from here on.
    Upgraded(Box<Exchange>),
    /// Nothing has been sent to the client yet: answer so.
    Reply(LocalReply),
    /// The client is gone, or the response broke off in the middle: reset the stream.
    Broken,
}

/// What the router works on: one stream.
pub struct Stream<'a, 'd> {
    pub context: &'a Rc<Context>,
    pub request: &'a mut RequestHead,
    pub response: &'a mut ResponseHead,
    pub downstream: &'a mut Downstream<'d>,
    pub info: &'a mut StreamInfo,
    pub timer: &'a mut Timer,
    /// The request's own random number.
    pub random: u64,
    /// The upgrade that the client asks for and the route allows.
    pub upgrade: Option<Vec<u8>>,
    /// Who is told which attempt it is.
    pub attempt_count: AttemptCount,
}

/// Where `x-envoy-attempt-count` is written.
#[derive(Clone, Copy)]
pub struct AttemptCount {
    /// `include_request_attempt_count`
    pub in_request: bool,
    /// `include_attempt_count_in_response`
    pub in_response: bool,
}

/// How long one request may take.
#[derive(Clone, Copy)]
struct Limits {
    /// From the end of the request to the end of the response.
    response: Option<Duration>,
    /// From the first byte of the request to the end of the response.
    stream: Option<Duration>,
}

/// Forwards one request by its route.
pub async fn forward<'f>(
    stream: &mut Stream<'_, '_>,
    route: &Arc<Route>,
    forward: &'f Forward,
    levels: Levels<'f>,
    most_specific_last: bool,
) -> Forwarded {
    let clusters = &stream.context.worker.clusters;
    let mut levels = levels;
    let chosen = forward
        .choose_cluster(stream.request, stream.random)
        .and_then(|chosen| {
            if let ChosenCluster::Configured {
                headers: Some(changes),
                ..
            } = chosen
            {
                levels = levels.with_cluster(changes, most_specific_last);
            }
            clusters.cluster(chosen.name())
        });
    let Some(cluster) = chosen else {
        stream.context.stats.no_cluster.increment(1);
        return Forwarded::Reply(LocalReply::new(
            forward.not_found_status,
            "",
            "cluster_not_found",
            Flags::NO_CLUSTER_FOUND,
        ));
    };
    stream.info.cluster = Some(cluster.config().name.clone());
    let limits = Limits {
        response: request::timeout(forward, stream.request, stream.context),
        stream: request::stream_limit(forward, stream.request),
    };
    request::finish(stream, route, forward, levels, limits.response);
    attempt_and_retry(stream, &cluster, forward, levels, limits).await
}

/// The first attempt and, where that was on a pooled connection which turned out dead before it
/// gave a byte, one more on a fresh one.
async fn attempt_and_retry(
    stream: &mut Stream<'_, '_>,
    cluster: &Rc<Cluster>,
    forward: &Forward,
    levels: Levels<'_>,
    limits: Limits,
) -> Forwarded {
    let stats = cluster.stats();
    let mut replay = Replay::default();
    let mut fresh = false;
    let mut retry = None;
    loop {
        stream.info.attempts += 1;
        let want = ExchangeRequest {
            downstream: stream.request.version,
            original_destination: Some(stream.context.connection.local),
            upgrade: stream.upgrade.is_some(),
            fresh,
        };
        let mut exchange = match acquire(stream, cluster, want, limits.response).await {
            Ok(exchange) => exchange,
            Err(ended) => return ended,
        };
        stream.info.endpoint = Some(exchange.endpoint().clone());
        stream.info.upstream_local = exchange.local_addr();
        request::rewrite_host_for_endpoint(stream, forward, exchange.endpoint());
        if stream.attempt_count.in_request {
            request::tell_attempt(stream);
        }
        let has_body = stream.request.body != crate::http::message::BodyLength::None;
        if let Err(error) = exchange.send_head(stream.request, !has_body) {
            return upstream_failed(stream, &error);
        }
        // Only a connection that has served before may turn out to be dead already.
        let may_retry = !fresh && exchange.reused();
        let deadlines = deadlines(stream.context, forward, limits, stream.info);
        let mut rules = ResponseRules::new(
            stream.context,
            stream.info,
            levels,
            stream.upgrade.is_some(),
            stream.attempt_count.in_response,
        );
        let mut relay = Relay::new(
            stream.request,
            stream.response,
            stream.downstream,
            may_retry.then_some(&mut replay),
            deadlines,
            stream.timer,
        );
        let outcome = relay.run(&mut exchange, &mut rules).await;
        let started = relay.response_started();
        let request_done = relay.upload_done();
        let (received, sent) = (relay.bytes_received, relay.bytes_sent);
        let trailers = relay.trailers.take();
        let upgraded = rules.upgraded;
        stream.info.bytes_received += received;
        stream.info.bytes_sent += sent;
        match outcome {
            Ok(()) if upgraded => return Forwarded::Upgraded(Box::new(exchange)),
            Ok(()) => {
                let elapsed = stream.info.started.elapsed();
                stats.rq_time.record(elapsed.as_secs_f64() * 1000.0);
                if retry.is_some() {
                    stats.rq_retry_success.increment(1);
                }
                return Forwarded::Done {
                    request_done,
                    trailers,
                };
            }
            Err(RelayError::Upstream(error))
                if may_retry
                    && !started
                    && replay.is_complete()
                    && may_send_again(stream.request, &exchange, &error) =>
            {
                // One retry is one more request in flight: the circuit breaker has a say.
                retry = cluster.retry();
                if retry.is_none() {
                    return broken(
                        stream,
                        cluster,
                        RelayError::Upstream(error),
                        started,
                        request_done,
                    );
                }
                fresh = true;
            }
            Err(error) => {
                if matches!(error, RelayError::Timeout) {
                    exchange.timed_out();
                }
                return broken(stream, cluster, error, started, request_done);
            }
        }
    }
}

/// Whether a request whose connection died without a byte of an answer may be sent once more.
fn may_send_again(request: &RequestHead, exchange: &Exchange, error: &StreamError) -> bool {
    if exchange.bytes_of_response_seen() {
        return false;
    }
    // RFC 9110, section 9.2.2: repeating these means the same as sending them once.
    let idempotent = matches!(
        &request.method[..],
        b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE" | b"PUT" | b"DELETE"
    );
    error.is_refusal() || !exchange.request_bytes_sent() || (error.is_departure() && idempotent)
}

/// Gets an exchange from the cluster's pools, but no longer than the request may take, and not for
/// a client that has gone.
async fn acquire(
    stream: &mut Stream<'_, '_>,
    cluster: &Rc<Cluster>,
    want: ExchangeRequest,
    timeout: Option<Duration>,
) -> Result<Exchange, Forwarded> {
    let deadline = timeout.map(|timeout| Instant::from_std(stream.info.started) + timeout);
    let mut exchange = std::pin::pin!(cluster.exchange(want));
    let acquired = std::future::poll_fn(|cx| {
        use std::task::Poll;
        if let Poll::Ready(outcome) = exchange.as_mut().poll(cx) {
            return Poll::Ready(Ok(outcome));
        }
        if let Poll::Ready(error) = stream.downstream.poll_closed(cx) {
            return Poll::Ready(Err(Some(error)));
        }
        stream.timer.poll(cx, deadline).map(|()| Err(None))
    })
    .await;
    match acquired {
        Ok(Ok(exchange)) => Ok(exchange),
        Ok(Err(error)) => {
            stream.info.upstream_failure = error.transport_failure().into_owned();
            Err(Forwarded::Reply(LocalReply {
                status: error.status(),
                body: match error.body() {
                    Cow::Borrowed(text) => text.as_bytes().into(),
                    Cow::Owned(text) => text.into_bytes().into(),
                },
                details: error.details(),
                flags: error.flags(),
                location: None,
                close: false,
                grpc_status: None,
            }))
        }
        Err(Some(error)) => Err(broken(
            stream,
            cluster,
            RelayError::Downstream(error),
            false,
            false,
        )),
        Err(None) => Err(broken(stream, cluster, RelayError::Timeout, false, false)),
    }
}

fn deadlines(context: &Context, forward: &Forward, limits: Limits, info: &StreamInfo) -> Deadlines {
    let started = Instant::from_std(info.started);
    Deadlines {
        response: limits.response,
        idle: forward
            .idle_timeout
            .unwrap_or(context.manager.stream_idle_timeout),
        request: context
            .manager
            .request_timeout
            .map(|timeout| started + timeout),
        stream: limits.stream.map(|duration| started + duration),
    }
}

fn upstream_failed(stream: &mut Stream<'_, '_>, error: &StreamError) -> Forwarded {
    stream.info.upstream_failure = error.to_string();
    Forwarded::Reply(LocalReply::new(
        502,
        "upstream connect error or disconnect/reset before headers. reset reason: protocol error",
        "upstream_reset_before_response_started{protocol_error}",
        Flags::UPSTREAM_PROTOCOL_ERROR,
    ))
}

/// Turns a relay that failed into what the client gets, with Envoy's flags, statuses and texts.
fn broken(
    stream: &mut Stream<'_, '_>,
    cluster: &Rc<Cluster>,
    error: RelayError,
    started: bool,
    request_done: bool,
) -> Forwarded {
    let http = &stream.context.stats;
    let upstream = cluster.stats();
    let reply = match error {
        RelayError::Downstream(error) => {
            stream.info.upstream_failure.clear();
            if error.fault() == Fault::Peer {
                stream.info.flags |= Flags::DOWNSTREAM_PROTOCOL_ERROR;
                stream.info.details = "http1.body_error".into();
                http.downstream_cx_protocol_error.increment(1);
                if !started {
                    return Forwarded::Reply(
                        LocalReply::new(400, "Bad Request", "http1.body_error", Flags::NONE)
                            .closing(),
                    );
                }
            } else {
                stream.info.flags |= Flags::DOWNSTREAM_CONNECTION_TERMINATION;
                stream.info.details = "downstream_remote_disconnect".into();
            }
            http.downstream_rq_rx_reset.increment(1);
            upstream.rq_tx_reset.increment(1);
            return Forwarded::Broken;
        }
        RelayError::Upstream(error) => {
            stream.info.upstream_failure = error.to_string();
            upstream.rq_rx_reset.increment(1);
            if error.fault() == Fault::Peer {
                LocalReply::new(
                    502,
                    "upstream connect error or disconnect/reset before headers. reset reason: protocol error",
                    "upstream_reset_before_response_started{protocol_error}",
                    Flags::UPSTREAM_PROTOCOL_ERROR,
                )
            } else if matches!(error, StreamError::Reset(_) | StreamError::Refused) {
                LocalReply::new(
                    503,
                    "upstream connect error or disconnect/reset before headers. reset reason: remote reset",
                    "upstream_reset_before_response_started{remote_reset}",
                    Flags::UPSTREAM_REMOTE_RESET,
                )
            } else {
                LocalReply::new(
                    503,
                    "upstream connect error or disconnect/reset before headers. reset reason: connection termination",
                    "upstream_reset_before_response_started{connection_termination}",
                    Flags::UPSTREAM_CONNECTION_TERMINATION,
                )
            }
        }
        RelayError::Timeout => {
            upstream.rq_timeout.increment(1);
            LocalReply::new(
                504,
                "upstream request timeout",
                "response_timeout",
                Flags::UPSTREAM_REQUEST_TIMEOUT,
            )
        }
        RelayError::Idle => {
            http.downstream_rq_idle_timeout.increment(1);
            let status = if stream.info.bytes_received > 0 || started {
                408
            } else {
                504
            };
            LocalReply::new(
                status,
                "stream timeout",
                "stream_idle_timeout",
                Flags::STREAM_IDLE_TIMEOUT,
            )
            .closing()
        }
        RelayError::RequestTimeout => {
            http.downstream_rq_timeout.increment(1);
            LocalReply::new(
                408,
                "request timeout",
                "request_overall_timeout",
                Flags::DURATION_TIMEOUT,
            )
            .closing()
        }
        RelayError::MaxDuration => LocalReply::new(
            if request_done { 504 } else { 408 },
            "downstream duration timeout",
            "max_duration_timeout",
            Flags::NONE,
        )
        // DEADLINE_EXCEEDED
        .with_grpc_status(4),
    };
    if started {
        // Part of an answer is out: only a reset can tell the client that the rest will not come.
        stream.info.flags |= reply.flags;
        stream.info.details = reply.details;
        http.downstream_rq_tx_reset.increment(1);
        return Forwarded::Broken;
    }
    Forwarded::Reply(reply)
}
