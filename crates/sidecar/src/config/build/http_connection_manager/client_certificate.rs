//! What the next hop is told of the client's certificate.

use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager as fields_of;
use envoy_types::pb::google::protobuf::Any;

use crate::config::build::extension::{Build, Extension, decode, resolve};
use crate::config::build::fields::{Together as _, Within as _, enumeration, flag};
use crate::config::build::matching;
use crate::config::error::Result;
use crate::config::http_connection_manager::{
    ClientCertDetails, ClientCertRule, ForwardClientCert,
};
use crate::matching::Tree;

/// The rule for every request, and the tree of those for some.
pub fn build(
    proto: &hcm::HttpConnectionManager,
) -> Result<(ClientCertRule, Option<Box<Tree<ClientCertRule>>>)> {
    let matcher = proto.forward_client_cert_matcher.as_ref().map(|matcher| {
        let mut action = |any: &Any| {
            let extension = resolve(ACTIONS, "action", any)?;
            (extension.build)(&any.value).within("typed_config")
        };
        matching::build(matcher, matching::REQUEST, &mut action)
            .map(Box::new)
            .within("forward_client_cert_matcher")
    });
    (
        rule(
            proto.forward_client_cert_details,
            proto.set_current_client_cert_details,
        ),
        matcher.transpose(),
    )
        .together()
}

const ACTIONS: &[Extension<Build<ClientCertRule>>] = &[Extension {
    type_name: "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.ForwardClientCertConfig",
    build: |bytes| {
        let proto = decode::<fields_of::ForwardClientCertConfig>(bytes)?;
        rule(
            proto.forward_client_cert_details,
            proto.set_current_client_cert_details,
        )
    },
}];

fn rule(
    forward: i32,
    details: Option<fields_of::SetCurrentClientCertDetails>,
) -> Result<ClientCertRule> {
    let details = details.unwrap_or_default();
    let (forward, format) = (
        enumeration(forward, "forward_client_cert_details"),
        enumeration::<fields_of::ForwardClientCertFormat>(details.format, "format")
            .within("set_current_client_cert_details"),
    )
        .together()?;
    use fields_of::ForwardClientCertDetails as Proto;
    Ok(ClientCertRule {
        forward: match forward {
            Proto::Sanitize => ForwardClientCert::Sanitize,
            Proto::ForwardOnly => ForwardClientCert::ForwardOnly,
            Proto::AppendForward => ForwardClientCert::AppendForward,
            Proto::SanitizeSet => ForwardClientCert::SanitizeSet,
            Proto::AlwaysForwardOnly => ForwardClientCert::AlwaysForwardOnly,
        },
        details: ClientCertDetails {
            subject: flag(&details.subject).unwrap_or(false),
            cert: details.cert,
            chain: details.chain,
            dns: details.dns,
            uri: details.uri,
            issuer: details.issuer,
            json: format == fields_of::ForwardClientCertFormat::Json,
        },
    })
}
