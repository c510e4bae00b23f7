//! `request_headers_to_add` and its like.

use std::sync::Arc;

use envoy_types::pb::envoy::config::common::mutation_rules::v3 as mutation;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;

use super::fields::{
    Together as _, Within as _, each, enumeration, header_name, header_text, one_of, refuse,
    required,
};
use super::matcher;
use crate::config::error::{ConfigError, Result};
use crate::config::http_filter::HeaderMutation;
use crate::config::route::{AppendAction, HeaderAddition, HeaderChange, HeaderChanges};
use crate::telemetry::access_log::format::{Format, Missing};

/// The most items of one list, as in Envoy.
const MOST: usize = 1000;

/// Headers that Envoy keeps in one field: what is appended goes behind a comma.
const LISTS: &[&[u8]] = &[
    b"content-type",
    b"expect",
    b"grpc-timeout",
    b"te",
    b"upgrade",
    b"user-agent",
    b"via",
    b"x-client-trace-id",
    b"x-envoy-decorator-operation",
    b"x-envoy-original-path",
    b"x-forwarded-client-cert",
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-proto",
    b"x-request-id",
];

/// The four lists of one level.
pub fn changes(
    request_add: &[core::HeaderValueOption],
    request_remove: &[String],
    response_add: &[core::HeaderValueOption],
    response_remove: &[String],
) -> Result<HeaderChanges> {
    let lists = (
        additions("request_headers_to_add", request_add),
        each("request_headers_to_remove", request_remove, |name| {
            removal(name)
        }),
        additions("response_headers_to_add", response_add),
        each("response_headers_to_remove", response_remove, |name| {
            removal(name)
        }),
    );
    let (request_add, request_remove, response_add, response_remove) = lists.together()?;
    let change = |add, remove| HeaderChange { add, remove };
    Ok(HeaderChanges::new(
        change(request_add, request_remove),
        change(response_add, response_remove),
    ))
}

/// `HeaderMutation`s of one direction: what is removed comes first.
pub fn mutations(field: &str, list: &[mutation::HeaderMutation]) -> Result<HeaderChange> {
    use mutation::header_mutation::Action;
    refuse(list.len() > MOST, field, "has more than 1000 items")?;
    let mut change = HeaderChange::default();
    each(field, list, |item| {
        match one_of::<mutation::HeaderMutation, _>(&item.action, "remove")? {
            Action::Remove(name) => change.remove.push(changeable(name, "remove")?),
            Action::Append(item) => change.add.push(addition(item).within("append")?),
            Action::RemoveOnMatch(_) => {
                let reason = "is not supported: name each header with remove";
                return Err(ConfigError::new("remove_on_match", reason));
            }
        }
        Ok(())
    })?;
    Ok(change)
}

/// A list of additions by itself.
pub fn only_additions(field: &str, list: &[core::HeaderValueOption]) -> Result<HeaderChange> {
    Ok(HeaderChange {
        add: additions(field, list)?,
        ..HeaderChange::default()
    })
}

/// `HeaderMutation`s that are applied one after the other.
pub fn in_order(field: &str, list: &[mutation::HeaderMutation]) -> Result<Vec<HeaderMutation>> {
    use mutation::header_mutation::Action;
    refuse(list.len() > MOST, field, "has more than 1000 items")?;
    each(field, list, |item| {
        match one_of::<mutation::HeaderMutation, _>(&item.action, "remove")? {
            Action::Remove(name) => Ok(HeaderMutation::Remove(changeable(name, "remove")?)),
            Action::Append(item) => addition(item).map(HeaderMutation::Add).within("append"),
            Action::RemoveOnMatch(rule) => required(&rule.key_matcher, "key_matcher")
                .and_then(|rule| matcher::string(rule).within("key_matcher"))
                .map(HeaderMutation::RemoveMatching)
                .within("remove_on_match"),
        }
    })
}

fn additions(field: &str, list: &[core::HeaderValueOption]) -> Result<Vec<HeaderAddition>> {
    refuse(list.len() > MOST, field, "has more than 1000 items")?;
    each(field, list, addition)
}

/// One header that is added.
pub fn addition(proto: &core::HeaderValueOption) -> Result<HeaderAddition> {
    let header = required(&proto.header, "header")?;
    let action = enumeration(proto.append_action, "append_action");
    let (name, value, action) = (
        changeable(&header.key, "key").within("header"),
        value(header).within("header"),
        action,
    )
        .together()?;
    let action = match (&proto.append, action) {
        // The older form of it, which is only read where the newer one has its default.
        (Some(append), HeaderAppendAction::AppendIfExistsOrAdd) if !append.value => {
            AppendAction::Overwrite
        }
        (_, HeaderAppendAction::AppendIfExistsOrAdd) if LISTS.contains(&&*name) => {
            AppendAction::AppendToList
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

fn value(header: &core::HeaderValue) -> Result<Format> {
    if header.raw_value.is_empty() {
        header_text(header.value.as_bytes(), "value")?;
        return Format::text(&header.value, Missing::Nothing)
            .map_err(|error| ConfigError::new("value", error));
    }
    refuse(
        !header.value.is_empty(),
        "raw_value",
        "value is set too, and only one of the two can be",
    )?;
    Ok(Format::literal(header_text(
        &header.raw_value,
        "raw_value",
    )?))
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
