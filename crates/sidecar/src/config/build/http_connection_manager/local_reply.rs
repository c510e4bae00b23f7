//! `LocalReplyConfig`.

use envoy_types::pb::envoy::config::core::v3::SubstitutionFormatString;
use envoy_types::pb::envoy::config::core::v3::substitution_format_string::Format as ProtoFormat;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;

use crate::config::build::fields::{
    Together as _, Within as _, bounded, each, header_text, required,
};
use crate::config::build::{access_log, access_log_filter, data_source, header_changes};
use crate::config::error::Result;
use crate::config::local_reply::{BodyFormat, LocalReplies, ReplyMapper};

/// Builds how answers of our own are changed; `None`: not at all.
pub fn build(proto: &Option<hcm::LocalReplyConfig>) -> Result<Option<Box<LocalReplies>>> {
    let Some(proto) = proto else { return Ok(None) };
    let lists = (
        each("mappers", &proto.mappers, mapper),
        body_format(&proto.body_format, "body_format"),
    );
    let (mappers, format) = lists.together().within("local_reply_config")?;
    Ok(Some(Box::new(LocalReplies { mappers, format })))
}

fn mapper(proto: &hcm::ResponseMapper) -> Result<ReplyMapper> {
    let filter = required(&proto.filter, "filter")
        .and_then(|filter| access_log_filter::build(filter).within("filter"));
    let body = proto.body.as_ref().map(data_source::read_once).transpose();
    let (filter, status, body, format, headers) = (
        filter,
        bounded(&proto.status_code, 200..=599, "status_code"),
        body.within("body"),
        body_format(&proto.body_format_override, "body_format_override"),
        header_changes::only_additions("headers_to_add", &proto.headers_to_add),
    )
        .together()?;
    Ok(ReplyMapper {
        filter,
        status: status.and_then(|status| u16::try_from(status).ok()),
        body: body.flatten().map(|data| data.bytes.into()),
        format,
        headers,
    })
}

/// A `SubstitutionFormatString` for a body.
pub fn body_format(
    proto: &Option<SubstitutionFormatString>,
    field: &str,
) -> Result<Option<BodyFormat>> {
    let Some(proto) = proto else { return Ok(None) };
    let content_type = match (proto.content_type.as_str(), &proto.format) {
        ("", Some(ProtoFormat::JsonFormat(_))) => "application/json",
        ("", _) => "text/plain",
        (content_type, _) => content_type,
    };
    let built = (
        access_log::substitution(proto),
        header_text(content_type.as_bytes(), "content_type"),
    );
    let (format, content_type) = built.together().within(field)?;
    Ok(Some(BodyFormat {
        format,
        content_type: content_type.into(),
    }))
}
