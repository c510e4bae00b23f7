//! One request with its response, towards an endpoint, whatever the protocol.
//!
//! A pool hands out exchanges, never connections: so a later kind of connection that carries many
//! requests at once fits in without a change to its users.

pub mod h1;
pub mod h2;
mod lease;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

pub use lease::{Event, Lease, Owner};

use super::stats::ClusterStats;

use crate::config::endpoint::Endpoint;
use crate::http::error::{Fault, Reset, StreamError};
use crate::http::headers::Headers;
use crate::http::message::{RequestHead, ResponseHead, Version};
use crate::tls::stream::Handshake;

/// A request on its way to an endpoint. Dropped when finished both ways, an HTTP/1 connection goes
/// back to its pool; dropped before, the connection is closed or the stream reset. All polls expect
/// the same task.
#[derive(Debug)]
pub enum Exchange {
    /// Has its connection to itself for as long as it lasts.
    H1(h1::Exchange),
    /// A stream of a shared connection.
    H2(h2::Exchange),
}

macro_rules! each {
    ($self:ident, $exchange:ident => $call:expr) => {
        match $self {
            Exchange::H1($exchange) => $call,
            Exchange::H2($exchange) => $call,
        }
    };
}

impl Exchange {
    /// The protocol towards the endpoint.
    pub fn version(&self) -> Version {
        match self {
            Exchange::H1(_) => Version::Http11,
            Exchange::H2(_) => Version::Http2,
        }
    }

    /// Queues the head of the request, and with `end` says that there is nothing after it.
    pub fn send_head(&mut self, head: &RequestHead, end: bool) -> Result<(), StreamError> {
        each!(self, exchange => exchange.send_head(head, end))
    }

    /// Ready when `send_data` will take at least one byte. Also ready when the endpoint no longer
    /// reads: what is sent then is dropped, and `poll_head` tells whether it answered nevertheless.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        each!(self, exchange => exchange.poll_ready(cx))
    }

    /// Queues bytes of the body and says how many it took: 0 means `poll_ready` first.
    pub fn send_data(&mut self, data: &[u8]) -> Result<usize, StreamError> {
        each!(self, exchange => exchange.send_data(data))
    }

    /// Ends the request, with trailers where the protocol can carry them.
    pub fn send_end(&mut self, trailers: Option<&Headers>) -> Result<(), StreamError> {
        each!(self, exchange => exchange.send_end(trailers))
    }

    /// Hands what is queued to the kernel (HTTP/1) or to the connection's task (HTTP/2).
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        each!(self, exchange => exchange.poll_flush(cx))
    }

    /// The next head of the response into `into`: informational ones (100, 103) too, after which it
    /// is called again; 101 and everything from 200 is final.
    pub fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut ResponseHead,
    ) -> Poll<Result<(), StreamError>> {
        let polled = each!(self, exchange => exchange.poll_head(cx, into));
        match &polled {
            Poll::Ready(Ok(())) if into.status >= 200 || into.status == 101 => {
                self.note(Event::Responded {
                    status: into.status,
                });
            }
            Poll::Ready(Err(error)) if error.fault() != Fault::Proxy => self.note(Event::Failed),
            _ => {}
        }
        polled
    }

    /// The next bytes of the response's body, borrowed from the read buffer; `None` once it has
    /// ended. The same bytes come again until [`consume`](Self::consume) takes them.
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<&[u8]>, StreamError>> {
        each!(self, exchange => exchange.poll_data(cx))
    }

    /// Takes `n` bytes of what [`poll_data`](Self::poll_data) gave.
    pub fn consume(&mut self, n: usize) {
        each!(self, exchange => exchange.consume(n))
    }

    /// Whether the whole response has been read: nothing more will come from `poll_data`.
    #[cfg(test)]
    pub fn response_ended(&self) -> bool {
        each!(self, exchange => exchange.response_ended())
    }

    /// The response's trailers, once, after `poll_data` said `None`.
    pub fn take_trailers(&mut self) -> Option<Headers> {
        each!(self, exchange => exchange.take_trailers())
    }

    /// Ends the exchange before its time: RST_STREAM, or with HTTP/1 the connection is closed.
    pub fn reset(&mut self, reset: Reset) {
        each!(self, exchange => exchange.reset(reset))
    }

    /// Counts for the endpoint that the request was given up because it took too long. (The
    /// cluster's `rq_timeout` is the router's to count: a request may time out without an endpoint.)
    pub fn timed_out(&self) {
        self.note(Event::TimedOut);
    }

    fn note(&self, event: Event) {
        each!(self, exchange => exchange.note(event));
    }

    /// Has the status of the response counted by another cluster.
    pub(super) fn charge(&mut self, stats: Rc<ClusterStats>) {
        each!(self, exchange => exchange.charge(stats));
    }

    /// The endpoint that it goes to.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        each!(self, exchange => exchange.endpoint())
    }

    /// Our end of the connection, where it has an address.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        each!(self, exchange => exchange.local_addr())
    }

    /// What the TLS handshake of the connection agreed on, where there was one.
    pub fn tls(&self) -> Option<&Rc<Handshake>> {
        each!(self, exchange => exchange.tls())
    }

    /// Whether the connection had served a request before this one: if it dies without a byte of a
    /// response, the endpoint may just have closed it as idle.
    pub fn reused(&self) -> bool {
        each!(self, exchange => exchange.reused())
    }

    /// Whether any byte of a response has come.
    pub fn bytes_of_response_seen(&self) -> bool {
        each!(self, exchange => exchange.bytes_of_response_seen())
    }

    /// Whether any byte of the request was handed to the kernel (HTTP/2: to the connection).
    pub fn request_bytes_sent(&self) -> bool {
        each!(self, exchange => exchange.request_bytes_sent())
    }

    /// After a final head of 101, or 2xx to CONNECT: the connection, for both sides to talk as they
    /// like. `None` without such a head, and with
    /// HTTP/2, where `send_data` and `poll_data` carry the tunnel.
    pub fn into_upgraded(self) -> Option<h1::Upgraded> {
        match self {
            Exchange::H1(exchange) => exchange.into_upgraded(),
            Exchange::H2(_) => None,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;
    use crate::config::address::Address;
    use crate::config::endpoint::HealthStatus;

    pub fn endpoint(address: SocketAddr) -> Arc<Endpoint> {
        Arc::new(Endpoint {
            address: Address::Socket(address),
            additional_addresses: Vec::new(),
            weight: 1,
            health: HealthStatus::Healthy,
            hostname: "".into(),
            transport_socket_match: BTreeMap::new(),
        })
    }

    pub async fn read_body(exchange: &mut Exchange) -> Result<Vec<u8>, StreamError> {
        let mut body = Vec::new();
        loop {
            let n = poll_fn(|cx| {
                exchange
                    .poll_data(cx)
                    .map_ok(|data| data.map(|data| (body.extend_from_slice(data), data.len()).1))
            })
            .await?;
            match n {
                Some(n) => exchange.consume(n),
                None => return Ok(body),
            }
        }
    }

    pub fn run<F: Future>(future: F) -> F::Output {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        tokio::task::LocalSet::new()
            .block_on(&runtime, async {
                tokio::time::timeout(Duration::from_secs(20), future).await
            })
            .expect("stuck")
    }
}
