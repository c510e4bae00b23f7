//! Ctrl-C: the demo ends at its next step, so that everything is removed.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use anyhow::{Context as _, Result, ensure};
use tokio::signal::unix::{SignalKind, signal};

/// Whether the user, or whoever ends processes, wants an end.
pub(super) struct Interrupt(Arc<(Mutex<bool>, Condvar)>);

impl Interrupt {
    /// Takes Ctrl-C and SIGTERM over from here on.
    pub(super) fn watch() -> Result<Self> {
        let shared = Arc::new((Mutex::new(false), Condvar::new()));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("make a runtime for signals")?;
        let (mut interrupt, mut terminate) = {
            let _inside = runtime.enter();
            (
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
            )
        };
        let setter = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                    }
                });
                *setter.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
                setter.1.notify_all();
            })
            .context("start a thread for signals")?;
        Ok(Self(shared))
    }

    /// Fails once it has come.
    pub(super) fn check(&self) -> Result<()> {
        let come = *self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(!come, "interrupted; everything is removed");
        Ok(())
    }

    /// Waits for it.
    pub(super) fn wait(&self) {
        let mut come = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        while !*come {
            come = self.0.1.wait(come).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
