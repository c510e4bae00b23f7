//! A downstream HTTP/1 connection: one request after the other.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::context::Context;
use super::local_reply::LocalReply;
use super::request::{self, Next, Scratch};
use super::tunnel::{self, Tunnel};
use crate::http::downstream::Downstream;
use crate::http::h1::Limits;
use crate::http::h1::encoder;
use crate::http::h1::error::HeadError;
use crate::http::h1::server::{After, Connection};
use crate::http::h1::wire::HIGH_WATERMARK;
use crate::http::message::Version;
use crate::telemetry::access_log::flags::Flags;
use crate::tls::stream::Stream;

/// Serves requests until the client, a limit or the drain ends the connection.
pub async fn serve(context: &Rc<Context>, stream: Stream) {
    let stats = &context.stats;
    stats.downstream_cx_http1_total.increment(1);
    stats.downstream_cx_http1_active.increment(1.0);
    let manager = &context.manager;
    let limits = Limits {
        head_bytes: manager.max_request_headers_bytes,
        headers: manager.max_headers_count,
        trailers: manager.http1.dialect.trailers,
        accept_http_10: manager.http1.accept_http_10,
        custom_methods: manager.http1.custom_methods,
        scheme_as_connection: manager.use_remote_address && manager.xff_trusted_hops == 0,
        buffer: context.connection.buffer_limit(HIGH_WATERMARK),
    };
    let scheme = if context.connection.tls.is_some() {
        "https"
    } else {
        "http"
    };
    let mut connection = Connection::new(stream, scheme, limits);
    connection.set_dialect(manager.http1.dialect);
    let ended = requests(context, &mut connection).await;
    stats.downstream_cx_http1_active.decrement(1.0);
    if matches!(ended, Ended::Close) {
        context.ends_here.set(true);
    }
    match ended {
        Ended::Idle => connection.close(Duration::ZERO).await,
        Ended::Close => connection.close(manager.delayed_close_timeout).await,
        Ended::Tunnel(tunnel, scratch) => {
            tunnel::http1(context, connection, *tunnel, *scratch).await;
        }
    }
}

enum Ended {
    /// Between requests: there is nothing that the client could miss.
    Idle,
    /// After an answer, or in the middle of one (the connection knows that it was reset).
    Close,
    /// Raw bytes from here on.
    Tunnel(Box<Tunnel>, Box<Scratch>),
}

async fn requests(context: &Rc<Context>, connection: &mut Connection<Stream>) -> Ended {
    let mut scratch = Scratch::new();
    loop {
        if !another(context, connection, &mut scratch).await {
            return Ended::Idle;
        }
        match head(context, connection, &mut scratch).await {
            Ok(true) => {}
            Ok(false) => return Ended::Idle,
            Err(Refused::Gone) => {
                request::vanished(context, connection.version());
                return Ended::Idle;
            }
            Err(Refused::Answer(answer)) => {
                request::refuse(
                    context,
                    &mut scratch,
                    &mut Downstream::H1(connection),
                    *answer,
                )
                .await;
                return Ended::Close;
            }
        }
        if context.begin_request() {
            connection.force_close();
        }
        match request::serve(context, &mut scratch, &mut Downstream::H1(connection)).await {
            Next::Continue if connection.after() == After::Next => {}
            Next::Continue => {
                if context.is_draining() {
                    context.stats.downstream_cx_drain_close.increment(1);
                }
                return Ended::Close;
            }
            Next::Close => return Ended::Close,
            Next::Tunnel(tunnel) => return Ended::Tunnel(tunnel, Box::new(scratch)),
        }
    }
}

/// Waits for the first byte of another request: at most as long as an idle connection may last.
async fn another(
    context: &Rc<Context>,
    connection: &mut Connection<Stream>,
    scratch: &mut Scratch,
) -> bool {
    let manager = &context.manager;
    let idle_since = Instant::now();
    let old = context
        .max_age
        .map(|max| Instant::from_std(context.connection.accepted) + max);
    let mut drain = std::pin::pin!(context.drain_begun());
    let mut draining = None;
    loop {
        let idle = manager.idle_timeout.map(|idle| idle_since + idle);
        let deadline = [idle, old, draining].into_iter().flatten().min();
        tokio::select! {
            biased;
            more = connection.wait() => return matches!(more, Ok(true)),
            // Most clients will send another request and be told to close. One that does not gets
            // as long as an HTTP/2 client after its GOAWAY.
            () = &mut drain, if draining.is_none() => {
                draining = Some(Instant::now() + context.drain_timeout);
            }
            () = scratch.timer.until(deadline) => {
                let stats = &context.stats;
                if deadline == draining {
                    stats.downstream_cx_drain_close.increment(1);
                } else if deadline == old {
                    stats.downstream_cx_max_duration_reached.increment(1);
                } else {
                    stats.downstream_cx_idle_timeout.increment(1);
                }
                context.ends_here.set(true);
                return false;
            }
        }
    }
}

/// Reads a head that has begun: at most as long as a head may take.
async fn head(
    context: &Rc<Context>,
    connection: &mut Connection<Stream>,
    scratch: &mut Scratch,
) -> Result<bool, Refused> {
    let deadline = context
        .manager
        .request_headers_timeout
        .map(|timeout| Instant::now() + timeout);
    let Scratch { request, timer, .. } = scratch;
    tokio::select! {
        biased;
        outcome = connection.next_request(request) => match outcome {
            Ok(more) => {
                // Only HTTP/1.0 may come without one.
                if request.hostless
                    && request.version == Version::Http10
                    && let Some(host) = &context.manager.http1.default_host
                {
                    request.authority.extend_from_slice(host);
                    request.hostless = false;
                }
                Ok(more)
            }
            Err(error) => Err(refusal(context, &error)),
        },
        () = timer.until(deadline) => {
            context.stats.downstream_rq_header_timeout.increment(1);
            let answer = LocalReply::new(408, "request header timeout", "request_header_timeout", Flags::NONE);
            Err(Refused::Answer(Box::new(answer.closing())))
        }
    }
}

/// Why a head that has begun is no request.
enum Refused {
    /// It is answered, and the connection ends.
    Answer(Box<LocalReply>),
    /// Nobody is left to answer.
    Gone,
}

/// What becomes of a head that was refused.
fn refusal(context: &Context, error: &HeadError) -> Refused {
    let Some(status) = error.status() else {
        return Refused::Gone;
    };
    context.stats.downstream_cx_protocol_error.increment(1);
    let flags = Flags::DOWNSTREAM_PROTOCOL_ERROR;
    let mut answer = LocalReply::new(status, "", error.details(), flags);
    tracing::debug!(connection = context.connection.id, %error, "request refused");
    answer.body = encoder::reason(status).as_bytes().into();
    Refused::Answer(Box::new(answer.closing()))
}
