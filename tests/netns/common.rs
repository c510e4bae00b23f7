//! What the suites of traffic share.

use std::net::{IpAddr, SocketAddr, TcpListener};

use outrider_testkit::Sniffer;
use outrider_testkit::netns::Pod;
use serde_json::Value;

/// A text that would be seen on the wire if it were not encrypted.
pub const SECRET: &str = "a-secret-that-must-not-be-seen";

pub fn listen(pod: &Pod, port: u16) -> TcpListener {
    // One socket for both families, as most programs have it.
    pod.run(|| TcpListener::bind(("::", port)))
        .unwrap()
        .unwrap()
}

pub fn header<'a>(seen: &'a Value, name: &str) -> Option<&'a str> {
    let headers = seen["headers"].as_array()?;
    let found = headers.iter().find(|header| {
        header[0]
            .as_str()
            .is_some_and(|found| found.eq_ignore_ascii_case(name))
    })?;
    found[1].as_str()
}

/// The app saw the sidecar's own source address, as plain IPv4 or mapped into IPv6.
pub fn assert_source(seen: &Value, address: IpAddr) {
    let peer: SocketAddr = seen["peer"].as_str().unwrap().parse().unwrap();
    let wanted = if address.is_ipv4() {
        "127.0.0.6"
    } else {
        "::6"
    };
    assert_eq!(peer.ip().to_canonical(), wanted.parse::<IpAddr>().unwrap());
}

/// The control plane's port.
const CONTROL: u16 = 15012;

/// Only TLS passed between the pods: records of the handshake or of data, and not the secret.
pub fn assert_encrypted(sniffer: &Sniffer) {
    assert!(!sniffer.contains(SECRET).unwrap(), "plaintext on the wire");
    let beginnings = sniffer.beginnings(3).unwrap();
    let spoken: Vec<_> = beginnings
        .iter()
        .filter(|(_, begin)| !begin.is_empty())
        // What sidecars say to the control plane began long before.
        .filter(|((from, to), _)| from.port() != CONTROL && to.port() != CONTROL)
        .collect();
    assert!(!spoken.is_empty(), "nothing was on the wire");
    for (way, begin) in spoken {
        assert_eq!(
            begin[..2],
            [0x16, 0x03],
            "{way:?} does not begin with a TLS handshake"
        );
    }
}
