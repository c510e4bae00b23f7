//! Why no exchange or connection with an endpoint came about.

use std::borrow::Cow;
use std::sync::Arc;

use crate::telemetry::access_log::flags::Flags;

/// What stopped a request or a connection before anything of it was sent: it may be tried again
/// elsewhere whatever its method.
///
/// The texts are Envoy's where it has one, since people search for them and dashboards match on
/// them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    /// The cluster has no endpoint that may be used.
    #[error("no healthy upstream")]
    NoHealthyUpstream,
    /// A circuit breaker of the cluster is open.
    #[error("overflow")]
    Overflow,
    /// Discovery wants so many requests turned away (`drop_overloads`).
    #[error("{}drop overload", if *.all { "unconditional " } else { "" })]
    Dropped {
        /// All of them.
        all: bool,
    },
    /// The host that a client asks for has no address.
    #[error("DNS resolution failure")]
    Unresolved {
        /// In one word.
        why: &'static str,
    },
    /// Clients ask for more hosts than are to be known at once.
    #[error("DNS cache overflow")]
    TooManyNames,
    /// Too many requests wait for the addresses of hosts.
    #[error("Dynamic forward proxy pending request overflow")]
    NamesPending,
    /// TCP (or the Unix socket) did not connect.
    #[error("{reason}")]
    Connect {
        /// The endpoint's system answered that nothing listens there.
        refused: bool,
        /// For `%UPSTREAM_TRANSPORT_FAILURE_REASON%`.
        reason: Arc<str>,
    },
    /// Our own side could not make the socket: no source address, no descriptor.
    #[error("{reason}")]
    Local {
        /// For `%UPSTREAM_TRANSPORT_FAILURE_REASON%`.
        reason: Arc<str>,
    },
    /// TCP and TLS were not through in the cluster's `connect_timeout`.
    #[error("connection timeout")]
    Timeout,
    /// The TLS handshake failed.
    #[error("TLS_error:{reason}")]
    Tls {
        /// Why, for `%UPSTREAM_TRANSPORT_FAILURE_REASON%`.
        reason: Arc<str>,
    },
    /// The connection was made but HTTP did not begin on it.
    #[error("{reason}")]
    Protocol {
        /// For `%UPSTREAM_TRANSPORT_FAILURE_REASON%`.
        reason: Arc<str>,
    },
}

impl UpstreamError {
    /// The response flag.
    pub fn flags(&self) -> Flags {
        match self {
            UpstreamError::NoHealthyUpstream => Flags::NO_HEALTHY_UPSTREAM,
            UpstreamError::Unresolved { .. } => Flags::DNS_RESOLUTION_FAILED,
            UpstreamError::TooManyNames | UpstreamError::NamesPending => Flags::NONE,
            UpstreamError::Overflow => Flags::UPSTREAM_OVERFLOW,
            UpstreamError::Dropped { all: true } => Flags::UNCONDITIONAL_DROP_OVERLOAD,
            UpstreamError::Dropped { all: false } => Flags::DROP_OVERLOAD,
            UpstreamError::Connect { .. }
            | UpstreamError::Local { .. }
            | UpstreamError::Timeout
            | UpstreamError::Tls { .. }
            | UpstreamError::Protocol { .. } => Flags::UPSTREAM_CONNECTION_FAILURE,
        }
    }

    /// Whether an endpoint was chosen and tried: where none was, trying again at once would end
    /// alike.
    pub fn tried(&self) -> bool {
        !matches!(
            self,
            UpstreamError::NoHealthyUpstream
                | UpstreamError::Overflow
                | UpstreamError::Dropped { .. }
                | UpstreamError::Unresolved { .. }
                | UpstreamError::TooManyNames
                | UpstreamError::NamesPending
        )
    }

    /// The status of the local reply.
    pub fn status(&self) -> u16 {
        503
    }

    /// Whether the endpoint actively refused, so that a TCP client is to see a reset.
    #[cfg(test)]
    pub fn refused(&self) -> bool {
        matches!(self, UpstreamError::Connect { refused: true, .. })
    }

    /// Envoy's name of the reset reason; empty if it is not one.
    fn reset_reason(&self) -> &'static str {
        match self {
            UpstreamError::NoHealthyUpstream
            | UpstreamError::Dropped { .. }
            | UpstreamError::Unresolved { .. }
            | UpstreamError::TooManyNames
            | UpstreamError::NamesPending => "",
            UpstreamError::Overflow => "overflow",
            UpstreamError::Connect { .. } | UpstreamError::Tls { .. } => {
                "remote connection failure"
            }
            UpstreamError::Local { .. } => "local connection failure",
            UpstreamError::Timeout => "connection timeout",
            UpstreamError::Protocol { .. } => "protocol error",
        }
    }

    /// `%UPSTREAM_TRANSPORT_FAILURE_REASON%`; empty if the transport is not to blame.
    pub fn transport_failure(&self) -> Cow<'static, str> {
        match self {
            UpstreamError::NoHealthyUpstream
            | UpstreamError::Overflow
            | UpstreamError::Dropped { .. }
            | UpstreamError::Unresolved { .. }
            | UpstreamError::TooManyNames
            | UpstreamError::NamesPending
            | UpstreamError::Timeout => Cow::Borrowed(""),
            other => Cow::Owned(other.to_string()),
        }
    }

    /// `%RESPONSE_CODE_DETAILS%`: no spaces, like Envoy's.
    pub fn details(&self) -> Cow<'static, str> {
        let transport = self.transport_failure();
        match self {
            UpstreamError::NoHealthyUpstream => Cow::Borrowed("no_healthy_upstream"),
            UpstreamError::Dropped { all: true } => Cow::Borrowed("unconditional_drop_overload"),
            UpstreamError::Dropped { all: false } => Cow::Borrowed("drop_overload"),
            UpstreamError::Overflow => {
                Cow::Borrowed("upstream_reset_before_response_started{overflow}")
            }
            UpstreamError::Unresolved { why } => {
                Cow::Owned(format!("dns_resolution_failure{{{why}}}"))
            }
            UpstreamError::TooManyNames => Cow::Borrowed("dns_cache_overflow"),
            UpstreamError::NamesPending => {
                Cow::Borrowed("dynamic_forward_proxy_pending_request_overflow")
            }
            UpstreamError::Timeout => {
                Cow::Borrowed("upstream_reset_before_response_started{connection_timeout}")
            }
            _ => Cow::Owned(format!(
                "upstream_reset_before_response_started{{{}|{}}}",
                self.reset_reason().replace(' ', "_"),
                transport.replace(char::is_whitespace, "_"),
            )),
        }
    }

    /// The body of the local reply. As with Envoy, why the transport failed is for the log and not
    /// for the client: it may name addresses and certificates.
    pub fn body(&self) -> Cow<'static, str> {
        match self {
            UpstreamError::NoHealthyUpstream => Cow::Borrowed("no healthy upstream"),
            UpstreamError::Dropped { .. }
            | UpstreamError::Unresolved { .. }
            | UpstreamError::TooManyNames
            | UpstreamError::NamesPending => Cow::Owned(self.to_string()),
            _ => Cow::Owned(format!(
                "upstream connect error or disconnect/reset before headers. reset reason: {}",
                self.reset_reason()
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_those_that_dashboards_know() {
        let refused = UpstreamError::Connect {
            refused: true,
            reason: "delayed connect error: Connection refused".into(),
        };
        let cases = [
            (
                UpstreamError::NoHealthyUpstream,
                "UH",
                "no_healthy_upstream",
            ),
            (
                UpstreamError::Overflow,
                "UO",
                "upstream_reset_before_response_started{overflow}",
            ),
            (
                refused.clone(),
                "UF",
                "upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}",
            ),
        ];
        for (error, flag, details) in cases {
            let mut short = Vec::new();
            error.flags().write_short(&mut short);
            assert_eq!(short, flag.as_bytes());
            assert_eq!(error.details(), details);
        }
        assert_eq!(
            refused.body(),
            "upstream connect error or disconnect/reset before headers. reset reason: remote \
             connection failure"
        );
    }
}
