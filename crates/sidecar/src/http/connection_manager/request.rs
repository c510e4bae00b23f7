//! One request, from its head to the end of its response: read this function first.

use std::rc::Rc;
use std::task::Poll;

use tokio::time::Instant;

use super::context::Context;
use super::decide::{Decision, again, continues, counted, decide, has_bad_underscores};
use super::hop_by_hop;
use super::local_reply::LocalReply;
use super::local_reply_config;
use super::response_head;
use super::tunnel::{self, Tunnel};
use crate::config::route::{Action, Route};
use crate::http::downstream::Downstream;
use crate::http::error::Reset;
use crate::http::filters::{self, NoSettings, Settings};
use crate::http::h1::error::HeadError;
use crate::http::h1::grammar;
use crate::http::headers::Headers;
use crate::http::message::{BodyLength, RequestHead, ResponseHead, Version};
use crate::http::route;
use crate::http::router::{self, Forwarded, Levels, Replay};
use crate::http::stream_info::StreamInfo;
use crate::runtime::timer::Timer;
use crate::telemetry::access_log::flags::Flags;
use crate::telemetry::access_log::format::Format;
use crate::telemetry::access_log::record::{LogKind, Record};

/// What the codec does with the connection (HTTP/1) or stream (HTTP/2) next.
pub enum Next {
    /// The request and its response are complete.
    Continue,
    /// The connection cannot be used any more.
    Close,
    /// Both sides are raw bytes from here on.
    Tunnel(Box<Tunnel>),
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
    context.stats.begin_request(scratch.request.version);
    let state = &context.connection.state;
    state.http.set(Some(scratch.request.version));
    let active = Active(context.clone());
    let mut info = StreamInfo::begin();
    let Scratch {
        request,
        response,
        timer,
    } = scratch;
    if expects_continue(context, request) && !has_bad_underscores(&context.manager, request) {
        go_ahead(response, downstream);
    }
    if wants_tunnel(request) {
        // If there will be no tunnel, the bytes behind the head are not to be taken for a request.
        downstream.end_connection();
    }
    let mut decision = decide(context, request, &mut info);
    let mut replay = Replay::default();
    let mut active = active;
    let next = loop {
        break match decision {
            Decision::Reply(answer) => {
                reply(
                    context, request, response, downstream, &mut info, answer, None,
                )
                .await
            }
            Decision::Refuse(answer) => {
                // As with Envoy, whose codec refuses it before it is a request.
                let version = request.version;
                let head = request.method == b"HEAD";
                *request = RequestHead::new();
                request.version = version;
                if head {
                    // Its answer has no body, whatever else it is.
                    request.method.extend_from_slice(b"HEAD");
                }
                if version == Version::Http2 {
                    info.flags |= Flags::DOWNSTREAM_REMOTE_RESET;
                    info.details = answer.details;
                    log(context, &mut info, request, response, None);
                    downstream.reset(Reset::InternalError);
                    return Next::Close;
                }
                reply(
                    context, request, response, downstream, &mut info, answer, None,
                )
                .await
            }
            Decision::Route {
                route,
                levels: held,
                upgrade,
                random,
            } => {
                let levels = held.levels();
                if !context.manager.filters.is_empty() {
                    filters::on_request(context, &held, request, &mut info);
                }
                let answer = match &route.action {
                    Action::Direct(_) | Action::Redirect(_) => {
                        own_answer(context, &info, &route, request)
                    }
                    Action::Forward(forward) => {
                        let counted = counted(context, &held.host, &route, request);
                        let mut stream = router::Stream {
                            context,
                            request,
                            response,
                            downstream,
                            info: &mut info,
                            timer,
                            host: &held.host,
                            settings: &held,
                            upgrade,
                            random,
                            counted,
                            chosen: &held.chosen,
                            replay: std::mem::take(&mut replay),
                        };
                        match router::forward(&mut stream, &route, forward, levels).await {
                            Forwarded::Done {
                                request_done,
                                trailers: sent,
                            } => {
                                log(context, &mut info, request, response, sent.as_ref());
                                if request_done {
                                    return Next::Continue;
                                }
                                let early =
                                    &context.stats.downstream_rq_response_before_rq_complete;
                                early.increment(1);
                                return Next::Close;
                            }
                            Forwarded::Upgraded { far, idle } => {
                                if context.manager.log_times.on_tunnel && request.method != b"POST"
                                {
                                    let kind = LogKind::DownstreamTunnelEstablished;
                                    write_log(context, &info, kind, request, Some(response), None);
                                }
                                let tunnel = Tunnel {
                                    far,
                                    idle,
                                    info,
                                    active,
                                };
                                if request.method == b"POST" {
                                    // Its body is carried, and it ends as any other request.
                                    let heads = (&*request, &*response);
                                    Box::pin(tunnel::http2(context, downstream, tunnel, heads))
                                        .await;
                                    return Next::Continue;
                                }
                                return Next::Tunnel(Box::new(tunnel));
                            }
                            Forwarded::Redirected { head, replay: kept } => {
                                *request = *head;
                                let kind = LogKind::DownstreamEnd;
                                write_log(context, &info, kind, request, Some(response), None);
                                drop(active);
                                context.stats.begin_request(request.version);
                                active = Active(context.clone());
                                info = info.redirected();
                                replay = kept;
                                decision = again(context, request, &mut info);
                                continue;
                            }
                            Forwarded::Broken => {
                                flush_what_there_is(downstream).await;
                                log(context, &mut info, request, response, None);
                                downstream.reset(Reset::InternalError);
                                return Next::Close;
                            }
                            Forwarded::Reply(answer) => answer,
                        }
                    }
                };
                reply(
                    context,
                    request,
                    response,
                    downstream,
                    &mut info,
                    answer,
                    Some((levels, &held)),
                )
                .await
            }
        };
    };
    log(context, &mut info, request, response, None);
    next
}

/// Hands on what was received of a response that breaks off, as far as that needs no waiting.
async fn flush_what_there_is(downstream: &mut Downstream<'_>) {
    std::future::poll_fn(|cx| {
        // Whatever comes of it, the stream is reset next.
        let _ = downstream.poll_flush(cx);
        Poll::Ready(())
    })
    .await;
}

/// Whether the client means to send something else than HTTP next.
fn wants_tunnel(request: &RequestHead) -> bool {
    request.method == b"CONNECT" || hop_by_hop::upgrade(request).is_some()
}

/// Whether the client waits for leave to send its body, and we are the ones to give it. As with
/// Envoy one that sends no body gets it, too.
fn expects_continue(context: &Context, request: &RequestHead) -> bool {
    !context.manager.proxy_100_continue && continues(&request.headers)
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

/// The answer of a direct_response or redirect route.
fn own_answer(
    context: &Context,
    info: &StreamInfo,
    route: &Route,
    request: &RequestHead,
) -> LocalReply {
    context.stats.rq_direct_response.increment(1);
    let mut answer = LocalReply::new(500, "", "direct_response", Flags::NONE);
    match &route.action {
        Action::Redirect(redirect) => {
            let mut location = Vec::new();
            let render = |format: &Format, out: &mut Vec<u8>| {
                let record = info.record(&context.connection, Some(request), None, None);
                format.render(&record, out);
            };
            route::write_location(redirect, &route.matcher, request, render, &mut location);
            // What a rewrite makes of headers may hold blanks; a fragment is for the client.
            let mut parts = location.splitn(2, |byte| *byte == b'#');
            if redirect.rewrite.is_some()
                && !parts.all(|part| part.is_empty() || grammar::is_target(part))
            {
                return LocalReply::invalid_rewrite();
            }
            answer.status = redirect.status;
            answer.location = Some(location);
        }
        Action::Direct(direct) => {
            answer.status = direct.status;
            answer.body = direct.body.to_vec().into();
            if let Some(format) = &direct.format {
                let mut body = Vec::new();
                let record = Record {
                    local_reply_body: &direct.body,
                    ..info.record(&context.connection, Some(request), None, None)
                };
                format.format.render(&record, &mut body);
                answer.body = body.into();
                answer.content_type = format.content_type.to_vec().into();
            }
            // As with Envoy a status that speaks of a place names this one.
            if direct.status == 201 || (300..400).contains(&direct.status) {
                let mut location = Vec::new();
                route::write_own_location(request, &mut location);
                answer.location = Some(location);
            }
        }
        // Never asked for one.
        Action::Forward(_) => {}
    }
    answer
}

/// Sends an answer of our own, changed by what its route says if it has one. What the client still sends of its request is not waited for.
async fn reply(
    context: &Rc<Context>,
    request: &RequestHead,
    response: &mut ResponseHead,
    downstream: &mut Downstream<'_>,
    info: &mut StreamInfo,
    mut answer: LocalReply,
    routed: Option<(Levels<'_>, &dyn Settings)>,
) -> Next {
    let (levels, settings) = routed.unwrap_or((Levels::default(), &NoSettings));
    info.flags |= answer.flags;
    info.details = answer.details.clone();
    // As with Envoy: who sends what is no request is not to be trusted with the next one.
    let malformed = answer.status == 400
        && request.version.is_http1()
        && !context.manager.http1.stream_error.unwrap_or(false);
    let close = answer.close || malformed;
    let body = answer.render(request, response, |answer, head| {
        info.status = answer.status;
        if let Some(config) = &context.manager.local_replies {
            local_reply_config::apply(config, context, info, request, answer, head);
        }
    });
    router::change_response_headers(context, info, levels, request, response);
    filters::on_response(context, settings, request, response, info);
    // A gRPC client's answer has a status of its own, which is not the one that was meant.
    info.status = response.status;
    response_head::finish(context, request, response);
    // As with Envoy an answer that is given before the request's body was looked at ends a connection
    // of HTTP/1, whether or not that body is here already; one that comes of an endpoint's failure
    // finds it read. A stream whose request is not wholly read is reset when it is dropped, with
    // NO_ERROR.
    let whole = match info.endpoint {
        None => downstream.request_ended(),
        Some(_) => downstream.finish_request(),
    };
    let close = close || !whole;
    if close || context.is_draining() {
        downstream.end_connection();
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
    // A client that takes nothing does not hold the answer for ever.
    let mut timer = Timer::new();
    let mut deadline = None;
    let mut sent = std::pin::pin!(sent);
    let sent = std::future::poll_fn(|cx| {
        if let Poll::Ready(outcome) = sent.as_mut().poll(cx) {
            return Poll::Ready(outcome.is_ok());
        }
        let patience = context.manager.stream_flush_timeout;
        if deadline.is_none() {
            deadline = patience.map(|patience| Instant::now() + patience);
        }
        timer.poll(cx, deadline).map(|()| false)
    });
    if !sent.await {
        info.flags |= Flags::DOWNSTREAM_CONNECTION_TERMINATION;
        return Next::Close;
    }
    info.bytes_sent += body.len() as u64;
    if close { Next::Close } else { Next::Continue }
}

/// Answers a head that could not be read, and logs it.
pub async fn refuse(
    context: &Rc<Context>,
    scratch: &mut Scratch,
    downstream: &mut Downstream<'_>,
    answer: LocalReply,
) {
    let version = downstream.version();
    context.stats.begin_request(version);
    context.connection.state.http.set(Some(version));
    let _active = Active(context.clone());
    let mut info = StreamInfo::begin();
    // What was read of it is not to be believed.
    scratch.request = RequestHead::new();
    scratch.request.version = version;
    let Scratch {
        request, response, ..
    } = scratch;
    reply(
        context, request, response, downstream, &mut info, answer, None,
    )
    .await;
    log(context, &mut info, request, response, None);
}

/// Logs a request whose client went away within its head.
pub fn vanished(context: &Rc<Context>, version: Version) {
    context.stats.begin_request(version);
    context.connection.state.http.set(Some(version));
    let _active = Active(context.clone());
    context.stats.downstream_rq_rx_reset.increment(1);
    let mut info = StreamInfo::begin();
    info.flags |= Flags::DOWNSTREAM_CONNECTION_TERMINATION;
    info.details = HeadError::Closed.details().into();
    let mut request = RequestHead::new();
    request.version = version;
    log(context, &mut info, &request, &ResponseHead::new(), None);
}

/// Counts a stream that has ended, and writes the access log.
pub fn log(
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
    let response = (info.status != 0).then_some(response);
    let kind = LogKind::DownstreamEnd;
    write_log(context, info, kind, request, response, trailers);
}

/// Writes the access log.
pub fn write_log(
    context: &Context,
    info: &StreamInfo,
    kind: LogKind,
    request: &RequestHead,
    response: Option<&ResponseHead>,
    trailers: Option<&Headers>,
) {
    if !context.manager.access_log.is_empty() {
        let record = Record {
            kind,
            ..info.record(&context.connection, Some(request), response, trailers)
        };
        context
            .worker
            .access_log
            .write(&context.manager.access_log, &record);
    }
}

/// Counts a request as active until it ends, however it ends.
pub struct Active(Rc<Context>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.stats.downstream_rq_active.decrement(1.0);
    }
}
