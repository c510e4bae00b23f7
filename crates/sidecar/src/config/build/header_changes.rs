//! `request_headers_to_add` and its like.

use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;

use super::fields::{
    Together as _, Within as _, each, enumeration, header_name, header_text, refuse, required,
};
use crate::config::error::{ConfigError, Result};
use crate::config::route::{AppendAction, HeaderAddition, HeaderChanges};
use crate::telemetry::access_log::format::{Format, Missing};

/// The four lists of one level.
pub fn changes(
    request_add: &[core::HeaderValueOption],
    request_remove: &[String],
    response_add: &[core::HeaderValueOption],
    response_remove: &[String],
) -> Result<HeaderChanges> {
    let (request_add, request_remove, response_add, response_remove) = (
        each("request_headers_to_add", request_add, addition),
        each("request_headers_to_remove", request_remove, |name| {
            removal(name)
        }),
        each("response_headers_to_add", response_add, addition),
        each("response_headers_to_remove", response_remove, |name| {
            removal(name)
        }),
    )
        .together()?;
    Ok(HeaderChanges {
        request_add,
        request_remove,
        response_add,
        response_remove,
    })
}

fn addition(proto: &core::HeaderValueOption) -> Result<HeaderAddition> {
    let header = required(&proto.header, "header")?;
    let name = changeable(&header.key, "key").within("header")?;
    let value = if header.raw_value.is_empty() {
        header_text(header.value.as_bytes(), "value").within("header")?;
        Format::text(&header.value, Missing::Nothing)
            .map_err(|error| ConfigError::new("header.value", error))?
    } else {
        refuse(
            !header.value.is_empty(),
            "header.raw_value",
            "value is set too, and only one of the two can be",
        )?;
        Format::literal(header_text(&header.raw_value, "raw_value").within("header")?)
    };
    let action: HeaderAppendAction = enumeration(proto.append_action, "append_action")?;
    let action = match (&proto.append, action) {
        // The older form of it, which is only read where the newer one has its default.
        (Some(append), HeaderAppendAction::AppendIfExistsOrAdd) if !append.value => {
            AppendAction::Overwrite
        }
        (_, HeaderAppendAction::AppendIfExistsOrAdd) => AppendAction::Append,
        (_, HeaderAppendAction::AddIfAbsent) => AppendAction::AddIfAbsent,
        (_, HeaderAppendAction::OverwriteIfExistsOrAdd) => AppendAction::Overwrite,
        (_, HeaderAppendAction::OverwriteIfExists) => AppendAction::OverwriteIfExists,
    };
    Ok(HeaderAddition {
        name,
        value: Arc::new(value),
        action,
        keep_empty: proto.keep_empty_value,
    })
}

fn removal(name: &str) -> Result<Box<[u8]>> {
    // The item itself is the field.
    changeable(name, "")
}

/// A header that configuration may change: not what addresses the message (as in Envoy), and not
/// what frames it, for which the codecs alone answer.
fn changeable(name: &str, field: &str) -> Result<Box<[u8]>> {
    const FIXED: &[&[u8]] = &[
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"connection",
    ];
    refuse(
        name.starts_with(':'),
        field,
        "pseudo-headers cannot be changed here; use host_rewrite_literal or prefix_rewrite",
    )?;
    let name = header_name(name, field)?;
    refuse(
        FIXED.contains(&&*name),
        field,
        "this header cannot be changed: it addresses or frames the message",
    )?;
    Ok(name)
}
