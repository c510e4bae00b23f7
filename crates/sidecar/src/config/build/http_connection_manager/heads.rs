//! What is done to the heads of requests and responses.

use envoy_types::pb::envoy::config::core::v3::scheme_header_transformation::Transformation;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager as fields_of;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::StripPortMode;
use envoy_types::pb::envoy::extensions::http::early_header_mutation::header_mutation::v3 as early;
use envoy_types::pb::envoy::extensions::request_id::uuid::v3::UuidRequestIdConfig;
use ipnet::IpNet;

use crate::config::build::context::Context;
use crate::config::build::extension::{Build, Extension, decode, resolve};
use crate::config::build::fields::{
    Within as _, cidr, duration, each, enumeration, flag, header_text, refuse, required,
};
use crate::config::build::header_changes;
use crate::config::error::{ConfigError, Result};
use crate::config::http_connection_manager::{
    EscapedSlashes, LogTimes, SchemeRule, ServerHeader, StripPort, UserAgent,
};
use crate::config::http_filter::HeaderMutation;

/// `server_header_transformation`
pub fn server_header(proto: &hcm::HttpConnectionManager) -> Result<ServerHeader> {
    use fields_of::ServerHeaderTransformation as Proto;
    let field = "server_header_transformation";
    Ok(
        match enumeration(proto.server_header_transformation, field)? {
            Proto::Overwrite => ServerHeader::Overwrite,
            Proto::AppendIfAbsent => ServerHeader::AppendIfAbsent,
            Proto::PassThrough => ServerHeader::PassThrough,
        },
    )
}

/// `internal_address_config`
pub fn internal_addresses(proto: &hcm::HttpConnectionManager) -> Result<Vec<IpNet>> {
    // As in Envoy since 1.33 no address is internal unless it is named.
    match &proto.internal_address_config {
        None => Ok(Vec::new()),
        Some(config) => {
            each("cidr_ranges", &config.cidr_ranges, cidr).within("internal_address_config")
        }
    }
}

/// `path_with_escaped_slashes_action`
pub fn escaped_slashes(proto: &hcm::HttpConnectionManager) -> Result<EscapedSlashes> {
    use fields_of::PathWithEscapedSlashesAction as Proto;
    let field = "path_with_escaped_slashes_action";
    Ok(
        match enumeration(proto.path_with_escaped_slashes_action, field)? {
            Proto::ImplementationSpecificDefault | Proto::KeepUnchanged => EscapedSlashes::Keep,
            Proto::RejectRequest => EscapedSlashes::Reject,
            Proto::UnescapeAndRedirect => EscapedSlashes::Redirect,
            Proto::UnescapeAndForward => EscapedSlashes::Forward,
        },
    )
}

/// `strip_matching_host_port` and `strip_any_host_port`
pub fn strip_port(proto: &hcm::HttpConnectionManager) -> StripPort {
    match proto.strip_port_mode {
        Some(StripPortMode::StripAnyHostPort(true)) => StripPort::Any,
        _ if proto.strip_matching_host_port => StripPort::Matching,
        _ => StripPort::No,
    }
}

/// `scheme_header_transformation`
pub fn scheme(proto: &hcm::HttpConnectionManager) -> Result<SchemeRule> {
    let Some(rule) = &proto.scheme_header_transformation else {
        return Ok(SchemeRule::Keep);
    };
    match &rule.transformation {
        Some(Transformation::SchemeToOverwrite(scheme)) => {
            refuse(
                rule.match_upstream,
                "scheme_header_transformation.match_upstream",
                "scheme_to_overwrite is set too, and only one of the two can be",
            )?;
            match scheme.as_str() {
                "http" => Ok(SchemeRule::Overwrite("http")),
                "https" => Ok(SchemeRule::Overwrite("https")),
                _ => Err(ConfigError::new(
                    "scheme_header_transformation.scheme_to_overwrite",
                    "must be http or https",
                )),
            }
        }
        None if rule.match_upstream => Ok(SchemeRule::MatchUpstream),
        None => Ok(SchemeRule::Keep),
    }
}

/// `add_user_agent`
pub fn user_agent(
    proto: &hcm::HttpConnectionManager,
    context: &dyn Context,
) -> Result<Option<UserAgent>> {
    if flag(&proto.add_user_agent) != Some(true) {
        return Ok(None);
    }
    let node = context.node();
    let text = |value: &str, what| {
        header_text(value.as_bytes(), "add_user_agent")
            .map(Into::into)
            .map_err(|_| {
                let reason = format_args!("the node's {what} holds control characters");
                ConfigError::new("add_user_agent", reason)
            })
    };
    Ok(Some(UserAgent {
        cluster: text(&node.cluster, "cluster")?,
        node: text(&node.id, "id")?,
    }))
}

const REQUEST_IDS: &[Extension<Build<bool>>] = &[Extension {
    type_name: "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig",
    build: |bytes| {
        let proto = decode::<UuidRequestIdConfig>(bytes)?;
        Ok(flag(&proto.pack_trace_reason).unwrap_or(true))
    },
}];

/// `request_id_extension`: whether an id tells if its request is traced.
pub fn pack_trace_reason(proto: &hcm::HttpConnectionManager) -> Result<bool> {
    let Some(extension) = &proto.request_id_extension else {
        return Ok(true);
    };
    let any = required(&extension.typed_config, "typed_config").within("request_id_extension")?;
    resolve(REQUEST_IDS, "request id extension", any)
        .and_then(|extension| (extension.build)(&any.value))
        .within("request_id_extension")
}

const EARLY_MUTATIONS: &[Extension<Build<Vec<HeaderMutation>>>] = &[Extension {
    type_name: "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
    build: |bytes| {
        let proto = decode::<early::HeaderMutation>(bytes)?;
        refuse(
            proto.mutations.is_empty(),
            "mutations",
            "must name a mutation",
        )?;
        header_changes::in_order("mutations", &proto.mutations)
    },
}];

/// `early_header_mutation_extensions`, all in one list.
pub fn early_mutations(proto: &hcm::HttpConnectionManager) -> Result<Vec<HeaderMutation>> {
    let field = "early_header_mutation_extensions";
    let lists = each(
        field,
        &proto.early_header_mutation_extensions,
        |extension| {
            let any = required(&extension.typed_config, "typed_config")?;
            let row = resolve(EARLY_MUTATIONS, "early header mutation", any)?;
            (row.build)(&any.value).within("typed_config")
        },
    )?;
    Ok(lists.into_iter().flatten().collect())
}

/// `access_log_options`, or the older fields for it.
pub fn log_times(proto: &hcm::HttpConnectionManager) -> Result<LogTimes> {
    let field = "access_log_flush_interval";
    let every = |interval| {
        let every = duration(interval, field)?;
        refuse(
            every.is_some_and(|every| every < std::time::Duration::from_millis(1)),
            field,
            "must be at least 1 ms",
        )?;
        Ok(every)
    };
    let Some(options) = &proto.access_log_options else {
        return Ok(LogTimes {
            every: every(&proto.access_log_flush_interval)?,
            on_request: proto.flush_access_log_on_new_request,
            on_tunnel: false,
        });
    };
    refuse(
        proto.access_log_flush_interval.is_some(),
        field,
        "access_log_options is set too: say it there",
    )?;
    refuse(
        proto.flush_access_log_on_new_request,
        "flush_access_log_on_new_request",
        "access_log_options is set too: say it there",
    )?;
    Ok(LogTimes {
        every: every(&options.access_log_flush_interval).within("access_log_options")?,
        on_request: options.flush_access_log_on_new_request,
        on_tunnel: options.flush_log_on_tunnel_successfully_established,
    })
}
