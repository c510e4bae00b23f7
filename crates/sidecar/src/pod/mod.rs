//! The servers for the pod, on the control thread: what the kubelet and Prometheus ask instead of
//! the application's own ports, which mutual TLS keeps from them, and whether the sidecar is ready.
//! The redirects leave these ports alone.

mod application;
mod dial;
mod http_get;
mod metrics;
mod probe;
mod sockets;
pub mod wait;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ::metrics::Counter;
use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use outrider_xds::ads::ResourceType;
use outrider_xds::ads::server::ResourceSet;
use tokio::net::TcpListener;
use tokio::sync::watch;

pub use application::{Application, ApplicationError};
pub use sockets::SocketError;

use crate::admin::Admin;
use crate::runtime::http_server::{self, Hangup, Page};
use crate::runtime::lifecycle::{Command, Lifecycle, Stage};
use crate::telemetry::metrics::{Family, Scope, Stats};
use dial::Dialer;

/// Probes of the application, merged metrics, readiness, and the end of it all.
const AGENT_PORT: u16 = 15020;
/// Readiness alone.
const READY_PORT: u16 = 15021;
/// Our own metrics.
const METRICS_PORT: u16 = 15090;
/// The path of readiness.
const READY: &str = "/healthz/ready";

/// The servers' sockets.
pub struct Sockets {
    agent: TcpListener,
    ready: TcpListener,
    metrics: TcpListener,
}

impl Sockets {
    /// Binds them, to all addresses.
    ///
    /// # Errors
    /// The port that cannot be had.
    pub fn bind() -> Result<Self, SocketError> {
        Ok(Sockets {
            agent: sockets::bind(AGENT_PORT)?,
            ready: sockets::bind(READY_PORT)?,
            metrics: sockets::bind(METRICS_PORT)?,
        })
    }
}

/// Whether this sidecar can do its work.
pub struct Readiness {
    /// Whether a configuration is in force, and its listeners are open.
    pub lifecycle: Lifecycle,
    /// The built-in secrets, if it has any.
    pub secrets: Option<watch::Receiver<Arc<ResourceSet>>>,
}

impl Readiness {
    /// # Errors
    /// Why it cannot.
    fn check(&self) -> Result<(), &'static str> {
        let secrets = self.secrets.as_ref().map(watch::Receiver::borrow);
        let is_empty = |set: &ResourceSet| set.kind(ResourceType::Secret).is_empty();
        match self.lifecycle.stage() {
            Stage::Draining => Err("draining"),
            _ if secrets.is_some_and(|set| is_empty(&set)) => {
                Err("waiting for a certificate from the certificate authority")
            }
            Stage::Live => Ok(()),
            Stage::PreInitializing => Err("waiting for clusters from the control plane"),
            Stage::Initializing => Err("waiting for listeners from the control plane"),
        }
    }
}

/// What the servers answer from.
pub struct Pod {
    application: Application,
    dialer: Dialer,
    readiness: Readiness,
    admin: Arc<Admin>,
    scrape_failures: Counter,
    /// Keeps the counter.
    _scope: Scope,
}

impl Pod {
    /// The servers of the pod with these addresses.
    pub fn new(
        application: Application,
        addresses: &[IpAddr],
        readiness: Readiness,
        admin: Arc<Admin>,
        stats: &Stats,
    ) -> Arc<Self> {
        let scope = stats.scope(Family::Server, "");
        Arc::new(Pod {
            application,
            dialer: Dialer::new(addresses),
            readiness,
            admin,
            scrape_failures: scope.counter("app_metrics_failures"),
            _scope: scope,
        })
    }

    /// Serves until the process ends.
    pub fn serve(self: Arc<Self>, sockets: Sockets) {
        let servers = [
            (AGENT_PORT, "agent", sockets.agent),
            (READY_PORT, "readiness", sockets.ready),
            (METRICS_PORT, "metrics", sockets.metrics),
        ];
        for (port, name, socket) in servers {
            let pod = self.clone();
            let answer = move |peer: SocketAddr, request| {
                let pod = pod.clone();
                async move { pod.answer(port, peer, &request).await }
            };
            tokio::spawn(http_server::serve(name, socket.into(), answer));
        }
    }

    async fn answer(
        &self,
        port: u16,
        peer: SocketAddr,
        request: &Request<Incoming>,
    ) -> Result<Page, Hangup> {
        let reads = request.method() == Method::GET || request.method() == Method::HEAD;
        match (port, request.uri().path()) {
            (AGENT_PORT, "/quitquitquit") => Ok(self.quit(peer, request.method())),
            _ if !reads => Ok(not_allowed("GET, HEAD")),
            (AGENT_PORT | READY_PORT, READY) => Ok(self.ready()),
            (METRICS_PORT, "/stats/prometheus") => Ok(exposition(self.admin.prometheus())),
            (AGENT_PORT, "/stats/prometheus") => Ok(self.merged(request.headers()).await),
            (AGENT_PORT, path) => self.probe(path, request.headers()).await,
            (_, path) => Ok(nothing(path)),
        }
    }

    fn ready(&self) -> Page {
        match self.readiness.check() {
            Ok(()) => text(StatusCode::OK, "ready\n"),
            Err(reason) => text(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("not ready: {reason}\n"),
            ),
        }
    }

    /// Only for programs of the pod: a Job's that ends the sidecar itself.
    fn quit(&self, peer: SocketAddr, method: &Method) -> Page {
        if !peer.ip().to_canonical().is_loopback() {
            return text(
                StatusCode::FORBIDDEN,
                "only from within the pod, by loopback\n",
            );
        }
        if method != Method::POST {
            return not_allowed("POST");
        }
        self.readiness.lifecycle.command(Command::Quit);
        text(StatusCode::OK, "OK\n")
    }

    async fn merged(&self, headers: &HeaderMap) -> Page {
        let Some(metrics) = &self.application.metrics else {
            return exposition(self.admin.prometheus());
        };
        match metrics::scrape(&self.dialer, metrics, headers).await {
            Ok(application) => exposition(metrics::merge(&application, &self.admin.prometheus())),
            Err(error) => {
                self.scrape_failures.increment(1);
                tracing::debug!(%error, "the application's metrics are missing");
                let ours = self.admin.prometheus();
                exposition(metrics::without_application(&error, &ours))
            }
        }
    }

    async fn probe(&self, path: &str, headers: &HeaderMap) -> Result<Page, Hangup> {
        let Some(probe) = self.application.probes.get(path) else {
            return Ok(nothing(path));
        };
        let outcome = probe::perform(probe, &self.dialer, headers.get(USER_AGENT)).await;
        let error = match outcome {
            Ok(()) => return Ok(text(StatusCode::OK, "OK\n")),
            Err(error) => error,
        };
        tracing::debug!(path = application::shown(path), %error, "a probe of the application failed");
        let status = match &error {
            probe::ProbeError::Status(status) => StatusCode::from_u16(*status).ok(),
            // Of a hook the kubelet asks whether there is an answer, not which.
            _ if probe.is_hook => return Err(Hangup),
            _ => None,
        };
        let status = status.filter(|status| status.as_u16() >= 400);
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Ok(text(status, format!("{error}\n")))
    }
}

fn nothing(path: &str) -> Page {
    text(
        StatusCode::NOT_FOUND,
        format!("there is nothing at {path}\n"),
    )
}

fn not_allowed(allowed: &'static str) -> Page {
    let mut page = text(StatusCode::METHOD_NOT_ALLOWED, format!("use {allowed}\n"));
    page.headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allowed));
    page
}

fn text(status: StatusCode, text: impl Into<String>) -> Page {
    page(status, "text/plain; charset=UTF-8", text.into())
}

fn exposition(text: String) -> Page {
    page(StatusCode::OK, "text/plain; version=0.0.4", text)
}

fn page(status: StatusCode, content_type: &'static str, text: String) -> Page {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
