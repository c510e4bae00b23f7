//! `Permission` and `Principal`: what a policy asks of a connection or a request.

use std::ops::Range;

use ipnet::IpNet;
use outrider_identity::CertificateDetails;

use crate::config::address::Address;
use crate::config::filter_state_matcher::FilterStateMatcher;
use crate::config::matcher::{HeaderMatcher, StringMatcher};
use crate::config::metadata_matcher::MetadataMatcher;
use crate::config::secret::SanMatcher;
use crate::matching::server_name;
use crate::telemetry::access_log::record::Record;
use crate::tls::names;
use crate::tls::stream::Handshake;

/// One rule. Permissions and principals differ in which of these they may be.
#[derive(Debug)]
pub enum Rule {
    /// `any`
    Always,
    /// `and_rules`, `and_ids`
    All(Vec<Rule>),
    /// `or_rules`, `or_ids`
    Any(Vec<Rule>),
    /// `not_rule`, `not_id`
    Not(Box<Rule>),
    /// `header`, of a request.
    Header(HeaderMatcher),
    /// `url_path`, of a request, without its query.
    Path(StringMatcher),
    /// `destination_ip`, `source_ip`, `direct_remote_ip`, `remote_ip`
    Address(Whose, IpNet),
    /// `destination_port`, `destination_port_range`: up to the end without it.
    Port(Range<u32>),
    /// `metadata`, `sourced_metadata`
    Metadata(MetadataMatcher),
    /// `requested_server_name`: of the ClientHello; empty where there is none.
    ServerName(StringMatcher),
    /// `authenticated`: a connection with TLS, and one of the client's names.
    Authenticated(Option<StringMatcher>),
    /// `custom` with `mtls_authenticated`: a client whose certificate is valid, and one of its
    /// names.
    Validated(Option<SanMatcher>),
    /// `filter_state`
    FilterState(FilterStateMatcher),
}

/// Whose address a rule looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Where the client was connecting to.
    Destination,
    /// `source_ip`: the connection's other end, as the PROXY protocol tells.
    Connection,
    /// `direct_remote_ip`: the socket's other end.
    Socket,
    /// `remote_ip`: the client, as x-forwarded-for tells where that is trusted.
    Client,
}

impl Rule {
    /// Whether it holds.
    pub fn holds(&self, record: &Record<'_>) -> bool {
        let connection = record.connection;
        match self {
            Rule::Always => true,
            Rule::All(all) => all.iter().all(|rule| rule.holds(record)),
            Rule::Any(any) => any.iter().any(|rule| rule.holds(record)),
            Rule::Not(rule) => !rule.holds(record),
            Rule::Header(matcher) => record
                .request
                .is_some_and(|request| matcher.matches(request)),
            Rule::Path(matcher) => record.request.is_some_and(|request| {
                let path: &[u8] = &request.path;
                let end = path.iter().position(|byte| matches!(byte, b'?' | b'#'));
                matcher.matches(&path[..end.unwrap_or(path.len())])
            }),
            Rule::Address(whose, range) => {
                let of = |address: &Address| address.socket().map(|address| address.ip());
                let ip = match whose {
                    Whose::Destination => of(&connection.local),
                    Whose::Connection => of(&connection.peer),
                    Whose::Socket => of(&connection.direct_peer),
                    Whose::Client => match record.client {
                        Some(client) => Some(client.ip()),
                        None => of(&connection.peer),
                    },
                };
                ip.is_some_and(|ip| range.contains(&ip.to_canonical()))
            }
            Rule::Port(ports) => connection
                .local
                .socket()
                .is_some_and(|address| ports.contains(&u32::from(address.port()))),
            Rule::Metadata(matcher) => {
                record.with_metadata(&matcher.namespace, |object| matcher.matches(object))
            }
            Rule::ServerName(matcher) => server_name(connection.server_name.as_deref(), |name| {
                matcher.matches(name.map_or(b"", |name| name.text()))
            }),
            Rule::Authenticated(name) => connection.tls.as_ref().is_some_and(|handshake| {
                name.as_ref().is_none_or(|name| has_name(handshake, name))
            }),
            Rule::Validated(name) => connection.tls.as_ref().is_some_and(|handshake| {
                let leaf = handshake.peer_chain.first();
                handshake.peer_validated
                    && leaf.is_some_and(|leaf| {
                        name.as_ref().is_none_or(|name| {
                            CertificateDetails::parse(leaf)
                                .is_ok_and(|details| names::matches(name, &details))
                        })
                    })
            }),
            Rule::FilterState(matcher) => record.with_filter_state(&matcher.key, |value| {
                value.is_some_and(|value| matcher.matches(value))
            }),
        }
    }
}

/// Whether one of the client's URI and DNS names matches, or its subject; the subject is empty
/// where there is no certificate.
fn has_name(handshake: &Handshake, name: &StringMatcher) -> bool {
    let text = |text: &str| name.matches(text.as_bytes());
    if handshake.peer_uris.iter().any(|uri| text(uri)) {
        return true;
    }
    let leaf = handshake.peer_chain.first();
    match leaf.map(|leaf| CertificateDetails::parse(leaf)) {
        Some(Ok(details)) => {
            details.dns_names.iter().any(|dns| text(dns)) || text(&details.subject)
        }
        _ => text(""),
    }
}
