//! The last changes to every response, ours or upstream's: `server`, `date`, `x-request-id`.

use super::context::Context;
use crate::config::http_connection_manager::ServerHeader;
use crate::http::headers::Name;
use crate::http::message::{RequestHead, ResponseHead};

/// Finishes a response's head.
pub fn finish(context: &Context, request: &RequestHead, response: &mut ResponseHead) {
    let manager = &context.manager;
    match manager.server_header {
        ServerHeader::Overwrite => response.headers.set(Name::Server, &manager.server_name),
        ServerHeader::AppendIfAbsent if !response.headers.contains(Name::Server) => {
            response
                .headers
                .push_known(Name::Server, &manager.server_name);
        }
        ServerHeader::AppendIfAbsent | ServerHeader::PassThrough => {}
    }
    if !response.headers.contains(Name::Date) {
        context
            .worker
            .date
            .with(|date| response.headers.push_known(Name::Date, date));
    }
    if manager.request_id_in_response
        && let Some(id) = request.headers.first(Name::XRequestId)
    {
        response.headers.set(Name::XRequestId, id);
    }
    if !manager.via.is_empty() {
        response
            .headers
            .append_after(Name::Via, b", ", &manager.via);
    }
}
