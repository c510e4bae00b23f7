//! Timers that are cheap to set and to move: most deadlines of a proxy never come.
//!
//! All timers of a worker hang on one task that sleeps until the first of them is due, and looks
//! around at least once a second while there is any. A deadline further away than its next look is
//! only written down: it costs no system call, no lock and no entry in the runtime's own wheel.

use std::cell::RefCell;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use slab::Slab;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The longest that the task sleeps: what is due later may be written down without waking it.
const LOOK: Duration = Duration::from_secs(1);

thread_local! {
    static WHEEL: RefCell<Wheel> = RefCell::default();
}

/// The timers of one thread.
#[derive(Default)]
struct Wheel {
    entries: Slab<Entry>,
    /// Set while the task lives: when it looks next, and how to make it look earlier.
    task: Option<(Instant, Rc<Notify>)>,
}

struct Entry {
    deadline: Instant,
    waker: Waker,
    /// The deadline has passed.
    due: bool,
}

impl Wheel {
    /// Makes sure that the task looks in time.
    fn plan(&mut self, deadline: Instant) {
        match &mut self.task {
            Some((next, sooner)) if deadline < *next => {
                *next = deadline;
                sooner.notify_one();
            }
            Some(_) => {}
            None => {
                let sooner = Rc::new(Notify::new());
                self.task = Some((deadline, sooner.clone()));
                tokio::task::spawn_local(look_after(sooner));
            }
        }
    }

    /// Gathers who is due; answers when to look next, or `None` if no timer is left.
    fn look(&mut self, now: Instant, due: &mut Vec<Waker>) -> Option<Instant> {
        let mut next = now + LOOK;
        for (_, entry) in &mut self.entries {
            if entry.due {
                continue;
            }
            if entry.deadline <= now {
                entry.due = true;
                due.push(entry.waker.clone());
            } else {
                next = next.min(entry.deadline);
            }
        }
        if self.entries.is_empty() {
            self.task = None;
            return None;
        }
        if let Some((planned, _)) = &mut self.task {
            *planned = next;
        }
        Some(next)
    }
}

/// The task behind a thread's timers. It ends with the last of them.
async fn look_after(sooner: Rc<Notify>) {
    let mut due = Vec::new();
    loop {
        let next = WHEEL.with_borrow_mut(|wheel| wheel.look(Instant::now(), &mut due));
        // Not while the wheel is borrowed: who is woken may set a timer.
        due.drain(..).for_each(Waker::wake);
        let Some(next) = next else { return };
        let mut asleep = pin!(tokio::time::sleep_until(next));
        loop {
            tokio::select! {
                () = &mut asleep => break,
                () = sooner.notified() => {
                    let next = WHEEL.with_borrow(|wheel| wheel.task.as_ref().map(|(next, _)| *next));
                    if let Some(next) = next {
                        asleep.as_mut().reset(next);
                    }
                }
            }
        }
    }
}

/// One timer for many deadlines in turn.
#[derive(Debug, Default)]
pub struct Timer {
    key: Option<usize>,
}

impl Timer {
    /// A timer that is nowhere until its first use.
    pub const fn new() -> Self {
        Timer { key: None }
    }

    /// Ready once `deadline` has passed; `None` is never.
    pub fn poll(&mut self, cx: &mut Context<'_>, deadline: Option<Instant>) -> Poll<()> {
        let Some(deadline) = deadline else {
            return Poll::Pending;
        };
        WHEEL.with_borrow_mut(|wheel| {
            let Some(entry) = self.key.and_then(|key| wheel.entries.get_mut(key)) else {
                let waker = cx.waker().clone();
                self.key = Some(wheel.entries.insert(Entry {
                    deadline,
                    waker,
                    due: false,
                }));
                wheel.plan(deadline);
                return Poll::Pending;
            };
            if !entry.waker.will_wake(cx.waker()) {
                entry.waker.clone_from(cx.waker());
            }
            if entry.due && deadline <= Instant::now() {
                return Poll::Ready(());
            }
            let moved = entry.deadline != deadline || entry.due;
            entry.deadline = deadline;
            entry.due = false;
            if moved {
                wheel.plan(deadline);
            }
            Poll::Pending
        })
    }

    /// Resolves once `deadline` has passed; `None` is never.
    pub async fn until(&mut self, deadline: Option<Instant>) {
        std::future::poll_fn(|cx| self.poll(cx, deadline)).await
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            // A thread that ends drops its timers in any order.
            let _ = WHEEL.try_with(|wheel| wheel.borrow_mut().entries.try_remove(key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn poll_once(timer: &mut Timer, deadline: Option<Instant>) -> Poll<()> {
        std::future::poll_fn(|cx| Poll::Ready(timer.poll(cx, deadline))).await
    }

    #[tokio::test(start_paused = true)]
    async fn deadlines_move_both_ways_and_come_in_time() {
        tokio::task::LocalSet::new()
            .run_until(async {
                let mut timer = Timer::new();
                let start = Instant::now();
                let at = |millis| Some(start + Duration::from_millis(millis));
                assert!(poll_once(&mut timer, at(10_000)).await.is_pending());
                timer.until(at(20_500)).await;
                assert_eq!(start.elapsed().as_millis(), 20_500);
                timer.until(at(25_000)).await;
                assert_eq!(start.elapsed().as_millis(), 25_000);
                assert!(poll_once(&mut timer, at(100_000)).await.is_pending());
                timer.until(at(25_200)).await;
                assert_eq!(start.elapsed().as_millis(), 25_200);
            })
            .await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_task_ends_with_the_last_timer_and_begins_again() {
        tokio::task::LocalSet::new()
            .run_until(async {
                let start = Instant::now();
                let mut first = Timer::new();
                first.until(Some(start + Duration::from_secs(3))).await;
                drop(first);
                tokio::time::sleep(Duration::from_secs(5)).await;
                assert!(WHEEL.with_borrow(|wheel| wheel.task.is_none()));
                let mut second = Timer::new();
                second.until(Some(start + Duration::from_secs(9))).await;
                assert_eq!(start.elapsed().as_secs(), 9);
            })
            .await;
    }
}
