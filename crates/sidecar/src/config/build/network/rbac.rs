//! `RBAC`, the network filter.

use envoy_types::pb::envoy::extensions::filters::network::rbac::v3 as proto;
use envoy_types::pb::envoy::extensions::filters::network::rbac::v3::rbac::EnforcementType;

use crate::config::build::fields::{Together as _, duration, enumeration, named, refuse};
use crate::config::build::rbac::{self, Scope};
use crate::config::error::Result;
use crate::config::network::Rbac;

/// Builds the filter.
pub fn build(proto: &proto::Rbac) -> Result<Rbac> {
    let both = |rules: bool, matcher: bool, field, other| {
        refuse(
            rules && matcher,
            field,
            format_args!("has no effect where {other} is set: remove one of the two"),
        )
    };
    let engine = rbac::engine(
        Scope::Connection,
        proto.rules.as_ref().map(|rules| (rules, "rules")),
        proto.matcher.as_ref().map(|matcher| (matcher, "matcher")),
    );
    let shadow_engine = rbac::engine(
        Scope::Connection,
        proto
            .shadow_rules
            .as_ref()
            .map(|rules| (rules, "shadow_rules")),
        proto
            .shadow_matcher
            .as_ref()
            .map(|matcher| (matcher, "shadow_matcher")),
    );
    let (engine, shadow_engine, prefix, delay, _, _, _) = (
        engine,
        shadow_engine,
        named(&proto.stat_prefix, "stat_prefix"),
        duration(&proto.delay_deny, "delay_deny"),
        enumeration::<EnforcementType>(proto.enforcement_type, "enforcement_type"),
        both(
            proto.rules.is_some(),
            proto.matcher.is_some(),
            "rules",
            "matcher",
        ),
        both(
            proto.shadow_rules.is_some(),
            proto.shadow_matcher.is_some(),
            "shadow_rules",
            "shadow_matcher",
        ),
    )
        .together()?;
    let stat_prefix = format!("{}.rbac", prefix.trim_end_matches('.'));
    let shadow_prefix = match proto.shadow_rules_stat_prefix.trim_end_matches('.') {
        "" => stat_prefix.clone(),
        shadow => format!("{stat_prefix}.{shadow}"),
    };
    Ok(Rbac {
        engine,
        shadow_engine,
        stat_prefix: stat_prefix.into(),
        shadow_stat_prefix: shadow_prefix.into(),
        shadow_metadata_prefix: proto.shadow_rules_stat_prefix.as_str().into(),
        delay: delay.filter(|delay| !delay.is_zero()),
    })
}
