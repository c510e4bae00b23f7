//! Exchanges on HTTP/1 connections of their own: upgrades, after which a connection no longer
//! speaks HTTP.

use std::rc::{Rc, Weak};
use std::sync::Arc;

use super::Protocol;
use crate::config::cluster::Priority;
use crate::config::endpoint::Endpoint;
use crate::http::h1::Limits;
use crate::tls::overrides::Overrides;
use crate::upstream::client::Client;
use crate::upstream::connect;
use crate::upstream::error::UpstreamError;
use crate::upstream::exchange::{Event, Exchange, Lease, Owner, h1};
use crate::upstream::target::Target;

/// Waits for an exchange on a new connection that no pool ever sees.
///
/// # Errors
/// [`UpstreamError`]
pub async fn solitary(
    target: &Rc<Target>,
    priority: Priority,
    client: &Client,
) -> Result<Exchange, UpstreamError> {
    let waiting = target.wait(priority)?;
    let Some(guard) = target.open(Weak::new(), priority, false) else {
        waiting.finish();
        return Err(UpstreamError::Overflow);
    };
    let alpn = Protocol::Http1.alpn();
    let connected = connect::connect(target, alpn, client, Overrides::NONE).await;
    waiting.finish();
    let stream = connected.inspect_err(|error| {
        target.failed(error);
        target.context.stats.rq_pending_failure_eject.increment(1);
    })?;
    guard.connected();
    target.context.stats.cx_http1_total.increment(1);
    target.begin(priority)?;
    let dialect = target.context.config.http1.dialect;
    let local = stream.local_addr();
    let limits = Limits {
        trailers: dialect.trailers,
        ..Limits::default()
    };
    let connection = h1::Connection::new(stream, local, limits, Box::new(guard));
    let owner = Rc::new(Solitary {
        target: target.clone(),
        priority,
    });
    let exchange = h1::Exchange::new(Box::new(connection), Lease::new(owner), dialect);
    Ok(Exchange::H1(exchange))
}

struct Solitary {
    target: Rc<Target>,
    priority: Priority,
}

impl Owner for Solitary {
    fn endpoint(&self) -> &Arc<Endpoint> {
        &self.target.endpoint
    }

    fn note(&self, event: Event) {
        self.target.note(event);
    }

    fn keep(&self, connection: Box<h1::Connection>) {
        // The upgrade was declined. The connection is not kept for others all the same: it was
        // counted as nobody's but this request's.
        drop(connection);
    }

    fn released(&self) {
        self.target.end(self.priority);
    }
}
