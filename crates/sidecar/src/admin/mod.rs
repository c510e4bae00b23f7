//! The admin API: what Envoy's offers at the same paths, on loopback only.

mod certificates;
mod clusters;
mod listeners;
mod server_info;
mod socket;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::sync::watch;

use crate::discovery::dump::Dump;
use crate::runtime::drain::DrainControl;
use crate::runtime::http_server::Page;
use crate::runtime::lifecycle::{Command, Lifecycle, Stage};
use crate::runtime::snapshot::Snapshot;
use crate::telemetry::metrics::Registry;
use crate::telemetry::metrics::pages::{self, Selection};
use crate::telemetry::server_stats::ServerStats;

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
    /// Flags and node, for `/server_info`.
    pub options: server_info::Options,
    /// `server.*`, brought up to date when they are read.
    pub stats: ServerStats,
    /// When the process began.
    pub started: SystemTime,
}

pub use server_info::Options;
pub use socket::{AdminError, bind, serve};

const HELP: &[(&str, &str, bool)] = &[
    (
        "/certs",
        "certificates in use and how long they last",
        false,
    ),
    (
        "/clusters",
        "endpoints of every cluster, with their counters (?format=json)",
        false,
    ),
    (
        "/config_dump",
        "every resource as it came, secrets redacted",
        false,
    ),
    (
        "/drain_listeners",
        "stop accepting and end connections in order (?inboundonly)",
        true,
    ),
    (
        "/healthcheck/fail",
        "answer /ready with 503, so that no new traffic is sent here",
        true,
    ),
    ("/healthcheck/ok", "undo /healthcheck/fail", true),
    ("/help", "this page", false),
    (
        "/listeners",
        "listeners and their addresses (?format=json)",
        false,
    ),
    ("/quitquitquit", "drain and end the process", true),
    (
        "/ready",
        "200 LIVE once configuration is in force, else 503",
        false,
    ),
    ("/server_info", "version, state, node and flags", false),
    (
        "/stats",
        "all stats (?filter=regex&usedonly&format=json|prometheus)",
        false,
    ),
    (
        "/stats/prometheus",
        "all stats for Prometheus (?filter=regex&usedonly)",
        false,
    ),
];

impl Admin {
    fn answer(&self, request: &Request<Incoming>) -> Page {
        let path = request.uri().path();
        let query = Query(request.uri().query().unwrap_or(""));
        if !same_origin(request) {
            return text(
                StatusCode::FORBIDDEN,
                "admin: the Host is not this machine's loopback\n",
            );
        }
        let Some((_, _, changes)) = HELP
            .iter()
            .find(|(known, ..)| *known == path || path == "/")
        else {
            return text(
                StatusCode::NOT_FOUND,
                format!("admin: no page {path}\n\n{}", help()),
            );
        };
        if *changes && request.method() != Method::POST {
            return text(
                StatusCode::METHOD_NOT_ALLOWED,
                format!("Method {} not allowed, POST required.\n", request.method()),
            );
        }
        match path {
            "/certs" => json(&certificates::page(&self.dump)),
            "/clusters" if query.is("format", "json") => {
                json(&clusters::json(&self.snapshot.borrow()))
            }
            "/clusters" => text(StatusCode::OK, clusters::text(&self.snapshot.borrow())),
            "/config_dump" => json(&self.dump.render()),
            "/listeners" if query.is("format", "json") => {
                json(&listeners::json(&self.snapshot.borrow()))
            }
            "/listeners" => text(StatusCode::OK, listeners::text(&self.snapshot.borrow())),
            "/ready" => self.ready(),
            "/server_info" => json(&server_info::page(self)),
            "/stats" | "/stats/prometheus" => self.stats(path, &query),
            "/healthcheck/fail" => {
                self.lifecycle.fail_health_check(true);
                text(StatusCode::OK, "OK\n")
            }
            "/healthcheck/ok" => {
                self.lifecycle.fail_health_check(false);
                text(StatusCode::OK, "OK\n")
            }
            "/drain_listeners" => {
                let within = Duration::from_secs(self.options.drain_seconds);
                self.drain.begin_inbound(Duration::ZERO, within);
                if !query.has("inboundonly") {
                    self.drain.begin_outbound();
                }
                text(StatusCode::OK, "OK\n")
            }
            "/quitquitquit" => {
                self.lifecycle.command(Command::Quit);
                text(StatusCode::OK, "OK\n")
            }
            _ => text(StatusCode::OK, help()),
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
        self.stats.update(&self.lifecycle);
        pages::prometheus_text(&self.registry, &Selection::default())
    }

    fn stats(&self, path: &str, query: &Query<'_>) -> Page {
        self.stats.update(&self.lifecycle);
        let mut selection = Selection {
            filter: None,
            used_only: query.has("usedonly"),
        };
        if let Some(filter) = query.get("filter") {
            match regex::RegexBuilder::new(&filter)
                .size_limit(1 << 20)
                .build()
            {
                Ok(filter) => selection.filter = Some(filter),
                Err(error) => return text(StatusCode::BAD_REQUEST, format!("filter: {error}\n")),
            }
        }
        if path == "/stats/prometheus" || query.is("format", "prometheus") {
            let page = pages::prometheus_text(&self.registry, &selection);
            return respond(StatusCode::OK, "text/plain; version=0.0.4", page);
        }
        if query.is("format", "json") {
            return json(&pages::json(&self.registry, &selection));
        }
        text(StatusCode::OK, pages::text(&self.registry, &selection))
    }
}

/// A web page that a browser on this machine has open must not reach the admin API, neither through
/// a name that it controls (DNS rebinding) nor from its own origin.
fn same_origin(request: &Request<Incoming>) -> bool {
    let Some(host) = request
        .headers()
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
    else {
        return true;
    };
    let origin = request.headers().get(header::ORIGIN);
    let origin = origin.map(|origin| origin.to_str().unwrap_or("a.b"));
    // `null` is what a page without an origin of its own sends: a stranger's as well.
    let origin = origin.map(|origin| origin.rsplit_once("//").map_or("a.b", |(_, host)| host));
    is_local(host) && origin.is_none_or(is_local)
}

/// Whether an authority is an address, or a name without a dot, which is nobody's domain.
fn is_local(authority: &str) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    !host.contains('.') || host.parse::<std::net::IpAddr>().is_ok()
}

fn help() -> String {
    let mut page = String::from("admin commands are:\n");
    for (path, what, changes) in HELP {
        let post = if *changes { " (POST)" } else { "" };
        page.push_str(&format!("  {path}{post}: {what}\n"));
    }
    page
}

fn text(status: StatusCode, page: impl Into<String>) -> Page {
    respond(status, "text/plain; charset=UTF-8", page.into())
}

fn json(page: &serde_json::Value) -> Page {
    respond(StatusCode::OK, "application/json", format!("{page:#}\n"))
}

fn respond(status: StatusCode, content_type: &'static str, page: String) -> Page {
    let mut response = Response::new(Full::new(Bytes::from(page)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static(content_type),
    );
    headers.insert(
        header::CACHE_CONTROL,
        header::HeaderValue::from_static("no-cache, max-age=0"),
    );
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        header::HeaderValue::from_static("nosniff"),
    );
    response
}

/// A query string.
struct Query<'a>(&'a str);

impl Query<'_> {
    fn get(&self, name: &str) -> Option<String> {
        let value = self.pairs().find(|(key, _)| *key == name)?.1;
        Some(percent_decoded(value))
    }

    fn has(&self, name: &str) -> bool {
        self.pairs().any(|(key, _)| key == name)
    }

    fn is(&self, name: &str, value: &str) -> bool {
        self.pairs().any(|pair| pair == (name, value))
    }

    fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .split('&')
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
    }
}

fn percent_decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let digits = tail
            .get(..2)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        match (
            first,
            digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()),
        ) {
            (b'%', Some(byte)) => {
                out.push(byte);
                rest = &tail[2..];
            }
            (b'+', _) => {
                out.push(b' ');
                rest = tail;
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_are_told_by_their_name() {
        for local in ["localhost", "127.0.0.1:15000", "[::1]:15000", "admin"] {
            assert!(is_local(local), "{local}");
        }
        for foreign in ["evil.example", "evil.example:15000", "a.b"] {
            assert!(!is_local(foreign), "{foreign}");
        }
    }

    #[test]
    fn queries_are_read() {
        let query = Query("filter=a%2Eb+c&usedonly&format=json");
        assert_eq!(query.get("filter").as_deref(), Some("a.b c"));
        assert!(query.has("usedonly"));
        assert!(query.is("format", "json"));
        assert!(!query.is("format", "text"));
        assert_eq!(percent_decoded("%zz%4"), "%zz%4");
    }
}
