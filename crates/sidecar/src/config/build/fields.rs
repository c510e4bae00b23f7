//! Small conversions that all builders share. Each names the field in its error.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::google::protobuf;
use ipnet::IpNet;
use outrider_xds::schema::{Field, Message, Support};
use prost::Name;

use crate::config::address::Address;
use crate::config::cluster::TcpKeepalive;
use crate::config::error::{ConfigError, Result};

/// Adds the parent's path to an error.
pub trait Within {
    /// See [`ConfigError::within`].
    fn within(self, parent: impl Display) -> Self;
}

impl<T> Within for Result<T> {
    fn within(self, parent: impl Display) -> Self {
        self.map_err(|error| error.within(parent))
    }
}

/// Builds each item of a repeated field; a problem gets the index. All items are looked at, so that
/// the error has the problems of every one.
pub fn each<T, U>(
    field: &str,
    items: impl IntoIterator<Item = T>,
    mut build: impl FnMut(T) -> Result<U>,
) -> Result<Vec<U>> {
    let mut all = Ok(Vec::new());
    for (index, item) in items.into_iter().enumerate() {
        let built = build(item).within(format_args!("{field}[{index}]"));
        all = match (all, built) {
            (Ok(mut all), Ok(built)) => {
                all.push(built);
                Ok(all)
            }
            (Ok(_), Err(error)) | (Err(error), Ok(_)) => Err(error),
            (Err(error), Err(other)) => Err(error.and(other)),
        };
    }
    all
}

/// What fields of one message were built to, taken together: where `?` after each would tell of the
/// first that is wrong, `(a, b, c).together()?` tells of all.
pub trait Together {
    /// The values, without their results.
    type Values;

    /// All values, or the problems of all.
    fn together(self) -> Result<Self::Values>;
}

macro_rules! together {
    ($($value:ident)+) => {
        impl<$($value),+> Together for ($(Result<$value>,)+) {
            type Values = ($($value,)+);

            #[allow(non_snake_case)]
            fn together(self) -> Result<Self::Values> {
                let ($($value,)+) = self;
                let mut problems: Option<ConfigError> = None;
                $(
                    let $value = match $value {
                        Ok(value) => Some(value),
                        Err(error) => {
                            problems = Some(match problems.take() {
                                None => error,
                                Some(before) => before.and(error),
                            });
                            None
                        }
                    };
                )+
                match (problems, $($value,)+) {
                    (None, $(Some($value),)+) => Ok(($($value,)+)),
                    (problems, ..) => Err(problems.unwrap_or_else(|| ConfigError::new("", "invalid"))),
                }
            }
        }
    };
}

together!(A B);
together!(A B C);
together!(A B C D);
together!(A B C D E);
together!(A B C D E F);
together!(A B C D E F G);
together!(A B C D E F G H);
together!(A B C D E F G H I);
together!(A B C D E F G H I J);
together!(A B C D E F G H I J K);
together!(A B C D E F G H I J K L);
together!(A B C D E F G H I J K L M);
together!(A B C D E F G H I J K L M N);

/// Refuses a value that this version does not act on.
pub fn refuse(set: bool, field: impl Display, reason: impl Display) -> Result<()> {
    if set {
        return Err(ConfigError::new(field, reason));
    }
    Ok(())
}

/// A field without which the resource means nothing.
pub fn required<'a, T>(value: &'a Option<T>, field: &str) -> Result<&'a T> {
    value
        .as_ref()
        .ok_or_else(|| ConfigError::new(field, "must be set"))
}

/// The field of a oneof of `M`, without which the message means nothing. `member` is one of the
/// oneof's fields; the error names all that are supported, for a oneof's own name is no field.
pub fn one_of<'a, M: Name, T>(value: &'a Option<T>, member: &str) -> Result<&'a T> {
    value.as_ref().ok_or_else(|| none_of::<M>(member))
}

/// The error of [`one_of`].
pub fn none_of<M: Name>(member: &str) -> ConfigError {
    let message = Message::named(&M::full_name());
    let oneof = message.and_then(|message| message.field_for_key(member)?.oneof());
    let (Some(message), Some(oneof)) = (message, oneof) else {
        return ConfigError::new(member, "must be set");
    };
    let members = || {
        message
            .fields()
            .filter(|field| field.oneof() == Some(oneof))
    };
    let supported: Vec<_> = members()
        .filter(|field| !matches!(field.support(), Support::Rejected(_)))
        .map(Field::name)
        .collect();
    match supported[..] {
        [only] => ConfigError::new(only, "must be set"),
        _ => ConfigError::missing(
            format_args!("set one of {}", supported.join(", ")),
            members().map(Field::name).collect(),
        ),
    }
}

/// A string without which the resource means nothing.
pub fn named<'a>(value: &'a str, field: &str) -> Result<&'a str> {
    refuse(value.is_empty(), field, "must not be empty")?;
    Ok(value)
}

/// An enumeration's value.
pub fn enumeration<E: TryFrom<i32>>(value: i32, field: &str) -> Result<E> {
    E::try_from(value).map_err(|_| {
        ConfigError::new(
            field,
            format_args!("{value} is not a value of this enumeration"),
        )
    })
}

/// A duration that is not negative.
pub fn duration(value: &Option<protobuf::Duration>, field: &str) -> Result<Option<Duration>> {
    let Some(value) = value else {
        return Ok(None);
    };
    let nanos = u32::try_from(value.nanos)
        .ok()
        .filter(|nanos| *nanos < 1_000_000_000);
    match (u64::try_from(value.seconds), nanos) {
        (Ok(seconds), Some(nanos)) => Ok(Some(Duration::new(seconds, nanos))),
        _ => Err(ConfigError::new(
            field,
            format_args!(
                "`{}` must not be negative",
                f64::from(value.nanos) / 1e9 + value.seconds as f64
            ),
        )),
    }
}

/// A timeout: `unset` unless set; a zero turns it off.
pub fn timeout(
    value: &Option<protobuf::Duration>,
    unset: Option<Duration>,
    field: &str,
) -> Result<Option<Duration>> {
    Ok(match duration(value, field)? {
        None => unset,
        Some(Duration::ZERO) => None,
        set => set,
    })
}

/// A duration that must be above zero where it is set.
pub fn positive(value: &Option<protobuf::Duration>, field: &str) -> Result<Option<Duration>> {
    let value = duration(value, field)?;
    refuse(value == Some(Duration::ZERO), field, "must be above zero")?;
    Ok(value)
}

/// A wrapped number.
pub fn uint(value: &Option<protobuf::UInt32Value>) -> Option<u32> {
    value.as_ref().map(|value| value.value)
}

/// A wrapped number within bounds.
pub fn bounded(
    value: &Option<protobuf::UInt32Value>,
    bounds: std::ops::RangeInclusive<u32>,
    field: &str,
) -> Result<Option<u32>> {
    match uint(value) {
        Some(value) if !bounds.contains(&value) => Err(ConfigError::new(
            field,
            format_args!(
                "{value} is not between {} and {}",
                bounds.start(),
                bounds.end()
            ),
        )),
        value => Ok(value),
    }
}

/// A wrapped flag.
pub fn flag(value: &Option<protobuf::BoolValue>) -> Option<bool> {
    value.as_ref().map(|value| value.value)
}

/// A TCP port; 0 is let through only where the system may choose.
pub fn port(value: u32, zero: bool, field: &str) -> Result<u16> {
    match u16::try_from(value) {
        Ok(port) if port > 0 || zero => Ok(port),
        _ => Err(ConfigError::new(
            field,
            format_args!("{value} is not a port number"),
        )),
    }
}

/// An IP address as text.
pub fn ip(value: &str, field: &str) -> Result<IpAddr> {
    value.parse().map_err(|_| {
        ConfigError::new(
            field,
            format_args!("`{value}` is not an IP address, and names are not looked up here"),
        )
    })
}

/// An address and port. Port 0 is let through only where `zero_port` says so.
pub fn socket_address(value: &core::SocketAddress, zero_port: bool) -> Result<SocketAddr> {
    is_plain(value)?;
    let address = ip(&value.address, "address")?;
    Ok(SocketAddr::new(address, number(value, zero_port)?))
}

/// A `SocketAddress` whose address may be a name.
pub fn host_and_port(value: &core::SocketAddress) -> Result<(&str, u16)> {
    is_plain(value)?;
    Ok((named(&value.address, "address")?, number(value, false)?))
}

/// A `SocketAddress` to listen on: the system may choose the port, and `ipv4_compat` is the
/// caller's matter.
pub fn listener_socket_address(value: &core::SocketAddress) -> Result<SocketAddr> {
    enumeration::<core::socket_address::Protocol>(value.protocol, "protocol")?;
    let address = ip(&value.address, "address")?;
    Ok(SocketAddr::new(address, number(value, true)?))
}

/// An address that is not a listener's. Which protocol is spoken to it is told by what uses it, as in Envoy.
fn is_plain(value: &core::SocketAddress) -> Result<()> {
    enumeration::<core::socket_address::Protocol>(value.protocol, "protocol")?;
    refuse(
        value.ipv4_compat,
        "ipv4_compat",
        "is for the addresses of listeners",
    )
}

fn number(value: &core::SocketAddress, zero_port: bool) -> Result<u16> {
    match &value.port_specifier {
        Some(core::socket_address::PortSpecifier::PortValue(value)) => {
            port(*value, zero_port, "port_value")
        }
        Some(core::socket_address::PortSpecifier::NamedPort(_)) => {
            Err(ConfigError::new("named_port", "ports are numbers"))
        }
        None if zero_port => Ok(0),
        None => Err(ConfigError::new("port_value", "must be set")),
    }
}

/// As [`socket_address`], and tells who looks names up.
fn endpoint_address(value: &core::SocketAddress) -> Result<SocketAddr> {
    refuse(
        !value.address.is_empty() && value.address.parse::<IpAddr>().is_err(),
        "address",
        format_args!(
            "`{}` is not an IP address, and names are looked up by clusters of the type STRICT_DNS or \
             LOGICAL_DNS only",
            value.address
        ),
    )?;
    socket_address(value, false)
}

/// The address of an endpoint in a cluster that looks no names up.
pub fn address(value: &Option<core::Address>, field: &str) -> Result<Address> {
    let address = required(value, field)?;
    match &address.address {
        Some(core::address::Address::SocketAddress(socket)) => endpoint_address(socket)
            .map(Address::Socket)
            .within("socket_address"),
        Some(core::address::Address::Pipe(pipe)) => named(&pipe.path, "path")
            .map(|path| Address::Pipe(PathBuf::from(path)))
            .within("pipe"),
        Some(core::address::Address::EnvoyInternalAddress(_)) => Err(ConfigError::new(
            "envoy_internal_address",
            "connections are not handed from a cluster to a listener of the same process: use an \
             address of the loopback interface, or a pipe",
        )),
        None => Err(none_of::<core::Address>("socket_address")),
    }
    .within(field)
}

/// A CIDR range, its host bits cleared.
pub fn cidr(range: &core::CidrRange) -> Result<IpNet> {
    let address = ip(&range.address_prefix, "address_prefix")?;
    let length = uint(&range.prefix_len).unwrap_or(0);
    u8::try_from(length)
        .ok()
        .and_then(|length| IpNet::new(address, length).ok())
        .map(|net| net.trunc())
        .ok_or_else(|| {
            ConfigError::new(
                "prefix_len",
                format_args!("{length} is too long for {address}"),
            )
        })
}

/// `TcpKeepalive`.
pub fn keepalive(value: &core::TcpKeepalive) -> Result<TcpKeepalive> {
    let seconds = |value, field| {
        bounded(value, 1..=u32::from(u16::MAX), field)
            .map(|value| value.map(|value| Duration::from_secs(value.into())))
    };
    Ok(TcpKeepalive {
        probes: bounded(&value.keepalive_probes, 1..=127, "keepalive_probes")?,
        time: seconds(&value.keepalive_time, "keepalive_time")?,
        interval: seconds(&value.keepalive_interval, "keepalive_interval")?,
    })
}

/// The name of a header field (RFC 9110, section 5.6.2) in lower case.
pub fn header_name(name: &str, field: &str) -> Result<Box<[u8]>> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    refuse(
        name.is_empty() || !name.bytes().all(token),
        field,
        format_args!("`{}` is not the name of a header", name.escape_default()),
    )?;
    refuse(name.len() > 1024, field, "is longer than 1024 bytes")?;
    Ok(name.to_ascii_lowercase().into_bytes().into())
}

/// Text that goes into a head as it is: no control characters.
pub fn header_text<'a>(value: &'a [u8], field: &str) -> Result<&'a [u8]> {
    let bad = |byte: &u8| byte.is_ascii_control() && *byte != b'\t';
    refuse(
        value.iter().any(bad),
        field,
        "must not hold control characters",
    )?;
    Ok(value)
}

/// Part of a path or authority: visible ASCII without spaces.
pub fn uri_text<'a>(value: &'a str, field: &str) -> Result<&'a [u8]> {
    refuse(
        !value.bytes().all(|byte| byte.is_ascii_graphic()),
        field,
        "must hold neither spaces nor control characters",
    )?;
    Ok(value.as_bytes())
}

/// The fingerprint of an encoded resource: equal ones are the same configuration.
pub fn fingerprint(encoded: &[u8]) -> u64 {
    use std::hash::Hasher as _;
    // Its keys are fixed, so that fingerprints can be compared within this process and its logs.
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write(encoded);
    hasher.finish()
}
