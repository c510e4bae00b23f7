//! dynamic_forward_proxy: the cluster connects to the host that the request asks for.

use std::rc::Rc;

use crate::config::dynamic_forward_proxy::DynamicHost;
use crate::config::http_filter::HostRewrite;
use crate::http::connection_manager::context::Context;
use crate::http::message::RequestHead;
use crate::http::stream_info::StreamInfo;

/// Takes the host that a route gives, and notes it: of filter state, where that may tell it, else of the request's authority.
pub fn on_request(
    context: &Context,
    from_filter_state: bool,
    rewrite: Option<&HostRewrite>,
    request: &mut RequestHead,
    info: &mut StreamInfo,
) {
    let host = match rewrite {
        None => None,
        Some(HostRewrite::Literal(host)) => Some(host.to_vec()),
        Some(HostRewrite::Header(name)) => {
            let value = request.headers.named(name).next();
            value.filter(|value| !value.is_empty()).map(<[u8]>::to_vec)
        }
    };
    if let Some(host) = host {
        if !host.iter().all(|byte| is_of_authority(*byte)) {
            // A client's header: what it holds must not become part of another head.
            info.dynamic_host = Some(Rc::new(DynamicHost {
                host: "".into(),
                port: None,
            }));
            return;
        }
        request.authority = host;
    }
    let asked = DynamicHost::of_authority(&request.authority);
    let told = from_filter_state.then(|| told(context, info)).flatten();
    let host = match (told, asked) {
        (Some((host, port)), asked) => Some(DynamicHost {
            host: host.into(),
            port: port.or(asked.and_then(|asked| asked.port)),
        }),
        (None, asked) => asked,
    };
    info.dynamic_host = host.map(Rc::new);
}

fn told(context: &Context, info: &StreamInfo) -> Option<(String, Option<u16>)> {
    let of_connection = context.connection.state.filter_state.borrow();
    let of_request = info.state.as_ref().map(|state| &state.filter_state);
    let request_host = of_request.and_then(|state| state.dynamic_host());
    let host = request_host.or_else(|| of_connection.dynamic_host())?;
    let request_port = of_request.and_then(|state| state.dynamic_port());
    let port = request_port.or_else(|| of_connection.dynamic_port());
    Some((host.to_ascii_lowercase(), port))
}

/// RFC 3986, section 3.2, without user information.
fn is_of_authority(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:[]%".contains(&byte)
}
