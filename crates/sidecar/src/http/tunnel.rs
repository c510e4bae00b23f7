//! Bytes both ways between two sides of any protocol: after an upgrade or CONNECT, or where a
//! tcp_proxy tunnels.

use std::ops::ControlFlow;
use std::pin::Pin;
use std::task::{Context as Cx, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::http::downstream::Downstream;
use crate::http::error::{Reset, StreamError};
use crate::runtime::timer::Timer;
use crate::tls::stream::Stream;
use crate::upstream::exchange::Exchange;

/// How many bytes are read at once, and how many may wait to be written.
const BUFFER: usize = 16 * 1024;

/// One side of a tunnel.
pub trait Side {
    /// The next bytes, until they are consumed; `None` at their end.
    fn poll_data(&mut self, cx: &mut Cx<'_>) -> Poll<Result<Option<&[u8]>, StreamError>>;
    /// Takes `n` of the bytes.
    fn consume(&mut self, n: usize);
    /// Ready when `send_data` will take something.
    fn poll_ready(&mut self, cx: &mut Cx<'_>) -> Poll<Result<(), StreamError>>;
    /// Queues bytes and says how many it took.
    fn send_data(&mut self, data: &[u8]) -> Result<usize, StreamError>;
    /// Ends what is sent.
    fn send_end(&mut self) -> Result<(), StreamError>;
    /// Hands over what is queued.
    fn poll_flush(&mut self, cx: &mut Cx<'_>) -> Poll<Result<(), StreamError>>;
    /// Ends it with a reset.
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
pub struct Raw {
    stream: Stream,
    read: Vec<u8>,
    read_at: usize,
    write: Vec<u8>,
    write_at: usize,
    ended: bool,
}

impl Raw {
    /// A stream of which `read_ahead` was received already.
    pub fn new(stream: Stream, read_ahead: Vec<u8>) -> Self {
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

/// How a tunnel ended.
#[derive(Debug)]
pub enum End {
    /// Both sides ended what they sent.
    Closed,
    /// The endpoint has ended what it sent, and the client had more to say.
    EndpointEnded,
    /// Nothing moved for too long.
    Idle,
    /// It has lasted for as long as it may.
    Expired,
    /// Whoever was told of the bytes said that they are the last.
    Told,
    /// The client's side broke.
    ClientBroke(StreamError),
    /// The endpoint's side broke.
    EndpointBroke(StreamError),
}

/// How long a tunnel may last.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// Without a byte.
    pub idle: Option<Duration>,
    /// Whatever is said.
    pub until: Option<Instant>,
    /// Whoever is told of the bytes is also told, of none, each time that so much has passed.
    pub every: Option<Duration>,
    /// The end of what the endpoint sends is the end of all.
    pub endpoint_ends: bool,
}

/// One direction's progress.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    Open,
    Ending,
    Done,
}

/// Which side of a way broke.
enum Broken {
    Source(StreamError),
    Sink(StreamError),
}

/// Carries bytes both ways until both have ended, a limit is reached, or `passed` breaks: it is told
/// of every piece, up and down.
pub async fn pump(
    client: &mut impl Side,
    endpoint: &mut impl Side,
    limits: Limits,
    mut passed: impl FnMut(usize, usize) -> ControlFlow<()>,
) -> End {
    let mut timer = Timer::new();
    let (mut up, mut down) = (Progress::Open, Progress::Open);
    let mut last = Instant::now();
    let mut told = false;
    let mut tick = limits.every.map(|every| last + every);
    std::future::poll_fn(|cx| {
        let (mut sent, mut received) = (0, 0);
        let upward = poll_way(cx, client, endpoint, &mut up, &mut sent);
        let downward = poll_way(cx, endpoint, client, &mut down, &mut received);
        if sent + received > 0 {
            last = Instant::now();
            told |= passed(sent, received).is_break();
        }
        match (upward, downward) {
            (Poll::Ready(Err(Broken::Source(error))), _)
            | (_, Poll::Ready(Err(Broken::Sink(error)))) => {
                return Poll::Ready(End::ClientBroke(error));
            }
            (Poll::Ready(Err(Broken::Sink(error))), _)
            | (_, Poll::Ready(Err(Broken::Source(error)))) => {
                return Poll::Ready(End::EndpointBroke(error));
            }
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(End::Closed),
            (Poll::Pending, Poll::Ready(Ok(()))) if limits.endpoint_ends => {
                return Poll::Ready(End::EndpointEnded);
            }
            _ if told => return Poll::Ready(End::Told),
            _ => {}
        }
        let idle_at = limits.idle.map(|idle| last + idle);
        let (deadline, mut end) = match (idle_at, limits.until) {
            (Some(idle_at), Some(until)) if until < idle_at => (Some(until), Some(End::Expired)),
            (None, Some(until)) => (Some(until), Some(End::Expired)),
            (idle_at, _) => (idle_at, Some(End::Idle)),
        };
        loop {
            let first = [deadline, tick].into_iter().flatten().min();
            if timer.poll(cx, first).is_pending() {
                return Poll::Pending;
            }
            let Some(at) = tick.filter(|at| Some(*at) == first) else {
                return Poll::Ready(end.take().unwrap_or(End::Expired));
            };
            tick = limits.every.map(|every| at + every);
            if passed(0, 0).is_break() {
                return Poll::Ready(End::Told);
            }
        }
    })
    .await
}

fn poll_way(
    cx: &mut Cx<'_>,
    from: &mut impl Side,
    to: &mut impl Side,
    progress: &mut Progress,
    moved: &mut usize,
) -> Poll<Result<(), Broken>> {
    loop {
        match progress {
            Progress::Open => match from.poll_data(cx) {
                Poll::Pending => {
                    ready!(to.poll_flush(cx)).map_err(Broken::Sink)?;
                    return Poll::Pending;
                }
                Poll::Ready(data) => match data.map_err(Broken::Source)? {
                    Some(data) => {
                        let taken = to.send_data(data).map_err(Broken::Sink)?;
                        if taken == 0 {
                            ready!(to.poll_ready(cx)).map_err(Broken::Sink)?;
                            continue;
                        }
                        from.consume(taken);
                        *moved += taken;
                    }
                    None => {
                        to.send_end().map_err(Broken::Sink)?;
                        *progress = Progress::Ending;
                    }
                },
            },
            Progress::Ending => {
                ready!(to.poll_flush(cx)).map_err(Broken::Sink)?;
                *progress = Progress::Done;
            }
            Progress::Done => return Poll::Ready(Ok(())),
        }
    }
}
