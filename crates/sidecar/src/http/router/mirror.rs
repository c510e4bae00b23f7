//! Copies of requests (`request_mirror_policies`): each is sent to an endpoint of another cluster, and
//! what comes back is read and dropped.
//!
//! A copy never holds up its request. It is a task of its own that is given the body as it is read;
//! one whose endpoint lags too far behind is given up, and so is one too many on its worker, and
//! one for which the worker's memory for copies does not suffice.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use tokio::time::Instant;

use super::Stream;
use super::header_changes::{self, Additions};
use crate::config::cluster::Priority;
use crate::config::route::{Forward, Mirror, MirrorCluster};
use crate::http::connection_manager::context::Context;
use crate::http::error::StreamError;
use crate::http::headers::{Headers, Name};
use crate::http::message::{BodyLength, RequestHead, ResponseHead};
use crate::http::route::split_port;
use crate::runtime::budget::{Budget, Held};
use crate::runtime::timer::Timer;
use crate::runtime::worker::Worker;
use crate::upstream::exchange::Exchange;
use crate::upstream::{Client, Cluster, ExchangeRequest};

/// The most bytes of a body that wait for the endpoint of one copy: 1 MiB.
const MOST_WAITING: usize = 1024 * 1024;
/// The most copies under way on one worker.
const MOST_ACTIVE: usize = 1024;
/// A copy for which nothing moves for so long is given up: nobody waits for it who would do so.
const IDLE: Duration = Duration::from_secs(60);

/// The copies of one request to whose bodies something is still to come.
#[derive(Default)]
pub struct Copies(Vec<Rc<RefCell<Body>>>);

/// What of a request's body waits to be sent once more.
struct Body {
    waiting: BytesMut,
    /// As much as `waiting` has had at most since it was empty: only then is its memory freed.
    held: Held,
    /// The body is whole.
    ended: bool,
    trailers: Option<Headers>,
    trailers_held: Held,
    /// It never will be.
    broken: bool,
    task: Option<Waker>,
}

impl Body {
    fn new(budget: &Rc<Budget>) -> Self {
        Body {
            waiting: BytesMut::new(),
            held: Held::none(budget),
            ended: false,
            trailers: None,
            trailers_held: Held::none(budget),
            broken: false,
            task: None,
        }
    }

    /// Takes more of it, if there is room.
    fn push(&mut self, data: &[u8]) -> bool {
        let length = self.waiting.len() + data.len();
        let room = length <= MOST_WAITING && self.held.grow(length);
        if room {
            self.waiting.extend_from_slice(data);
        }
        room
    }

    /// Drops so many bytes that were sent.
    fn advance(&mut self, count: usize) {
        self.waiting.advance(count);
        if self.waiting.is_empty() {
            self.forget();
        }
    }

    fn forget(&mut self) {
        self.waiting = BytesMut::new();
        self.held.release();
    }

    fn wake(&mut self) {
        if let Some(task) = self.task.take() {
            task.wake();
        }
    }
}

impl Copies {
    /// Bytes that were taken from the client.
    pub fn data(&mut self, context: &Context, data: &[u8]) {
        self.0.retain(|body| {
            // Whoever reads it has ended.
            if Rc::strong_count(body) == 1 {
                return false;
            }
            let mut body = body.borrow_mut();
            if !body.push(data) {
                context.stats.rq_mirror_dropped.increment(1);
                body.broken = true;
                body.forget();
            }
            body.wake();
            !body.broken
        });
    }

    /// The body has ended.
    pub fn end(&mut self, context: &Context, trailers: Option<&Headers>) {
        for body in self.0.drain(..) {
            let mut body = body.borrow_mut();
            match trailers {
                Some(trailers) if !body.trailers_held.grow(trailers.capacity()) => {
                    context.stats.rq_mirror_dropped.increment(1);
                    body.broken = true;
                }
                trailers => body.trailers = trailers.cloned(),
            }
            body.ended = true;
            body.wake();
        }
    }

    /// Whether nobody wants to know of the body, which is the usual case.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Drop for Copies {
    fn drop(&mut self) {
        for body in &self.0 {
            let mut body = body.borrow_mut();
            body.broken = true;
            body.wake();
        }
    }
}

/// Sends the copies that a route asks for of a request whose head is as its own endpoint gets it.
pub fn begin(stream: &Stream<'_, '_>, forward: &Forward, timeout: Option<Duration>) -> Copies {
    let mut copies = Copies::default();
    if stream.upgrade.is_some() {
        return copies;
    }
    let worker = &stream.context.worker;
    for mirror in &*forward.mirrors {
        let chance = &mirror.fraction;
        if chance.as_ref().is_some_and(|c| !c.happens(stream.random)) {
            continue;
        }
        let Some(cluster) = cluster(worker, mirror, stream.request) else {
            stream.context.stats.no_cluster.increment(1);
            continue;
        };
        let head = head(mirror, stream);
        let Some(active) = Active::count(worker, &head) else {
            stream.context.stats.rq_mirror_dropped.increment(1);
            continue;
        };
        let body = (stream.request.body != BodyLength::None).then(|| {
            let body = Rc::new(RefCell::new(Body::new(&worker.mirror_budget)));
            copies.0.push(Rc::clone(&body));
            body
        });
        let copy = Copy {
            head,
            want: ExchangeRequest {
                downstream: stream.request.version,
                original_destination: stream.context.connection.original_destination(),
                name: stream.info.dynamic_host.clone(),
                upgrade: false,
                fresh: false,
                client: Client::from(&*stream.context.connection),
                priority: Priority::Default,
            },
            cluster,
            body,
            timeout,
            _active: active,
        };
        tokio::task::spawn_local(copy.deliver());
    }
    copies
}

fn cluster(worker: &Worker, mirror: &Mirror, request: &RequestHead) -> Option<Rc<Cluster>> {
    let name = match &mirror.cluster {
        MirrorCluster::Named(name) => name,
        MirrorCluster::Header(header) => {
            let name = request.headers.named(header).next()?;
            std::str::from_utf8(name).ok()?
        }
    };
    worker.clusters.cluster(name)
}

/// The head of a copy. As with Envoy it says that it is one in its host, unless that is turned off.
fn head(mirror: &Mirror, stream: &Stream<'_, '_>) -> RequestHead {
    let mut head = stream.request.clone();
    head.headers.set(Name::XEnvoyInternal, b"true");
    header_changes::remove(&mut head.headers, &mirror.headers);
    Additions::of(&mirror.headers, &head.headers, |format, out| {
        stream.render(format, out)
    })
    .apply(&mut head.headers);
    if let Some(host) = &mirror.host {
        head.authority = host.to_vec();
    } else if mirror.marks_host {
        let (host, port) = split_port(&stream.request.authority);
        head.authority = [host, b"-shadow", port].concat();
    }
    head
}

/// Counts a copy and its head for as long as it lasts.
struct Active {
    worker: Rc<Worker>,
    _held: Held,
}

impl Active {
    fn count(worker: &Rc<Worker>, head: &RequestHead) -> Option<Self> {
        let active = worker.mirrored.get();
        let mut held = Held::none(&worker.mirror_budget);
        let bytes = head.headers.capacity() + head.authority.len() + head.path.len();
        if active >= MOST_ACTIVE || !held.grow(bytes) {
            return None;
        }
        worker.mirrored.set(active + 1);
        Some(Active {
            worker: Rc::clone(worker),
            _held: held,
        })
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.worker.mirrored.set(self.worker.mirrored.get() - 1);
    }
}

/// One copy on its way.
struct Copy {
    cluster: Rc<Cluster>,
    head: RequestHead,
    want: ExchangeRequest,
    body: Option<Rc<RefCell<Body>>>,
    timeout: Option<Duration>,
    _active: Active,
}

/// How far a copy has come.
struct Progress {
    response: ResponseHead,
    head_read: bool,
    upload_done: bool,
    /// When the whole of it had been sent.
    sent: Option<Instant>,
    moved: Instant,
    timer: Timer,
}

/// How a copy ended when it did not end well.
enum Failure {
    Upstream(StreamError),
    Timeout,
    /// Its own request was broken off, or it lags too far behind.
    GivenUp,
}

impl Copy {
    async fn deliver(self) {
        let started = Instant::now();
        let stats = self.cluster.stats();
        let limit = self.timeout.unwrap_or(IDLE).min(IDLE);
        let mut endpoint = None;
        let acquired = self.cluster.exchange(self.want.clone(), &mut endpoint);
        let mut exchange = match tokio::time::timeout(limit, acquired).await {
            Ok(Ok(exchange)) => exchange,
            Ok(Err(error)) => return stats.response(error.status()),
            Err(_elapsed) => {
                stats.rq_timeout.increment(1);
                return stats.response(504);
            }
        };
        let mut progress = Progress {
            response: ResponseHead::new(),
            head_read: false,
            upload_done: self.body.is_none(),
            sent: self.body.is_none().then(Instant::now),
            moved: Instant::now(),
            timer: Timer::new(),
        };
        let sent = exchange.send_head(&self.head, self.body.is_none());
        let outcome = match sent {
            Ok(()) => poll_fn(|cx| self.poll(cx, &mut exchange, &mut progress)).await,
            Err(error) => Err(Failure::Upstream(error)),
        };
        match outcome {
            Ok(()) => {
                let took = started.elapsed().as_secs_f64() * 1000.0;
                stats.rq_time.record(took);
            }
            Err(Failure::Upstream(error)) => {
                tracing::debug!(cluster = %self.cluster.config().name, %error, "a mirror failed");
                if matches!(error, StreamError::Reset(_) | StreamError::Refused) {
                    stats.rq_rx_reset.increment(1);
                }
                if !progress.head_read {
                    stats.response(503);
                }
            }
            Err(Failure::Timeout) => {
                stats.rq_timeout.increment(1);
                exchange.timed_out();
                if !progress.head_read {
                    stats.response(504);
                }
            }
            Err(Failure::GivenUp) => stats.rq_tx_reset.increment(1),
        }
    }

    fn poll(
        &self,
        cx: &mut TaskContext<'_>,
        exchange: &mut Exchange,
        progress: &mut Progress,
    ) -> Poll<Result<(), Failure>> {
        if let Some(body) = &self.body {
            upload(cx, exchange, &mut body.borrow_mut(), progress)?;
        }
        if progress.upload_done {
            // Whether it was taken shows in the response.
            let _ = exchange.poll_flush(cx);
        }
        if let Poll::Ready(outcome) = download(cx, exchange, progress) {
            return Poll::Ready(outcome.map_err(Failure::Upstream));
        }
        let response = progress.sent.zip(self.timeout);
        let response = response.map(|(sent, timeout)| sent + timeout);
        let idle = Some(progress.moved + IDLE);
        let first = [response, idle].into_iter().flatten().min();
        progress
            .timer
            .poll(cx, first)
            .map(|()| Err(Failure::Timeout))
    }
}

/// Sends what there is of the body.
fn upload(
    cx: &mut TaskContext<'_>,
    exchange: &mut Exchange,
    body: &mut Body,
    progress: &mut Progress,
) -> Result<(), Failure> {
    while !progress.upload_done {
        if body.broken {
            return Err(Failure::GivenUp);
        }
        if body.waiting.is_empty() {
            if !body.ended {
                body.task = Some(cx.waker().clone());
                // Whether it was taken shows in the response.
                let _ = exchange.poll_flush(cx);
                return Ok(());
            }
            // An endpoint that takes no more may have answered already.
            let _ = exchange.send_end(body.trailers.as_ref());
            progress.upload_done = true;
            progress.moved = Instant::now();
            progress.sent = Some(progress.moved);
            continue;
        }
        match exchange.send_data(&body.waiting) {
            Ok(0) => match exchange.poll_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => progress.upload_done = true,
                Poll::Pending => {
                    // To hear of it if the request is broken off meanwhile.
                    body.task = Some(cx.waker().clone());
                    return Ok(());
                }
            },
            Ok(taken) => {
                body.advance(taken);
                progress.moved = Instant::now();
            }
            Err(_) => progress.upload_done = true,
        }
    }
    Ok(())
}

/// Reads the response and drops it.
fn download(
    cx: &mut TaskContext<'_>,
    exchange: &mut Exchange,
    progress: &mut Progress,
) -> Poll<Result<(), StreamError>> {
    while !progress.head_read {
        std::task::ready!(exchange.poll_head(cx, &mut progress.response))?;
        progress.moved = Instant::now();
        progress.head_read = progress.response.status >= 200;
        if progress.head_read && progress.response.body == BodyLength::None {
            return Poll::Ready(Ok(()));
        }
    }
    while let Some(length) = std::task::ready!(exchange.poll_data(cx))?.map(<[u8]>::len) {
        exchange.consume(length);
        progress.moved = Instant::now();
    }
    Poll::Ready(Ok(()))
}
