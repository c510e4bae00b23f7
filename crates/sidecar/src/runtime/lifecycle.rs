//! How far the process has got, and what it is told to do next.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

/// `ServerInfo.State`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// Waiting for the first clusters.
    PreInitializing,
    /// Waiting for the first listeners.
    Initializing,
    /// Serving.
    Live,
    /// Ending, or told to fail health checks.
    Draining,
}

impl Stage {
    /// As `/ready` and `/server_info` say it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Stage::PreInitializing => "PRE_INITIALIZING",
            Stage::Initializing => "INITIALIZING",
            Stage::Live => "LIVE",
            Stage::Draining => "DRAINING",
        }
    }
}

/// What the admin API or a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Drain, then end.
    Quit,
}

/// Shared by the control thread, the admin API and signal handlers.
#[derive(Clone)]
pub struct Lifecycle {
    shared: Arc<Shared>,
    commands: mpsc::UnboundedSender<Command>,
}

struct Shared {
    stage: AtomicU8,
    started: Instant,
    /// When all that was waited for was there.
    live: OnceLock<Instant>,
    health_check_fails: AtomicBool,
}

impl Lifecycle {
    /// A process that begins, and where its commands arrive.
    pub fn new() -> (Self, mpsc::UnboundedReceiver<Command>) {
        let (commands, receiver) = mpsc::unbounded_channel();
        let shared = Shared {
            stage: AtomicU8::new(Stage::PreInitializing as u8),
            started: Instant::now(),
            live: OnceLock::new(),
            health_check_fails: AtomicBool::new(false),
        };
        (
            Lifecycle {
                shared: Arc::new(shared),
                commands,
            },
            receiver,
        )
    }

    /// The stage as others are to see it.
    pub fn stage(&self) -> Stage {
        let stage = match self.shared.stage.load(Relaxed) {
            0 => Stage::PreInitializing,
            1 => Stage::Initializing,
            2 => Stage::Live,
            _ => Stage::Draining,
        };
        if stage == Stage::Live && self.shared.health_check_fails.load(Relaxed) {
            Stage::Draining
        } else {
            stage
        }
    }

    /// Goes on to a later stage; never back.
    pub fn reach(&self, stage: Stage) {
        self.shared.stage.fetch_max(stage as u8, Relaxed);
        if stage == Stage::Live {
            self.shared.live.get_or_init(Instant::now);
        }
    }

    /// How long it took from the start until traffic was served; `None` as long as it is not.
    pub fn took(&self) -> Option<Duration> {
        let live = self.shared.live.get()?;
        Some(live.duration_since(self.shared.started))
    }

    /// `/healthcheck/fail` and `/healthcheck/ok`.
    pub fn fail_health_check(&self, fail: bool) {
        self.shared.health_check_fails.store(fail, Relaxed);
    }

    /// Passes a command to the control thread.
    pub fn command(&self, command: Command) {
        // The receiver is gone only when the process is ending anyway.
        let _ = self.commands.send(command);
    }
}
