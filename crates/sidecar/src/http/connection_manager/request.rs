//! One request, from its head to the end of its response: read this function first.

use std::rc::Rc;
use std::sync::Arc;

use super::context::Context;
use super::local_reply::LocalReply;
use super::{client_certificate, forwarded, hop_by_hop, path, response_head};
use crate::config::http_connection_manager::StripPort;
use crate::config::route::{Action, Route};
use crate::http::downstream::Downstream;
use crate::http::error::Reset;
use crate::http::headers::{Headers, Name};
use crate::http::message::{BodyLength, RequestHead, ResponseHead, Version};
use crate::http::route::{self, RouteMatchResult};
use crate::http::router::{self, Forwarded, Levels};
use crate::http::stream_info::StreamInfo;
use crate::runtime::timer::Timer;
use crate::telemetry::access_log::flags::Flags;
use crate::upstream::exchange::Exchange;

/// What the codec does with the connection (HTTP/1) or stream (HTTP/2) next.
pub enum Next {
    /// The request and its response are complete.
    Continue,
    /// The connection cannot be used any more.
    Close,
    /// Both sides are raw bytes from here on.
    Tunnel(Box<Exchange>),
}

/// Memory that one request leaves to the next.
pub struct Scratch {
    pub request: RequestHead,
    pub response: ResponseHead,
    pub timer: Timer,
}

impl Scratch {
    /// Nothing allocated yet.
    pub const fn new() -> Self {
        Scratch {
            request: RequestHead::new(),
            response: ResponseHead::new(),
            timer: Timer::new(),
        }
    }
}

/// Serves the request whose head is in `scratch`.
pub async fn serve(
    context: &Rc<Context>,
    scratch: &mut Scratch,
    downstream: &mut Downstream<'_>,
) -> Next {
    context
        .requests
        .set(context.requests.get().saturating_add(1));
    context.stats.begin_request(scratch.request.version);
    let _active = Active(context);
    let mut info = StreamInfo::begin();
    let mut trailers = None;
    let Scratch {
        request,
        response,
        timer,
    } = scratch;
    if expects_continue(context, request) {
        go_ahead(response, downstream);
    }
    let next = match decide(context, request, &mut info) {
        Decision::Reply(answer) => {
            reply(context, request, response, downstream, &mut info, answer).await
        }
        Decision::Route {
            route,
            levels,
            upgrade,
            random,
        } => {
            let held = levels;
            let levels = held.levels();
            match &route.action {
                Action::Direct { .. } | Action::Redirect(_) => {
                    let answer = own_answer(context, &route, request);
                    reply_with(
                        context, request, response, downstream, &mut info, answer, levels,
                    )
                    .await
                }
                Action::Forward(forward) => {
                    context.stats.rq_total.increment(1);
                    let mut stream = router::Stream {
                        context,
                        request,
                        response,
                        downstream,
                        info: &mut info,
                        timer,
                        upgrade,
                        random,
                        attempt_count: router::AttemptCount {
                            in_request: held.host.attempt_count_in_request,
                            in_response: held.host.attempt_count_in_response,
                        },
                    };
                    match router::forward(
                        &mut stream,
                        &route,
                        forward,
                        levels,
                        held.table.most_specific_wins,
                    )
                    .await
                    {
                        Forwarded::Done {
                            request_done,
                            trailers: sent,
                        } => {
                            trailers = sent;
                            if request_done {
                                Next::Continue
                            } else {
                                context
                                    .stats
                                    .downstream_rq_response_before_rq_complete
                                    .increment(1);
                                if let Downstream::H2(stream) = downstream {
                                    stream.reset(Reset::NoError);
                                }
                                Next::Close
                            }
                        }
                        Forwarded::Upgraded(exchange) => Next::Tunnel(exchange),
                        Forwarded::Reply(answer) => {
                            reply_with(
                                context, request, response, downstream, &mut info, answer, levels,
                            )
                            .await
                        }
                        Forwarded::Broken => {
                            downstream.reset(Reset::InternalError);
                            Next::Close
                        }
                    }
                }
            }
        }
    };
    log(context, &mut info, request, response, trailers.as_ref());
    next
}

/// Whether the client waits for leave to send its body, and we are the ones to give it.
fn expects_continue(context: &Context, request: &RequestHead) -> bool {
    !context.manager.proxy_100_continue
        && request.body != BodyLength::None
        && request
            .headers
            .first(Name::Expect)
            .is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue"))
}

/// 100 Continue: sent with the next flush, which waiting for the body brings about.
fn go_ahead(response: &mut ResponseHead, downstream: &mut Downstream<'_>) {
    response.status = 100;
    response.reason.clear();
    response.headers.clear();
    response.body = BodyLength::None;
    // A client that has gone is noticed where its body is read.
    let _ = downstream.send_informational(response);
}

/// What is to be done with a request.
enum Decision {
    /// Answer it ourselves.
    Reply(LocalReply),
    /// A route matched.
    Route {
        route: Arc<Route>,
        levels: Held,
        upgrade: Option<Vec<u8>>,
        random: u64,
    },
}

/// The levels of header changes, kept alive for as long as the request uses them.
struct Held {
    route: Arc<Route>,
    host: Arc<crate::config::route::VirtualHost>,
    table: Arc<crate::config::route::RouteTable>,
}

impl Held {
    fn levels(&self) -> Levels<'_> {
        let mut levels = [
            None,
            Some(&self.route.headers),
            Some(&self.host.headers),
            Some(&self.table.headers),
        ];
        if self.table.most_specific_wins {
            levels.reverse();
        }
        Levels::new(levels)
    }
}

/// Sanitises the head and finds its route.
fn decide(context: &Rc<Context>, request: &mut RequestHead, info: &mut StreamInfo) -> Decision {
    let manager = &context.manager;
    let tls = context.connection.tls.is_some();
    if let Err(answer) = path::normalize(manager, &mut request.path) {
        return Decision::Reply(answer);
    }
    strip_port(context, request);
    let upgrade = match request.version {
        Version::Http2 => request.protocol.clone().map(|p| p.to_ascii_lowercase()),
        _ if request.method == b"CONNECT" => Some(b"connect".to_vec()),
        _ => hop_by_hop::upgrade(request),
    };
    hop_by_hop::remove(&mut request.headers, upgrade.is_some());
    forwarded::apply(manager, context.connection.peer, tls, request);
    forwarded::request_id(manager, || context.worker.random_128(), request);
    client_certificate::apply(manager, context.client_certificate.as_deref(), request);
    if !manager.proxy_100_continue {
        request.headers.retain(|name, _, value| {
            name != Name::Expect || !value.eq_ignore_ascii_case(b"100-continue")
        });
    }

    let Some(table) = manager.routes.load() else {
        context.stats.no_route.increment(1);
        return Decision::Reply(LocalReply::new(
            404,
            "",
            "route_configuration_not_found",
            Flags::NO_ROUTE_FOUND,
        ));
    };
    let random = context.worker.random();
    match table.route(request, random, tls) {
        RouteMatchResult::NotFound => {
            context.stats.no_route.increment(1);
            Decision::Reply(LocalReply::new(
                404,
                "",
                "route_not_found",
                Flags::NO_ROUTE_FOUND,
            ))
        }
        RouteMatchResult::NeedsTls(_) => {
            let mut answer = LocalReply::new(301, "", "direct_response", Flags::NONE);
            let mut location = Vec::new();
            route::write_https_location(request, &mut location);
            answer.location = Some(location);
            Decision::Reply(answer)
        }
        RouteMatchResult::Found {
            virtual_host,
            route,
        } => {
            info.route = Some(route.clone());
            if let (Some(asked), Action::Forward(forward)) = (&upgrade, &route.action) {
                let of_route = forward
                    .upgrades
                    .iter()
                    .find(|(kind, _)| **kind == **asked)
                    .map(|(_, on)| *on);
                let allowed = of_route
                    .unwrap_or_else(|| manager.upgrades.iter().any(|kind| **kind == **asked));
                if !allowed {
                    context.stats.downstream_rq_ws_on_non_ws_route.increment(1);
                    return Decision::Reply(LocalReply::new(
                        403,
                        "",
                        "upgrade_failed",
                        Flags::NONE,
                    ));
                }
                if request.version != Version::Http2 && request.method != b"CONNECT" {
                    request.headers.push_known(Name::Connection, b"upgrade");
                }
            }
            let (route, host) = (route.clone(), virtual_host.clone());
            Decision::Route {
                levels: Held {
                    route: route.clone(),
                    host,
                    table,
                },
                route,
                upgrade,
                random,
            }
        }
    }
}

fn strip_port(context: &Context, request: &mut RequestHead) {
    if context.manager.strip_host_port == StripPort::No {
        return;
    }
    let (host, port) = route::split_port(&request.authority);
    let port = port
        .get(1..)
        .and_then(|port| std::str::from_utf8(port).ok())
        .and_then(|port| port.parse::<u16>().ok());
    if context.manager.strip_host_port == StripPort::Any
        || port == Some(context.connection.local.port())
    {
        let keep = host.len();
        request.authority.truncate(keep);
    }
}

/// The answer of a direct_response or redirect route.
fn own_answer(context: &Context, route: &Route, request: &RequestHead) -> LocalReply {
    match &route.action {
        Action::Redirect(redirect) => {
            context.stats.rq_redirect.increment(1);
            let mut answer = LocalReply::new(redirect.status, "", "direct_response", Flags::NONE);
            let mut location = Vec::new();
            route::write_location(redirect, &route.matcher, request, &mut location);
            answer.location = Some(location);
            answer
        }
        Action::Direct { status, body } => {
            context.stats.rq_direct_response.increment(1);
            let mut answer = LocalReply::new(*status, "", "direct_response", Flags::NONE);
            answer.body = body.to_vec().into();
            answer
        }
        Action::Forward(_) => LocalReply::new(500, "", "", Flags::NONE),
    }
}

async fn reply(
    context: &Rc<Context>,
    request: &RequestHead,
    response: &mut ResponseHead,
    downstream: &mut Downstream<'_>,
    info: &mut StreamInfo,
    answer: LocalReply,
) -> Next {
    reply_with(
        context,
        request,
        response,
        downstream,
        info,
        answer,
        Levels::default(),
    )
    .await
}

/// Sends an answer of our own. What the client still sends of its request is not waited for.
async fn reply_with(
    context: &Rc<Context>,
    request: &RequestHead,
    response: &mut ResponseHead,
    downstream: &mut Downstream<'_>,
    info: &mut StreamInfo,
    answer: LocalReply,
    levels: Levels<'_>,
) -> Next {
    info.flags |= answer.flags;
    info.details = answer.details.clone();
    let body = answer.render(request, response);
    info.status = response.status;
    router::change_response_headers(context, info, levels, request, response);
    response_head::finish(context, request, response);
    let unread = request.body != BodyLength::None;
    let close = answer.close || unread;
    if let (true, Downstream::H1(connection)) = (close, &mut *downstream) {
        connection.force_close();
    }
    let sent = async {
        downstream.send_head(response, body.is_empty())?;
        let mut rest = body;
        while !rest.is_empty() {
            std::future::poll_fn(|cx| downstream.poll_ready(cx)).await?;
            let taken = downstream.send_data(rest)?;
            rest = &rest[taken..];
        }
        if !body.is_empty() {
            downstream.send_end(None)?;
        }
        std::future::poll_fn(|cx| downstream.poll_flush(cx)).await
    };
    if sent.await.is_err() {
        info.flags |= Flags::DOWNSTREAM_CONNECTION_TERMINATION;
        return Next::Close;
    }
    info.bytes_sent += body.len() as u64;
    if !close {
        return Next::Continue;
    }
    // HTTP/1 closes in its own time, so that the answer is read; a stream is told at once that the
    // rest of its request is of no interest.
    if let Downstream::H2(stream) = downstream {
        stream.reset(Reset::NoError);
    }
    Next::Close
}

/// Answers a head that could not be read, and logs it.
pub async fn refuse(
    context: &Rc<Context>,
    scratch: &mut Scratch,
    downstream: &mut Downstream<'_>,
    answer: LocalReply,
) {
    context.stats.begin_request(Version::Http11);
    let _active = Active(context);
    let mut info = StreamInfo::begin();
    // What was read of it is not to be believed.
    scratch.request = RequestHead::new();
    let Scratch {
        request, response, ..
    } = scratch;
    reply(context, request, response, downstream, &mut info, answer).await;
    log(context, &mut info, request, response, None);
}

fn log(
    context: &Context,
    info: &mut StreamInfo,
    request: &RequestHead,
    response: &ResponseHead,
    trailers: Option<&Headers>,
) {
    let stats = &context.stats;
    if info.status != 0 {
        stats.count_class(info.status);
        stats.downstream_rq_completed.increment(1);
    }
    stats
        .downstream_rq_time
        .record(info.started.elapsed().as_secs_f64() * 1000.0);
    if !context.manager.access_log.is_empty() {
        let response = (info.status != 0).then_some(response);
        let record = info.record(&context.connection, Some(request), response, trailers);
        context
            .worker
            .access_log
            .write(&context.manager.access_log, &record);
    }
}

/// Counts a request as active until it ends, however it ends.
struct Active<'a>(&'a Rc<Context>);

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.stats.downstream_rq_active.decrement(1.0);
    }
}
