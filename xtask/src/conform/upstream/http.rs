//! HTTP/1 as the script has it.

use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::Server;
use crate::conform::connection::{Stream, told};
use crate::conform::file::{Answer, Then};
use crate::conform::http1::{Kind, Message, Parsed, parse};

/// Serves one connection.
pub(super) async fn serve(
    mut stream: impl Stream,
    socket: socket2::Socket,
    server: &Server,
    count: u32,
) -> Result<()> {
    let mut read: Vec<u8> = Vec::new();
    // The request whose head was answered before its body was there.
    let mut answered = false;
    loop {
        match parse(&read, Kind::Request, false) {
            Parsed::Whole(message, length) => {
                saw(server, &message, count);
                read.drain(..length);
                if !std::mem::take(&mut answered) {
                    let then = respond(&mut stream, server, &message).await?;
                    if !finish(&mut stream, &socket, then).await? {
                        return Ok(());
                    }
                }
                continue;
            }
            Parsed::Partly(Some((message, _))) if !answered && server.is_early(path(&message)) => {
                answered = true;
                server.saw(vec![format!(" head: {}", message.start)]);
                let then = respond(&mut stream, server, &message).await?;
                if !finish(&mut stream, &socket, then).await? {
                    return Ok(());
                }
            }
            Parsed::Partly(_) => {}
            Parsed::Broken(problem) => {
                server.saw(vec![format!(" broken: {problem}")]);
                return Ok(());
            }
        }
        if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
            if let Parsed::Partly(Some((message, _))) = parse(&read, Kind::Request, true) {
                server.saw(told(" (incomplete)", &message));
            }
            return Ok(());
        }
    }
}

fn path(message: &Message) -> &str {
    message.start.split(' ').nth(1).unwrap_or_default()
}

fn saw(server: &Server, message: &Message, count: u32) {
    let mut lines = vec![format!(" pool: connection {count}")];
    lines.extend(told(" request", message));
    server.saw(lines);
}

async fn respond(stream: &mut impl Stream, server: &Server, request: &Message) -> Result<Then> {
    let plain = Answer {
        body: Some(server.name.clone()),
        ..Answer::default()
    };
    let answer = server.answer(path(request)).unwrap_or(&plain);
    if let Some(gate) = &answer.waits {
        server.gates.wait(gate).await;
    }
    let mut bytes = Vec::new();
    for interim in &answer.interim {
        let interim = server.names.fill(interim)?;
        bytes.extend_from_slice(
            format!("HTTP/1.1 {}\r\n\r\n", interim.trim().replace('\n', "\r\n")).as_bytes(),
        );
    }
    match &answer.raw {
        Some(raw) => {
            bytes.extend_from_slice(&super::super::bytes::exact(&server.names.fill(raw)?)?)
        }
        None => {
            let to_head = request.start.starts_with("HEAD ");
            bytes.extend_from_slice(&response(server, answer, request, to_head)?);
        }
    }
    stream.write_all(&bytes).await?;
    stream.flush().await?;
    Ok(answer.then)
}

fn response(server: &Server, answer: &Answer, request: &Message, to_head: bool) -> Result<Vec<u8>> {
    let code = answer.status;
    let reason = http::StatusCode::from_u16(code)
        .ok()
        .and_then(|status| status.canonical_reason())
        .unwrap_or("Other");
    let mut head = format!("HTTP/1.1 {code} {reason}\r\n");
    for (name, value) in server.fields(&answer.headers)? {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let body = server.body(answer, request)?;
    let chunked = answer.chunked || !answer.trailers.is_empty();
    let bodiless = code < 200 || code == 204 || code == 304;
    if chunked {
        head.push_str("transfer-encoding: chunked\r\n\r\n");
    } else if bodiless {
        head.push_str("\r\n");
    } else {
        head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    }
    let mut bytes = super::super::bytes::exact(&head)?;
    if to_head || bodiless {
        return Ok(bytes);
    }
    if !chunked {
        bytes.extend_from_slice(&body);
        return Ok(bytes);
    }
    if !body.is_empty() {
        bytes.extend_from_slice(format!("{:x}\r\n", body.len()).as_bytes());
        bytes.extend_from_slice(&body);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n");
    for (name, value) in server.fields(&answer.trailers)? {
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    Ok(bytes)
}

/// Does what comes after an answer; whether the connection goes on.
async fn finish(stream: &mut impl Stream, socket: &socket2::Socket, then: Then) -> Result<bool> {
    match then {
        Then::Keep | Then::Goaway => return Ok(true),
        Then::Close => {
            let _ = stream.shutdown().await;
        }
        Then::Reset => socket.set_linger(Some(Duration::ZERO))?,
        Then::Echo => {
            let mut buffer = vec![0; 16 << 10];
            loop {
                let length = stream.read(&mut buffer).await?;
                if length == 0 {
                    break;
                }
                stream.write_all(&buffer[..length]).await?;
                stream.flush().await?;
            }
        }
    }
    Ok(false)
}
