//! What is known of a connection that its filter chain has, and of a request on it.

use outrider_identity::CertificateDetails;

use super::connection::{address, port, server_name};
use super::input::{Input, Inputs, Known};
use super::request::RequestInputs;
use crate::network::filter_state::Value;
use crate::telemetry::access_log::record::Record;

/// The inputs of filters.
pub struct RecordInputs<'a, 'b>(pub &'a Record<'b>);

impl Inputs for RecordInputs<'_, '_> {
    fn with<R>(&self, input: &Input, look: impl FnOnce(Option<Known<'_>>) -> R) -> R {
        let connection = self.0.connection;
        match input {
            Input::DestinationIp => address(connection.local.socket(), look),
            Input::DestinationPort => port(connection.local.socket(), look),
            Input::SourceIp => address(connection.peer.socket(), look),
            Input::SourcePort => port(connection.peer.socket(), look),
            Input::DirectSourceIp => address(connection.direct_peer.socket(), look),
            Input::ServerName => server_name(connection.server_name.as_deref(), look),
            Input::UriSan => self.names(|details| details.uris.join(","), look),
            Input::DnsSan => self.names(|details| details.dns_names.join(","), look),
            Input::Subject => self.names(|details| details.subject, look),
            Input::FilterState(key, field) => self.0.with_filter_state(key, |value| {
                let text = value.and_then(|value| match field {
                    None => Value::plain(value),
                    Some(field) => value.field(field),
                });
                look(text.as_deref().map(|text| Known::Text(text.as_bytes())))
            }),
            Input::Fixed(value) => look(value.as_deref().map(Known::Text)),
            Input::Header(_) => match self.0.request {
                Some(request) => RequestInputs(request).with(input, look),
                None => look(None),
            },
            // The builder lets none of these in.
            Input::SourceType | Input::TransportProtocol | Input::ApplicationProtocol => look(None),
        }
    }
}

impl RecordInputs<'_, '_> {
    /// What the client's certificate says; empty is as good as nothing.
    fn names<R>(
        &self,
        text: impl FnOnce(CertificateDetails) -> String,
        look: impl FnOnce(Option<Known<'_>>) -> R,
    ) -> R {
        let tls = self.0.connection.tls.as_ref();
        let leaf = tls.and_then(|handshake| handshake.peer_chain.first());
        let details = leaf.and_then(|leaf| CertificateDetails::parse(leaf).ok());
        let text = details.map(text).filter(|text| !text.is_empty());
        look(text.as_deref().map(|text| Known::Text(text.as_bytes())))
    }
}
