//! A timer that is cheap to move: most deadlines of a proxy are pushed back long before they come.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep};

/// One timer for many deadlines in turn. Moving the deadline back costs nothing: the timer wakes at
/// the older one, sees that it was moved, and is set again.
#[derive(Default)]
pub struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    /// A timer that allocates at its first use.
    pub const fn new() -> Self {
        Timer { sleep: None }
    }

    /// Ready once `deadline` has passed; `None` is never.
    pub fn poll(&mut self, cx: &mut Context<'_>, deadline: Option<Instant>) -> Poll<()> {
        let Some(deadline) = deadline else {
            return Poll::Pending;
        };
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if sleep.deadline() > deadline || sleep.is_elapsed() {
            sleep.as_mut().reset(deadline);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
        Poll::Pending
    }

    /// Resolves once `deadline` has passed; `None` is never.
    pub async fn until(&mut self, deadline: Option<Instant>) {
        std::future::poll_fn(|cx| self.poll(cx, deadline)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn deadlines_move_both_ways() {
        let mut timer = Timer::new();
        let start = Instant::now();
        let at = |seconds| Some(start + Duration::from_secs(seconds));
        let early = std::future::poll_fn(|cx| Poll::Ready(timer.poll(cx, at(10)))).await;
        assert!(early.is_pending());
        timer.until(at(20)).await;
        assert_eq!(start.elapsed().as_secs(), 20);
        timer.until(at(25)).await;
        assert_eq!(start.elapsed().as_secs(), 25);
        let late = std::future::poll_fn(|cx| Poll::Ready(timer.poll(cx, at(100)))).await;
        assert!(late.is_pending());
        timer.until(at(30)).await;
        assert_eq!(start.elapsed().as_secs(), 30);
    }
}
