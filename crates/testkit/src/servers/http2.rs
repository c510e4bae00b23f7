//! An HTTP/2 app in cleartext with prior knowledge (RFC 9113 section 3.3) that answers what it
//! saw.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};

use super::AsyncServer;
use super::answer::{Hangup, Seen, Wish};
use crate::clients::http2::{read_body, write_body};

/// Serves HTTP/2. The answers and the queries are those of the [HTTP/1 app](super::http1::echo);
/// a hang-up is a reset of the stream.
///
/// # Errors
/// When it cannot be started.
pub fn echo(listener: TcpListener, name: &str) -> Result<AsyncServer> {
    let name: Arc<str> = name.into();
    AsyncServer::start(listener, move |listener| async move {
        while let Ok((connection, peer)) = listener.accept().await {
            let _ = connection.set_nodelay(true);
            let name = Arc::clone(&name);
            tokio::spawn(async move {
                if let Err(error) = serve(connection, peer, name).await
                    && std::env::var_os("OUTRIDER_TESTKIT_LOG").is_some()
                {
                    eprintln!("testkit: a connection ended: {error:#}");
                }
            });
        }
    })
}

async fn serve(connection: tokio::net::TcpStream, peer: SocketAddr, name: Arc<str>) -> Result<()> {
    let mut connection = h2::server::Builder::new()
        .max_concurrent_streams(1000)
        .handshake(connection)
        .await
        .context("handshake")?;
    while let Some(stream) = connection.accept().await {
        let (request, respond) = stream.context("accept a stream")?;
        let name = Arc::clone(&name);
        tokio::spawn(async move {
            if let Err(error) = answer(request, respond, peer, &name).await
                && std::env::var_os("OUTRIDER_TESTKIT_LOG").is_some()
            {
                eprintln!("testkit: a stream ended: {error:#}");
            }
        });
    }
    Ok(())
}

async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    peer: SocketAddr,
    name: &str,
) -> Result<()> {
    let (head, stream) = request.into_parts();
    let target = head
        .uri
        .path_and_query()
        .map_or("/", |target| target.as_str());
    let wish = match Wish::parse(target) {
        Ok(wish) => wish,
        Err(error) => {
            let response = Response::builder().status(400).body(())?;
            let mut sender = respond.send_response(response, false)?;
            sender.send_data(format!("{error:#}\n").into(), true)?;
            return Ok(());
        }
    };
    let received = read_body(stream).await?;
    tokio::time::sleep(wish.delay).await;
    if wish.hangup == Some(Hangup::Before) {
        respond.send_reset(Reason::INTERNAL_ERROR);
        return Ok(());
    }
    let mut headers = pairs(&head.headers);
    if let Some(authority) = head.uri.authority() {
        headers.insert(0, (":authority".to_owned(), authority.to_string()));
    }
    let seen = Seen {
        server: name,
        method: head.method.as_str(),
        target,
        version: "HTTP/2",
        headers: &headers,
        body: &received.body,
        trailers: &pairs(&received.trailers),
        peer,
        called: None,
    };
    let body = seen.body(&wish);
    let mut response = Response::builder().status(wish.status).body(())?;
    if wish.size.is_none() && !wish.mirror {
        let json = HeaderValue::from_static("application/json");
        response
            .headers_mut()
            .insert(http::header::CONTENT_TYPE, json);
    }
    response.headers_mut().extend(map(&wish.headers)?);
    let only_head = head.method == http::Method::HEAD || matches!(wish.status, 204 | 304);
    let mut sender = respond.send_response(response, only_head)?;
    match wish.hangup {
        Some(Hangup::Head) => sender.send_reset(Reason::INTERNAL_ERROR),
        _ if only_head => {}
        Some(Hangup::Body) => {
            sender.send_data(Bytes::copy_from_slice(&body[..body.len() / 2]), false)?;
            sender.send_reset(Reason::INTERNAL_ERROR);
        }
        _ => {
            let trailers = map(&wish.trailers)?;
            write_body(
                &mut sender,
                body.into(),
                Some(trailers).filter(|map| !map.is_empty()),
            )
            .await?;
        }
    }
    Ok(())
}

fn pairs(map: &HeaderMap) -> Vec<(String, String)> {
    map.iter()
        .map(|(name, value)| {
            (
                name.to_string(),
                String::from_utf8_lossy(value.as_bytes()).into_owned(),
            )
        })
        .collect()
}

fn map(pairs: &[(String, String)]) -> Result<HeaderMap> {
    pairs
        .iter()
        .map(|(name, value)| {
            let name = HeaderName::from_bytes(name.to_ascii_lowercase().as_bytes())?;
            Ok((name, HeaderValue::from_str(value)?))
        })
        .collect()
}
