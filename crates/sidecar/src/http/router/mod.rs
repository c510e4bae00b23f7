//! The router: takes a routed request to an endpoint of its cluster and brings the answer back.

mod failure;
mod header_changes;
mod internal_redirect;
mod mirror;
mod raw;
mod relay;
mod request;
mod response;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::cluster::ClusterDiscovery;
use crate::config::dynamic_forward_proxy::DynamicHost;
use crate::config::http_connection_manager::SchemeRule;
use crate::config::route::{Forward, Route, VirtualHost};
use crate::http::connection_manager::context::Context;
use crate::http::connection_manager::local_reply::LocalReply;
use crate::http::downstream::Downstream;
use crate::http::error::StreamError;
use crate::http::filters::Settings;
use crate::http::headers::Headers;
use crate::http::message::{BodyLength, RequestHead, ResponseHead};
use crate::http::route::Chosen;
use crate::http::route::stats::Counted;
use crate::http::stream_info::StreamInfo;
use crate::runtime::timer::Timer;
use crate::telemetry::access_log::flags::Flags;
use crate::telemetry::access_log::format::Format;
use crate::upstream::exchange::Exchange;
use crate::upstream::{Client, Cluster, ExchangeRequest, TcpUpstream};

pub use header_changes::{Levels, apply_changes, mutate};
pub use internal_redirect::Followed;
pub use relay::Replay;
use relay::{Deadlines, Relay, RelayError};
use response::ResponseRules;
pub use response::change_headers as change_response_headers;

/// What a listener buffers unless it says otherwise: 1 MiB.
const BUFFER_LIMIT: usize = 1024 * 1024;

/// How a forwarded request ended.
pub enum Forwarded {
    /// The whole response has been sent; `request_done` tells whether the request was read to its
    /// end, too. Trailers are for the access log.
    Done {
        request_done: bool,
        trailers: Option<Headers>,
    },
    /// The endpoint accepted the upgrade, and the client has been told: raw bytes from here on.
    /// They may rest for `idle`.
    Upgraded { far: Far, idle: Option<Duration> },
    /// Nothing has been sent to the client yet: answer so.
    Reply(LocalReply),
    /// The endpoint redirects the request, and the route has us follow: `head` is to be routed anew.
    /// The body is in `replay`.
    Redirected {
        head: Box<RequestHead>,
        replay: Replay,
    },
    /// The client is gone, or the response broke off in the middle: reset the stream.
    Broken,
}

/// The other end of a tunnel.
pub enum Far {
    /// An exchange whose endpoint has accepted the upgrade or the CONNECT.
    Exchange(Box<Exchange>),
    /// A connection to an endpoint that knows nothing of HTTP.
    Raw(Box<TcpUpstream>),
}

/// What the router works on: one stream.
pub struct Stream<'a, 'd> {
    pub context: &'a Rc<Context>,
    pub request: &'a mut RequestHead,
    pub response: &'a mut ResponseHead,
    pub downstream: &'a mut Downstream<'d>,
    pub info: &'a mut StreamInfo,
    pub timer: &'a mut Timer,
    pub host: &'a VirtualHost,
    /// What its route says about filters.
    pub settings: &'a dyn Settings,
    /// The request's own random number.
    pub random: u64,
    /// The upgrade that the client asks for and the route allows.
    pub upgrade: Option<Vec<u8>>,
    /// The counters of its virtual cluster and of its route.
    pub counted: Counted,
    /// Where its route sends it.
    pub chosen: &'a Chosen,
    /// What was read of its body before an internal redirect.
    pub replay: Replay,
}

impl Stream<'_, '_> {
    /// Writes what a format stands for before there is a response.
    fn render(&self, format: &Format, out: &mut Vec<u8>) {
        let request = Some(&*self.request);
        let record = self
            .info
            .record(&self.context.connection, request, None, None);
        format.render(&record, out);
    }

    /// Counts a status that stands for the endpoint's answer.
    fn count_response(&self, cluster: &Cluster, status: u16) {
        cluster.stats().response(status);
        for stats in self.counted.iter() {
            stats.response(status);
        }
    }
}

/// Forwards one request by its route.
pub async fn forward<'f>(
    stream: &mut Stream<'_, '_>,
    route: &Arc<Route>,
    forward: &'f Forward,
    levels: Levels<'f>,
) -> Forwarded {
    let clusters = &stream.context.worker.clusters;
    let share = forward.share_of(stream.chosen);
    let host = share.and_then(|share| share.host.as_deref());
    let name = forward.cluster_of(stream.chosen);
    let Some(cluster) = name.and_then(|name| clusters.cluster(name)) else {
        stream.context.stats.no_cluster.increment(1);
        return Forwarded::Reply(LocalReply::new(
            forward.not_found_status,
            "",
            "cluster_not_found",
            Flags::NO_CLUSTER_FOUND,
        ));
    };
    stream.info.cluster = Some(cluster.config().clone());
    let deadlines = deadlines(stream, forward);
    let finished = request::finish(stream, route, forward, host, levels, deadlines.response);
    if let Err(answer) = finished {
        return Forwarded::Reply(answer);
    }
    if let Some(raw) = raw::of(stream, forward) {
        return Box::pin(raw::open(stream, &cluster, raw, levels, deadlines)).await;
    }
    request::speak_of_upgrade(stream);
    let mut replay = std::mem::take(&mut stream.replay);
    if let Some(limit) = body_limit(stream, forward) {
        replay.limit = limit;
    }
    if !forward.mirrors.is_empty() {
        replay.copies = mirror::begin(stream, forward, deadlines.response);
        replay.tell_copies(stream.context);
    }
    attempt_and_retry(stream, &cluster, forward, levels, deadlines, replay).await
}

/// The most bytes of a body to keep, where it is not the usual limit: a route that follows redirects
/// keeps as much as the listener buffers.
fn body_limit(stream: &Stream<'_, '_>, forward: &Forward) -> Option<usize> {
    let configured = forward.body_limit;
    let configured = configured.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
    match forward.redirects {
        Some(_) => {
            let usual = || stream.context.connection.buffer_limit(BUFFER_LIMIT);
            Some(configured.unwrap_or_else(usual))
        }
        None => configured.map(|limit| limit.min(Replay::LIMIT)),
    }
}

/// Where an ORIGINAL_DST cluster connects to: what the request's header says where the cluster reads
/// one, else what the client was connecting to.
fn destination(stream: &Stream<'_, '_>, cluster: &Cluster) -> Option<SocketAddr> {
    let asked = || {
        let header = cluster.config().original_destination.header.as_ref()?;
        let value = stream.request.headers.named(header).next()?;
        let address = std::str::from_utf8(value).ok().and_then(|v| v.parse().ok());
        if address.is_none() {
            cluster.stats().original_dst_host_invalid.increment(1);
        }
        address
    };
    asked().or_else(|| stream.context.connection.original_destination())
}

/// The host that a dynamic forward proxy connects to: as the filter says, else the one that the
/// request asks for.
fn dynamic_host(stream: &Stream<'_, '_>, cluster: &Cluster) -> Option<Rc<DynamicHost>> {
    let ClusterDiscovery::Names(_) = cluster.config().discovery else {
        return None;
    };
    let asked = || DynamicHost::of_authority(&stream.request.authority).map(Rc::new);
    stream.info.dynamic_host.clone().or_else(asked)
}

/// The first attempt and, where that was on a pooled connection which turned out dead before it
/// gave a byte, one more on a fresh one.
async fn attempt_and_retry(
    stream: &mut Stream<'_, '_>,
    cluster: &Rc<Cluster>,
    forward: &Forward,
    levels: Levels<'_>,
    deadlines: Deadlines,
    mut replay: Replay,
) -> Forwarded {
    // An upgrade's request lasts as long as its tunnel.
    let whole = replay.ended || stream.request.body == BodyLength::None && stream.upgrade.is_none();
    let mut request_ended = whole.then(|| Instant::from_std(stream.info.started));
    // Held while the retry lasts: it is one more request in flight.
    let mut retry = None;
    let mut original_host = None;
    loop {
        stream.info.attempts += 1;
        request::count_attempt(stream);
        let want = ExchangeRequest {
            downstream: stream.request.version,
            original_destination: destination(stream, cluster),
            name: dynamic_host(stream, cluster),
            upgrade: stream.upgrade.is_some(),
            fresh: retry.is_some(),
            client: Client::from(&*stream.context.connection),
            priority: forward.priority,
        };
        let mut exchange = match acquire(stream, cluster, want, deadlines, request_ended).await {
            Ok(exchange) => exchange,
            Err(ended) => return ended,
        };
        let before = stream.info.endpoint.replace(exchange.endpoint().clone());
        if stream.info.attempts > 1 {
            stream.info.endpoints_before.extend(before);
        }
        stream.info.upstream_version = Some(exchange.version());
        stream.info.upstream_local = exchange.local_addr();
        stream.info.upstream_tls = exchange.tls().cloned();
        if stream.context.manager.scheme == SchemeRule::MatchUpstream {
            stream.request.scheme = request::scheme_of(cluster);
        }
        for stats in stream.counted.iter() {
            stats.total.increment(1);
        }
        let endpoint = exchange.endpoint();
        request::rewrite_host_for_endpoint(stream, forward, endpoint, &mut original_host);
        let has_body = stream.request.body != BodyLength::None;
        if let Err(error) = exchange.send_head(stream.request, !has_body) {
            if error.is_refusal() && retry.is_none() {
                // Nothing was sent: the connection is going away.
                retry = cluster.retry(forward.priority);
                if retry.is_some() {
                    continue;
                }
            }
            return failure::reply(stream, cluster, RelayError::Upstream(error), None);
        }
        // Only a connection that has served before may turn out to be dead already.
        let may_retry = retry.is_none() && exchange.reused();
        let mut rules = ResponseRules::new(
            stream.context,
            stream.info,
            levels,
            stream.settings,
            &stream.counted,
            stream.upgrade.is_some(),
        );
        rules.follow(forward.redirects.as_deref(), cluster, stream.random);
        let mut relay = Relay::new(
            stream.context,
            stream.request,
            stream.response,
            stream.downstream,
            &mut replay,
            may_retry || forward.redirects.is_some(),
            deadlines,
            request_ended,
            stream.timer,
        );
        let outcome = relay.run(&mut exchange, &mut rules).await;
        let started = relay.response_started();
        let request_done = relay.upload_done();
        request_ended = relay.request_ended();
        let (received, sent) = (relay.bytes_received, relay.bytes_sent);
        let trailers = relay.trailers.take();
        let upgraded = rules.upgraded;
        let target = rules.target.take();
        let moments = relay.moments(rules.started());
        stream.info.moments = moments;
        stream.info.bytes_received += received;
        stream.info.bytes_sent += sent;
        if let Some(head) = target {
            let replay = replay.moved(head.body != BodyLength::None);
            return Forwarded::Redirected { head, replay };
        }
        let error = match outcome {
            Ok(()) if upgraded => {
                return Forwarded::Upgraded {
                    far: Far::Exchange(Box::new(exchange)),
                    idle: deadlines.idle,
                };
            }
            Ok(()) => {
                let took = stream.info.started.elapsed();
                let took = took.as_secs_f64() * 1000.0;
                cluster.stats().rq_time.record(took);
                for stats in stream.counted.iter() {
                    stats.time.record(took);
                }
                if retry.is_some() {
                    cluster.stats().rq_retry_success.increment(1);
                }
                return Forwarded::Done {
                    request_done,
                    trailers,
                };
            }
            Err(error) => error,
        };
        if let RelayError::Upstream(error) = &error
            && may_retry
            && !started
            && replay.is_complete()
            && may_send_again(stream.request, &exchange, error)
        {
            // The circuit breaker has a say.
            retry = cluster.retry(forward.priority);
            if retry.is_some() {
                continue;
            }
        }
        if matches!(error, RelayError::Timeout) {
            exchange.timed_out();
        }
        let state = failure::State {
            started,
            request_ended: request_ended.is_some(),
            version: Some(exchange.version()),
        };
        return failure::reply(stream, cluster, error, Some(state));
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
    deadlines: Deadlines,
    request_ended: Option<Instant>,
) -> Result<Exchange, Forwarded> {
    let response = request_ended
        .zip(deadlines.response)
        .map(|(from, after)| from + after);
    let exchange = cluster.exchange(want, &mut stream.info.endpoint);
    let ends = (response, deadlines.stream);
    match unless_gone(stream.downstream, stream.timer, ends, exchange).await {
        Ok(Ok(exchange)) => Ok(exchange),
        Ok(Err(error)) => Err(failure::no_exchange(stream, cluster, &error)),
        Err(error) => {
            let state = failure::State {
                request_ended: request_ended.is_some(),
                ..failure::State::default()
            };
            Err(failure::reply(stream, cluster, error, Some(state)))
        }
    }
}

/// Waits for something to be had, but not for a client that has gone, and no longer than until one
/// of two ends: that of the response's timeout, and that of the stream.
async fn unless_gone<T>(
    downstream: &mut Downstream<'_>,
    timer: &mut Timer,
    (response, stream): (Option<Instant>, Option<Instant>),
    wanted: impl Future<Output = T>,
) -> Result<T, RelayError> {
    let deadline = [response, stream].into_iter().flatten().min();
    let mut wanted = std::pin::pin!(wanted);
    std::future::poll_fn(|cx| {
        if let Poll::Ready(outcome) = wanted.as_mut().poll(cx) {
            return Poll::Ready(Ok(outcome));
        }
        if let Poll::Ready(error) = downstream.poll_closed(cx) {
            return Poll::Ready(Err(RelayError::Downstream(error)));
        }
        timer.poll(cx, deadline).map(|()| {
            Err(if deadline == response {
                RelayError::Timeout
            } else {
                RelayError::MaxDuration
            })
        })
    })
    .await
}

fn deadlines(stream: &mut Stream<'_, '_>, forward: &Forward) -> Deadlines {
    let started = Instant::from_std(stream.info.started);
    let manager = &stream.context.manager;
    let duration = request::grpc_timeout(forward, stream.request)
        .or(forward.max_stream_duration)
        .or(manager.max_stream_duration);
    Deadlines {
        response: request::timeout(forward, stream.request, stream.context),
        idle: forward.idle_timeout.unwrap_or(manager.stream_idle_timeout),
        flush: manager.stream_flush_timeout,
        request: manager.request_timeout.map(|timeout| started + timeout),
        stream: duration.map(|duration| started + duration),
    }
}
