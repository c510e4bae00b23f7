//! Which protocol a cluster speaks: `HttpProtocolOptions`, or the older fields of `Cluster`.

use envoy_types::pb::envoy::config::cluster::v3 as cluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::ClusterProtocolSelection;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::upstreams::http::v3 as upstreams;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions,
};
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::explicit_http_config::ProtocolConfig;

use super::extension::{Build, Extension, decode, resolve};
use super::fields::{Together as _, Within as _, enumeration, one_of, refuse};
use super::http_protocol::{self, Common};
use crate::config::cluster::UpstreamProtocol;
use crate::config::error::{ConfigError, Result};
use crate::config::http_protocol::{Http1Settings, Http2Settings};

/// What a cluster's HTTP connections are like.
#[derive(Debug)]
pub struct Protocol {
    /// Which protocol.
    pub protocol: UpstreamProtocol,
    /// HTTP/1's settings, where it comes to that.
    pub http1: Http1Settings,
    /// HTTP/2's settings, where it comes to that.
    pub http2: Http2Settings,
    /// What both protocols have.
    pub common: Common,
}

/// What `typed_extension_protocol_options` may hold.
pub const OPTIONS: &[Extension<Build<Protocol>>] = &[Extension {
    type_name: "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
    build: |bytes| options(&decode::<upstreams::HttpProtocolOptions>(bytes)?),
}];

/// The protocol of a cluster.
pub fn build(proto: &cluster::Cluster) -> Result<Protocol> {
    let mut extensions = proto.typed_extension_protocol_options.iter();
    let Some((key, any)) = extensions.next() else {
        return of_older_fields(proto);
    };
    let field = format!("typed_extension_protocol_options[{key}]");
    refuse(
        extensions.next().is_some(),
        "typed_extension_protocol_options",
        "must hold one set of options",
    )?;
    let extension = resolve(OPTIONS, "set of protocol options", any)
        .map_err(|error| error.at(|_| field.clone()))?;
    (extension.build)(&any.value).within(field)
}

fn of_older_fields(proto: &cluster::Cluster) -> Result<Protocol> {
    let selection: ClusterProtocolSelection =
        enumeration(proto.protocol_selection, "protocol_selection")?;
    let (http1, http2, common, ()) = (
        http_protocol::http1(&proto.http_protocol_options).within("http_protocol_options"),
        http_protocol::http2(&proto.http2_protocol_options).within("http2_protocol_options"),
        http_protocol::common(&proto.common_http_protocol_options)
            .within("common_http_protocol_options"),
        refuse_upstream(&proto.upstream_http_protocol_options),
    )
        .together()?;
    Ok(Protocol {
        protocol: match selection {
            ClusterProtocolSelection::UseDownstreamProtocol => UpstreamProtocol::Downstream,
            ClusterProtocolSelection::UseConfiguredProtocol
                if proto.http2_protocol_options.is_some() =>
            {
                UpstreamProtocol::Http2
            }
            ClusterProtocolSelection::UseConfiguredProtocol => UpstreamProtocol::Http1,
        },
        http1,
        http2,
        common,
    })
}

fn options(proto: &upstreams::HttpProtocolOptions) -> Result<Protocol> {
    let (common, (), (protocol, http1, http2)) = (
        http_protocol::common(&proto.common_http_protocol_options)
            .within("common_http_protocol_options"),
        refuse_upstream(&proto.upstream_http_protocol_options),
        chosen(proto),
    )
        .together()?;
    Ok(Protocol {
        protocol,
        http1,
        http2,
        common,
    })
}

/// The protocol, and the settings that it or both need.
fn chosen(
    proto: &upstreams::HttpProtocolOptions,
) -> Result<(UpstreamProtocol, Http1Settings, Http2Settings)> {
    let chosen = one_of::<upstreams::HttpProtocolOptions, _>(
        &proto.upstream_protocol_options,
        "explicit_http_config",
    )?;
    let (protocol, field, http1, http2) = match chosen {
        UpstreamProtocolOptions::ExplicitHttpConfig(explicit) => {
            let chosen =
                one_of::<ExplicitHttpConfig, _>(&explicit.protocol_config, "http_protocol_options");
            match chosen.within("explicit_http_config")? {
                ProtocolConfig::HttpProtocolOptions(http1) => (
                    UpstreamProtocol::Http1,
                    "explicit_http_config",
                    Some(http1.clone()),
                    None,
                ),
                ProtocolConfig::Http2ProtocolOptions(http2) => (
                    UpstreamProtocol::Http2,
                    "explicit_http_config",
                    None,
                    Some(http2.clone()),
                ),
                ProtocolConfig::Http3ProtocolOptions(_) => {
                    return Err(ConfigError::new(
                        "explicit_http_config.http3_protocol_options",
                        "HTTP/3 is not supported",
                    ));
                }
            }
        }
        UpstreamProtocolOptions::UseDownstreamProtocolConfig(both) => (
            UpstreamProtocol::Downstream,
            "use_downstream_protocol_config",
            both.http_protocol_options.clone(),
            both.http2_protocol_options.clone(),
        ),
        UpstreamProtocolOptions::AutoConfig(both) => (
            UpstreamProtocol::Auto,
            "auto_config",
            both.http_protocol_options.clone(),
            both.http2_protocol_options.clone(),
        ),
    };
    let (http1, http2) = (
        http_protocol::http1(&http1).within("http_protocol_options"),
        http_protocol::http2(&http2).within("http2_protocol_options"),
    )
        .together()
        .within(field)?;
    Ok((protocol, http1, http2))
}

fn refuse_upstream(proto: &Option<core::UpstreamHttpProtocolOptions>) -> Result<()> {
    let Some(proto) = proto else {
        return Ok(());
    };
    refuse(
        proto.auto_sni,
        "upstream_http_protocol_options.auto_sni",
        "is not supported yet: set sni in the transport socket",
    )?;
    refuse(
        proto.auto_san_validation,
        "upstream_http_protocol_options.auto_san_validation",
        "is not supported yet: use match_typed_subject_alt_names",
    )
}
