//! `original_ip_detection_extensions`, and `xff_num_trusted_hops` where there are none.

use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use envoy_types::pb::envoy::extensions::http::original_ip_detection::custom_header::v3 as custom_header;
use envoy_types::pb::envoy::extensions::http::original_ip_detection::xff::v3 as xff;

use crate::config::build::extension::{Build, Extension, decode, resolve};
use crate::config::build::fields::{Within as _, cidr, each, flag, header_name, refuse, required};
use crate::config::error::Result;
use crate::config::http_connection_manager::OriginalIp;

const EXTENSIONS: &[Extension<Build<OriginalIp>>] = &[
    Extension {
        type_name: "envoy.extensions.http.original_ip_detection.xff.v3.XffConfig",
        build: |bytes| of_list(&decode::<xff::XffConfig>(bytes)?),
    },
    Extension {
        type_name: "envoy.extensions.http.original_ip_detection.custom_header.v3.CustomHeaderConfig",
        build: |bytes| of_header(&decode::<custom_header::CustomHeaderConfig>(bytes)?),
    },
];

/// Who is asked, in order, for the client's address.
pub fn build(proto: &hcm::HttpConnectionManager) -> Result<Vec<OriginalIp>> {
    let field = "original_ip_detection_extensions";
    let configured = each(
        field,
        &proto.original_ip_detection_extensions,
        |extension| {
            let any = required(&extension.typed_config, "typed_config")?;
            let extension = resolve(EXTENSIONS, "original IP detection extension", any)?;
            (extension.build)(&any.value).within("typed_config")
        },
    )?;
    if configured.is_empty() {
        return Ok(vec![OriginalIp::Hops {
            hops: proto.xff_num_trusted_hops,
            append: false,
        }]);
    }
    refuse(
        flag(&proto.use_remote_address) == Some(true),
        field,
        "cannot be set together with use_remote_address",
    )?;
    refuse(
        proto.xff_num_trusted_hops > 0,
        field,
        "cannot be set together with xff_num_trusted_hops: set it in the extension xff",
    )?;
    Ok(configured)
}

fn of_list(proto: &xff::XffConfig) -> Result<OriginalIp> {
    let append = flag(&proto.skip_xff_append) == Some(false);
    let Some(trusted) = &proto.xff_trusted_cidrs else {
        return Ok(OriginalIp::Hops {
            hops: proto.xff_num_trusted_hops,
            append,
        });
    };
    refuse(
        proto.xff_num_trusted_hops > 0,
        "xff_num_trusted_hops",
        "xff_trusted_cidrs is set too, and only one of the two can be",
    )?;
    let ranges = each("cidrs", &trusted.cidrs, cidr).within("xff_trusted_cidrs")?;
    Ok(OriginalIp::Trusted { ranges, append })
}

fn of_header(proto: &custom_header::CustomHeaderConfig) -> Result<OriginalIp> {
    /// What is not an error is not a refusal: Envoy answers so instead.
    const FORBIDDEN: u16 = 403;
    let reject = proto.reject_with_status.as_ref().map(|status| {
        let code = u16::try_from(status.code).unwrap_or_default();
        if (400..600).contains(&code) {
            code
        } else {
            FORBIDDEN
        }
    });
    Ok(OriginalIp::Header {
        name: header_name(&proto.header_name, "header_name")?,
        trusted: proto.allow_extension_to_set_address_as_trusted,
        reject,
    })
}
