//! Answers that the proxy gives itself.

use std::borrow::Cow;

use crate::http::headers::Name;
use crate::http::message::{BodyLength, RequestHead, ResponseHead, Version};
use crate::telemetry::access_log::flags::Flags;
use crate::telemetry::access_log::format::grpc;

/// An answer of our own instead of upstream's.
#[derive(Debug)]
pub struct LocalReply {
    /// The status; a gRPC client gets it as a `grpc-status`.
    pub status: u16,
    /// A short text for people.
    pub body: Cow<'static, [u8]>,
    /// What the body is.
    pub content_type: Cow<'static, [u8]>,
    /// `%RESPONSE_CODE_DETAILS%`
    pub details: Cow<'static, str>,
    /// Response flags to set.
    pub flags: Flags,
    /// `location`, for redirects.
    pub location: Option<Vec<u8>>,
    /// Whether a circuit breaker refused it, which `x-envoy-overloaded` tells.
    pub overloaded: bool,
    /// Whether an overload action refused it, which `x-envoy-local-overloaded` tells.
    pub locally_overloaded: bool,
    /// Whether discovery wants such requests turned away, all of them or some, which
    /// `x-envoy-unconditional-drop-overload` and `x-envoy-drop-overload` tell.
    pub dropped: Option<bool>,
    /// Whether the connection (HTTP/1) is closed after it.
    pub close: bool,
    /// The `grpc-status`, where another one than the status stands for is meant.
    pub grpc_status: Option<u8>,
}

impl LocalReply {
    /// A reply that says why, in Envoy's words.
    pub fn new(status: u16, body: &'static str, details: &'static str, flags: Flags) -> Self {
        LocalReply {
            status,
            body: body.as_bytes().into(),
            content_type: b"text/plain".as_slice().into(),
            details: details.into(),
            flags,
            location: None,
            overloaded: false,
            locally_overloaded: false,
            dropped: None,
            close: false,
            grpc_status: None,
        }
    }

    /// The answer where a route would make a host or a path of the request that is none.
    pub fn invalid_rewrite() -> Self {
        LocalReply::new(400, "", "invalid_rewrite", Flags::NONE)
    }

    /// The same, with this status for gRPC clients.
    pub fn with_grpc_status(mut self, status: u8) -> Self {
        self.grpc_status = Some(status);
        self
    }

    /// The same, and the connection is closed after it.
    pub fn closing(mut self) -> Self {
        self.close = true;
        self
    }

    /// Fills `head` and answers the bytes of the body, as this request's client expects them.
    /// `change` may change the answer and the head before it is known how they are told.
    pub fn render(
        &mut self,
        request: &RequestHead,
        head: &mut ResponseHead,
        change: impl FnOnce(&mut LocalReply, &mut ResponseHead),
    ) -> &[u8] {
        head.headers.clear();
        head.reason.clear();
        head.version = Version::Http11;
        head.status = self.status;
        if let Some(location) = &self.location {
            head.headers.push_known(Name::Location, location);
        }
        if self.overloaded {
            head.headers.push(b"x-envoy-overloaded", b"true");
        }
        if let Some(all) = self.dropped {
            let name: &[u8] = match all {
                true => b"x-envoy-unconditional-drop-overload",
                false => b"x-envoy-drop-overload",
            };
            head.headers.push(name, b"true");
        }
        if self.locally_overloaded {
            head.headers.push(b"x-envoy-local-overloaded", b"true");
        }
        change(self, head);
        // As with Envoy, what GET would get of such an answer is left open.
        let nothing = if request.method == b"HEAD" {
            BodyLength::Streamed
        } else {
            BodyLength::None
        };
        if request.is_grpc() {
            head.status = 200;
            head.headers.set(Name::ContentType, b"application/grpc");
            let mut code = itoa::Buffer::new();
            let code = code.format(
                self.grpc_status
                    .unwrap_or_else(|| grpc::of_http(self.status)),
            );
            head.headers.push_known(Name::GrpcStatus, code.as_bytes());
            // The line feed at the end of JSON has no place in a header.
            let message = self.body.strip_suffix(b"\n").unwrap_or(&self.body);
            if !message.is_empty() && request.method != b"HEAD" {
                head.headers
                    .push_known(Name::GrpcMessage, &percent_encoded(message));
            }
            head.body = nothing;
            return &[];
        }
        head.status = self.status;
        if self.body.is_empty() {
            head.body = nothing;
            return &[];
        }
        if !head.headers.contains(Name::ContentType) {
            head.headers
                .push_known(Name::ContentType, &self.content_type);
        }
        head.body = BodyLength::Sized(self.body.len() as u64);
        if request.method == b"HEAD" {
            let mut length = itoa::Buffer::new();
            let length = length.format(self.body.len());
            head.headers
                .push_known(Name::ContentLength, length.as_bytes());
            head.body = BodyLength::None;
            return &[];
        }
        &self.body
    }
}

/// `grpc-message` is percent-encoded (gRPC over HTTP/2, "Responses").
fn percent_encoded(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for byte in text {
        if (0x20..=0x7e).contains(byte) && *byte != b'%' {
            out.push(*byte);
        } else {
            out.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(content_type: &str, method: &str) -> RequestHead {
        let mut request = RequestHead::new();
        request.method = method.into();
        request
            .headers
            .push(b"content-type", content_type.as_bytes());
        request
    }

    #[test]
    fn grpc_clients_get_a_grpc_status() {
        let mut reply = LocalReply::new(503, "no healthy upstream", "x", Flags::NONE);
        for content_type in [
            "application/grpc",
            "application/grpc+proto",
            "Application/GRPC;x",
        ] {
            let mut head = ResponseHead::new();
            assert!(
                reply
                    .render(&request(content_type, "POST"), &mut head, |_, _| {})
                    .is_empty()
            );
            assert_eq!(head.status, 200);
            assert_eq!(head.headers.first(Name::GrpcStatus), Some(&b"14"[..]));
            assert_eq!(
                head.headers.first(Name::GrpcMessage),
                Some(&b"no healthy upstream"[..])
            );
        }
        let mut head = ResponseHead::new();
        assert_eq!(
            reply.render(
                &request("application/grpc-web", "POST"),
                &mut head,
                |_, _| {}
            ),
            b"no healthy upstream"
        );
        assert_eq!(head.status, 503);
    }

    #[test]
    fn an_answer_to_head_has_the_length_and_no_body() {
        let mut reply = LocalReply::new(404, "gone", "x", Flags::NONE);
        let mut head = ResponseHead::new();
        assert!(
            reply
                .render(&request("text/plain", "HEAD"), &mut head, |_, _| {})
                .is_empty()
        );
        assert_eq!(head.headers.first(Name::ContentLength), Some(&b"4"[..]));
        assert_eq!(head.body, BodyLength::None);
    }
}
