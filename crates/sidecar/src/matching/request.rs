//! What is known of a request when its route is chosen.

use super::input::{Input, Inputs, Known};
use crate::http::message::RequestHead;

/// The inputs of `VirtualHost.matcher`.
pub struct RequestInputs<'a>(pub &'a RequestHead);

impl Inputs for RequestInputs<'_> {
    fn with<R>(&self, input: &Input, look: impl FnOnce(Option<Known<'_>>) -> R) -> R {
        match input {
            Input::Header(name) => self.header(name, look),
            // The builder lets none of these in.
            _ => look(None),
        }
    }
}

impl RequestInputs<'_> {
    /// The value of a header; of one that came several times all values, joined with commas.
    fn header<R>(&self, name: &[u8], look: impl FnOnce(Option<Known<'_>>) -> R) -> R {
        let request = self.0;
        match name {
            b":path" => look(Some(Known::Text(&request.path))),
            b":method" => look(Some(Known::Text(&request.method))),
            b":authority" | b"host" => look(Some(Known::Text(&request.authority))),
            b":scheme" => look(Some(Known::Text(request.scheme.as_bytes()))),
            b":protocol" => look(request.protocol.as_deref().map(Known::Text)),
            name => {
                let mut values = request.headers.named(name);
                match (values.next(), values.next()) {
                    (first, None) => look(first.map(Known::Text)),
                    (first, second) => {
                        let all: Vec<&[u8]> =
                            first.into_iter().chain(second).chain(values).collect();
                        look(Some(Known::Text(&all.join(&b','))))
                    }
                }
            }
        }
    }
}
