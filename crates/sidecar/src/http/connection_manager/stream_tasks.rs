//! The tasks that serve the streams of HTTP/2 connections.
//!
//! A task for each stream would be allocated, moved there, and freed for each request, together with
//! the memory for its heads. So a task that has served its stream waits for the next one, of
//! whichever connection of the worker.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};

use super::context::Context;
use super::h2::Open;
use super::request::{self, Next, Scratch};
use super::tunnel;
use crate::http::downstream::Downstream;
use crate::http::h2::server::StreamPair;
use crate::http::message::RequestHead;
use crate::runtime::timer::Timer;

/// Tasks, and heads, that are kept for the next streams; each of them is a few KiB.
const KEPT: usize = 128;
/// Memory of a head, in bytes, with which it is not kept: one large request is no reason to hold on
/// to what it took.
const LARGE_HEAD: usize = 8 * 1024;

/// One stream to be served, on its connection.
pub struct Work {
    pub context: Rc<Context>,
    pub head: RequestHead,
    pub pair: StreamPair,
    /// Keeps the stream counted.
    pub open: Open,
}

/// The tasks of one worker.
#[derive(Default)]
pub struct StreamTasks {
    idle: RefCell<Vec<Rc<Desk>>>,
    heads: RefCell<Vec<RequestHead>>,
}

/// Where a task finds its next stream.
#[derive(Default)]
struct Desk {
    work: RefCell<Option<Work>>,
    waker: Cell<Option<Waker>>,
}

impl StreamTasks {
    /// An empty head, with the memory of one that was served before.
    pub fn head(&self) -> RequestHead {
        let kept = self.heads.borrow_mut().pop();
        kept.unwrap_or(RequestHead::new())
    }

    /// Has a stream served.
    pub fn begin(self: &Rc<Self>, work: Work) {
        let idle = self.idle.borrow_mut().pop();
        if let Some(desk) = idle {
            *desk.work.borrow_mut() = Some(work);
            if let Some(waker) = desk.waker.take() {
                waker.wake();
            }
            return;
        }
        let desk = Rc::new(Desk::default());
        *desk.work.borrow_mut() = Some(work);
        tokio::task::spawn_local(serve_streams(desk, Rc::downgrade(self)));
    }

    /// Takes back a head that has been served.
    fn keep_head(&self, head: RequestHead) {
        let mut heads = self.heads.borrow_mut();
        if heads.len() < KEPT && head.headers.capacity() + head.path.capacity() <= LARGE_HEAD {
            heads.push(head);
        }
    }

    /// Takes back a task that has nothing to do; false if it may end.
    fn keep(&self, desk: &Rc<Desk>) -> bool {
        let mut idle = self.idle.borrow_mut();
        let keep = idle.len() < KEPT;
        if keep {
            idle.push(Rc::clone(desk));
        }
        keep
    }
}

async fn serve_streams(desk: Rc<Desk>, tasks: Weak<StreamTasks>) {
    let mut scratch = Scratch::new();
    loop {
        let work = poll_fn(|cx| match desk.work.borrow_mut().take() {
            Some(work) => Poll::Ready(work),
            None => {
                desk.waker.set(Some(cx.waker().clone()));
                Poll::Pending
            }
        })
        .await;
        let open = serve(work, &mut scratch).await;
        let Some(tasks) = tasks.upgrade() else { return };
        if scratch.response.headers.capacity() > LARGE_HEAD {
            scratch = Scratch::new();
        }
        tasks.keep_head(std::mem::replace(&mut scratch.request, RequestHead::new()));
        // The connection may begin another stream once it learns that this one has ended.
        let kept = tasks.keep(&desk);
        drop(open);
        if !kept {
            return;
        }
    }
}

/// Serves one stream, and answers what keeps it counted.
async fn serve(work: Work, scratch: &mut Scratch) -> Open {
    let Work {
        context,
        head,
        pair,
        open,
    } = work;
    scratch.request = head;
    let mut downstream = Downstream::H2(pair);
    if let Next::Tunnel(tunnel) = request::serve(&context, scratch, &mut downstream).await {
        let scratch = std::mem::replace(scratch, Scratch::new());
        // Rare, and large: not in every task.
        let heads = (&scratch.request, &scratch.response);
        Box::pin(tunnel::http2(&context, &mut downstream, *tunnel, heads)).await;
    }
    // An idle task is not to be looked after.
    scratch.timer = Timer::new();
    open
}
