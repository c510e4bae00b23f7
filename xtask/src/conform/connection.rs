//! One connection to a proxy: what is sent on it, and what has come.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, WriteHalf};
use tokio::task::JoinHandle;

mod lines;
mod stream;

use lines::{alert, numbered};
pub(super) use lines::{fields, told};
pub(super) use stream::{Ended, Stream, Target};
use stream::{Inbox, Tee, dial};

use super::file::{End, Open, Read, Step};
use super::http1::{Kind, Parsed, parse};
use super::tls::Certificates;
use super::{bytes as text, frames};

/// The longest that one side waits for what a step reads.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

enum Mode {
    Bytes {
        writer: Option<WriteHalf<Box<dyn Stream>>>,
        reader: JoinHandle<()>,
        /// Whether the responses that are awaited are to HEAD, in order.
        awaited: Vec<Kind>,
        /// Bytes that were taken as responses.
        taken: usize,
        /// HTTP/2's preface was sent: what comes are frames.
        frames: bool,
    },
    Http2 {
        sender: h2::client::SendRequest<Bytes>,
        driver: JoinHandle<()>,
        responses: Vec<JoinHandle<Vec<String>>>,
        /// Frames that were told.
        told: usize,
    },
}

pub(super) struct Connection {
    mode: Mode,
    inbox: Arc<Inbox>,
    /// A second handle, for its options.
    socket: Option<socket2::Socket>,
    /// What was agreed on when it was opened, told once.
    opening: Vec<String>,
    /// How long a read waits.
    patience: Duration,
}

/// What one request is.
#[derive(Default)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Option<Vec<u8>>,
    pub(super) trailers: Vec<(String, String)>,
}

impl Connection {
    /// Opens one. A handshake of TLS that fails is told in `opening`.
    ///
    /// # Errors
    /// When there is no connection at all.
    pub(super) async fn open(
        target: &Target,
        open: &Open,
        certificates: &Certificates,
    ) -> Result<Self> {
        let (stream, socket) = dial(target, open).await?;
        let mut stream = stream;
        if let Some(first) = &open.first {
            stream
                .write_all(&text::exact(first)?)
                .await
                .context("send the first bytes")?;
        }
        if let Some(first) = &open.first_hex {
            stream
                .write_all(&text::hex(first)?)
                .await
                .context("send the first bytes")?;
        }
        let mut opening = Vec::new();
        if let Some(tls) = &open.tls {
            let config = certificates.client(tls)?;
            let name = tls
                .sni
                .clone()
                .unwrap_or_else(|| "unnamed.example".to_owned());
            let name = ServerName::try_from(name).context("sni")?;
            let connector = tokio_rustls::TlsConnector::from(config);
            let shaken = tokio::time::timeout(PATIENCE, connector.connect(name, stream)).await;
            match shaken {
                Err(_) => {
                    opening.push("tls: no handshake in time".to_owned());
                    return Ok(Self::ended(opening, socket));
                }
                Ok(Err(error)) => {
                    opening.push(format!("tls: {}", alert(&error)));
                    return Ok(Self::ended(opening, socket));
                }
                Ok(Ok(secured)) => {
                    let (_, session) = secured.get_ref();
                    let alpn = session.alpn_protocol().map(String::from_utf8_lossy);
                    let shown = session.peer_certificates().and_then(|chain| chain.first());
                    opening.push(format!(
                        "tls: {} alpn={} certificate={}",
                        session
                            .protocol_version()
                            .and_then(|version| version.as_str())
                            .unwrap_or("?"),
                        alpn.as_deref().unwrap_or("-"),
                        certificates.name_of(shown),
                    ));
                    stream = Box::new(secured);
                }
            }
        }
        let inbox = Arc::new(Inbox::default());
        let mode = if open.http2 {
            let tee = Tee {
                inner: stream,
                inbox: Arc::clone(&inbox),
            };
            let shaken = h2::client::Builder::new()
                .initial_window_size(1 << 20)
                .handshake::<_, Bytes>(tee)
                .await;
            let (sender, driver) = shaken.context("HTTP/2's handshake")?;
            let ended = Arc::clone(&inbox);
            let driver = tokio::spawn(async move {
                let result = driver.await;
                ended.end(result.err().and_then(|error| error.into_io()).as_ref());
            });
            Mode::Http2 {
                sender,
                driver,
                responses: Vec::new(),
                told: 0,
            }
        } else {
            let (mut reading, writer) = tokio::io::split(stream);
            let filled = Arc::clone(&inbox);
            let reader = tokio::spawn(async move {
                let mut buffer = vec![0; 16 << 10];
                loop {
                    match reading.read(&mut buffer).await {
                        Ok(0) => return filled.end(None),
                        Ok(length) => {
                            filled.with(|state| state.bytes.extend_from_slice(&buffer[..length]));
                            filled.changed.notify_waiters();
                        }
                        Err(error) => return filled.end(Some(&error)),
                    }
                }
            });
            Mode::Bytes {
                writer: Some(writer),
                reader,
                awaited: Vec::new(),
                taken: 0,
                frames: false,
            }
        };
        Ok(Self {
            mode,
            inbox,
            socket,
            opening,
            patience: PATIENCE,
        })
    }

    /// Lets reads wait that long.
    pub(super) fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// One that ended while it was opened.
    fn ended(opening: Vec<String>, socket: Option<socket2::Socket>) -> Self {
        let inbox = Inbox::default();
        inbox.end(None);
        Self {
            mode: Mode::Bytes {
                writer: None,
                reader: tokio::spawn(async {}),
                awaited: Vec::new(),
                taken: 0,
                frames: false,
            },
            inbox: Arc::new(inbox),
            socket,
            opening,
            patience: PATIENCE,
        }
    }

    /// Sends bytes. That the peer has ended the connection meanwhile is seen by reading.
    ///
    /// # Errors
    /// When this is a connection of HTTP/2.
    pub(super) async fn send(&mut self, bytes: &[u8], kind: Kind) -> Result<()> {
        let Mode::Bytes {
            writer,
            awaited,
            frames,
            ..
        } = &mut self.mode
        else {
            bail!("a connection with http2: true takes `request` alone");
        };
        awaited.push(kind);
        *frames |= bytes.starts_with(b"PRI * HTTP/2.0");
        if let Some(writer) = writer {
            let sent = async {
                writer.write_all(bytes).await?;
                writer.flush().await
            };
            // What is not taken in time is seen by what is not answered.
            let _ = tokio::time::timeout(PATIENCE, sent).await;
        }
        Ok(())
    }

    /// Sends a request.
    ///
    /// # Errors
    /// When it is no request.
    pub(super) async fn request(&mut self, request: Request) -> Result<()> {
        if let Mode::Http2 {
            sender, responses, ..
        } = &mut self.mode
        {
            responses.push(frames::exchange(sender.clone(), request)?);
            return Ok(());
        }
        let kind = if request.method == "HEAD" {
            Kind::ResponseToHead
        } else {
            Kind::Response
        };
        self.send(&request.bytes(), kind).await
    }

    /// Ends our side.
    ///
    /// # Errors
    /// When a reset is asked for on a socket that has none.
    pub(super) async fn end(&mut self, how: End) -> Result<()> {
        match (how, &mut self.mode) {
            (
                End::Half,
                Mode::Bytes {
                    writer: Some(writer),
                    ..
                },
            ) => {
                let _ = writer.shutdown().await;
            }
            (End::Half, _) => bail!("end: half is for connections of bytes"),
            (End::Reset, _) => {
                let socket = self.socket.as_ref().context("end: reset needs TCP")?;
                socket.set_linger(Some(Duration::ZERO))?;
                self.drop_stream().await;
            }
            (End::Close, _) => self.drop_stream().await,
        }
        Ok(())
    }

    async fn drop_stream(&mut self) {
        match &mut self.mode {
            Mode::Bytes { writer, reader, .. } => {
                reader.abort();
                let _ = reader.await;
                writer.take();
            }
            Mode::Http2 { driver, .. } => {
                driver.abort();
                let _ = driver.await;
            }
        }
        self.socket.take();
    }

    /// Waits for what a step reads, and tells it.
    pub(super) async fn read(&mut self, read: Read) -> Vec<String> {
        let mut lines = std::mem::take(&mut self.opening);
        if let Mode::Http2 { responses, .. } = &mut self.mode {
            if read == Read::Nothing {
                return lines;
            }
            for (index, response) in responses.drain(..).enumerate() {
                let name = numbered("response", index);
                match tokio::time::timeout(self.patience, response).await {
                    Ok(Ok(told)) => {
                        lines.extend(told.into_iter().map(|line| format!("{name}{line}")))
                    }
                    _ => lines.push(format!("{name}: none in time")),
                }
            }
            if read == Read::End {
                self.wait_until(|_, ended| ended.is_some()).await;
            }
            return lines;
        }
        match read {
            Read::Nothing => {}
            Read::End => {
                self.wait_until(|_, ended| ended.is_some()).await;
                lines.extend(self.all_responses());
            }
            Read::Bytes(count) => {
                let from = self.taken();
                self.wait_until(|bytes, ended| bytes.len() >= from + count || ended.is_some())
                    .await;
            }
            Read::Frames(count) => {
                let from = self.taken();
                let enough = |bytes: &[u8]| frames::telling(&bytes[from..]).0.len() >= count;
                self.wait_until(|bytes, ended| enough(bytes) || ended.is_some())
                    .await;
            }
            Read::Responses(count) => lines.extend(self.responses(count).await),
        }
        lines
    }

    async fn responses(&mut self, count: usize) -> Vec<String> {
        let mut lines = Vec::new();
        let mut index = 0;
        while index < count {
            let from = self.taken();
            let kind = match &mut self.mode {
                Mode::Bytes { awaited, .. } if !awaited.is_empty() => awaited[0],
                _ => Kind::Response,
            };
            let whole = |bytes: &[u8], ended: Option<Ended>| {
                ended.is_some() || !matches!(parse(&bytes[from..], kind, false), Parsed::Partly(_))
            };
            self.wait_until(whole).await;
            let parsed = self
                .inbox
                .with(|state| parse(&state.bytes[from..], kind, state.ended.is_some()));
            let name = numbered("response", index);
            match parsed {
                Parsed::Whole(message, length) => {
                    let status = message.status();
                    lines.extend(told(&name, &message));
                    let interim = (100..200).contains(&status) && status != 101;
                    if let Mode::Bytes { taken, awaited, .. } = &mut self.mode {
                        *taken += length;
                        if !interim && !awaited.is_empty() {
                            awaited.remove(0);
                        }
                    }
                    if !interim {
                        index += 1;
                    }
                }
                Parsed::Partly(head) => {
                    if let Some((message, _)) = head {
                        lines.extend(told(&format!("{name} (incomplete)"), &message));
                        let all = self.inbox.with(|state| state.bytes.len());
                        if let Mode::Bytes { taken, .. } = &mut self.mode {
                            *taken = all;
                        }
                    } else {
                        lines.push(format!("{name}: none"));
                    }
                    break;
                }
                Parsed::Broken(problem) => {
                    lines.push(format!("{name}: broken: {problem}"));
                    break;
                }
            }
        }
        lines
    }

    /// Waits for the connection's end where a request of HTTP/1 has asked for it.
    pub(super) async fn wait_for_the_end(&self, step: &Step) {
        let asked = step
            .headers
            .iter()
            .any(|header| header == "connection: close");
        if asked && matches!(self.mode, Mode::Bytes { .. }) {
            self.wait_until(|_, ended| ended.is_some()).await;
        }
    }

    /// All whole responses that have come.
    fn all_responses(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        let Mode::Bytes {
            awaited,
            taken,
            frames: false,
            ..
        } = &mut self.mode
        else {
            return lines;
        };
        self.inbox.with(|state| {
            for index in 0.. {
                let rest = &state.bytes[*taken..];
                let kind = awaited.first().copied().unwrap_or(Kind::Response);
                if !rest.starts_with(b"HTTP/1.") {
                    break;
                }
                let Parsed::Whole(message, length) = parse(rest, kind, state.ended.is_some())
                else {
                    break;
                };
                *taken += length;
                if message.status() >= 200 && !awaited.is_empty() {
                    awaited.remove(0);
                }
                lines.extend(told(&numbered("response", index), &message));
            }
        });
        lines
    }

    fn taken(&self) -> usize {
        match &self.mode {
            Mode::Bytes { taken, .. } => *taken,
            Mode::Http2 { .. } => 0,
        }
    }

    async fn wait_until(&self, condition: impl Fn(&[u8], Option<Ended>) -> bool) {
        let waiting = async {
            loop {
                let notified = self.inbox.changed.notified();
                if self
                    .inbox
                    .with(|state| condition(&state.bytes, state.ended))
                {
                    return;
                }
                notified.await;
            }
        };
        let _ = tokio::time::timeout(self.patience, waiting).await;
    }

    /// What has come besides what was read as responses, and the connection's fate. `take` when it
    /// has been told.
    pub(super) fn rest(&mut self, take: bool) -> Vec<String> {
        let mut lines = Vec::new();
        let ended = self.inbox.with(|state| match &mut self.mode {
            Mode::Bytes {
                taken,
                frames: true,
                ..
            } => {
                let (told, length) = frames::telling(&state.bytes[*taken..]);
                lines.extend(told.iter().map(|frame| format!("frame: {frame}")));
                if take {
                    *taken += length;
                }
                state.ended
            }
            Mode::Bytes { taken, .. } => {
                let rest = &state.bytes[*taken..];
                if !rest.is_empty() {
                    lines.push(format!("bytes: {}", text::shown(rest)));
                    if take {
                        *taken = state.bytes.len();
                    }
                }
                state.ended
            }
            Mode::Http2 { told, .. } => {
                let frames = frames::notable(&state.bytes);
                lines.extend(
                    frames[*told..]
                        .iter()
                        .map(|frame| format!("frame: {frame}")),
                );
                if take {
                    *told = frames.len();
                }
                state.ended
            }
        });
        lines.push(match ended {
            None => "connection: kept".to_owned(),
            Some(Ended::Closed) => "connection: closed".to_owned(),
            Some(Ended::Reset) => "connection: reset".to_owned(),
        });
        lines
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        match &self.mode {
            Mode::Bytes { reader, .. } => reader.abort(),
            Mode::Http2 {
                driver, responses, ..
            } => {
                driver.abort();
                responses.iter().for_each(JoinHandle::abort);
            }
        }
    }
}

impl Request {
    fn bytes(&self) -> Vec<u8> {
        let mut text = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        let given = |name: &str| {
            self.headers
                .iter()
                .any(|(key, _)| key.eq_ignore_ascii_case(name))
        };
        if !given("host") {
            let authority = self.target.split_once("://").map(|(_, rest)| rest);
            let host = authority
                .and_then(|rest| rest.split('/').next())
                .unwrap_or("conform.example");
            text.push_str(&format!("host: {host}\r\n"));
        }
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        let body = self.body.as_deref().unwrap_or_default();
        if !self.trailers.is_empty() {
            text.push_str("transfer-encoding: chunked\r\n\r\n");
            let mut bytes = text.into_bytes();
            if !body.is_empty() {
                bytes.extend_from_slice(format!("{:x}\r\n", body.len()).as_bytes());
                bytes.extend_from_slice(body);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\n");
            for (name, value) in &self.trailers {
                bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
            }
            bytes.extend_from_slice(b"\r\n");
            return bytes;
        }
        if self.body.is_some() && !given("content-length") && !given("transfer-encoding") {
            text.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(body);
        bytes
    }
}
