//! `LocalRateLimit`.

use std::time::Duration;

use envoy_types::pb::envoy::extensions::filters::network::local_ratelimit::v3 as proto;
use envoy_types::pb::envoy::r#type::v3 as types;

use crate::config::build::fields::{
    Together as _, Within as _, bounded, duration, named, refuse, required,
};
use crate::config::error::Result;
use crate::config::network::LocalRateLimit;
use crate::network::local_ratelimit::bucket;
use crate::network::token_bucket::Refill;
use crate::runtime_layer;

/// The shortest `fill_interval`.
const SHORTEST: Duration = Duration::from_millis(50);

/// Builds a rate limit.
pub fn build(proto: &proto::LocalRateLimit) -> Result<LocalRateLimit> {
    let enabled = proto
        .runtime_enabled
        .as_ref()
        .map(runtime_layer::flag)
        .transpose()
        .within("runtime_enabled");
    let refill = required(&proto.token_bucket, "token_bucket")
        .and_then(|bucket| refill(bucket).within("token_bucket"));
    let (prefix, refill, enabled) =
        (named(&proto.stat_prefix, "stat_prefix"), refill, enabled).together()?;
    Ok(LocalRateLimit {
        stat_prefix: prefix.into(),
        enabled,
        bucket: bucket(&proto.share_key, refill),
    })
}

/// `TokenBucket`, of listener filters too.
pub fn refill(proto: &types::TokenBucket) -> Result<Refill> {
    let interval = duration(&proto.fill_interval, "fill_interval").and_then(|interval| {
        let interval = *required(&interval, "fill_interval")?;
        refuse(
            interval < SHORTEST,
            "fill_interval",
            "must be at least 50 ms",
        )?;
        Ok(interval)
    });
    let (tokens, fill_interval) = (
        bounded(&proto.tokens_per_fill, 1..=u32::MAX, "tokens_per_fill"),
        interval,
    )
        .together()?;
    Ok(Refill {
        max_tokens: proto.max_tokens,
        tokens_per_fill: tokens.unwrap_or(1),
        fill_interval,
    })
}
