//! HTTP/2 as the script has it.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};

use super::Server;
use crate::conform::connection::{Stream, told};
use crate::conform::file::{Answer, Then};
use crate::conform::frames::{header_map, pairs};
use crate::conform::http1::Message;

/// Serves one connection.
pub(super) async fn serve(
    stream: impl Stream + 'static,
    server: &Arc<Server>,
    count: u32,
) -> Result<()> {
    let mut connection = h2::server::Builder::new()
        .enable_connect_protocol()
        .initial_window_size(1 << 20)
        .handshake(stream)
        .await
        .context("handshake")?;
    let mut streams = tokio::task::JoinSet::new();
    let (ask, mut asked) = tokio::sync::mpsc::unbounded_channel();
    loop {
        tokio::select! {
            accepted = connection.accept() => {
                let Some(accepted) = accepted else { return Ok(()) };
                let (request, respond) = accepted?;
                let (server, ask) = (Arc::clone(server), ask.clone());
                streams.spawn(async move {
                    match answer(request, respond, &server, count).await {
                        Ok(then) => { let _ = ask.send(then); }
                        Err(error) if std::env::var_os("OUTRIDER_TESTKIT_LOG").is_some() => {
                            eprintln!("upstream {}: {error:#}", server.name);
                        }
                        Err(_) => {}
                    }
                });
            }
            Some(then) = asked.recv() => match then {
                Then::Goaway => connection.graceful_shutdown(),
                Then::Close => connection.abrupt_shutdown(Reason::NO_ERROR),
                Then::Keep | Then::Reset | Then::Echo => {}
            },
        }
    }
}

async fn answer(
    request: http::Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    server: &Server,
    count: u32,
) -> Result<Then> {
    let (head, mut receive) = request.into_parts();
    let path = head
        .uri
        .path_and_query()
        .map_or("", |path| path.as_str())
        .to_owned();
    let protocol = head.extensions.get::<h2::ext::Protocol>();
    let protocol = protocol.map(|protocol| format!(" :protocol={}", protocol.as_str()));
    let mut message = Message {
        start: format!(
            "{} {} HTTP/2{}",
            head.method,
            head.uri,
            protocol.unwrap_or_default()
        ),
        headers: pairs(&head.headers),
        ..Message::default()
    };
    let early = server.is_early(&path);
    if early {
        server.saw(vec![format!(" head: {}", message.start)]);
    } else {
        while let Some(data) = receive.data().await {
            let Ok(data) = data else {
                server.saw(told(" (incomplete)", &message));
                return Ok(Then::Keep);
            };
            receive.flow_control().release_capacity(data.len())?;
            message.body.extend_from_slice(&data);
        }
        if let Some(trailers) = receive.trailers().await? {
            message.trailers = pairs(&trailers);
        }
        let mut lines = vec![format!(" pool: connection {count}")];
        lines.extend(told(" request", &message));
        server.saw(lines);
    }
    let plain = Answer {
        body: Some(server.name.clone()),
        ..Answer::default()
    };
    let answer = server.answer(&path).unwrap_or(&plain);
    if let Some(gate) = &answer.waits {
        server.gates.wait(gate).await;
    }
    for interim in &answer.interim {
        let mut lines = interim.lines();
        let code = lines
            .next()
            .and_then(|line| line.split(' ').next())
            .unwrap_or_default();
        let mut head = http::Response::builder().status(code);
        for line in lines {
            let (name, value) = crate::conform::side::field(line)?;
            head = head.header(name, value);
        }
        respond.send_informational(head.body(())?)?;
    }
    if answer.then == Then::Reset && answer.body.is_none() && answer.size.is_none() {
        respond.send_reset(Reason::INTERNAL_ERROR);
        return Ok(Then::Keep);
    }
    let mut head = http::Response::builder().status(answer.status);
    for (name, value) in server.fields(&answer.headers)? {
        head = head.header(name, value);
    }
    let mut body = server.body(answer, &message)?;
    if message.start.starts_with("HEAD ") {
        body.clear();
    }
    let trailers = match body.is_empty() {
        true => None,
        false => header_map(&server.fields(&answer.trailers)?)?,
    };
    let end = body.is_empty() && trailers.is_none() && answer.then != Then::Echo;
    let mut stream = respond.send_response(head.body(())?, end)?;
    if !end && !body.is_empty() {
        let last = trailers.is_none() && !matches!(answer.then, Then::Reset | Then::Echo);
        stream.reserve_capacity(body.len());
        stream.send_data(body.into(), last)?;
    }
    if answer.then == Then::Reset {
        stream.send_reset(Reason::INTERNAL_ERROR);
        return Ok(Then::Keep);
    }
    if answer.then == Then::Echo {
        while let Some(data) = receive.data().await {
            let data = data?;
            receive.flow_control().release_capacity(data.len())?;
            stream.send_data(data, false)?;
        }
        stream.send_data(Bytes::new(), true)?;
    } else if let Some(trailers) = trailers {
        stream.send_trailers(trailers)?;
    }
    Ok(answer.then)
}
