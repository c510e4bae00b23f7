//! `AccessLogFilter`.

use std::sync::Arc;

use envoy_types::pb::envoy::config::accesslog::v3 as proto;
use envoy_types::pb::envoy::config::accesslog::v3::access_log_filter::FilterSpecifier;
use envoy_types::pb::envoy::config::accesslog::v3::comparison_filter::Op;
use envoy_types::pb::envoy::config::accesslog::v3::extension_filter::ConfigType;
use envoy_types::pb::envoy::config::accesslog::v3::grpc_status_filter::Status;
use envoy_types::pb::envoy::data::accesslog::v3::AccessLogType;
use envoy_types::pb::envoy::extensions::access_loggers::filters::cel::v3::ExpressionFilter;

use super::cel;
use super::extension::{Build, Extension, decode, resolve};
use super::fields::{
    Together as _, Within as _, each, enumeration, flag, named, one_of, refuse, required,
};
use super::{matcher, metadata_matcher};
use crate::config::error::{ConfigError, Result};
use crate::config::metadata_matcher::MetadataMatcher;
use crate::runtime_layer;
use crate::telemetry::access_log::filter::{Comparison, LogFilter, Operation};
use crate::telemetry::access_log::flags::Flags;
use crate::telemetry::access_log::record::LogKind;

/// Builds a filter.
pub fn build(proto: &proto::AccessLogFilter) -> Result<LogFilter> {
    use FilterSpecifier as Proto;
    Ok(
        match one_of::<proto::AccessLogFilter, _>(&proto.filter_specifier, "status_code_filter")? {
            Proto::StatusCodeFilter(filter) => comparison(&filter.comparison)
                .map(LogFilter::Status)
                .within("status_code_filter")?,
            Proto::DurationFilter(filter) => comparison(&filter.comparison)
                .map(LogFilter::Duration)
                .within("duration_filter")?,
            Proto::NotHealthCheckFilter(_) => LogFilter::NotHealthCheck,
            Proto::TraceableFilter(_) => LogFilter::Traceable,
            Proto::RuntimeFilter(filter) => runtime(filter).within("runtime_filter")?,
            Proto::AndFilter(filter) => several(&filter.filters)
                .map(LogFilter::And)
                .within("and_filter")?,
            Proto::OrFilter(filter) => several(&filter.filters)
                .map(LogFilter::Or)
                .within("or_filter")?,
            Proto::HeaderFilter(filter) => required(&filter.header, "header")
                .and_then(|header| matcher::header(header).within("header"))
                .map(|matcher| LogFilter::Header(Box::new(matcher)))
                .within("header_filter")?,
            Proto::ResponseFlagFilter(filter) => {
                flags(&filter.flags).within("response_flag_filter")?
            }
            Proto::GrpcStatusFilter(filter) => grpc(filter).within("grpc_status_filter")?,
            Proto::LogTypeFilter(filter) => kinds(filter).within("log_type_filter")?,
            Proto::ExtensionFilter(extension) => required(&extension.config_type, "typed_config")
                .and_then(|ConfigType::TypedConfig(any)| {
                    let extension = resolve(EXTENSIONS, "filter of access logs", any)?;
                    (extension.build)(&any.value).within("typed_config")
                })
                .within("extension_filter")?,
            Proto::MetadataFilter(filter) => {
                let matcher = filter.matcher.as_ref().map(metadata_matcher::build);
                LogFilter::Metadata {
                    matcher: matcher
                        .transpose()
                        .within("matcher")
                        .within("metadata_filter")?
                        .map(|matcher| MetadataMatcher {
                            // As in Envoy it has no effect here.
                            invert: false,
                            ..matcher
                        })
                        .map(Box::new),
                    unless_there: flag(&filter.match_if_key_not_found).unwrap_or(true),
                }
            }
        },
    )
}

const EXTENSIONS: &[Extension<Build<LogFilter>>] = &[Extension {
    type_name: "envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter",
    build: |bytes| {
        let proto = decode::<ExpressionFilter>(bytes)?;
        let expression = cel::text(named(&proto.expression, "expression")?, "expression")?;
        Ok(LogFilter::Expression(Arc::new(expression)))
    },
}];

fn several(filters: &[proto::AccessLogFilter]) -> Result<Vec<LogFilter>> {
    refuse(
        filters.len() < 2,
        "filters",
        "must hold two filters or more",
    )?;
    each("filters", filters, build)
}

fn comparison(proto: &Option<proto::ComparisonFilter>) -> Result<Comparison> {
    let proto = required(proto, "comparison")?;
    let value = required(&proto.value, "value")
        .and_then(|value| runtime_layer::number(value).within("value"));
    let (operation, value) = (enumeration(proto.op, "op"), value)
        .together()
        .within("comparison")?;
    let operation = match operation {
        Op::Eq => Operation::Equal,
        Op::Ge => Operation::AtLeast,
        Op::Le => Operation::AtMost,
        Op::Ne => Operation::NotEqual,
    };
    Ok(Comparison { operation, value })
}

fn runtime(proto: &proto::RuntimeFilter) -> Result<LogFilter> {
    let percent = match &proto.percent_sampled {
        None => Ok((0, 100)),
        Some(percent) => runtime_layer::fractional_percent(percent).within("percent_sampled"),
    };
    let (key, (numerator, denominator)) =
        (named(&proto.runtime_key, "runtime_key"), percent).together()?;
    Ok(LogFilter::Runtime {
        fraction: runtime_layer::fraction_at(key, numerator, denominator),
        independent: proto.use_independent_randomness,
    })
}

fn flags(names: &[String]) -> Result<LogFilter> {
    let flags = each("flags", names, |name| {
        Flags::named(name).ok_or_else(|| {
            let known = Flags::names().join(", ");
            ConfigError::new(
                "",
                format_args!("`{name}` is no response flag; there are {known}"),
            )
        })
    })?;
    let all = flags.into_iter().reduce(|mut all, flag| {
        all |= flag;
        all
    });
    Ok(LogFilter::Flags(all))
}

fn grpc(proto: &proto::GrpcStatusFilter) -> Result<LogFilter> {
    let statuses = each("statuses", &proto.statuses, |status| {
        enumeration::<Status>(*status, "")
    })?;
    Ok(LogFilter::Grpc {
        statuses: statuses
            .into_iter()
            .fold(0, |all, status| all | 1 << status as u32),
        exclude: proto.exclude,
    })
}

fn kinds(proto: &proto::LogTypeFilter) -> Result<LogFilter> {
    let kinds = each("types", &proto.types, |kind| {
        let kind: AccessLogType = enumeration(*kind, "")?;
        Ok(kind_of(kind))
    })?;
    Ok(LogFilter::Kind {
        // What we never write for matches nothing.
        kinds: kinds.into_iter().flatten().collect(),
        exclude: proto.exclude,
    })
}

fn kind_of(kind: AccessLogType) -> Option<LogKind> {
    Some(match kind {
        AccessLogType::NotSet => LogKind::NotSet,
        AccessLogType::TcpUpstreamConnected => LogKind::TcpUpstreamConnected,
        AccessLogType::TcpPeriodic => LogKind::TcpPeriodic,
        AccessLogType::TcpConnectionStart => LogKind::TcpConnectionStart,
        AccessLogType::TcpConnectionEnd => LogKind::TcpConnectionEnd,
        AccessLogType::DownstreamStart => LogKind::DownstreamStart,
        AccessLogType::DownstreamPeriodic => LogKind::DownstreamPeriodic,
        AccessLogType::DownstreamEnd => LogKind::DownstreamEnd,
        AccessLogType::DownstreamTunnelSuccessfullyEstablished => {
            LogKind::DownstreamTunnelEstablished
        }
        _ => return None,
    })
}
