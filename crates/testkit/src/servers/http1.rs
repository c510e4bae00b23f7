//! An HTTP/1 app that answers what it saw.

use std::io::{BufRead, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;

use super::answer::{Framing, Hangup, Seen, Wish};
use super::{Server, reset};
use crate::clients::http1::Client;
use crate::load::Url;
use crate::message::{Head, Kind, read_body, read_head};

/// Serves HTTP/1. Its answers are JSON: `server`, `method`, `path`, `version`, `headers` (pairs
/// in order and case), `body_length`, `body_sha256`, `trailers`, `peer`.
///
/// The query of the path asks for other behaviour: `status=N`, `delay=MILLISECONDS`, `size=N`,
/// `body=echo`, `framing=sized|chunked|close`, `header=NAME:VALUE`, `trailer=NAME:VALUE`,
/// `hangup=before|head|body|after`, `closes=N` (unannounced, one time in N), `reset=1`. A request with `Upgrade` gets 101 and then its own
/// bytes back; a WebSocket's key is answered as RFC 6455 section 4.2.2 wants it.
///
/// # Errors
/// When it cannot be started.
pub fn echo(listener: TcpListener, name: &str) -> Result<Server> {
    start(listener, name, None)
}

/// The same, but before it answers it sends a GET to `http://HOST[:PORT]` with the path that it was
/// asked for, on a connection of its own, and tells in `called` what that answered. An error there
/// is a 502 here.
///
/// # Errors
/// When the URL is none, or it cannot be started.
pub fn calling(listener: TcpListener, name: &str, url: &str) -> Result<Server> {
    start(listener, name, Some(Url::parse(url)?))
}

fn start(listener: TcpListener, name: &str, calls: Option<Url>) -> Result<Server> {
    let name = name.to_owned();
    let app = App { name, calls };
    Server::start(listener, move |connection| serve(connection, &app))
}

struct App {
    name: String,
    calls: Option<Url>,
}

impl App {
    /// What the server that it calls answers; nothing if it calls none.
    fn call(&self, target: &str) -> Result<Option<serde_json::Value>> {
        let Some(url) = &self.calls else {
            return Ok(None);
        };
        let mut client = Client::connect((url.host.as_str(), url.port))?;
        let response = client.get(&url.authority, target)?;
        let status = response.status()?;
        ensure!(status == 200, "status {status}: {}", response.text());
        response.json().map(Some)
    }
}

fn serve(connection: TcpStream, app: &App) -> Result<()> {
    let peer = connection.peer_addr().context("read the peer's address")?;
    let mut writer = connection.try_clone().context("share the connection")?;
    let mut reader = BufReader::new(connection);
    loop {
        let open = serve_one(&mut reader, &mut writer, app, peer)?;
        if !open {
            return Ok(());
        }
    }
}

/// Serves one request; whether the connection stays open.
fn serve_one(
    reader: &mut BufReader<TcpStream>,
    writer: &mut TcpStream,
    app: &App,
    peer: SocketAddr,
) -> Result<bool> {
    let Some(head) = read_head(reader)? else {
        return Ok(false);
    };
    if head.has_token("connection", "upgrade") && head.header("upgrade").is_some() {
        upgrade(reader, writer, &head)?;
        return Ok(false);
    }
    if head
        .header("expect")
        .is_some_and(|value| value.eq_ignore_ascii_case("100-continue"))
    {
        writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let request = read_body(reader, head, Kind::Request)?;
    let mut parts = request.head.start.split(' ');
    let (method, target, version) = (
        parts.next().unwrap_or(""),
        parts.next().unwrap_or(""),
        parts.next().unwrap_or(""),
    );
    let wish = match Wish::parse(target) {
        Ok(wish) => wish,
        Err(error) => return fail(writer, "400 Bad Request", &error),
    };
    std::thread::sleep(wish.delay);
    if wish.hangup == Some(Hangup::Before) {
        return hang_up(writer, &wish);
    }
    let called = match app.call(target) {
        Ok(called) => called,
        Err(error) => return fail(writer, "502 Bad Gateway", &error),
    };
    let seen = Seen {
        server: &app.name,
        method,
        target,
        version,
        headers: &request.head.headers,
        body: &request.body,
        trailers: &request.trailers,
        peer,
        called,
    };
    let body = seen.body(&wish);
    let asked_to_close = request.head.has_token("connection", "close")
        || (version == "HTTP/1.0" && !request.head.has_token("connection", "keep-alive"));
    let close = wish.framing == Framing::Close || asked_to_close;
    let answer = head_bytes(&wish, body.len(), version, close);
    if wish.hangup == Some(Hangup::Head) {
        writer.write_all(&answer)?;
        return hang_up(writer, &wish);
    }
    write_answer(writer, answer, &body, &wish, method == "HEAD")?;
    let by_chance = wish
        .closes
        .is_some_and(|times| rand::random_range(0..times) == 0);
    if wish.hangup.is_some() || by_chance {
        return hang_up(writer, &wish);
    }
    Ok(!close)
}

fn fail(writer: &mut TcpStream, status: &str, error: &anyhow::Error) -> Result<bool> {
    let text = format!("{error:#}\n");
    let length = text.len();
    write!(
        writer,
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{text}"
    )?;
    Ok(false)
}

fn head_bytes(wish: &Wish, length: usize, version: &str, close: bool) -> Vec<u8> {
    let status = http::StatusCode::from_u16(wish.status).ok();
    let reason = status
        .and_then(|status| status.canonical_reason())
        .unwrap_or("Unknown");
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", wish.status);
    if wish.size.is_none() && !wish.mirror {
        head.push_str("Content-Type: application/json\r\n");
    }
    for (name, value) in &wish.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    match wish.framing {
        // RFC 9110 section 8.6: none with 204 and 304.
        Framing::Sized if matches!(wish.status, 204 | 304) => {}
        Framing::Sized => head.push_str(&format!("Content-Length: {length}\r\n")),
        Framing::Chunked => head.push_str("Transfer-Encoding: chunked\r\n"),
        Framing::Close => {}
    }
    if close {
        head.push_str("Connection: close\r\n");
    } else if version == "HTTP/1.0" {
        head.push_str("Connection: keep-alive\r\n");
    }
    head.push_str("\r\n");
    head.into_bytes()
}

fn write_answer(
    writer: &mut TcpStream,
    mut bytes: Vec<u8>,
    body: &[u8],
    wish: &Wish,
    to_head: bool,
) -> Result<()> {
    if to_head || matches!(wish.status, 204 | 304) {
        return writer.write_all(&bytes).context("write the head");
    }
    let half = body.len() / 2;
    let parts = if wish.hangup == Some(Hangup::Body) {
        &[&body[..half]][..]
    } else {
        &[&body[..half], &body[half..]][..]
    };
    for part in parts.iter().filter(|part| !part.is_empty()) {
        if wish.framing == Framing::Chunked {
            bytes.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
            bytes.extend_from_slice(part);
            bytes.extend_from_slice(b"\r\n");
        } else {
            bytes.extend_from_slice(part);
        }
    }
    if wish.framing == Framing::Chunked && wish.hangup != Some(Hangup::Body) {
        bytes.extend_from_slice(b"0\r\n");
        for (name, value) in &wish.trailers {
            bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
    }
    writer.write_all(&bytes).context("write the answer")
}

/// Ends the connection as the wish has it. The other copies of the socket are closed by our
/// callers, so a shutdown says it at once.
fn hang_up(writer: &mut TcpStream, wish: &Wish) -> Result<bool> {
    if wish.reset {
        reset(writer.try_clone()?)?;
    } else {
        writer.shutdown(std::net::Shutdown::Both)?;
    }
    Ok(false)
}

fn upgrade(reader: &mut impl BufRead, writer: &mut TcpStream, head: &Head) -> Result<()> {
    let protocol = head.header("upgrade").unwrap_or("");
    let mut answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: {protocol}\r\nConnection: Upgrade\r\n"
    );
    if let Some(key) = head.header("sec-websocket-key") {
        answer.push_str(&format!(
            "Sec-WebSocket-Accept: {}\r\n",
            websocket_accept(key)
        ));
    }
    answer.push_str("\r\n");
    writer.write_all(answer.as_bytes())?;
    let mut buffer = [0; 16 << 10];
    loop {
        let length = reader.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        writer.write_all(&buffer[..length])?;
    }
}

/// What a server proves with that it understood a WebSocket's key (RFC 6455 section 4.2.2).
pub fn websocket_accept(key: &str) -> String {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let algorithm = &aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY;
    let digest = aws_lc_rs::digest::digest(algorithm, text.as_bytes());
    base64::engine::general_purpose::STANDARD.encode(digest.as_ref())
}

#[cfg(test)]
mod tests {
    #[test]
    fn answers_the_key_of_the_rfc() {
        let accept = super::websocket_accept("dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
