//! What all requests of one downstream connection share.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use crate::config::http_connection_manager::{ForwardClientCert, HttpConnectionManager};
use crate::http::stats::HttpStats;
use crate::listener::connection::Connection;
use crate::runtime::worker::Worker;

use super::client_certificate;

/// One downstream connection with its manager.
pub struct Context {
    pub worker: Rc<Worker>,
    pub connection: Rc<Connection>,
    pub manager: Arc<HttpConnectionManager>,
    pub stats: Rc<HttpStats>,
    /// The element that `x-forwarded-client-cert` gets, if the client gave a certificate.
    pub client_certificate: Option<Vec<u8>>,
    /// Requests begun on this connection.
    pub requests: Cell<u32>,
}

impl Context {
    /// Looks up once what every request needs.
    pub fn new(
        worker: &Rc<Worker>,
        connection: Rc<Connection>,
        manager: Arc<HttpConnectionManager>,
    ) -> Rc<Self> {
        let stats = worker.http_stats(&manager.stat_prefix);
        let client_certificate = connection
            .tls
            .as_ref()
            .filter(|_| {
                matches!(
                    manager.forward_client_cert,
                    ForwardClientCert::AppendForward
                        | ForwardClientCert::SanitizeSet
                        | ForwardClientCert::ForwardOnly
                )
            })
            .and_then(|tls| {
                client_certificate::element(
                    tls,
                    tls.own_uri.as_deref(),
                    manager.client_cert_details,
                )
            });
        Rc::new(Context {
            worker: worker.clone(),
            connection,
            manager,
            stats,
            client_certificate,
            requests: Cell::new(0),
        })
    }

    /// Whether this connection is to end after the present request: the process drains, or it has
    /// served or lived as long as it may.
    pub fn is_ending(&self) -> bool {
        let spent = self
            .manager
            .max_requests_per_connection
            .is_some_and(|max| self.requests.get() >= max);
        let old = self
            .manager
            .max_connection_duration
            .is_some_and(|max| self.connection.accepted.elapsed() >= max);
        spent || old || self.is_draining()
    }

    /// Whether the process, the listener or the filter chain drains.
    pub fn is_draining(&self) -> bool {
        self.connection.drain.is_draining()
            || self
                .worker
                .drain
                .concerns(self.connection.listener.direction)
    }
}
