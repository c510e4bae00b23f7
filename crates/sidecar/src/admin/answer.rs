//! What answers are made of.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;

use crate::runtime::http_server::Page;

/// Plain text.
pub fn text(status: StatusCode, page: impl Into<String>) -> Page {
    respond(status, "text/plain; charset=UTF-8", page.into())
}

/// What a command that was carried out answers.
pub fn ok() -> Page {
    text(StatusCode::OK, "OK\n")
}

/// JSON.
pub fn json(page: &serde_json::Value) -> Page {
    respond(StatusCode::OK, "application/json", format!("{page:#}\n"))
}

/// HTML.
pub fn html(page: String) -> Page {
    respond(StatusCode::OK, "text/html; charset=UTF-8", page)
}

/// A page of that type.
pub fn respond(status: StatusCode, content_type: &'static str, page: String) -> Page {
    let mut response = Response::new(Full::new(Bytes::from(page)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-cache, max-age=0"),
    );
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}
