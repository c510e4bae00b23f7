//! Taking connections from the sockets of a listener.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedReceiver;

use super::balance::{Balance, Passed, Senders};
use super::binding::Binding;
use super::running::Running;
use super::serve::serve;
use super::socket::{Accepted, Acceptor, is_about_the_connection};
use crate::config::listener::TrafficDirection;
use crate::runtime::overload::{Action, OVERLOAD, ShedPoint};
use crate::runtime::worker::Worker;

/// How long accepting rests when the process has no descriptors left.
const REST: Duration = Duration::from_millis(50);

/// Accepts from a socket of `binding` until `stop` is told.
pub fn start(
    worker: &Rc<Worker>,
    running: &Rc<Running>,
    acceptor: Acceptor,
    binding: &Binding,
    stop: &Rc<Notify>,
) {
    let mut gate = Gate {
        worker: worker.clone(),
        running: running.clone(),
        balance: binding.balance.clone(),
        senders: None,
    };
    let balance = binding.balance.as_ref();
    if let Some(ends) = balance.and_then(|balance| balance.take(worker.index)) {
        tokio::task::spawn_local(take_passed(gate.clone(), ends.receiver));
        gate.senders = Some(ends.senders);
    }
    tokio::task::spawn_local(run(gate, acceptor, stop.clone()));
}

/// What decides over new connections of one binding on one worker.
#[derive(Clone)]
struct Gate {
    worker: Rc<Worker>,
    running: Rc<Running>,
    balance: Option<Arc<Balance>>,
    senders: Option<Senders>,
}

/// What is in the queue when it is to stop is still served, for its clients have been told that
/// they are connected.
async fn run(gate: Gate, acceptor: Acceptor, stop: Rc<Notify>) {
    loop {
        let config = gate.running.config();
        if !config.bypasses_overload && OVERLOAD.is_saturated(Action::StopConnections) {
            tokio::select! {
                biased;
                () = stop.notified() => break,
                () = tokio::time::sleep(REST) => continue,
            }
        }
        let at_once = config.accept_at_once;
        tokio::select! {
            biased;
            () = stop.notified() => break,
            outcome = accept_some(&gate, &acceptor, at_once) => match outcome {
                Ok(()) => {}
                Err(error) => failed(&error).await,
            }
        }
    }
    let outcome = acceptor.drain(|accepted| match accepted {
        Ok(accepted) => gate.take(accepted),
        Err(error) => tracing::debug!(%error, "a connection ended in the accept queue"),
    });
    if let Err(error) = outcome {
        tracing::warn!(%error, "connections in the accept queue are lost");
    }
}

/// Takes what is there, at most so many at once; then the worker's connections get their turn.
async fn accept_some(gate: &Gate, acceptor: &Acceptor, at_once: Option<u32>) -> io::Result<()> {
    let mut taken: u32 = 0;
    let outcome = poll_fn(|cx| {
        loop {
            match acceptor.poll_accept(cx) {
                Poll::Ready(Ok(accepted)) => gate.take(accepted),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if taken == 0 => return Poll::Pending,
                Poll::Pending => return Poll::Ready(Ok(())),
            }
            taken += 1;
            if at_once.is_some_and(|most| taken >= most) {
                return Poll::Ready(Ok(()));
            }
        }
    })
    .await;
    let stats = &gate.running.stats;
    stats
        .connections_accepted_per_socket_event
        .record(f64::from(taken));
    if at_once.is_some_and(|most| taken >= most) {
        tokio::task::yield_now().await;
    }
    outcome
}

/// A connection that its client gave up is not worth a word; want of descriptors is worth a rest.
async fn failed(error: &io::Error) {
    if !is_about_the_connection(error) {
        tracing::warn!(%error, "cannot accept connections: raise the limit of open files (ulimit -n)?");
        tokio::time::sleep(REST).await;
    }
}

/// Takes what other workers give; ends with the last of the binding.
async fn take_passed(gate: Gate, mut passed: UnboundedReceiver<Passed>) {
    while let Some(passed) = passed.recv().await {
        let share = gate.share();
        match passed.accept() {
            Ok(accepted) => gate.admit(accepted, share),
            Err(error) => tracing::debug!(%error, "a connection that was passed on is lost"),
        }
    }
}

impl Gate {
    /// Takes a new connection, or gives it to the worker that has fewest.
    fn take(&self, accepted: Accepted) {
        let (Some(balance), Some(senders)) = (&self.balance, &self.senders) else {
            return self.admit(accepted, Share::default());
        };
        match balance.choose(self.worker.index) {
            chosen if chosen == self.worker.index => self.admit(accepted, self.share()),
            other => balance.pass(accepted, senders, other),
        }
    }

    /// This worker's count of a connection that it was chosen for.
    fn share(&self) -> Share {
        let balance = self.balance.clone();
        Share(balance.map(|balance| (balance, self.worker.index)))
    }

    /// Serves a connection, unless it is too many.
    fn admit(&self, accepted: Accepted, share: Share) {
        let (worker, running) = (&self.worker, &self.running);
        let version = running.version();
        let config = version.config();
        let mut global = u64::from(worker.connection_limit.get());
        if !config.bypasses_overload {
            let random = || worker.random();
            if OVERLOAD.happens(Action::RejectConnections, random)
                || OVERLOAD.sheds(ShedPoint::Accept, random)
            {
                return running.stats.downstream_cx_overload_reject.increment(1);
            }
            global = global.min(OVERLOAD.most_connections());
        }
        if !config.ignores_global_limit && worker.drain.open() as u64 >= global {
            return running.stats.downstream_global_cx_overflow.increment(1);
        }
        if version.open().load(Relaxed) >= config.connection_limit.get() {
            return running.stats.downstream_cx_overflow.increment(1);
        }
        let open = Open::begin(worker, config.direction, version.open(), share);
        let (worker, running) = (worker.clone(), running.clone());
        tokio::task::spawn_local(async move { serve(worker, running, accepted, open).await });
    }
}

/// A connection's part in the balance, until it ends.
#[derive(Default)]
struct Share(Option<(Arc<Balance>, usize)>);

impl Drop for Share {
    fn drop(&mut self) {
        if let Some((balance, worker)) = &self.0 {
            balance.closed(*worker);
        }
    }
}

/// A connection that is open, for the limits and for draining, until it ends.
pub struct Open {
    worker: Rc<Worker>,
    direction: TrafficDirection,
    of_listener: Arc<AtomicU32>,
    _share: Share,
}

impl Open {
    fn begin(
        worker: &Rc<Worker>,
        direction: TrafficDirection,
        of_listener: &Arc<AtomicU32>,
        share: Share,
    ) -> Self {
        worker.drain.opened(direction);
        of_listener.fetch_add(1, Relaxed);
        Open {
            worker: worker.clone(),
            direction,
            of_listener: of_listener.clone(),
            _share: share,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.worker.drain.closed(self.direction);
        self.of_listener.fetch_sub(1, Relaxed);
    }
}
