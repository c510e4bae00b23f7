//! `local_reply_config`: how the configuration changes answers of our own.

use super::context::Context;
use super::local_reply::LocalReply;
use crate::config::local_reply::LocalReplies;
use crate::http::message::{RequestHead, ResponseHead};
use crate::http::router::apply_changes;
use crate::http::stream_info::StreamInfo;
use crate::telemetry::access_log::record::Record;

/// Changes an answer and its head by the first mapper that fits, and by the format of the bodies.
pub fn apply(
    config: &LocalReplies,
    context: &Context,
    info: &mut StreamInfo,
    request: &RequestHead,
    answer: &mut LocalReply,
    head: &mut ResponseHead,
) {
    let mapper = config.mappers.iter().find(|mapper| {
        let record = info.record(&context.connection, Some(request), Some(head), None);
        mapper.filter.admits(&record, context.worker.generator())
    });
    if let Some(mapper) = mapper {
        if let Some(body) = &mapper.body {
            answer.body = body.to_vec().into();
        }
        let present = ResponseHead {
            headers: std::mem::take(&mut head.headers),
            ..head.clone()
        };
        head.headers = present.headers.clone();
        apply_changes(&mut head.headers, &mapper.headers, |format, out| {
            let record = Record {
                local_reply_body: &answer.body,
                ..info.record(&context.connection, Some(request), Some(&present), None)
            };
            format.render(&record, out);
        });
        if let Some(status) = mapper.status {
            answer.status = status;
            answer.grpc_status = answer.grpc_status.filter(|_| status == head.status);
            head.status = status;
            info.status = status;
        }
    }
    let format = mapper.and_then(|mapper| mapper.format.as_ref());
    if let Some(format) = format.or(config.format.as_ref()) {
        let mut body = Vec::new();
        let record = Record {
            local_reply_body: &answer.body,
            ..info.record(&context.connection, Some(request), Some(head), None)
        };
        format.format.render(&record, &mut body);
        answer.body = body.into();
        answer.content_type = format.content_type.to_vec().into();
    }
}
