//! Worker threads: each a single-threaded runtime that takes over snapshots as they are published.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::runtime::LocalOptions;
use tokio::sync::watch;

use super::drain::DrainSignal;
use super::snapshot::Snapshot;
use super::worker::Worker;
use crate::config::listener::TrafficDirection;
use crate::telemetry::access_log::writer::Handle;
use crate::telemetry::metrics::Stats;

/// How many polls a worker makes between two looks at its sockets: tokio's default of 61 leaves
/// ready sockets waiting behind a burst of tasks; a lower number costs a system call for each.
const EVENT_INTERVAL: u32 = 31;

/// What a worker starts with.
pub struct Start {
    /// 0 to concurrency - 1.
    pub index: usize,
    /// What is in force.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// This thread's stats.
    pub stats: Stats,
    /// What is to end.
    pub drain: DrainSignal,
    /// The way to the access log's writer.
    pub access_log: Handle,
}

/// Starts a worker. It ends when the snapshots' sender is dropped.
///
/// # Errors
/// The system gives no thread, or no epoll instance.
pub fn spawn(start: Start) -> io::Result<JoinHandle<()>> {
    let name = format!("worker-{}", start.index);
    let (ready, is_ready) = std::sync::mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().name(name).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .event_interval(EVENT_INTERVAL)
            .build_local(LocalOptions::default());
        match runtime {
            Ok(runtime) => {
                let _ = ready.send(Ok(()));
                runtime.block_on(run(start));
            }
            Err(error) => {
                let _ = ready.send(Err(error));
            }
        }
    })?;
    match is_ready.recv() {
        Ok(outcome) => outcome.map(|()| thread),
        Err(_) => Err(io::Error::other("the worker ended at once")),
    }
}

async fn run(start: Start) {
    let Start {
        index,
        mut snapshots,
        stats,
        drain,
        access_log,
    } = start;
    let access_log = access_log.writer(&stats);
    let worker = Worker::new(index, stats, drain.clone(), access_log);
    for direction in [TrafficDirection::Inbound, TrafficDirection::Outbound] {
        let (worker, drain) = (worker.clone(), drain.clone());
        tokio::task::spawn_local(async move {
            drain.refusing(direction).await;
            // Both sides of the question are asked in terms of what drains: undirected is inbound.
            worker.listeners.stop_accepting(|listener| {
                (listener.direction == TrafficDirection::Outbound)
                    == (direction == TrafficDirection::Outbound)
            });
        });
    }
    loop {
        let snapshot = snapshots.borrow_and_update().clone();
        worker.apply(&snapshot);
        if snapshots.changed().await.is_err() {
            return;
        }
    }
}
