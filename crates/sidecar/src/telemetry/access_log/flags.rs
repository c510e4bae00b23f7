//! Response flags: why a request ended as it did, in Envoy's short names.

/// A set of response flags (`%RESPONSE_FLAGS%`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u32);

macro_rules! flags {
    ($($name:ident = $bit:literal, $short:literal, $long:literal;)+) => {
        impl Flags {
            $(#[doc = $long] #[allow(dead_code, reason = "the set is Envoy's")] pub const $name: Flags = Flags(1 << $bit);)+
            const ALL: &'static [(Flags, &'static str, &'static str)] = &[$((Flags(1 << $bit), $short, $long)),+];
        }
    };
}

// In the order in which Envoy writes them; some are set by filters that are to come.
flags! {
    FAILED_LOCAL_HEALTH_CHECK = 0, "LH", "FailedLocalHealthCheck";
    NO_HEALTHY_UPSTREAM = 1, "UH", "NoHealthyUpstream";
    UPSTREAM_REQUEST_TIMEOUT = 2, "UT", "UpstreamRequestTimeout";
    LOCAL_RESET = 3, "LR", "LocalReset";
    UPSTREAM_REMOTE_RESET = 4, "UR", "UpstreamRemoteReset";
    UPSTREAM_CONNECTION_FAILURE = 5, "UF", "UpstreamConnectionFailure";
    UPSTREAM_CONNECTION_TERMINATION = 6, "UC", "UpstreamConnectionTermination";
    UPSTREAM_OVERFLOW = 7, "UO", "UpstreamOverflow";
    NO_ROUTE_FOUND = 8, "NR", "NoRouteFound";
    DELAY_INJECTED = 9, "DI", "DelayInjected";
    FAULT_INJECTED = 10, "FI", "FaultInjected";
    RATE_LIMITED = 11, "RL", "RateLimited";
    UNAUTHORIZED_EXTERNAL_SERVICE = 12, "UAEX", "UnauthorizedExternalService";
    RATE_LIMIT_SERVICE_ERROR = 13, "RLSE", "RateLimitServiceError";
    DOWNSTREAM_CONNECTION_TERMINATION = 14, "DC", "DownstreamConnectionTermination";
    UPSTREAM_RETRY_LIMIT_EXCEEDED = 15, "URX", "UpstreamRetryLimitExceeded";
    STREAM_IDLE_TIMEOUT = 16, "SI", "StreamIdleTimeout";
    INVALID_ENVOY_REQUEST_HEADERS = 17, "IH", "InvalidEnvoyRequestHeaders";
    DOWNSTREAM_PROTOCOL_ERROR = 18, "DPE", "DownstreamProtocolError";
    UPSTREAM_MAX_STREAM_DURATION_REACHED = 19, "UMSDR", "UpstreamMaxStreamDurationReached";
    RESPONSE_FROM_CACHE_FILTER = 20, "RFCF", "ResponseFromCacheFilter";
    NO_FILTER_CONFIG_FOUND = 21, "NFCF", "NoFilterConfigFound";
    DURATION_TIMEOUT = 22, "DT", "DurationTimeout";
    UPSTREAM_PROTOCOL_ERROR = 23, "UPE", "UpstreamProtocolError";
    NO_CLUSTER_FOUND = 24, "NC", "NoClusterFound";
    OVERLOAD_MANAGER = 25, "OM", "OverloadManagerTerminated";
    DNS_RESOLUTION_FAILED = 26, "DF", "DnsResolutionFailed";
    DROP_OVERLOAD = 27, "DO", "DropOverload";
    DOWNSTREAM_REMOTE_RESET = 28, "DR", "DownstreamRemoteReset";
    UNCONDITIONAL_DROP_OVERLOAD = 29, "UDO", "UnconditionalDropOverload";
}

impl std::ops::BitOrAssign for Flags {
    fn bitor_assign(&mut self, other: Flags) {
        self.0 |= other.0;
    }
}

impl Flags {
    /// No flag.
    pub const NONE: Flags = Flags(0);

    /// Whether all of `other` are set.
    pub fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether one of `other` is set.
    pub fn intersects(self, other: Flags) -> bool {
        self.0 & other.0 != 0
    }

    /// The flag of this short name.
    pub fn named(name: &str) -> Option<Flags> {
        let row = Self::ALL.iter().find(|(_, short, _)| *short == name);
        row.map(|(flag, ..)| *flag)
    }

    /// All short names.
    pub fn names() -> Vec<&'static str> {
        Self::ALL.iter().map(|(_, short, _)| *short).collect()
    }

    /// The short names joined by commas; `-` for none.
    pub fn write_short(self, out: &mut Vec<u8>) {
        self.write(out, |(_, short, _)| short);
    }

    /// The long names joined by commas; `-` for none (`%RESPONSE_FLAGS_LONG%`).
    pub fn write_long(self, out: &mut Vec<u8>) {
        self.write(out, |(_, _, long)| long);
    }

    fn write(
        self,
        out: &mut Vec<u8>,
        text: impl Fn(&(Flags, &'static str, &'static str)) -> &'static str,
    ) {
        let start = out.len();
        for flag in Self::ALL.iter().filter(|(flag, ..)| self.contains(*flag)) {
            if out.len() > start {
                out.push(b',');
            }
            out.extend_from_slice(text(flag).as_bytes());
        }
        if out.len() == start {
            out.push(b'-');
        }
    }
}
