//! `set_filter_state`.

use envoy_types::pb::envoy::extensions::filters::common::set_filter_state::v3 as common;
use envoy_types::pb::envoy::extensions::filters::common::set_filter_state::v3::filter_state_value as fields_of;
use envoy_types::pb::envoy::extensions::filters::network::set_filter_state::v3 as proto;

use crate::config::build::access_log;
use crate::config::build::fields::{Together as _, Within as _, each, named, required};
use crate::config::error::{ConfigError, Result};
use crate::config::network::{FilterStateValue, SetFilterState};
use crate::network::filter_state::Factory;

/// Builds what is set of filter state.
pub fn build(proto: &proto::Config) -> Result<SetFilterState> {
    let (mut at_once, secured, on_data) = (
        each("on_new_connection", &proto.on_new_connection, value),
        each(
            "on_downstream_tls_handshake",
            &proto.on_downstream_tls_handshake,
            value,
        ),
        each("on_downstream_data", &proto.on_downstream_data, value),
    )
        .together()?;
    at_once.extend(secured);
    Ok(SetFilterState { at_once, on_data })
}

/// A list of `FilterStateValue`s.
pub fn values(field: &str, list: &[common::FilterStateValue]) -> Result<Vec<FilterStateValue>> {
    each(field, list, value)
}

/// `FilterStateValue`, of a connection or of a request.
fn value(proto: &common::FilterStateValue) -> Result<FilterStateValue> {
    let key = required(&proto.key, "object_key")
        .and_then(|fields_of::Key::ObjectKey(key)| named(key, "object_key"));
    let factory = key.clone().and_then(|key| factory(key, &proto.factory_key));
    let format = required(&proto.value, "format_string").and_then(
        |fields_of::Value::FormatString(format)| {
            access_log::substitution(format).within("format_string")
        },
    );
    let (factory, format) = (factory, format).together()?;
    Ok(FilterStateValue {
        key: key?.into(),
        factory,
        format,
        skip_if_empty: proto.skip_if_empty,
    })
}

fn factory(object: &str, factory: &str) -> Result<Factory> {
    let key = if factory.is_empty() { object } else { factory };
    Factory::find(key).ok_or_else(|| {
        ConfigError::new(
            "factory_key",
            format_args!(
                "no factory makes `{key}`; there are {} (envoy.string makes any text)",
                Factory::keys()
            ),
        )
    })
}
