//! HTTP/2: exchanges through the h2 crate, and the frames that decide over connections.

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::task::JoinHandle;

use super::bytes::shown;
use super::connection::{Request, fields};

/// Sends a request and tells the response.
///
/// # Errors
/// When the request is none that the h2 crate can send.
pub(super) fn exchange(
    sender: h2::client::SendRequest<Bytes>,
    request: Request,
) -> Result<JoinHandle<Vec<String>>> {
    let target = if request.target.contains("://") || request.method == "CONNECT" {
        request.target.clone()
    } else {
        let host = request
            .headers
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case("host"));
        let host = host.map_or("conform.example", |(_, host)| host);
        format!("http://{host}{}", request.target)
    };
    let mut head = http::Request::builder()
        .method(request.method.as_str())
        .version(http::Version::HTTP_2)
        .uri(target);
    for (name, value) in &request.headers {
        match name.as_str() {
            ":protocol" => head = head.extension(h2::ext::Protocol::from(value.as_str())),
            name if name.eq_ignore_ascii_case("host") => {}
            name => {
                let value = HeaderValue::from_bytes(&super::bytes::exact(value)?)?;
                head = head.header(name, value);
            }
        }
    }
    let head = head.body(()).context("request")?;
    let trailers = header_map(&request.trailers)?;
    let body = request.body.map(Bytes::from);
    Ok(tokio::spawn(async move {
        match run(sender, head, body, trailers).await {
            Ok(lines) => lines,
            Err(error) => vec![format!(": {}", failure(&error))],
        }
    }))
}

async fn run(
    sender: h2::client::SendRequest<Bytes>,
    head: http::Request<()>,
    body: Option<Bytes>,
    trailers: Option<HeaderMap>,
) -> Result<Vec<String>, h2::Error> {
    let mut sender = sender.ready().await?;
    let end = body.is_none() && trailers.is_none();
    let (mut response, mut stream) = sender.send_request(head, end)?;
    if !end {
        if let Some(body) = body {
            stream.reserve_capacity(body.len());
            stream.send_data(body, trailers.is_none())?;
        }
        if let Some(trailers) = trailers {
            stream.send_trailers(trailers)?;
        }
    }
    let mut lines = Vec::new();
    while let Some(interim) =
        std::future::poll_fn(|context| response.poll_informational(context)).await
    {
        let interim = interim?;
        lines.push(format!(": {}", interim.status().as_u16()));
        lines.extend(fields(" header", &pairs(interim.headers())));
    }
    let (head, mut receive) = response.await?.into_parts();
    lines.push(format!(": {}", head.status.as_u16()));
    lines.extend(fields(" header", &pairs(&head.headers)));
    let mut body = Vec::new();
    let mut failed = None;
    while let Some(data) = receive.data().await {
        match data {
            Ok(data) => {
                receive.flow_control().release_capacity(data.len())?;
                body.extend_from_slice(&data);
            }
            Err(error) => {
                failed = Some(failure(&error));
                break;
            }
        }
    }
    if !body.is_empty() {
        lines.push(format!(" body: {}", shown(&body)));
    }
    match failed {
        Some(failure) => lines.push(format!(" end: {failure}")),
        None => {
            if let Some(trailers) = receive.trailers().await? {
                lines.extend(fields(" trailer", &pairs(&trailers)));
            }
        }
    }
    Ok(lines)
}

fn failure(error: &h2::Error) -> String {
    let what = if error.is_go_away() {
        "goaway"
    } else if error.is_reset() {
        "reset"
    } else {
        return "connection ended".to_owned();
    };
    let whose = if error.is_remote() { "" } else { " (ours)" };
    let reason = error.reason().map(|reason| format!("{reason:?}"));
    format!("{what} {}{whose}", reason.unwrap_or_default())
}

/// A map as pairs, in order.
pub(super) fn pairs(map: &HeaderMap) -> Vec<(String, String)> {
    map.iter()
        .map(|(name, value)| {
            let value = match value.to_str() {
                Ok(value) => value.to_owned(),
                Err(_) => value.as_bytes().escape_ascii().to_string(),
            };
            (name.as_str().to_owned(), value)
        })
        .collect()
}

/// Pairs as a map; none of them is no map.
///
/// # Errors
/// When a name or value is none.
pub(super) fn header_map(fields: &[(String, String)]) -> Result<Option<HeaderMap>> {
    if fields.is_empty() {
        return Ok(None);
    }
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        map.append(
            HeaderName::from_bytes(name.as_bytes())?,
            HeaderValue::from_bytes(&super::bytes::exact(value)?)?,
        );
    }
    Ok(Some(map))
}

/// The GOAWAY and RST_STREAM frames among these bytes.
pub(super) fn notable(bytes: &[u8]) -> Vec<String> {
    let of_fate = |frame: &String| frame.starts_with("GOAWAY") || frame.starts_with("RST_STREAM");
    all(bytes).0.into_iter().filter(of_fate).collect()
}

/// The frames that a proxy has sent, without those of which each may send what it likes; and how
/// many bytes they are.
pub(super) fn telling(bytes: &[u8]) -> (Vec<String>, usize) {
    const FREE: [&str; 2] = ["SETTINGS", "WINDOW_UPDATE"];
    let (mut frames, length) = all(bytes);
    frames.retain(|frame| !FREE.iter().any(|name| frame.starts_with(name)));
    (frames, length)
}

/// All whole frames, and how many bytes they are.
fn all(bytes: &[u8]) -> (Vec<String>, usize) {
    const NAMES: [&str; 10] = [
        "DATA",
        "HEADERS",
        "PRIORITY",
        "RST_STREAM",
        "SETTINGS",
        "PUSH_PROMISE",
        "PING",
        "GOAWAY",
        "WINDOW_UPDATE",
        "CONTINUATION",
    ];
    let mut frames = Vec::new();
    let mut rest = bytes;
    let number = |bytes: &[u8]| {
        let add = |sum: usize, byte: &u8| sum << 8 | usize::from(*byte);
        bytes.iter().fold(0, add)
    };
    while let Some(head) = rest.get(..9) {
        let (kind, flags) = (head[3], head[4]);
        let stream = number(&head[5..]) & 0x7fff_ffff;
        let Some(payload) = rest.get(9..9 + number(&head[..3])) else {
            break;
        };
        let name = NAMES.get(usize::from(kind)).copied().unwrap_or("UNKNOWN");
        let code = |bytes: Option<&[u8]>| {
            let code = u32::try_from(bytes.map_or(0, number)).unwrap_or(u32::MAX);
            format!("{:?}", h2::Reason::from(code))
        };
        frames.push(match kind {
            3 => format!("{name} stream={stream} {}", code(payload.get(..4))),
            7 => {
                let last = payload.get(..4).map_or(0, number);
                format!("{name} last={last} {}", code(payload.get(4..8)))
            }
            _ => format!("{name} stream={stream} flags={flags:#x}"),
        });
        rest = &rest[9 + payload.len()..];
    }
    (frames, bytes.len() - rest.len())
}
