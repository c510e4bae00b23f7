//! Pings that tell a dead peer from a quiet one: `connection_keepalive`.

use ::h2::{Ping, PingPong};
use tokio::time;

use crate::config::http_protocol::Keepalive;

/// Pings the peer in its intervals, and returns when an answer has not come in time. The connection
/// must be polled meanwhile, by the same task. `random` makes the jitter.
pub async fn until_dead(mut pings: PingPong, settings: Keepalive, random: impl Fn() -> u64) {
    loop {
        // The upper 53 bits are what a fraction has.
        let share = (random() >> 11) as f64 / (1_u64 << 53) as f64;
        let jitter = settings.interval.mul_f64(settings.jitter * share);
        time::sleep(settings.interval + jitter).await;
        match time::timeout(settings.timeout, pings.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            Err(_) => return,
            // The connection has ended by itself, which whoever polls it learns.
            Ok(Err(_)) => std::future::pending().await,
        }
    }
}
