//! Filter state: typed values that filters leave on a connection, by name, for those that come after
//! them (Envoy's documentation, "Well Known Filter State Objects").

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// The cluster of a tcp_proxy.
pub const TCP_CLUSTER: &str = "envoy.tcp_proxy.cluster";
/// Milliseconds after which a tcp_proxy ends an idle connection.
pub const TCP_IDLE_TIMEOUT: &str = "envoy.tcp_proxy.per_connection_idle_timeout_ms";
/// `true` has a tcp_proxy with a `tunneling_config` relay plain bytes.
pub const TCP_DISABLE_TUNNELING: &str = "envoy.tcp_proxy.disable_tunneling";
/// The headers with which a tunnel was answered.
pub const TUNNEL_RESPONSE_HEADERS: &str = "envoy.tcp_proxy.propagate_response_headers";
/// The trailers with which a tunnel ended.
pub const TUNNEL_RESPONSE_TRAILERS: &str = "envoy.tcp_proxy.propagate_response_trailers";
/// The SNI of the TLS connection to the endpoint.
pub const UPSTREAM_SERVER_NAME: &str = "envoy.network.upstream_server_name";
/// The names of which the endpoint's certificate must have one.
pub const UPSTREAM_SUBJECT_ALT_NAMES: &str = "envoy.network.upstream_subject_alt_names";
/// What ALPN offers to the endpoint.
pub const UPSTREAM_PROTOCOLS: &str = "envoy.network.application_protocols";
/// The address to which an ORIGINAL_DST cluster connects.
pub const ORIGINAL_DST_ADDRESS: &str = "envoy.network.transport_socket.original_dst_address";

/// What came with the PROXY protocol, by the keys of its rules.
pub const PROXY_PROTOCOL_TLVS: &str = "envoy.network.proxy_protocol.tlv";
/// The host that a dynamic forward proxy connects to.
pub const DYNAMIC_HOST: &str = "envoy.upstream.dynamic_host";
/// Its port.
pub const DYNAMIC_PORT: &str = "envoy.upstream.dynamic_port";

/// What tcp_proxy acts on, and nothing else does.
pub const OF_TCP_PROXY: &[&str] = &[
    TCP_CLUSTER,
    TCP_IDLE_TIMEOUT,
    TCP_DISABLE_TUNNELING,
    UPSTREAM_SERVER_NAME,
    UPSTREAM_SUBJECT_ALT_NAMES,
    UPSTREAM_PROTOCOLS,
    ORIGINAL_DST_ADDRESS,
];

/// One value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Text.
    Text(Box<str>),
    /// Text by which a hash policy can choose.
    Hashable(Box<str>),
    /// A server name: text without a typed form.
    ServerName(Box<str>),
    /// Names that were given with commas between them.
    Names(Box<str>),
    /// Protocols that were given with commas between them; nothing shows them.
    Protocols(Box<str>),
    /// A number: JSON has it in quotes.
    Number(u64),
    /// A flag.
    Flag(bool),
    /// An address without a port.
    Ip(IpAddr),
    /// An address and a port.
    Address(SocketAddr),
    /// Texts by name, in order.
    Fields(Box<[(Box<str>, Box<str>)]>),
    /// Header fields in order.
    Headers(Box<[(Box<str>, Box<str>)]>),
}

/// What makes a value of text: the `factory_key`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Factory {
    Text,
    Hashable,
    ServerName,
    Names,
    Protocols,
    Number,
    Flag,
    Ip,
    Address,
}

/// The factories. What only internal listeners or rate limits read is not among them: it would be set
/// in vain.
const FACTORIES: &[(&str, Factory)] = &[
    ("envoy.string", Factory::Text),
    ("envoy.hashable_string", Factory::Hashable),
    (TCP_CLUSTER, Factory::Text),
    (TCP_IDLE_TIMEOUT, Factory::Number),
    (TCP_DISABLE_TUNNELING, Factory::Flag),
    (UPSTREAM_SERVER_NAME, Factory::ServerName),
    (UPSTREAM_SUBJECT_ALT_NAMES, Factory::Names),
    (UPSTREAM_PROTOCOLS, Factory::Protocols),
    (ORIGINAL_DST_ADDRESS, Factory::Address),
    (DYNAMIC_HOST, Factory::Text),
    (DYNAMIC_PORT, Factory::Number),
    ("envoy.network.ip", Factory::Ip),
];

impl Factory {
    /// The factory of that key.
    pub fn find(key: &str) -> Option<Factory> {
        let row = FACTORIES.iter().find(|(name, _)| *name == key);
        row.map(|(_, factory)| *factory)
    }

    /// All keys, for the error about one that is unknown.
    pub fn keys() -> String {
        let keys: Vec<_> = FACTORIES.iter().map(|(key, _)| *key).collect();
        keys.join(", ")
    }

    /// The value that a text means; `None` where it means none.
    pub fn make(self, text: &str) -> Option<Value> {
        Some(match self {
            Factory::Text => Value::Text(text.into()),
            Factory::Hashable => Value::Hashable(text.into()),
            Factory::ServerName => Value::ServerName(text.into()),
            Factory::Names => Value::Names(text.into()),
            Factory::Protocols => Value::Protocols(text.into()),
            Factory::Number => Value::Number(text.parse().ok()?),
            Factory::Flag => Value::Flag(text.parse().ok()?),
            Factory::Ip => Value::Ip(text.parse().ok()?),
            Factory::Address => Value::Address(text.parse().ok()?),
        })
    }
}

impl Value {
    /// As `%FILTER_STATE(key:PLAIN)%` shows it; `None` where it has no such form.
    pub fn plain(&self) -> Option<String> {
        Some(match self {
            Value::Text(text)
            | Value::Hashable(text)
            | Value::ServerName(text)
            | Value::Names(text) => text.to_string(),
            Value::Number(number) => number.to_string(),
            Value::Flag(flag) => flag.to_string(),
            Value::Ip(ip) => SocketAddr::new(*ip, 0).to_string(),
            Value::Address(address) => address.to_string(),
            Value::Fields(_) => self.typed()?.to_string(),
            Value::Protocols(_) | Value::Headers(_) => return None,
        })
    }

    /// As `%FILTER_STATE(key:TYPED)%` shows it; `None` where it has no such form.
    pub fn typed(&self) -> Option<serde_json::Value> {
        Some(match self {
            Value::Text(text) | Value::Hashable(text) => (&**text).into(),
            // The JSON form of a 64-bit number in a proto.
            Value::Number(number) => number.to_string().into(),
            Value::Flag(flag) => (*flag).into(),
            Value::Fields(fields) => {
                let pair =
                    |(key, value): &(Box<str>, Box<str>)| (key.to_string(), (&**value).into());
                serde_json::Value::Object(fields.iter().map(pair).collect())
            }
            Value::Headers(fields) => {
                let field = |(key, value): &(Box<str>, Box<str>)| serde_json::json!({"key": &**key, "value": &**value});
                serde_json::json!({"headers": fields.iter().map(field).collect::<Vec<_>>()})
            }
            Value::ServerName(_)
            | Value::Names(_)
            | Value::Protocols(_)
            | Value::Ip(_)
            | Value::Address(_) => return None,
        })
    }

    /// As `%FILTER_STATE(key:FIELD:name)%` shows it: a part of the value; `None` where it has no
    /// such part.
    pub fn field(&self, name: &str) -> Option<String> {
        match (self, name) {
            (Value::Fields(fields), name) => {
                let found = fields.iter().find(|(key, _)| **key == *name);
                found.map(|(_, value)| value.to_string())
            }
            (Value::Address(address), "ip") => Some(address.ip().to_string()),
            (Value::Address(address), "port") => Some(address.port().to_string()),
            _ => None,
        }
    }
}

/// The values of one connection. It costs a pointer as long as there is none, and there are never
/// many: a search from the front is the fastest.
#[derive(Clone, Debug, Default)]
pub struct FilterState(Option<Box<Entries>>);

type Entries = Vec<(Arc<str>, Value)>;

impl FilterState {
    /// Nothing.
    pub const EMPTY: FilterState = FilterState(None);

    /// Sets a value, in place of the one before it.
    pub fn set(&mut self, key: &Arc<str>, value: Value) {
        let entries = self.0.get_or_insert_default();
        match entries.iter_mut().find(|(name, _)| name == key) {
            Some((_, before)) => *before = value,
            None => entries.push((key.clone(), value)),
        }
    }

    /// All values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        let entries = self.0.iter().flat_map(|entries| entries.iter());
        entries.map(|(name, value)| (&**name, value))
    }

    /// The value of that name.
    pub fn value(&self, key: &str) -> Option<&Value> {
        let entry = self.0.as_ref()?.iter().find(|(name, _)| **name == *key);
        entry.map(|(_, value)| value)
    }

    /// A value that is text.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.value(key)? {
            Value::Text(text) | Value::Hashable(text) | Value::ServerName(text) => Some(text),
            _ => None,
        }
    }

    /// A value that lists names or protocols.
    pub fn list(&self, key: &str) -> Option<impl Iterator<Item = &str>> {
        match self.value(key)? {
            Value::Names(text) | Value::Protocols(text) => Some(
                text.split(',')
                    .map(str::trim)
                    .filter(|part| !part.is_empty()),
            ),
            _ => None,
        }
    }

    /// A flag; false where there is none.
    pub fn flag(&self, key: &str) -> bool {
        matches!(self.value(key), Some(Value::Flag(true)))
    }

    /// An address.
    pub fn address(&self, key: &str) -> Option<SocketAddr> {
        match self.value(key)? {
            Value::Address(address) => Some(*address),
            _ => None,
        }
    }

    /// The host that a dynamic forward proxy connects to.
    pub fn dynamic_host(&self) -> Option<&str> {
        self.text(DYNAMIC_HOST).filter(|host| !host.is_empty())
    }

    /// Its port.
    pub fn dynamic_port(&self) -> Option<u16> {
        match self.value(DYNAMIC_PORT)? {
            Value::Number(number) => u16::try_from(*number).ok().filter(|port| *port != 0),
            _ => None,
        }
    }

    /// A number of milliseconds.
    pub fn milliseconds(&self, key: &str) -> Option<Duration> {
        match self.value(key)? {
            Value::Number(number) => Some(Duration::from_millis(*number)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_as_envoy_shows_them() {
        let cases: &[(&str, &str, Option<&str>, Option<&str>)] = &[
            ("envoy.string", "a\"b", Some("a\"b"), Some(r#""a\"b""#)),
            (UPSTREAM_SERVER_NAME, "a.b", Some("a.b"), None),
            (UPSTREAM_SUBJECT_ALT_NAMES, "a.b,c.d", Some("a.b,c.d"), None),
            (UPSTREAM_PROTOCOLS, "h2,http/1.1", None, None),
            (TCP_IDLE_TIMEOUT, "250", Some("250"), Some(r#""250""#)),
            (TCP_DISABLE_TUNNELING, "true", Some("true"), Some("true")),
            ("envoy.network.ip", "1.2.3.4", Some("1.2.3.4:0"), None),
            (ORIGINAL_DST_ADDRESS, "1.2.3.4:55", Some("1.2.3.4:55"), None),
        ];
        for (key, text, plain, typed) in cases {
            let value = Factory::find(key).unwrap().make(text).unwrap();
            assert_eq!(value.plain().as_deref(), *plain, "{key}");
            let shown = value.typed().map(|json| json.to_string());
            assert_eq!(shown.as_deref(), *typed, "{key}");
        }
        for (key, text) in [
            (TCP_IDLE_TIMEOUT, "-1"),
            (TCP_DISABLE_TUNNELING, "yes"),
            (ORIGINAL_DST_ADDRESS, "host:1"),
        ] {
            assert_eq!(Factory::find(key).unwrap().make(text), None, "{key} {text}");
        }
    }

    #[test]
    fn a_later_value_takes_the_place_of_an_earlier_one() {
        let mut state = FilterState::default();
        assert_eq!(state.text("k"), None);
        let (key, other): (Arc<str>, Arc<str>) = ("k".into(), UPSTREAM_PROTOCOLS.into());
        state.set(&key, Value::Text("one".into()));
        state.set(&other, Value::Protocols("h2, http/1.1".into()));
        state.set(&key, Value::Text("two".into()));
        assert_eq!(state.text("k"), Some("two"));
        let list: Vec<_> = state.list(UPSTREAM_PROTOCOLS).unwrap().collect();
        assert_eq!(list, ["h2", "http/1.1"]);
    }
}
