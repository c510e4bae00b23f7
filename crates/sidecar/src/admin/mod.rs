//! The admin API: what Envoy's offers at the same paths, on loopback only.

mod answer;
mod certificates;
mod clusters;
mod config_dump;
mod listeners;
mod logging;
mod memory;
mod origin;
mod paths;
mod query;
mod runtime;
mod server_info;
mod socket;
mod stats;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, Method, StatusCode, Uri};
use tokio::sync::watch;

use crate::bootstrap::options::DrainStrategy;
use crate::config::matcher::StringMatcher;
use crate::discovery::dump::Dump;
use crate::runtime::drain::DrainControl;
use crate::runtime::http_server::Page;
use crate::runtime::lifecycle::{Command, Lifecycle, Stage};
use crate::runtime::snapshot::Snapshot;
use crate::telemetry::access_log::writer::Reopen;
use crate::telemetry::metrics::Registry;
use crate::telemetry::metrics::pages::{self, Selection};
use crate::telemetry::program_log;
use crate::telemetry::server_stats::ServerStats;
use answer::{html, json, ok, text};
use query::Query;

/// What the pages show and the commands act on.
pub struct Admin {
    /// All stats.
    pub registry: Registry,
    /// What is in force.
    pub snapshot: watch::Receiver<Arc<Snapshot>>,
    /// Resources as they came.
    pub dump: Arc<Dump>,
    /// Readiness and commands.
    pub lifecycle: Lifecycle,
    /// Told to drain without ending: done when the answer goes out, as with Envoy.
    pub drain: Arc<DrainControl>,
    /// The way to the access logs' files.
    pub access_log: Reopen,
    /// Flags and node, for `/server_info`.
    pub options: server_info::Options,
    /// `server.*`, brought up to date when they are read.
    pub stats: ServerStats,
    /// `allow_paths`
    pub allow_paths: Vec<StringMatcher>,
    /// When the process began.
    pub started: SystemTime,
}

pub use server_info::Options;
pub use socket::{AdminError, bind, serve};

/// A request, with its body where that is a form.
pub struct Asked<'a> {
    method: &'a Method,
    uri: &'a Uri,
    headers: &'a HeaderMap,
    form: Option<&'a str>,
}

impl Admin {
    fn answer(&self, asked: &Asked<'_>) -> Page {
        let path = asked.uri.path();
        // Envoy takes the parameters of a command from its form as well.
        let query = asked.uri.query().unwrap_or("");
        let query = Query(asked.form.filter(|_| query.is_empty()).unwrap_or(query));
        if !origin::same_origin(asked.headers) {
            let reason = "admin: the Host is not this machine's loopback\n";
            return text(StatusCode::FORBIDDEN, reason);
        }
        let whole = asked.uri.path_and_query().map_or(path, |all| all.as_str());
        let mut allowed = self.allow_paths.iter();
        if !self.allow_paths.is_empty() && !allowed.any(|each| each.matches(whole.as_bytes())) {
            let reason = format!("request to path {whole} not allowed");
            return text(StatusCode::FORBIDDEN, reason);
        }
        let Some(known) = paths::find(path) else {
            let page = format!("invalid path. {}", paths::help());
            return text(StatusCode::NOT_FOUND, page);
        };
        if known.changes && asked.method != Method::POST {
            let reason = format!("Method {} not allowed, POST required.", asked.method);
            return text(StatusCode::METHOD_NOT_ALLOWED, reason);
        }
        if known.changes {
            self.command(path, &query)
        } else {
            self.page(path, &query)
        }
    }

    /// What only shows.
    fn page(&self, path: &str, query: &Query<'_>) -> Page {
        match path {
            "/" => html(paths::home()),
            "/certs" => json(&certificates::page(&self.dump)),
            "/clusters" => clusters::page(&self.snapshot.borrow(), &self.dump, query),
            "/config_dump" => config_dump::page(&self.dump, query),
            "/contention" => text(
                StatusCode::OK,
                "Mutex contention is not traced: no request waits for a mutex.\n",
            ),
            "/heap_dump" | "/peak_heap_dump" => unsupported("heap dumps"),
            "/memory/tcmalloc" => unsupported("tcmalloc: the allocator is jemalloc, see /memory"),
            "/hot_restart_version" => text(StatusCode::OK, "disabled"),
            "/init_dump" => {
                let (clusters, listeners) = self.dump.warming();
                let names =
                    |all: &[Arc<str>]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
                let (clusters, listeners) = (names(&clusters), names(&listeners));
                let mask = query.get("mask").filter(|mask| !mask.is_empty());
                json(&config_dump::waiting(
                    &clusters,
                    &listeners,
                    mask.as_deref(),
                ))
            }
            "/listeners" if query.is("format", "json") => {
                json(&listeners::json(&self.snapshot.borrow()))
            }
            "/listeners" => text(StatusCode::OK, listeners::text(&self.snapshot.borrow())),
            "/memory" => json(&memory::page()),
            "/ready" => self.ready(),
            "/runtime" => json(&runtime::page()),
            "/server_info" => json(&server_info::page(self)),
            "/stats" | "/stats/prometheus" => {
                self.stats.update(
                    &self.lifecycle,
                    self.drain.all_open(),
                    &self.snapshot.borrow(),
                );
                stats::page(&self.registry, path, query)
            }
            "/stats/recentlookups" => text(
                StatusCode::OK,
                "Lookups are not tracked: names are looked up when the configuration changes, not by requests.\n\ntotal: 0\n",
            ),
            _ => text(StatusCode::OK, paths::help()),
        }
    }

    /// What changes something.
    fn command(&self, path: &str, query: &Query<'_>) -> Page {
        match path {
            "/healthcheck/fail" => self.fail_health_check(true),
            "/healthcheck/ok" => self.fail_health_check(false),
            "/drain_listeners" => self.drain_listeners(query),
            "/logging" => return logging::page(query),
            "/quitquitquit" => self.lifecycle.command(Command::Quit),
            "/reopen_logs" => {
                self.access_log.reopen();
                if let Err(error) = program_log::reopen() {
                    let reason = format!("--log-path: {error}\n");
                    return text(StatusCode::INTERNAL_SERVER_ERROR, reason);
                }
            }
            "/reset_counters" => self.registry.reset_counters(),
            "/runtime_modify" => return runtime::modify(query),
            "/stats/recentlookups/clear" | "/stats/recentlookups/disable" => {}
            "/stats/recentlookups/enable" => return unsupported("tracking lookups of names"),
            _ if !query.is("enable", "y") && !query.is("enable", "n") => {
                return text(StatusCode::BAD_REQUEST, "?enable=<y|n>\n");
            }
            _ => return unsupported("this profiler; perf(1) works on the running process"),
        }
        ok()
    }

    /// Whether `/ready` says no, and answers send their clients elsewhere.
    fn fail_health_check(&self, fail: bool) {
        self.lifecycle.fail_health_check(fail);
        self.drain.fail_health_check(fail);
    }

    /// Without `graceful`, listeners stop at once.
    fn drain_listeners(&self, query: &Query<'_>) {
        let line = &self.options.command_line;
        let within = Duration::from_secs(line.drain_time_s);
        let gradual = line.drain_strategy == DrainStrategy::Gradual
            && (query.has("skip_exit") || query.has("graceful"));
        self.drain.set_gradual(gradual.then_some(within));
        let accepting = match (query.has("skip_exit"), query.has("graceful")) {
            // Longer than any process lives.
            (true, _) => Duration::from_secs(100 * 365 * 24 * 3600),
            (false, true) => within,
            (false, false) => Duration::ZERO,
        };
        self.drain.begin_inbound(accepting, within);
        if !query.has("inboundonly") {
            self.drain.begin_outbound(accepting);
        }
    }

    fn ready(&self) -> Page {
        let stage = self.lifecycle.stage();
        let status = if stage == Stage::Live {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        text(status, format!("{}\n", stage.as_str()))
    }

    /// All stats for Prometheus.
    pub fn prometheus(&self) -> String {
        self.stats.update(
            &self.lifecycle,
            self.drain.all_open(),
            &self.snapshot.borrow(),
        );
        pages::prometheus_text(&self.registry, &Selection::default())
    }
}

fn unsupported(what: &str) -> Page {
    let reason = format!("The current build does not support {what}\n");
    text(StatusCode::NOT_IMPLEMENTED, reason)
}

/// A regular expression of a parameter.
fn pattern(query: &Query<'_>, name: &str) -> Result<Option<regex::Regex>, Box<Page>> {
    let Some(text_of) = query.get(name).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let built = regex::RegexBuilder::new(&text_of)
        .size_limit(1 << 20)
        .build();
    built.map(Some).map_err(|error| {
        let reason = format!("Invalid re2 regex: {error}\n");
        Box::new(text(StatusCode::BAD_REQUEST, reason))
    })
}
