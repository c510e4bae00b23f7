//! The scripted servers behind a proxy, and what they saw.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::connection::told;
use super::file::{Act, Answer, Protocol, Upstream};
use super::http1::Message;
use super::names::Names;
use super::tls::Certificates;

mod http;
mod http2;
mod tcp;
mod udp;

/// All servers of one side. They end on drop.
pub(super) struct Upstreams {
    seen: Arc<Seen>,
    gates: Arc<Gates>,
    tasks: Vec<JoinHandle<()>>,
    /// Ports at which nothing listens, held so that nothing will.
    _refusing: Vec<socket2::Socket>,
}

/// What the servers saw, in groups of lines.
#[derive(Default)]
pub(super) struct Seen(Mutex<Vec<Vec<String>>>);

impl Seen {
    fn push(&self, group: Vec<String>) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(group);
    }
}

/// Where answers wait.
#[derive(Default)]
pub(super) struct Gates(Mutex<HashMap<String, Arc<Semaphore>>>);

impl Gates {
    fn gate(&self, name: &str) -> Arc<Semaphore> {
        let mut gates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(
            gates
                .entry(name.to_owned())
                .or_insert_with(|| Arc::new(Semaphore::new(0))),
        )
    }

    async fn wait(&self, name: &str) {
        if let Ok(permit) = self.gate(name).acquire().await {
            permit.forget();
        }
    }
}

/// What each connection of a server needs.
pub(super) struct Server {
    name: String,
    answers: Vec<Answer>,
    /// How often each answer may still be given.
    left: Mutex<Vec<Option<u32>>>,
    script: Vec<Act>,
    seen: Arc<Seen>,
    gates: Arc<Gates>,
    names: Names,
}

impl Upstreams {
    /// Starts all, and adds their ports to `names`.
    ///
    /// # Errors
    /// When one cannot be started.
    pub(super) fn start(
        scripts: &BTreeMap<String, Upstream>,
        certificates: &Arc<Certificates>,
        names: &mut Names,
    ) -> Result<Self> {
        let (seen, gates) = (Arc::new(Seen::default()), Arc::new(Gates::default()));
        let mut refusing = Vec::new();
        let (mut listeners, mut datagrams) = (Vec::new(), Vec::new());
        for (name, script) in scripts {
            let ip = script.address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
            let address = SocketAddr::new(ip, 0);
            names.set(format!("{name}.address"), ip.to_string());
            let domain = socket2::Domain::for_address(address);
            let kind = match script.protocol {
                Protocol::Udp => socket2::Type::DGRAM,
                _ => socket2::Type::STREAM,
            };
            let socket = socket2::Socket::new(domain, kind, None)?;
            socket
                .bind(&address.into())
                .with_context(|| format!("upstreams.{name}.address"))?;
            let bound = socket.local_addr()?.as_socket().context("no IP address")?;
            names.port(name, bound.port());
            if script.refuses {
                if script.protocol == Protocol::Udp {
                    // It takes datagrams of one peer; the system refuses all others.
                    let nobody = SocketAddr::new(ip, 9);
                    socket.connect(&nobody.into())?;
                }
                refusing.push(socket);
            } else if script.protocol == Protocol::Udp {
                socket.set_nonblocking(true)?;
                datagrams.push((
                    name,
                    script,
                    tokio::net::UdpSocket::from_std(socket.into())?,
                ));
            } else {
                socket.listen(1024)?;
                socket.set_nonblocking(true)?;
                listeners.push((
                    name,
                    script,
                    tokio::net::TcpListener::from_std(socket.into())?,
                ));
            }
        }
        let mut tasks = Vec::new();
        let server_of = |name: &String, script: &Upstream| {
            Arc::new(Server {
                name: name.clone(),
                answers: script.answers.clone(),
                left: Mutex::new(script.answers.iter().map(|answer| answer.times).collect()),
                script: script.script.clone(),
                seen: Arc::clone(&seen),
                gates: Arc::clone(&gates),
                names: names.clone(),
            })
        };
        for (name, script, socket) in datagrams {
            tasks.push(tokio::spawn(udp::serve(socket, server_of(name, script))));
        }
        for (name, script, listener) in listeners {
            let server = server_of(name, script);
            let tls = match &script.tls {
                None => None,
                Some(tls) => Some(
                    certificates
                        .server(tls)
                        .with_context(|| format!("upstreams.{name}.tls"))?,
                ),
            };
            let certificates = Arc::clone(certificates);
            tasks.push(tokio::spawn(accept(
                listener,
                server,
                script.protocol,
                tls,
                certificates,
            )));
        }
        Ok(Self {
            seen,
            gates,
            tasks,
            _refusing: refusing,
        })
    }

    /// Lets one answer go that waits for this.
    pub(super) fn release(&self, gate: &str) {
        self.gates.gate(gate).add_permits(1);
    }

    /// What was seen since it was taken.
    pub(super) fn seen(&self, take: bool) -> Vec<String> {
        let mut groups = self.seen.0.lock().unwrap_or_else(PoisonError::into_inner);
        if take {
            std::mem::take(&mut *groups).into_iter().flatten().collect()
        } else {
            groups.iter().flatten().cloned().collect()
        }
    }
}

impl Drop for Upstreams {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Server {
    /// The answer for a path.
    fn answer(&self, path: &str) -> Option<&Answer> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        for (answer, left) in self.answers.iter().zip(left.iter_mut()) {
            if !path.starts_with(&answer.on) || *left == Some(0) {
                continue;
            }
            if let Some(times) = left {
                *times -= 1;
            }
            return Some(answer);
        }
        None
    }

    /// Whether the next answer for a path is given before its body is read.
    fn is_early(&self, path: &str) -> bool {
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let mut fitting = self.answers.iter().zip(left.iter());
        let next = fitting.find(|(answer, left)| path.starts_with(&answer.on) && **left != Some(0));
        next.is_some_and(|(answer, _)| answer.early)
    }

    fn body(&self, answer: &Answer, request: &Message) -> Result<Vec<u8>> {
        if answer.echo {
            let mut request = request.clone();
            // Their case is not compared unless a case asks for it.
            let names = request.headers.iter_mut().chain(&mut request.trailers);
            names.for_each(|(name, _)| name.make_ascii_lowercase());
            let mut lines = told(&self.name, &request);
            // An id that the proxy made must not make the length another.
            lines.retain(|line| !line.contains("header x-request-id: "));
            return Ok(self.neutral(&lines.join("\n")).into_bytes());
        }
        if let Some(size) = answer.size {
            return Ok(outrider_testkit::servers::pattern(size));
        }
        match &answer.body {
            Some(body) => super::bytes::exact(&self.names.fill(body)?),
            None => Ok(Vec::new()),
        }
    }

    /// `name: value` each, with placeholders filled in.
    fn fields(&self, fields: &[String]) -> Result<Vec<(String, String)>> {
        fields
            .iter()
            .map(|field| super::side::field(&self.names.fill(field)?))
            .collect()
    }

    /// A text without what differs between the sides.
    fn neutral(&self, text: &str) -> String {
        self.names.neutral(text)
    }

    fn saw(&self, lines: Vec<String>) {
        let name = &self.name;
        self.seen.push(
            lines
                .into_iter()
                .map(|line| format!("upstream {name}{line}"))
                .collect(),
        );
    }
}

async fn accept(
    listener: tokio::net::TcpListener,
    server: Arc<Server>,
    protocol: Protocol,
    tls: Option<Arc<rustls::ServerConfig>>,
    certificates: Arc<Certificates>,
) {
    // Its connections end with it.
    let mut connections = tokio::task::JoinSet::new();
    let mut count = 0u32;
    while let Ok((socket, _)) = listener.accept().await {
        let _ = socket.set_nodelay(true);
        count += 1;
        let (server, tls, certificates) =
            (Arc::clone(&server), tls.clone(), Arc::clone(&certificates));
        connections.spawn(async move {
            let result = serve(socket, &server, protocol, tls, &certificates, count).await;
            if let Err(error) = result
                && std::env::var_os("OUTRIDER_TESTKIT_LOG").is_some()
            {
                eprintln!("upstream {}: {error:#}", server.name);
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(
    socket: tokio::net::TcpStream,
    server: &Arc<Server>,
    protocol: Protocol,
    tls: Option<Arc<rustls::ServerConfig>>,
    certificates: &Certificates,
    count: u32,
) -> Result<()> {
    let second = socket2::SockRef::from(&socket).try_clone()?;
    let Some(config) = tls else {
        return speak(socket, second, server, protocol, count).await;
    };
    match tokio_rustls::TlsAcceptor::from(config).accept(socket).await {
        Err(_) => {
            server.saw(vec![" tls: failed".to_owned()]);
            Ok(())
        }
        Ok(secured) => {
            let (_, session) = secured.get_ref();
            let alpn = session.alpn_protocol().map(String::from_utf8_lossy);
            let shown = session.peer_certificates().and_then(|chain| chain.first());
            server.saw(vec![format!(
                " tls: {} sni={} alpn={} certificate={}",
                session
                    .protocol_version()
                    .and_then(|version| version.as_str())
                    .unwrap_or("?"),
                session.server_name().unwrap_or("-"),
                alpn.as_deref().unwrap_or("-"),
                certificates.name_of(shown)
            )]);
            speak(secured, second, server, protocol, count).await
        }
    }
}

async fn speak(
    stream: impl super::connection::Stream + 'static,
    socket: socket2::Socket,
    server: &Arc<Server>,
    protocol: Protocol,
    count: u32,
) -> Result<()> {
    match protocol {
        Protocol::Http1 => http::serve(stream, socket, server, count).await,
        Protocol::Http2 => {
            drop(socket);
            http2::serve(stream, server, count).await
        }
        Protocol::Tcp | Protocol::Udp => tcp::serve(stream, socket, server).await,
    }
}
