//! Response flags: why a request ended as it did, in Envoy's short names.

/// A set of response flags (`%RESPONSE_FLAGS%`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u32);

macro_rules! flags {
    ($($name:ident = $bit:literal, $short:literal, $long:literal;)+) => {
        impl Flags {
            $(#[doc = $long] pub const $name: Flags = Flags(1 << $bit);)+
            const ALL: &'static [(Flags, &'static str, &'static str)] = &[$((Flags(1 << $bit), $short, $long)),+];
        }
    };
}

flags! {
    NO_HEALTHY_UPSTREAM = 0, "UH", "NoHealthyUpstream";
    UPSTREAM_CONNECTION_FAILURE = 1, "UF", "UpstreamConnectionFailure";
    UPSTREAM_OVERFLOW = 2, "UO", "UpstreamOverflow";
    NO_ROUTE_FOUND = 3, "NR", "NoRouteFound";
    NO_CLUSTER_FOUND = 5, "NC", "NoClusterFound";
    DOWNSTREAM_CONNECTION_TERMINATION = 7, "DC", "DownstreamConnectionTermination";
    UPSTREAM_REQUEST_TIMEOUT = 8, "UT", "UpstreamRequestTimeout";
    UPSTREAM_REMOTE_RESET = 10, "UR", "UpstreamRemoteReset";
    UPSTREAM_CONNECTION_TERMINATION = 11, "UC", "UpstreamConnectionTermination";
    STREAM_IDLE_TIMEOUT = 12, "SI", "StreamIdleTimeout";
    DOWNSTREAM_PROTOCOL_ERROR = 13, "DPE", "DownstreamProtocolError";
    UPSTREAM_RETRY_LIMIT_EXCEEDED = 15, "URX", "UpstreamRetryLimitExceeded";
    DURATION_TIMEOUT = 16, "DT", "DurationTimeout";
    UPSTREAM_PROTOCOL_ERROR = 14, "UPE", "UpstreamProtocolError";
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
