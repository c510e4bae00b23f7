//! Which protocol a pool speaks, and how many connections it makes for those who wait.

use crate::config::cluster::{UpstreamProtocol, UpstreamTransport};
use crate::http::message::Version;

/// What a pool's connections speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// One request at a time.
    Http1,
    /// Many at a time.
    Http2,
    /// What the last connection agreed on; `None` before the first.
    Negotiated(Option<Agreed>),
}

/// The outcome of ALPN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agreed {
    /// `http/1.1`, or nothing.
    Http1,
    /// `h2`
    Http2,
}

impl Protocol {
    /// What requests of a downstream version use.
    pub fn of(
        configured: UpstreamProtocol,
        transport: &UpstreamTransport,
        downstream: Version,
    ) -> Self {
        match configured {
            UpstreamProtocol::Http1 => Protocol::Http1,
            UpstreamProtocol::Http2 => Protocol::Http2,
            UpstreamProtocol::Downstream if downstream.is_http1() => Protocol::Http1,
            UpstreamProtocol::Downstream => Protocol::Http2,
            // Without TLS there is no ALPN.
            UpstreamProtocol::Auto if transport.tls().is_none() => Protocol::Http1,
            UpstreamProtocol::Auto => Protocol::Negotiated(None),
        }
    }

    /// The protocols to offer, the preferred one first.
    pub const fn alpn(self) -> &'static [&'static [u8]] {
        match self {
            Protocol::Http1 => &[b"http/1.1"],
            Protocol::Http2 => &[b"h2"],
            Protocol::Negotiated(_) => &[b"h2", b"http/1.1"],
        }
    }

    /// What a new connection speaks on which ALPN had this outcome.
    pub fn outcome(self, alpn: Option<&[u8]>) -> Agreed {
        match self {
            Protocol::Http1 => Agreed::Http1,
            Protocol::Http2 => Agreed::Http2,
            Protocol::Negotiated(_) if alpn == Some(b"h2") => Agreed::Http2,
            Protocol::Negotiated(_) => Agreed::Http1,
        }
    }

    /// How many more connections are to be made while `waiting` requests wait and `connecting`
    /// attempts are under way. Where one connection may serve them all, only one is made at a time:
    /// else a burst of requests would become a burst of connections.
    pub fn attempts_wanted(self, waiting: usize, connecting: usize) -> usize {
        let useful = match self {
            Protocol::Http1 | Protocol::Negotiated(Some(Agreed::Http1)) => waiting,
            Protocol::Http2 | Protocol::Negotiated(_) => waiting.min(1),
        };
        useful.saturating_sub(connecting)
    }

    /// How many of those who wait a failed attempt fails: for HTTP/1 the one that it was made for;
    /// else everybody, as all were waiting for this one.
    pub fn ejected_by_failure(self, waiting: usize) -> usize {
        match self {
            Protocol::Http1 | Protocol::Negotiated(Some(Agreed::Http1)) => waiting.min(1),
            Protocol::Http2 | Protocol::Negotiated(_) => waiting,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_follow_those_who_wait() {
        let negotiated = |agreed| Protocol::Negotiated(agreed);
        for (protocol, waiting, connecting, attempts, ejected) in [
            (Protocol::Http1, 0, 0, 0, 0),
            (Protocol::Http1, 3, 1, 2, 1),
            (Protocol::Http1, 1, 3, 0, 1),
            (Protocol::Http2, 0, 0, 0, 0),
            (Protocol::Http2, 100, 0, 1, 100),
            (Protocol::Http2, 100, 1, 0, 100),
            (negotiated(None), 100, 0, 1, 100),
            (negotiated(Some(Agreed::Http1)), 100, 0, 100, 1),
            (negotiated(Some(Agreed::Http2)), 100, 1, 0, 100),
        ] {
            let case = format!("{protocol:?} {waiting} {connecting}");
            assert_eq!(
                protocol.attempts_wanted(waiting, connecting),
                attempts,
                "{case}"
            );
            assert_eq!(protocol.ejected_by_failure(waiting), ejected, "{case}");
        }
    }

    #[test]
    fn the_protocol_follows_configuration_and_alpn() {
        let plain = UpstreamTransport::Plain;
        let of = |configured, version| Protocol::of(configured, &plain, version);
        use UpstreamProtocol::{Auto, Downstream, Http1, Http2};
        assert_eq!(of(Http1, Version::Http2), Protocol::Http1);
        assert_eq!(of(Http2, Version::Http11), Protocol::Http2);
        assert_eq!(of(Downstream, Version::Http10), Protocol::Http1);
        assert_eq!(of(Downstream, Version::Http2), Protocol::Http2);
        assert_eq!(of(Auto, Version::Http2), Protocol::Http1);
        let negotiated = Protocol::Negotiated(None);
        assert_eq!(negotiated.outcome(Some(b"h2")), Agreed::Http2);
        assert_eq!(negotiated.outcome(Some(b"http/1.1")), Agreed::Http1);
        assert_eq!(negotiated.outcome(None), Agreed::Http1);
        assert_eq!(Protocol::Http1.outcome(Some(b"h2")), Agreed::Http1);
    }
}
