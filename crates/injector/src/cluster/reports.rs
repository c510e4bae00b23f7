//! Events about pods that were refused, or left without a sidecar that somebody may miss.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::warn;

use super::limiter::Limiter;
use crate::serve::metrics::Metrics;
use crate::serve::review::Report;

/// The name of who reports.
const CONTROLLER: &str = "outrider.dev/injector";
/// How many may wait to be sent.
const WAITING: usize = 64;
/// How long sending one may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest note that the API server takes, in bytes.
const LONGEST: usize = 1024;

/// Where reports are left. It never waits.
pub(crate) struct Reports {
    sender: mpsc::Sender<Report>,
    metrics: Arc<Metrics>,
}

impl Reports {
    /// Leaves a report to be sent; one too many is dropped and counted.
    pub(crate) fn send(&self, report: Report) {
        if self.sender.try_send(report).is_err() {
            self.metrics.events_dropped.increment();
        }
    }
}

pub(super) fn channel(
    client: Client,
    instance: Option<String>,
    metrics: Arc<Metrics>,
) -> (Reports, impl Future<Output = ()> + Send + use<>) {
    let (sender, mut reports) = mpsc::channel::<Report>(WAITING);
    let sending = Arc::clone(&metrics);
    let reporter = Reporter {
        controller: CONTROLLER.to_owned(),
        instance,
    };
    let recorder = Recorder::new(client, reporter);
    let send = async move {
        let mut limiter = Limiter::new(Instant::now());
        while let Some(report) = reports.recv().await {
            let about = &report.about;
            let key = (
                report.reason,
                about.kind.clone(),
                about.namespace.clone(),
                about.name.clone(),
            );
            if !limiter.allows(key, Instant::now()) {
                sending.events_dropped.increment();
                continue;
            }
            let event = Event {
                type_: EventType::Warning,
                reason: report.reason.to_owned(),
                note: Some(cut(&report.message).to_owned()),
                action: "Inject".to_owned(),
                secondary: None,
            };
            match timeout(PATIENCE, recorder.publish(&event, about)).await {
                Ok(Ok(())) => sending.events_sent.increment(),
                Ok(Err(error)) => {
                    sending.events_failed.increment();
                    warn!("sending an event: {error}");
                }
                Err(_elapsed) => {
                    sending.events_failed.increment();
                    warn!("sending an event took too long");
                }
            }
        }
    };
    (Reports { sender, metrics }, send)
}

fn cut(note: &str) -> &str {
    let mut end = note.len().min(LONGEST);
    while !note.is_char_boundary(end) {
        end -= 1;
    }
    &note[..end]
}
