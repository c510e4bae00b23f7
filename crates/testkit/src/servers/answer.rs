//! What an echo server answers: what it saw, or what the query of the path asks for. One grammar
//! for HTTP/1 and HTTP/2.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;

/// What a request's query asks of the server: `/any/path?status=503&delay=100`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wish {
    /// `status=N`: the status code.
    pub(super) status: u16,
    /// `delay=MILLISECONDS`: waits before it answers.
    pub(super) delay: Duration,
    /// `size=N`: a body of N bytes instead of the echo.
    pub(super) size: Option<usize>,
    /// `body=echo`: the request's own body instead of the echo.
    pub(super) mirror: bool,
    /// `framing=sized|chunked|close`: how an HTTP/1 body is framed; sized unless set.
    pub(super) framing: Framing,
    /// `header=NAME:VALUE`, any number of times.
    pub(super) headers: Vec<(String, String)>,
    /// `trailer=NAME:VALUE`, any number of times; implies chunks in HTTP/1.
    pub(super) trailers: Vec<(String, String)>,
    /// `hangup=before|head|body|after`: where the connection is closed (HTTP/2: the stream reset).
    pub(super) hangup: Option<Hangup>,
    /// `closes=N`: closes after the answer, unannounced, one time in N at random, as a server
    /// does whose keep-alive time is over (HTTP/1 alone).
    pub(super) closes: Option<u32>,
    /// `reset=1`: the hang-up is a RST.
    pub(super) reset: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    Sized,
    Chunked,
    Close,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hangup {
    /// Before the first byte of the answer.
    Before,
    /// After the head, before the first byte of the body.
    Head,
    /// In the middle of the body.
    Body,
    /// After the answer, which does not announce it.
    After,
}

impl Wish {
    /// # Errors
    /// When the query has a key or a value that is not known.
    pub(super) fn parse(target: &str) -> Result<Self> {
        let mut wish = Self {
            status: 200,
            delay: Duration::ZERO,
            size: None,
            mirror: false,
            framing: Framing::Sized,
            headers: Vec::new(),
            trailers: Vec::new(),
            hangup: None,
            closes: None,
            reset: false,
        };
        let query = target.split_once('?').map_or("", |(_, query)| query);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            match (key, value) {
                ("status", _) => wish.status = value.parse().context("status")?,
                ("delay", _) => {
                    wish.delay = Duration::from_millis(value.parse().context("delay")?);
                }
                ("size", _) => wish.size = Some(value.parse().context("size")?),
                ("body", "echo") => wish.mirror = true,
                ("framing", "sized") => wish.framing = Framing::Sized,
                ("framing", "chunked") => wish.framing = Framing::Chunked,
                ("framing", "close") => wish.framing = Framing::Close,
                ("header", _) => wish.headers.push(name_and_value(value)?),
                ("trailer", _) => wish.trailers.push(name_and_value(value)?),
                ("hangup", "before") => wish.hangup = Some(Hangup::Before),
                ("hangup", "head") => wish.hangup = Some(Hangup::Head),
                ("hangup", "body") => wish.hangup = Some(Hangup::Body),
                ("hangup", "after") => wish.hangup = Some(Hangup::After),
                ("closes", _) => {
                    let times: u32 = value.parse().context("closes")?;
                    ensure!(times > 0, "closes is at least 1");
                    wish.closes = Some(times);
                }
                ("reset", "1") => wish.reset = true,
                // Anything else is the test's own, as `q=1`.
                ("body" | "framing" | "hangup" | "reset", _) => {
                    bail!("unknown {key} {value:?}")
                }
                _ => {}
            }
        }
        if !wish.trailers.is_empty() {
            wish.framing = Framing::Chunked;
        }
        Ok(wish)
    }
}

fn name_and_value(text: &str) -> Result<(String, String)> {
    let (name, value) = text
        .split_once(':')
        .with_context(|| format!("{text:?} has no colon"))?;
    Ok((name.to_owned(), value.to_owned()))
}

/// What a server saw of a request, and tells in its answer.
pub(super) struct Seen<'a> {
    pub(super) server: &'a str,
    pub(super) method: &'a str,
    pub(super) target: &'a str,
    pub(super) version: &'a str,
    pub(super) headers: &'a [(String, String)],
    pub(super) body: &'a [u8],
    pub(super) trailers: &'a [(String, String)],
    pub(super) peer: std::net::SocketAddr,
    /// What another server answered that was asked for this.
    pub(super) called: Option<serde_json::Value>,
}

impl Seen<'_> {
    /// The body of the answer.
    pub(super) fn body(&self, wish: &Wish) -> Vec<u8> {
        if let Some(size) = wish.size {
            return pattern(size);
        }
        if wish.mirror {
            return self.body.to_vec();
        }
        let mut text = json!({
            "server": self.server,
            "method": self.method,
            "path": self.target,
            "version": self.version,
            "headers": self.headers,
            "body_length": self.body.len(),
            "body_sha256": sha256(self.body),
            "trailers": self.trailers,
            "peer": self.peer.to_string(),
        });
        if let Some(called) = &self.called {
            text["called"] = called.clone();
        }
        let mut text = text.to_string();
        text.push('\n');
        text.into_bytes()
    }
}

/// A body of a known pattern, which shows where bytes were lost or moved.
pub fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|index| b'a' + (index % 26) as u8).collect()
}

/// The SHA-256 of a body, in hexadecimal, as the echo servers tell it.
pub fn sha256(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
