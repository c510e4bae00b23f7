//! Bytes both ways after an upgrade or CONNECT, between any two protocols.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context as Cx, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::context::Context;
use crate::http::downstream::Downstream;
use crate::http::error::{Reset, StreamError};
use crate::http::h1::server::Connection;
use crate::runtime::timer::Timer;
use crate::tls::stream::Stream;
use crate::upstream::exchange::Exchange;

/// How many bytes are read at once, and how many may wait to be written.
const BUFFER: usize = 16 * 1024;

/// An HTTP/1 client's tunnel.
pub async fn http1(context: &Rc<Context>, connection: Connection<Stream>, exchange: Exchange) {
    let (stream, read_ahead) = connection.into_upgraded();
    between(context, &mut Raw::new(stream, read_ahead), exchange).await;
}

/// An HTTP/2 client's tunnel.
pub async fn http2(context: &Rc<Context>, mut downstream: Downstream<'_>, exchange: Exchange) {
    between(context, &mut downstream, exchange).await;
}

async fn between(context: &Rc<Context>, downstream: &mut impl Side, mut exchange: Exchange) {
    let stats = &context.stats;
    stats.downstream_cx_upgrades_total.increment(1);
    stats.downstream_cx_upgrades_active.increment(1.0);
    let idle = context.manager.stream_idle_timeout;
    let outcome = if matches!(exchange, Exchange::H2(_)) {
        pump(downstream, &mut exchange, idle).await
    } else if let Some(upgraded) = exchange.into_upgraded() {
        // What counts the request and the connection stays alive as long as the tunnel.
        let _counted = (upgraded.lease, upgraded.guard);
        pump(
            downstream,
            &mut Raw::new(upgraded.stream, upgraded.read_ahead),
            idle,
        )
        .await
    } else {
        Ok(())
    };
    if let Err(error) = outcome {
        tracing::debug!(connection = context.connection.id, %error, "tunnel broke");
        downstream.abort();
    }
    stats.downstream_cx_upgrades_active.decrement(1.0);
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
            self.read
                .truncate(if outcome.is_ready() { filled } else { 0 });
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
        self.write.extend_from_slice(data);
        Ok(data.len())
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
        self.write.clear();
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
    a: &mut impl Side,
    b: &mut impl Side,
    idle: Option<Duration>,
) -> Result<(), StreamError> {
    let mut timer = Timer::new();
    let (mut up, mut down) = (Way::Open, Way::Open);
    let mut last = Instant::now();
    std::future::poll_fn(|cx| {
        let mut moved = false;
        let first = poll_way(cx, a, b, &mut up, &mut moved);
        let second = poll_way(cx, b, a, &mut down, &mut moved);
        for way in [first, second] {
            if let Poll::Ready(Err(error)) = way {
                return Poll::Ready(Err(error));
            }
        }
        if up == Way::Done && down == Way::Done {
            return Poll::Ready(Ok(()));
        }
        if moved {
            last = Instant::now();
        }
        timer
            .poll(cx, idle.map(|idle| last + idle))
            .map(|()| Ok(()))
    })
    .await
}

fn poll_way(
    cx: &mut Cx<'_>,
    from: &mut impl Side,
    to: &mut impl Side,
    way: &mut Way,
    moved: &mut bool,
) -> Poll<Result<(), StreamError>> {
    loop {
        match way {
            Way::Open => {
                ready!(to.poll_ready(cx))?;
                match from.poll_data(cx) {
                    Poll::Pending => {
                        ready!(to.poll_flush(cx))?;
                        return Poll::Pending;
                    }
                    Poll::Ready(data) => match data? {
                        Some(data) => {
                            let taken = to.send_data(data)?;
                            from.consume(taken);
                            *moved = true;
                        }
                        None => {
                            to.send_end()?;
                            *way = Way::Ending;
                        }
                    },
                }
            }
            Way::Ending => {
                ready!(to.poll_flush(cx))?;
                *way = Way::Done;
            }
            Way::Done => return Poll::Ready(Ok(())),
        }
    }
}
