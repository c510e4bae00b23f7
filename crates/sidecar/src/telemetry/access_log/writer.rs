//! From the workers to the files: lines gather in a buffer per worker and file, full or stale
//! buffers go to one thread that writes them. When that thread cannot keep up, lines are dropped
//! and counted: a slow disk never slows a request.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use metrics::{Counter, Gauge};

use super::record::Record;
use crate::config::access_log::{AccessLog, LogSink};
use crate::runtime::random::Random;
use crate::telemetry::metrics::{Family, Scope, Stats};

/// A buffer of this many bytes is handed over at once.
const FULL: usize = 32 * 1024;
/// A line waits at most so long in a worker's buffer.
const STALE: Duration = Duration::from_millis(200);
/// Buffers that may wait for the writer thread, over all workers.
const QUEUE: usize = 256;

struct Batch {
    sink: LogSink,
    lines: Vec<u8>,
    count: u64,
}

enum Message {
    Batch(Batch),
    Stop,
}

/// The thread that writes. It starts with the first batch: most sidecars log nothing, and a thread
/// has its price in memory.
pub struct WriterThread(Arc<Shared>);

struct Shared {
    stats: Stats,
    /// `None` where the system gave no thread.
    queue: OnceLock<Option<SyncSender<Message>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Files are to be opened anew: shared with the thread.
    reopen: Arc<AtomicBool>,
}

impl Shared {
    fn queue(&self) -> Option<&SyncSender<Message>> {
        self.queue.get_or_init(|| self.start()).as_ref()
    }

    fn start(&self) -> Option<SyncSender<Message>> {
        let (sender, receiver) = sync_channel(QUEUE);
        let counters = Counters::new(&self.stats);
        let reopen = self.reopen.clone();
        let started = std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || write_batches(&receiver, &counters, &reopen));
        match started {
            Ok(thread) => {
                *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
                Some(sender)
            }
            Err(error) => {
                tracing::error!(%error, "access logs cannot be written: no thread");
                None
            }
        }
    }
}

impl WriterThread {
    /// Nothing is written yet.
    pub fn new(stats: Stats) -> Self {
        WriterThread(Arc::new(Shared {
            stats,
            queue: OnceLock::new(),
            thread: Mutex::default(),
            reopen: Arc::default(),
        }))
    }

    /// The way to it, for one thread.
    pub fn handle(&self) -> Handle {
        Handle(self.0.clone())
    }

    /// The way to have files opened anew.
    pub fn reopen(&self) -> Reopen {
        Reopen(self.0.reopen.clone())
    }
}

/// For `/reopen_logs`.
#[derive(Clone)]
pub struct Reopen(Arc<AtomicBool>);

impl Reopen {
    /// The next lines go to files that are opened by their names, for they may have been moved.
    pub fn reopen(&self) {
        self.0.store(true, Relaxed);
    }
}

impl Drop for WriterThread {
    /// Writes all that has been handed over.
    fn drop(&mut self) {
        if let Some(Some(queue)) = self.0.queue.get()
            && queue.send(Message::Stop).is_ok()
            && let Ok(mut thread) = self.0.thread.lock()
            && let Some(thread) = thread.take()
        {
            let _ = thread.join();
        }
    }
}

/// A thread's way to the writer thread.
pub struct Handle(Arc<Shared>);

impl Handle {
    /// The thread's buffers.
    pub fn writer(self, stats: &Stats) -> Writer {
        let scope = stats.scope(Family::AccessLog, "");
        Writer(Rc::new(Inner {
            shared: self.0,
            buffers: RefCell::default(),
            flush_pending: Cell::new(false),
            random: Random::new(),
            dropped: scope.counter("lines_dropped"),
            _scope: scope,
            files: FileStats::new(stats),
        }))
    }
}

/// `filesystem.*`: what Envoy counts of its log files. The parts of one number are of all threads.
struct FileStats {
    buffered: Counter,
    completed: Counter,
    failed: Counter,
    flushed_by_timer: Counter,
    reopen_failed: Counter,
    total_buffered: Gauge,
    _scope: Scope,
}

impl FileStats {
    fn new(stats: &Stats) -> Self {
        let scope = stats.scope(Family::Filesystem, "");
        FileStats {
            buffered: scope.counter("write_buffered"),
            completed: scope.counter("write_completed"),
            failed: scope.counter("write_failed"),
            flushed_by_timer: scope.counter("flushed_by_timer"),
            reopen_failed: scope.counter("reopen_failed"),
            total_buffered: scope.gauge("write_total_buffered"),
            _scope: scope,
        }
    }
}

struct Counters {
    written: Counter,
    failed: Counter,
    files: FileStats,
    _scope: Scope,
}

impl Counters {
    fn new(stats: &Stats) -> Self {
        let scope = stats.scope(Family::AccessLog, "");
        Counters {
            written: scope.counter("lines_written"),
            failed: scope.counter("write_failed"),
            files: FileStats::new(stats),
            _scope: scope,
        }
    }
}

fn write_batches(receiver: &Receiver<Message>, counters: &Counters, reopen: &AtomicBool) {
    let mut files: HashMap<LogSink, File> = HashMap::new();
    let mut reopening = false;
    let stats = &counters.files;
    while let Ok(message) = receiver.recv() {
        if reopen.swap(false, Relaxed) {
            files.clear();
            reopening = true;
        }
        if let Message::Batch(batch) = &message {
            stats.total_buffered.decrement(batch.lines.len() as f64);
        }
        match message {
            Message::Batch(batch) => match write_batch(&mut files, &batch) {
                Ok(()) => {
                    counters.written.increment(batch.count);
                    stats.completed.increment(1);
                    reopening = false;
                }
                Err(error) => {
                    counters.failed.increment(batch.count);
                    stats.failed.increment(1);
                    if reopening && !files.contains_key(&batch.sink) {
                        stats.reopen_failed.increment(1);
                    }
                    files.remove(&batch.sink);
                    tracing::warn!(sink = ?batch.sink, %error, lines = batch.count, "access log lines lost");
                }
            },
            Message::Stop => return,
        }
    }
}

fn write_batch(files: &mut HashMap<LogSink, File>, batch: &Batch) -> io::Result<()> {
    match &batch.sink {
        LogSink::Stdout => {
            let mut out = io::stdout().lock();
            out.write_all(&batch.lines)?;
            out.flush()
        }
        LogSink::Stderr => io::stderr().lock().write_all(&batch.lines),
        LogSink::File(path) => {
            if !files.contains_key(&batch.sink) {
                let file = OpenOptions::new().append(true).create(true).open(path)?;
                files.insert(batch.sink.clone(), file);
            }
            match files.get_mut(&batch.sink) {
                Some(file) => file.write_all(&batch.lines),
                None => Ok(()),
            }
        }
    }
}

/// One worker's buffers.
#[derive(Clone)]
pub struct Writer(Rc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    buffers: RefCell<HashMap<LogSink, Batch>>,
    flush_pending: Cell<bool>,
    random: Random,
    dropped: Counter,
    _scope: Scope,
    files: FileStats,
}

impl Writer {
    /// Writes one line to each of the logs.
    pub fn write(&self, logs: &[AccessLog], record: &Record<'_>) {
        let inner = &self.0;
        let mut buffers = inner.buffers.borrow_mut();
        for log in logs {
            let filter = log.filter.as_ref();
            if filter.is_some_and(|filter| !filter.admits(record, &inner.random)) {
                continue;
            }
            if !buffers.contains_key(&log.sink) {
                let sink = log.sink.clone();
                buffers.insert(
                    sink.clone(),
                    Batch {
                        sink,
                        lines: Vec::new(),
                        count: 0,
                    },
                );
            }
            let Some(batch) = buffers.get_mut(&log.sink) else {
                continue;
            };
            let before = batch.lines.len();
            log.format.render(record, &mut batch.lines);
            batch.count += 1;
            inner.files.buffered.increment(1);
            let added = batch.lines.len() - before;
            inner.files.total_buffered.increment(added as f64);
            if batch.lines.len() >= FULL {
                inner.send(batch);
            }
        }
        drop(buffers);
        if !logs.is_empty() && !inner.flush_pending.replace(true) {
            let writer = self.clone();
            tokio::task::spawn_local(async move {
                tokio::time::sleep(STALE).await;
                writer.0.flush_pending.set(false);
                writer.0.files.flushed_by_timer.increment(1);
                writer.flush();
            });
        }
    }

    /// Hands over what has gathered.
    pub fn flush(&self) {
        for batch in self.0.buffers.borrow_mut().values_mut() {
            if batch.count > 0 {
                self.0.send(batch);
            }
        }
    }
}

impl Inner {
    fn send(&self, batch: &mut Batch) {
        let full = Batch {
            sink: batch.sink.clone(),
            lines: std::mem::take(&mut batch.lines),
            count: std::mem::take(&mut batch.count),
        };
        let (count, bytes) = (full.count, full.lines.len());
        let queue = self.shared.queue();
        if queue.is_none_or(|queue| queue.try_send(Message::Batch(full)).is_err()) {
            self.dropped.increment(count);
            self.files.total_buffered.decrement(bytes as f64);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        for batch in self
            .buffers
            .take()
            .values_mut()
            .filter(|batch| batch.count > 0)
        {
            self.send(batch);
        }
    }
}
