//! Listener filters: what looks at a connection before its filter chain is chosen.

use std::sync::Arc;

use super::network::LocalRateLimit;

/// One of `listener_filters`, which run in order.
#[derive(Debug)]
pub struct ListenerFilter {
    /// `filter_disabled`; unset matches nothing.
    pub disabled: Option<PortPredicate>,
    /// What it does.
    pub kind: FilterKind,
}

impl ListenerFilter {
    /// Whether it looks at connections to this port; a Unix socket has none, so that only
    /// `any_match` can disable a filter there.
    pub fn looks_at(&self, destination_port: Option<u16>) -> bool {
        let disabled = self.disabled.as_ref();
        disabled.is_none_or(|predicate| !predicate.matches(destination_port))
    }
}

/// What a listener filter does.
#[derive(Debug)]
pub enum FilterKind {
    /// Recovers where a redirected connection was going.
    OriginalDst,
    /// Has endpoints see the client's address; connections to them get this mark, which is 0 for
    /// none.
    OriginalSrc(u32),
    /// Lets only so many connections in.
    LocalRateLimit(Arc<LocalRateLimit>),
    /// Takes the header of the PROXY protocol.
    ProxyProtocol(Arc<ProxyProtocol>),
    /// Looks for a ClientHello.
    TlsInspector(TlsInspector),
    /// Looks for an HTTP request.
    HttpInspector,
}

/// `TlsInspector`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsInspector {
    /// `max_client_hello_size`: 16 KiB unless set.
    pub max_hello: usize,
    /// `close_connection_on_client_hello_parsing_errors`
    pub close_on_error: bool,
    /// `enable_ja3_fingerprinting`
    pub ja3: bool,
    /// `enable_ja4_fingerprinting`
    pub ja4: bool,
}

/// `ProxyProtocol` of listeners.
#[derive(Debug)]
pub struct ProxyProtocol {
    /// `stat_prefix`; may be empty.
    pub stat_prefix: Arc<str>,
    /// `rules`
    pub rules: Vec<TlvRule>,
    /// `tlv_location` is FILTER_STATE: that is where they put what they find.
    pub into_filter_state: bool,
    /// `allow_requests_without_proxy_protocol`
    pub optional: bool,
    /// `pass_through_tlvs`
    pub pass_through: PassThrough,
    /// `disallowed_versions` has V1.
    pub v1_disallowed: bool,
    /// `disallowed_versions` has V2.
    pub v2_disallowed: bool,
}

/// One of the PROXY protocol's `rules`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlvRule {
    /// `tlv_type`
    pub kind: u8,
    /// `metadata_namespace`, or the filter's own.
    pub namespace: Arc<str>,
    /// `key`
    pub key: Arc<str>,
    /// `value_string_encoding` is BASE64.
    pub base64: bool,
}

/// `ProxyProtocolPassThroughTLVs`: which TLVs a connection upstream repeats.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PassThrough {
    /// It is not set.
    #[default]
    None,
    /// INCLUDE_ALL
    All,
    /// INCLUDE
    Some(Vec<u8>),
}

impl PassThrough {
    /// Whether TLVs of this type pass.
    pub fn includes(&self, kind: u8) -> bool {
        match self {
            PassThrough::None => false,
            PassThrough::All => true,
            PassThrough::Some(kinds) => kinds.contains(&kind),
        }
    }
}

/// `ListenerFilterChainMatchPredicate`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortPredicate {
    /// `any_match`
    Any,
    /// `destination_port_range`: `[start, end)`
    Range(i32, i32),
    /// `not_match`
    Not(Box<PortPredicate>),
    /// `and_match`
    All(Vec<PortPredicate>),
    /// `or_match`
    Either(Vec<PortPredicate>),
}

impl PortPredicate {
    /// Whether it holds for a destination port.
    pub fn matches(&self, port: Option<u16>) -> bool {
        match self {
            PortPredicate::Any => true,
            PortPredicate::Range(start, end) => {
                port.is_some_and(|port| (*start..*end).contains(&i32::from(port)))
            }
            PortPredicate::Not(inner) => !inner.matches(port),
            PortPredicate::All(inner) => inner.iter().all(|predicate| predicate.matches(port)),
            PortPredicate::Either(inner) => inner.iter().any(|predicate| predicate.matches(port)),
        }
    }
}
