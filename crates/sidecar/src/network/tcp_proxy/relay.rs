//! Bytes both ways between two connections, with everything that TCP says beside them: half-close,
//! reset, back-pressure.

use std::future::poll_fn;
use std::io;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::time::Instant;

use crate::runtime::timer::Timer;
use crate::tls::scratch::{self, RELAYED};
use crate::tls::stream::Stream;

/// What is read at once from a connection whose peer takes little: so much of it may have to wait
/// in memory.
const SMALLEST_READ: usize = 16 << 10;
/// What is read at once at first.
const FIRST_READ: usize = 64 << 10;
/// After so many bytes in a row the worker's other connections get their turn.
const TURN: usize = 1 << 20;

/// How a relay ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Both sides ended what they sent, and all of it arrived.
    Closed,
    /// The client's connection broke.
    DownstreamBroke(io::ErrorKind),
    /// The endpoint's connection broke.
    UpstreamBroke(io::ErrorKind),
    /// Nothing was relayed for too long.
    Idle,
    /// It has lasted for as long as it may.
    Expired,
    /// Whoever was told of the bytes said that they are the last.
    Told,
}

/// How long a relay may last.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// Without a byte.
    pub idle: Option<Duration>,
    /// Whatever is said.
    pub until: Option<Instant>,
    /// Bytes of one way that may wait in memory; `None`: as many as are read at once.
    pub buffer: Option<usize>,
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the client to the endpoint.
    Up,
    /// From the endpoint to the client.
    Down,
}

/// Relays until both ways have ended or one side breaks. A break of one side is passed on to the
/// other as a reset, across TLS too: nobody is to take it for the end of the data.
///
/// `passed` is told of every piece that was read. Where it breaks, the relay ends as soon as what
/// was read has been passed on.
pub async fn relay(
    mut downstream: Stream,
    mut upstream: Stream,
    limits: Limits,
    mut passed: impl FnMut(Way, usize) -> ControlFlow<()>,
) -> End {
    let Limits {
        idle,
        until,
        buffer,
    } = limits;
    let most = buffer.map_or(scratch::SIZE, |buffer| buffer.clamp(1, scratch::SIZE));
    let (mut up, mut down) = (Flow::new(most), Flow::new(most));
    let mut timer = Timer::new();
    let mut told = false;
    let mut idle_at = idle.map(|idle| Instant::now() + idle);
    let end = poll_fn(|cx| {
        let mut moved = false;
        let mut count = |way, length| {
            moved = true;
            told |= passed(way, length).is_break();
        };
        let downstream_takes = !down.is_broken();
        let upward = up.poll(cx, &mut downstream, &mut upstream, downstream_takes, |n| {
            count(Way::Up, n);
        });
        if let Poll::Ready(Err(Broken::Source(kind))) = upward {
            return Poll::Ready(End::DownstreamBroke(kind));
        }
        let upstream_takes = !up.is_broken();
        let downward = down.poll(cx, &mut upstream, &mut downstream, upstream_takes, |n| {
            count(Way::Down, n);
        });
        if let Poll::Ready(Err(Broken::Source(kind))) = downward {
            return Poll::Ready(End::UpstreamBroke(kind));
        }
        // A side that takes no more may still have something to say, for example why it closed:
        // what it has sent is passed on first.
        match (upward, downward) {
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(End::Closed),
            (Poll::Ready(Err(Broken::Sink(kind))), Poll::Ready(_)) => {
                return Poll::Ready(End::UpstreamBroke(kind));
            }
            (Poll::Ready(_), Poll::Ready(Err(Broken::Sink(kind)))) => {
                return Poll::Ready(End::DownstreamBroke(kind));
            }
            _ => {}
        }
        if told && up.pending.is_empty() && down.pending.is_empty() {
            return Poll::Ready(End::Told);
        }
        if moved && let Some(idle) = idle {
            idle_at = Some(Instant::now() + idle);
        }
        let (deadline, end) = match (idle_at, until) {
            (Some(idle_at), Some(until)) if until < idle_at => (Some(until), End::Expired),
            (None, Some(until)) => (Some(until), End::Expired),
            (idle_at, _) => (idle_at, End::Idle),
        };
        timer.poll(cx, deadline).map(|()| end)
    })
    .await;
    match end {
        End::Closed => {}
        End::Idle | End::Expired | End::Told => {
            close(&mut downstream).await;
            close(&mut upstream).await;
        }
        End::DownstreamBroke(_) | End::UpstreamBroke(_) => {
            downstream.abort();
            upstream.abort();
        }
    }
    end
}

/// Ends what we send, as far as that is possible without waiting.
async fn close(stream: &mut Stream) {
    poll_fn(|cx| {
        let _ = Pin::new(&mut *stream).poll_shutdown(cx);
        Poll::Ready(())
    })
    .await;
}

/// Which side of a flow broke.
#[derive(Clone, Copy, Debug)]
enum Broken {
    Source(io::ErrorKind),
    Sink(io::ErrorKind),
}

/// One way of a relay.
struct Flow {
    /// What was read and not taken yet. Empty most of the time: bytes go through the worker's
    /// scratch buffer.
    pending: Vec<u8>,
    start: usize,
    /// The sink may hold bytes that it has taken from us.
    unflushed: bool,
    ended: bool,
    outcome: Option<Result<(), io::ErrorKind>>,
    read_size: usize,
    /// What is read at once at most.
    most: usize,
}

impl Flow {
    fn new(most: usize) -> Self {
        Flow {
            most,
            pending: Vec::new(),
            start: 0,
            unflushed: false,
            ended: false,
            outcome: None,
            read_size: FIRST_READ.min(most),
        }
    }

    fn is_broken(&self) -> bool {
        matches!(self.outcome, Some(Err(_)))
    }

    /// Moves what can be moved; ready once the source's end has been passed on or a side broke.
    /// Where the source takes no more itself, its end is a break: it said its last word.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Stream,
        sink: &mut Stream,
        source_takes: bool,
        mut passed: impl FnMut(usize),
    ) -> Poll<Result<(), Broken>> {
        if let Some(outcome) = self.outcome {
            return Poll::Ready(outcome.map_err(Broken::Sink));
        }
        match self.poll_move(cx, source, sink, source_takes, &mut passed) {
            Poll::Ready(Err(Broken::Sink(kind))) => {
                self.outcome = Some(Err(kind));
                self.pending = Vec::new();
                Poll::Ready(Err(Broken::Sink(kind)))
            }
            Poll::Ready(Ok(())) => {
                self.outcome = Some(Ok(()));
                Poll::Ready(Ok(()))
            }
            other => other,
        }
    }

    fn poll_move(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Stream,
        sink: &mut Stream,
        source_takes: bool,
        passed: &mut impl FnMut(usize),
    ) -> Poll<Result<(), Broken>> {
        let mut moved = 0;
        loop {
            while self.start < self.pending.len() {
                match write(cx, sink, &self.pending[self.start..]) {
                    Poll::Ready(written) => self.start += written?,
                    Poll::Pending => return Poll::Pending,
                }
            }
            if !self.pending.is_empty() {
                self.pending = Vec::new();
                self.start = 0;
            }
            if self.ended && !source_takes {
                let flushed = Pin::new(sink).poll_flush(cx);
                return flushed.map(|_| Err(Broken::Source(io::ErrorKind::ConnectionReset)));
            }
            if self.ended {
                return Pin::new(sink)
                    .poll_shutdown(cx)
                    .map_err(|error| Broken::Sink(error.kind()));
            }
            if moved >= TURN {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            match self.poll_pass(cx, source, sink)? {
                Poll::Ready(0) => self.ended = true,
                Poll::Ready(length) => {
                    moved += length;
                    passed(length);
                }
                Poll::Pending => {
                    if self.unflushed {
                        let flushed = Pin::new(sink).poll_flush(cx);
                        self.unflushed = flushed.is_pending();
                        if let Poll::Ready(Err(error)) = flushed {
                            return Poll::Ready(Err(Broken::Sink(error.kind())));
                        }
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// Reads once and writes what the sink takes; the rest is kept. Answers how much was read.
    fn poll_pass(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Stream,
        sink: &mut Stream,
    ) -> Result<Poll<usize>, Broken> {
        RELAYED.with(|scratch| {
            let scratch = &mut *scratch.borrow_mut();
            let mut buffer = ReadBuf::new(&mut scratch[..self.read_size]);
            match Pin::new(source).poll_read(cx, &mut buffer) {
                Poll::Ready(outcome) => outcome.map_err(|error| Broken::Source(error.kind()))?,
                Poll::Pending => return Ok(Poll::Pending),
            }
            let bytes = buffer.filled();
            let mut taken = 0;
            while taken < bytes.len() {
                self.unflushed = true;
                match write(cx, sink, &bytes[taken..]) {
                    Poll::Ready(written) => taken += written?,
                    Poll::Pending => {
                        self.pending.extend_from_slice(&bytes[taken..]);
                        self.read_size = (self.read_size / 2).max(SMALLEST_READ.min(self.most));
                        return Ok(Poll::Ready(bytes.len()));
                    }
                }
            }
            if bytes.len() == self.read_size {
                self.read_size = (2 * self.read_size).min(self.most);
            }
            Ok(Poll::Ready(bytes.len()))
        })
    }
}

fn write(cx: &mut Context<'_>, sink: &mut Stream, bytes: &[u8]) -> Poll<Result<usize, Broken>> {
    match Pin::new(sink).poll_write(cx, bytes) {
        Poll::Ready(Ok(0)) => Poll::Ready(Err(Broken::Sink(io::ErrorKind::WriteZero))),
        Poll::Ready(Ok(written)) => Poll::Ready(Ok(written)),
        Poll::Ready(Err(error)) => Poll::Ready(Err(Broken::Sink(error.kind()))),
        Poll::Pending => Poll::Pending,
    }
}
