//! Bytes both ways after an upgrade or CONNECT, between any two protocols.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context as Cx, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::context::Context;
use super::request::{self, Active, Scratch};
use crate::http::downstream::Downstream;
use crate::http::error::{Reset, StreamError};
use crate::http::h1::server::Connection;
use crate::http::stream_info::StreamInfo;
use crate::runtime::timer::Timer;
use crate::telemetry::access_log::flags::Flags;
use crate::tls::stream::Stream;
use crate::upstream::exchange::Exchange;

/// How many bytes are read at once, and how many may wait to be written.
const BUFFER: usize = 16 * 1024;

/// A request that became a tunnel: both heads have been relayed.
pub struct Tunnel {
    pub exchange: Exchange,
    /// How long nothing may move.
    pub idle: Option<Duration>,
    pub info: StreamInfo,
    /// Keeps the request counted.
    pub active: Active,
}

/// An HTTP/1 client's tunnel.
pub async fn http1(
    context: &Rc<Context>,
    connection: Connection<Stream>,
    tunnel: Tunnel,
    scratch: Scratch,
) {
    let (stream, read_ahead) = connection.into_upgraded();
    between(context, &mut Raw::new(stream, read_ahead), tunnel, scratch).await;
}

/// An HTTP/2 client's tunnel.
pub async fn http2(
    context: &Rc<Context>,
    mut downstream: Downstream<'_>,
    tunnel: Tunnel,
    scratch: Scratch,
) {
    between(context, &mut downstream, tunnel, scratch).await;
}

async fn between(
    context: &Rc<Context>,
    downstream: &mut impl Side,
    tunnel: Tunnel,
    scratch: Scratch,
) {
    let Tunnel {
        mut exchange,
        idle,
        mut info,
        active,
    } = tunnel;
    let stats = &context.stats;
    stats.downstream_cx_upgrades_total.increment(1);
    stats.downstream_cx_upgrades_active.increment(1.0);
    let outcome = if matches!(exchange, Exchange::H2(_)) {
        pump(downstream, &mut exchange, idle, &mut info).await
    } else if let Some(upgraded) = exchange.into_upgraded() {
        // What counts the request and the connection stays alive as long as the tunnel.
        let _counted = (upgraded.lease, upgraded.guard);
        let mut upstream = Raw::new(upgraded.stream, upgraded.read_ahead);
        pump(downstream, &mut upstream, idle, &mut info).await
    } else {
        Ok(())
    };
    if let Err(error) = outcome {
        tracing::debug!(connection = context.connection.id, %error, "tunnel broke");
        downstream.abort();
    }
    stats.downstream_cx_upgrades_active.decrement(1.0);
    let Scratch {
        request, response, ..
    } = scratch;
    request::log(context, &mut info, &request, &response, None);
    drop(active);
}

/// One side of a tunnel.
trait Side {
    fn poll_data(&mut self, cx: &mut Cx<'_>) -> Poll<Result<Option<&[u8]>, StreamError>>;
    fn consume(&mut self, n: usize);
    fn poll_ready(&mut self, cx: &mut Cx<'_>) -> Poll<Result<(), StreamError>>;
    fn send_data(&mut self, data: &[u8]) -> Result<usize, StreamError>;
    fn send_end(&mut self) -> Result<(), StreamError>;
    fn poll_flush(&mut self, cx: &mut Cx<'_>) -> Poll<Result<(), StreamError>>;
    fn abort(&mut self);
}

macro_rules! side_of_http {
    ($kind:ty) => {
        impl Side for $kind {
            fn poll_data(&mut self, cx: &mut Cx<'_>) -> Poll<Result<Option<&[u8]>, StreamError>> {
                self.poll_data(cx)
            }
            fn consume(&mut self, n: usize) {
                self.consume(n)
            }
            fn poll_ready(&mut self, cx: &mut Cx<'_>) -> Poll<Result<(), StreamError>> {
                self.poll_ready(cx)
            }
            fn send_data(&mut self, data: &[u8]) -> Result<usize, StreamError> {
                self.send_data(data)
            }
            fn send_end(&mut self) -> Result<(), StreamError> {
                self.send_end(None)
            }
            fn poll_flush(&mut self, cx: &mut Cx<'_>) -> Poll<Result<(), StreamError>> {
                self.poll_flush(cx)
            }
            fn abort(&mut self) {
                self.reset(Reset::Cancel)
            }
        }
    };
}

side_of_http!(Downstream<'_>);
side_of_http!(Exchange);

/// A byte stream with what was read ahead of it and what waits to be written.
struct Raw {
    stream: Stream,
    read: Vec<u8>,
    read_at: usize,
    write: Vec<u8>,
    write_at: usize,
    ended: bool,
}

impl Raw {
    fn new(stream: Stream, read_ahead: Vec<u8>) -> Self {
        Raw {
            stream,
            read: read_ahead,
            read_at: 0,
            write: Vec::new(),
            write_at: 0,
            ended: false,
        }
    }
}

impl Side for Raw {
    fn poll_data(&mut self, cx: &mut Cx<'_>) -> Poll<Result<Option<&[u8]>, StreamError>> {
        if self.read_at == self.read.len() {
            self.read.resize(BUFFER, 0);
            let mut buffer = ReadBuf::new(&mut self.read);
            let outcome = Pin::new(&mut self.stream).poll_read(cx, &mut buffer);
            let filled = buffer.filled().len();
            self.read_at = 0;
            if outcome.is_pending() {
                // A tunnel that waits, perhaps for hours, holds no memory.
                self.read = Vec::new();
                return Poll::Pending;
            }
            self.read.truncate(filled);
            ready!(outcome).map_err(StreamError::from_io)?;
            if filled == 0 {
                return Poll::Ready(Ok(None));
            }
        }
        Poll::Ready(Ok(Some(&self.read[self.read_at..])))
    }

    fn consume(&mut self, n: usize) {
        self.read_at += n;
    }

    fn poll_ready(&mut self, cx: &mut Cx<'_>) -> Poll<Result<(), StreamError>> {
        if self.write.len() - self.write_at < BUFFER {
            return Poll::Ready(Ok(()));
        }
        self.poll_flush(cx)
    }

    fn send_data(&mut self, data: &[u8]) -> Result<usize, StreamError> {
        let room = BUFFER.saturating_sub(self.write.len() - self.write_at);
        let taken = room.min(data.len());
        self.write.extend_from_slice(&data[..taken]);
        Ok(taken)
    }

    fn send_end(&mut self) -> Result<(), StreamError> {
        self.ended = true;
        Ok(())
    }

    fn poll_flush(&mut self, cx: &mut Cx<'_>) -> Poll<Result<(), StreamError>> {
        while self.write_at < self.write.len() {
            let written =
                ready!(Pin::new(&mut self.stream).poll_write(cx, &self.write[self.write_at..]));
            self.write_at += written.map_err(StreamError::from_io)?;
        }
        self.write = Vec::new();
        self.write_at = 0;
        if self.ended {
            return Pin::new(&mut self.stream)
                .poll_shutdown(cx)
                .map_err(StreamError::from_io);
        }
        Pin::new(&mut self.stream)
            .poll_flush(cx)
            .map_err(StreamError::from_io)
    }

    fn abort(&mut self) {
        // It fails only where the connection is gone already.
        let _ = self.stream.set_zero_linger();
    }
}

/// One direction's progress.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Open,
    Ending,
    Done,
}

/// Carries bytes both ways until both have ended, or nothing moved for `idle`.
async fn pump(
    client: &mut impl Side,
    endpoint: &mut impl Side,
    idle: Option<Duration>,
    info: &mut StreamInfo,
) -> Result<(), StreamError> {
    let mut timer = Timer::new();
    let (mut up, mut down) = (Way::Open, Way::Open);
    let mut last = Instant::now();
    std::future::poll_fn(|cx| {
        let before = info.bytes_received + info.bytes_sent;
        let first = poll_way(cx, client, endpoint, &mut up, &mut info.bytes_received);
        let second = poll_way(cx, endpoint, client, &mut down, &mut info.bytes_sent);
        for way in [first, second] {
            if let Poll::Ready(Err(error)) = way {
                return Poll::Ready(Err(error));
            }
        }
        if up == Way::Done && down == Way::Done {
            return Poll::Ready(Ok(()));
        }
        if info.bytes_received + info.bytes_sent > before {
            last = Instant::now();
        }
        timer.poll(cx, idle.map(|idle| last + idle)).map(|()| {
            info.flags |= Flags::STREAM_IDLE_TIMEOUT;
            info.details = "stream_idle_timeout".into();
            Ok(())
        })
    })
    .await
}

fn poll_way(
    cx: &mut Cx<'_>,
    from: &mut impl Side,
    to: &mut impl Side,
    way: &mut Way,
    moved: &mut u64,
) -> Poll<Result<(), StreamError>> {
    loop {
        match way {
            Way::Open => match from.poll_data(cx) {
                Poll::Pending => {
                    ready!(to.poll_flush(cx))?;
                    return Poll::Pending;
                }
                Poll::Ready(data) => match data? {
                    Some(data) => {
                        let taken = to.send_data(data)?;
                        if taken == 0 {
                            ready!(to.poll_ready(cx))?;
                            continue;
                        }
                        from.consume(taken);
                        *moved += taken as u64;
                    }
                    None => {
                        to.send_end()?;
                        *way = Way::Ending;
                    }
                },
            },
            Way::Ending => {
                ready!(to.poll_flush(cx))?;
                *way = Way::Done;
            }
            Way::Done => return Poll::Ready(Ok(())),
        }
    }
}
