//! What filters learn about a connection and leave on it, for other filters, formats and the access
//! log.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use super::filter_state::FilterState;
use crate::http::message::Version;
use crate::listener::proxy_protocol::Tlv;
use crate::tls::fingerprint::Fingerprints;
use crate::upstream::{Client, OriginalSource};

/// Dynamic metadata: JSON objects by namespace.
pub type Metadata = BTreeMap<Box<str>, serde_json::Map<String, serde_json::Value>>;

/// The state of one connection. Empty, as mostly, it holds no memory of its own.
#[derive(Debug, Default)]
pub struct ConnectionState {
    /// Typed values by name.
    pub filter_state: RefCell<FilterState>,
    /// `%DYNAMIC_METADATA(namespace:...)%`
    pub metadata: RefCell<Metadata>,
    /// `%DOWNSTREAM_LOCAL_CLOSE_REASON%`: why we closed it, in Envoy's words; empty where we did not.
    pub close_reason: Cell<&'static str>,
    /// `%CONNECTION_TERMINATION_DETAILS%`: which filter ended it and why; empty if none did.
    pub termination_details: RefCell<Box<str>>,
    /// What came with the PROXY protocol and may be said to the endpoint (`pass_through_tlvs`).
    pub passed_tlvs: RefCell<Option<Rc<[Tlv]>>>,
    /// The address that connections to endpoints come from (original_src).
    pub original_source: Cell<Option<OriginalSource>>,
    /// What its TLS tells of its client, where tls_inspector is to tell.
    pub fingerprints: Option<Box<Fingerprints>>,
    /// The version of HTTP of its last request.
    pub http: Cell<Option<Version>>,
    /// Its line in the listener's access log is written: tcp_proxy knows more of it than the
    /// listener.
    pub is_logged: Cell<bool>,
}

impl ConnectionState {
    /// What the upstream side needs to know of it, but for its number and its ends.
    pub fn upstream_client(&self) -> Client {
        Client {
            source: self.original_source.get(),
            tlvs: self.passed_tlvs.borrow().clone(),
            ..Client::default()
        }
    }

    /// Sets one value of the dynamic metadata.
    pub fn set_metadata(&self, namespace: &str, key: &str, value: serde_json::Value) {
        let mut metadata = self.metadata.borrow_mut();
        let object = metadata.entry(namespace.into()).or_default();
        object.insert(key.to_owned(), value);
    }
}
