//! `SocketOption`.

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::core::v3::socket_option::{
    SocketIpVersion, SocketState as ProtoState, Value,
};

use super::fields::{Together as _, each, enumeration, required};
use crate::config::error::{ConfigError, Result};
use crate::config::socket_option::{SocketOption, SocketOptions, SocketState};

/// The options in the repeated field of that name.
///
/// # Errors
/// A number that no socket option has, or an option without a value.
pub fn build(proto: &[core::SocketOption], field: &str) -> Result<SocketOptions> {
    each(field, proto, one).map(Into::into)
}

fn one(proto: &core::SocketOption) -> Result<SocketOption> {
    let (level, name, value, state, version) = (
        int(proto.level, "level"),
        int(proto.name, "name"),
        value(proto),
        enumeration::<ProtoState>(proto.state, "state"),
        enumeration::<SocketIpVersion>(proto.ip_version, "ip_version"),
    )
        .together()?;
    let kinds = proto.r#type.as_ref();
    let any_kind = kinds.is_none_or(|kinds| kinds.stream.is_none() && kinds.datagram.is_none());
    Ok(SocketOption {
        description: proto.description.as_str().into(),
        level,
        name,
        value,
        state: match state {
            ProtoState::StatePrebind => SocketState::Prebind,
            ProtoState::StateBound => SocketState::Bound,
            ProtoState::StateListening => SocketState::Listening,
        },
        stream: any_kind || kinds.is_some_and(|kinds| kinds.stream.is_some()),
        ipv4: version != SocketIpVersion::Ipv6,
        ipv6: version != SocketIpVersion::Ipv4,
    })
}

fn int(value: i64, field: &str) -> Result<i32> {
    i32::try_from(value).map_err(|_| {
        ConfigError::new(
            field,
            format_args!("{value} is more than a socket option has"),
        )
    })
}

fn value(proto: &core::SocketOption) -> Result<Box<[u8]>> {
    Ok(match required(&proto.value, "int_value")? {
        Value::IntValue(number) => Box::from(int(*number, "int_value")?.to_ne_bytes()),
        Value::BufValue(bytes) => bytes.as_slice().into(),
    })
}
