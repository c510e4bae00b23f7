//! The filter chain of a connection of which the listener filters have told what they can.

use std::sync::Arc;

use super::detect::Client;
use super::filter_chain_match::MatchInput;
use crate::config::listener::{FilterChain, Listener};

/// The chain that takes the connection; `None`: it is closed.
pub fn choose(listener: &Listener, client: &Client) -> Option<Arc<FilterChain>> {
    let found = &client.found;
    let hello = found.hello.as_ref();
    let input = MatchInput {
        destination: client.local.socket(),
        server_name: hello.and_then(|hello| hello.server_name.as_deref()),
        transport_protocol: found.transport_protocol(),
        application_protocols: &[] as &[&[u8]],
        direct_source: client.direct_peer.socket(),
        source: client.peer.socket(),
    };
    let chain = match (hello, found.http) {
        (Some(hello), _) => listener.chains.find(&input.speaking(&hello.alpn)),
        (None, Some(http)) => listener.chains.find(&input.speaking(&[http])),
        (None, None) => listener.chains.find(&input),
    };
    chain.cloned()
}
