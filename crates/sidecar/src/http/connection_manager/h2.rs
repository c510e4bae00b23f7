//! A downstream HTTP/2 connection: a task for each stream.

use std::cell::Cell;
use std::rc::Rc;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::context::Context;
use super::stream_tasks::Work;
use crate::http::error::{Fault, StreamError};
use crate::http::h1::Limits;
use crate::http::h2::corked::FULL;
use crate::http::h2::keepalive;
use crate::http::h2::server::Connection;
use crate::runtime::timer::Timer;
use crate::tls::stream::Stream;

/// Serves streams until the client, a limit or the drain ends the connection.
pub async fn serve(context: &Rc<Context>, stream: Stream) {
    let stats = &context.stats;
    stats.downstream_cx_http2_total.increment(1);
    stats.downstream_cx_http2_active.increment(1.0);
    if let Err(error) = streams(context, stream).await {
        if error.fault() == Fault::Peer {
            stats.downstream_cx_protocol_error.increment(1);
        }
        tracing::debug!(connection = context.connection.id, %error, "HTTP/2 connection failed");
    }
    stats.downstream_cx_http2_active.decrement(1.0);
}

async fn streams(context: &Rc<Context>, stream: Stream) -> Result<(), StreamError> {
    let manager = &context.manager;
    let limits = Limits {
        head_bytes: manager.max_request_headers_bytes,
        headers: manager.max_headers_count,
        // Of HTTP/2 they always are.
        trailers: true,
        buffer: context.connection.buffer_limit(FULL),
        ..Limits::default()
    };
    let mut timer = Timer::new();
    let idle_since = Instant::now();
    let idle = manager.idle_timeout.map(|idle| idle_since + idle);
    let old = context
        .max_age
        .map(|max| Instant::from_std(context.connection.accepted) + max);
    // A client that never sends its preface is idle, too.
    let deadline = [idle, old].into_iter().flatten().min();
    let mut connection = tokio::select! {
        biased;
        begun = Connection::handshake(
            stream, &manager.http2, limits, manager.delayed_close_timeout
        ) => begun?,
        () = timer.until(deadline) => {
            context.stats.downstream_cx_idle_timeout.increment(1);
            return Ok(());
        }
    };
    if context.connection.tls.is_some() {
        connection.set_scheme("https");
    }
    let ended = serve_streams(context, &mut connection, timer, idle_since).await;
    connection.close(manager.delayed_close_timeout).await;
    ended
}

/// Until the connection has ended, or has been at rest for too long.
async fn serve_streams(
    context: &Rc<Context>,
    connection: &mut Connection<Stream>,
    mut timer: Timer,
    mut idle_since: Instant,
) -> Result<(), StreamError> {
    let manager = &context.manager;
    let old = context
        .max_age
        .map(|max| Instant::from_std(context.connection.accepted) + max);
    let end_of = |idle: Option<Instant>| [idle, old].into_iter().flatten().min();
    let active = Rc::new(Active::default());
    let mut going_away: Option<Instant> = None;
    let mut drain = std::pin::pin!(context.drain_begun());
    let pings = manager.http2.keepalive.zip(connection.pings());
    // Boxed, for few have it and every connection would have room for it.
    let mut dead = pings.map(|(settings, pings)| {
        Box::pin(keepalive::until_dead(pings, settings, || {
            context.worker.random()
        }))
    });
    let tasks = &context.worker.stream_tasks;
    loop {
        let deadline = match (going_away, active.count.get()) {
            (Some(since), _) => {
                Some(since + context.drain_timeout.max(std::time::Duration::from_secs(1)))
                    .filter(|_| active.count.get() == 0)
            }
            (None, 0) => end_of(manager.idle_timeout.map(|idle| idle_since + idle)),
            (None, _) => old,
        };
        tokio::select! {
            biased;
            accepted = connection.accept(|| tasks.head()) => match accepted {
                None => return Ok(()),
                Some(accepted) => {
                    let (head, pair) = accepted?;
                    let ending = context.begin_request();
                    tasks.begin(Work {
                        context: context.clone(),
                        head,
                        pair,
                        open: Open::new(&active),
                    });
                    if ending && going_away.is_none() {
                        connection.graceful();
                        going_away = Some(Instant::now());
                        context.ends_here.set(true);
                    }
                }
            },
            () = &mut drain, if going_away.is_none() => {
                context.stats.downstream_cx_drain_close.increment(1);
                connection.graceful();
                going_away = Some(Instant::now());
                        context.ends_here.set(true);
            }
            () = async {
                match &mut dead {
                    Some(dead) => dead.await,
                    None => std::future::pending().await,
                }
            } => {
                tracing::debug!(connection = context.connection.id, "answers no ping");
                return Ok(());
            }
            () = active.idle.notified() => idle_since = Instant::now(),
            () = timer.until(deadline) => {
                if going_away.is_some() {
                    return Ok(());
                }
                if deadline != old {
                    context.stats.downstream_cx_idle_timeout.increment(1);
                }
                connection.graceful();
                going_away = Some(Instant::now());
                        context.ends_here.set(true);
            }
        }
    }
}

/// How many streams are open, and a way to hear when none is.
#[derive(Default)]
struct Active {
    count: Cell<usize>,
    idle: Notify,
}

/// Counts a stream as open.
pub struct Open(Rc<Active>);

impl Open {
    fn new(active: &Rc<Active>) -> Self {
        active.count.set(active.count.get() + 1);
        Open(active.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.count.set(self.0.count.get() - 1);
        if self.0.count.get() == 0 {
            self.0.idle.notify_one();
        }
    }
}
