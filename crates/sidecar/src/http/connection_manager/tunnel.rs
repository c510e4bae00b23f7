//! Bytes both ways after an upgrade or CONNECT, between any two protocols.

use std::ops::ControlFlow;
use std::rc::Rc;
use std::time::Duration;

use super::context::Context;
use super::request::{self, Active, Scratch};
use crate::http::downstream::Downstream;
use crate::http::error::StreamError;
use crate::http::h1::server::Connection;
use crate::http::message::{RequestHead, ResponseHead};
use crate::http::router::Far;
use crate::http::stream_info::StreamInfo;
use crate::http::tunnel::{End, Limits, Raw, Side, pump};
use crate::telemetry::access_log::flags::Flags;
use crate::telemetry::access_log::record::LogKind;
use crate::tls::stream::Stream;
use crate::upstream::exchange::Exchange;

/// A request that became a tunnel: both heads have been relayed.
pub struct Tunnel {
    pub far: Far,
    /// How long nothing may move.
    pub idle: Option<Duration>,
    pub info: StreamInfo,
    /// Keeps the request counted.
    pub active: Active,
}

/// An HTTP/1 client's tunnel.
pub async fn http1(
    context: &Rc<Context>,
    connection: Connection<Stream>,
    tunnel: Tunnel,
    scratch: Scratch,
) {
    let (stream, read_ahead) = connection.into_upgraded();
    let mut client = Raw::new(stream, read_ahead);
    let heads = (&scratch.request, &scratch.response);
    between(context, &mut client, true, tunnel, heads).await;
}

/// The tunnel of an HTTP/2 client, or of one whose message's body is what is carried.
pub async fn http2(
    context: &Rc<Context>,
    downstream: &mut Downstream<'_>,
    tunnel: Tunnel,
    heads: (&RequestHead, &ResponseHead),
) {
    between(context, downstream, false, tunnel, heads).await;
}

/// `raw`: the client's side is its whole connection.
async fn between(
    context: &Rc<Context>,
    downstream: &mut impl Side,
    raw: bool,
    tunnel: Tunnel,
    heads: (&RequestHead, &ResponseHead),
) {
    let Tunnel {
        far,
        idle,
        mut info,
        active,
    } = tunnel;
    let stats = &context.stats;
    stats.downstream_cx_upgrades_total.increment(1);
    stats.downstream_cx_upgrades_active.increment(1.0);
    let mut carrying = Carrying {
        context,
        idle,
        info: &mut info,
        heads,
    };
    // What counts the request and the connection at the far end stays alive as long as the tunnel.
    let (end, cut) = match far {
        Far::Exchange(mut exchange) if matches!(*exchange, Exchange::H2(_)) => {
            (carrying.carry(downstream, &mut *exchange).await, false)
        }
        Far::Exchange(exchange) => match exchange.into_upgraded() {
            Some(upgraded) => {
                let _counted = (upgraded.lease, upgraded.guard);
                let mut endpoint = Raw::new(upgraded.stream, upgraded.read_ahead);
                // A connection that carried HTTP ended without anybody having said so.
                (carrying.carry(downstream, &mut endpoint).await, true)
            }
            None => (End::Closed, false),
        },
        Far::Raw(tcp) => {
            let mut endpoint = Raw::new(tcp.stream, Vec::new());
            let end = carrying.carry(downstream, &mut endpoint).await;
            let info = &carrying.info;
            tcp.guard.count_bytes(info.bytes_sent, info.bytes_received);
            (end, false)
        }
    };
    let (flags, details) = match &end {
        End::Closed if raw => client_gone(),
        End::EndpointEnded if cut => endpoint_gone(),
        End::ClientBroke(_) => client_gone(),
        End::EndpointBroke(StreamError::Reset(_) | StreamError::Refused) => (
            Flags::UPSTREAM_REMOTE_RESET,
            "upstream_reset_after_response_started{remote_reset}",
        ),
        End::EndpointBroke(_) => endpoint_gone(),
        End::Idle => (Flags::STREAM_IDLE_TIMEOUT, "stream_idle_timeout"),
        End::Closed | End::EndpointEnded | End::Expired | End::Told => (Flags::NONE, ""),
    };
    if !details.is_empty() {
        info.flags |= flags;
        info.details = details.into();
    }
    if let End::ClientBroke(error) | End::EndpointBroke(error) = end {
        tracing::debug!(connection = context.connection.id, %error, "tunnel broke");
        downstream.abort();
    }
    stats.downstream_cx_upgrades_active.decrement(1.0);
    request::log(context, &mut info, heads.0, heads.1, None);
    drop(active);
}

fn client_gone() -> (Flags, &'static str) {
    let flags = Flags::DOWNSTREAM_CONNECTION_TERMINATION;
    (flags, "downstream_remote_disconnect")
}

fn endpoint_gone() -> (Flags, &'static str) {
    (
        Flags::UPSTREAM_CONNECTION_TERMINATION,
        "upstream_reset_after_response_started{connection_termination}",
    )
}

/// What is needed while bytes are carried.
struct Carrying<'a> {
    context: &'a Context,
    idle: Option<Duration>,
    info: &'a mut StreamInfo,
    heads: (&'a RequestHead, &'a ResponseHead),
}

impl Carrying<'_> {
    /// Carries bytes both ways, counts them, and logs that they last where that is wanted.
    async fn carry(&mut self, client: &mut impl Side, endpoint: &mut impl Side) -> End {
        let manager = &self.context.manager;
        let limits = Limits {
            idle: self.idle,
            until: None,
            every: manager.log_times.every,
            endpoint_ends: true,
        };
        let (request, response) = self.heads;
        pump(client, endpoint, limits, |up, down| {
            self.info.bytes_received += up as u64;
            self.info.bytes_sent += down as u64;
            if up + down == 0 {
                let kind = LogKind::DownstreamPeriodic;
                request::write_log(self.context, self.info, kind, request, Some(response), None);
            }
            ControlFlow::Continue(())
        })
        .await
    }
}
