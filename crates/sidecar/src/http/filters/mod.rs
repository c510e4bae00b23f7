//! HTTP filters: what is done to a request between its routing and the router, and to its response
//! on the way back, in the reverse order.

mod dynamic_forward_proxy;

use crate::config::http_filter::{
    FilterKind, HeaderMutation, HeaderMutations, HostRewrite, HttpFilter, MetadataAddition,
};
use crate::config::network::FilterStateValue;
use crate::http::connection_manager::context::Context;
use crate::http::message::{RequestHead, ResponseHead};
use crate::http::router::mutate;
use crate::http::stream_info::StreamInfo;
use crate::network::state::Metadata;

/// What the levels of a route table say about filters, the most specific first.
pub trait Settings {
    /// Whether a filter of this name runs; `None`: nobody says.
    fn runs(&self, name: &str) -> Option<bool>;

    /// The header mutations for a filter of this name, the most specific first.
    fn mutations(&self, name: &str, each: &mut dyn FnMut(&HeaderMutations));

    /// The host that the most specific level gives a filter of this name.
    fn host(&self, name: &str) -> Option<&HostRewrite>;
}

/// Nothing is said: no route was found.
pub struct NoSettings;

impl Settings for NoSettings {
    fn runs(&self, _: &str) -> Option<bool> {
        None
    }

    fn mutations(&self, _: &str, _: &mut dyn FnMut(&HeaderMutations)) {}

    fn host(&self, _: &str) -> Option<&HostRewrite> {
        None
    }
}

fn running<'f>(
    filters: &'f [HttpFilter],
    settings: &dyn Settings,
) -> impl DoubleEndedIterator<Item = &'f HttpFilter> {
    filters
        .iter()
        .filter(|filter| settings.runs(&filter.name).unwrap_or(!filter.disabled))
}

/// Runs the filters on a request.
pub fn on_request(
    context: &Context,
    settings: &dyn Settings,
    request: &mut RequestHead,
    info: &mut StreamInfo,
) {
    for filter in running(&context.manager.filters, settings) {
        match &filter.kind {
            FilterKind::HeaderMutation {
                mutations,
                most_specific_wins,
            } => in_levels(
                mutations,
                *most_specific_wins,
                settings,
                &filter.name,
                |list| apply_to_request(context, &list.request, request, info),
            ),
            FilterKind::DynamicForwardProxy {
                from_filter_state, ..
            } => {
                let host = settings.host(&filter.name);
                dynamic_forward_proxy::on_request(context, *from_filter_state, host, request, info);
            }
            FilterKind::SetFilterState(values) => set_filter_state(context, values, request, info),
            FilterKind::SetMetadata(added) => {
                let state = info.state.get_or_insert_default();
                for addition in added {
                    set_metadata(addition, &mut state.metadata);
                }
            }
        }
    }
}

/// Runs the filters on a response, in the reverse order.
pub fn on_response(
    context: &Context,
    settings: &dyn Settings,
    request: &RequestHead,
    response: &mut ResponseHead,
    info: &StreamInfo,
) {
    for filter in running(&context.manager.filters, settings).rev() {
        if let FilterKind::HeaderMutation {
            mutations,
            most_specific_wins,
        } = &filter.kind
        {
            in_levels(
                mutations,
                *most_specific_wins,
                settings,
                &filter.name,
                |list| apply_to_response(context, &list.response, request, response, info),
            );
        }
    }
}

/// The filter's own mutations, then those of the levels.
fn in_levels(
    own: &HeaderMutations,
    most_specific_wins: bool,
    settings: &dyn Settings,
    name: &str,
    mut apply: impl FnMut(&HeaderMutations),
) {
    apply(own);
    if !most_specific_wins {
        return settings.mutations(name, &mut apply);
    }
    // Few levels, and seldom: counted and taken from the last.
    let mut levels = 0;
    settings.mutations(name, &mut |_| levels += 1);
    for wanted in (0..levels).rev() {
        let mut at = 0;
        settings.mutations(name, &mut |list| {
            if at == wanted {
                apply(list);
            }
            at += 1;
        });
    }
}

/// Changes the headers of a request.
pub fn apply_to_request(
    context: &Context,
    list: &[HeaderMutation],
    request: &mut RequestHead,
    info: &StreamInfo,
) {
    for mutation in list {
        let mut value = Vec::new();
        if let HeaderMutation::Add(addition) = mutation {
            let record = info.record(&context.connection, Some(request), None, None);
            addition.value.render(&record, &mut value);
        }
        mutate(&mut request.headers, mutation, &value);
    }
}

fn apply_to_response(
    context: &Context,
    list: &[HeaderMutation],
    request: &RequestHead,
    response: &mut ResponseHead,
    info: &StreamInfo,
) {
    for mutation in list {
        let mut value = Vec::new();
        if let HeaderMutation::Add(addition) = mutation {
            let record = info.record(&context.connection, Some(request), Some(response), None);
            addition.value.render(&record, &mut value);
        }
        mutate(&mut response.headers, mutation, &value);
    }
}

fn set_filter_state(
    context: &Context,
    values: &[FilterStateValue],
    request: &RequestHead,
    info: &mut StreamInfo,
) {
    for value in values {
        let mut text = Vec::new();
        let record = info.record(&context.connection, Some(request), None, None);
        value.format.render(&record, &mut text);
        if text.is_empty() && value.skip_if_empty {
            continue;
        }
        let made = std::str::from_utf8(&text)
            .ok()
            .and_then(|text| value.factory.make(text));
        match made {
            Some(made) => {
                let state = info.state.get_or_insert_default();
                state.filter_state.set(&value.key, made);
            }
            None => tracing::debug!(
                connection = context.connection.id,
                key = %value.key,
                text = %text.escape_ascii(),
                "no filter state is made of this text"
            ),
        }
    }
}

/// What is there stays, unless it may be overwritten: then objects are merged and lists joined.
fn set_metadata(addition: &MetadataAddition, metadata: &mut Metadata) {
    let namespace = &addition.namespace;
    match metadata.get_mut(namespace) {
        None => {
            metadata.insert(namespace.clone(), addition.value.clone());
        }
        Some(present) if addition.overwrite => {
            for (key, value) in &addition.value {
                merge(
                    present
                        .entry(key.clone())
                        .or_insert(serde_json::Value::Null),
                    value,
                );
            }
        }
        Some(_) => {}
    }
    if let Some(object) = metadata.get_mut(namespace) {
        object.sort_keys();
    }
}

fn merge(present: &mut serde_json::Value, value: &serde_json::Value) {
    use serde_json::Value;
    match (present, value) {
        (Value::Object(present), Value::Object(value)) => {
            for (key, value) in value {
                merge(
                    present
                        .entry(key.clone())
                        .or_insert(serde_json::Value::Null),
                    value,
                );
            }
        }
        (Value::Array(present), Value::Array(value)) => present.extend(value.iter().cloned()),
        (present, value) => *present = value.clone(),
    }
}
