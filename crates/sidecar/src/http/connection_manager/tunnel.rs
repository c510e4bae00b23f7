//! Bytes both ways after an upgrade or CONNECT, between any two protocols.

use std::ops::ControlFlow;
use std::rc::Rc;
use std::time::Duration;

use super::context::Context;
use super::request::{self, Active, Scratch};
use crate::http::downstream::Downstream;
use crate::http::error::StreamError;
use crate::http::h1::server::Connection;
use crate::http::stream_info::StreamInfo;
use crate::http::tunnel::{End, Limits, Raw, Side, pump};
use crate::telemetry::access_log::flags::Flags;
use crate::tls::stream::Stream;
use crate::upstream::exchange::Exchange;

/// A request that became a tunnel: both heads have been relayed.
pub struct Tunnel {
    pub exchange: Exchange,
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
    between(context, &mut Raw::new(stream, read_ahead), tunnel, scratch).await;
}

/// An HTTP/2 client's tunnel.
pub async fn http2(
    context: &Rc<Context>,
    mut downstream: Downstream<'_>,
    tunnel: Tunnel,
    scratch: Scratch,
) {
    between(context, &mut downstream, tunnel, scratch).await;
}

async fn between(
    context: &Rc<Context>,
    downstream: &mut impl Side,
    tunnel: Tunnel,
    scratch: Scratch,
) {
    let Tunnel {
        mut exchange,
        idle,
        mut info,
        active,
    } = tunnel;
    let stats = &context.stats;
    stats.downstream_cx_upgrades_total.increment(1);
    stats.downstream_cx_upgrades_active.increment(1.0);
    let outcome = if matches!(exchange, Exchange::H2(_)) {
        carry(downstream, &mut exchange, idle, &mut info).await
    } else if let Some(upgraded) = exchange.into_upgraded() {
        // What counts the request and the connection stays alive as long as the tunnel.
        let _counted = (upgraded.lease, upgraded.guard);
        let mut upstream = Raw::new(upgraded.stream, upgraded.read_ahead);
        carry(downstream, &mut upstream, idle, &mut info).await
    } else {
        Ok(())
    };
    if let Err(error) = outcome {
        tracing::debug!(connection = context.connection.id, %error, "tunnel broke");
        downstream.abort();
    }
    stats.downstream_cx_upgrades_active.decrement(1.0);
    let Scratch {
        request, response, ..
    } = scratch;
    request::log(context, &mut info, &request, &response, None);
    drop(active);
}

/// Carries bytes both ways, and notes in `info` how many and why it ended.
async fn carry(
    client: &mut impl Side,
    endpoint: &mut impl Side,
    idle: Option<Duration>,
    info: &mut StreamInfo,
) -> Result<(), StreamError> {
    let limits = Limits { idle, until: None };
    let end = pump(client, endpoint, limits, |up, down| {
        info.bytes_received += up as u64;
        info.bytes_sent += down as u64;
        ControlFlow::Continue(())
    });
    match end.await {
        End::ClientBroke(error) | End::EndpointBroke(error) => Err(error),
        End::Idle => {
            info.flags |= Flags::STREAM_IDLE_TIMEOUT;
            info.details = "stream_idle_timeout".into();
            Ok(())
        }
        End::Closed | End::Expired | End::Told => Ok(()),
    }
}
