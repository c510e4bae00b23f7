//! Steady HTTP/1 load that counts every failure: what proves that a change broke nothing.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::clients::http1::Client;
use crate::netns::Pod;

/// What to send and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// `http://HOST[:PORT]/PATH`.
    pub url: String,
    /// How many connections are used at once.
    pub connections: usize,
    /// Whether each request has a connection of its own.
    pub close: bool,
    /// The pause of each connection after a request, so that load need not mean a full machine.
    pub pause: Duration,
    /// The header lines to add.
    pub headers: Vec<String>,
}

impl Options {
    /// Load on `url` by a number of connections that are kept, without pauses.
    pub fn new(url: &str, connections: usize) -> Self {
        Self {
            url: url.to_owned(),
            connections,
            close: false,
            pause: Duration::ZERO,
            headers: Vec::new(),
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Report {
    /// Requests that were sent, those that failed included.
    pub requests: u64,
    /// The failures by kind: an error, or a status other than 2xx.
    pub failures: BTreeMap<String, u64>,
    /// How many answers each server gave, by the `server` of its JSON.
    pub servers: BTreeMap<String, u64>,
    /// The longest that a request took, in seconds.
    pub slowest: f64,
    /// How long the load lasted, in seconds.
    pub seconds: f64,
}

impl Report {
    /// The number of requests that failed.
    pub fn failed(&self) -> u64 {
        self.failures.values().sum()
    }
}

/// Load that runs until it is stopped.
pub struct Load {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    started: Instant,
}

#[derive(Default)]
struct Shared {
    stopping: AtomicBool,
    requests: AtomicU64,
    report: Mutex<Report>,
}

impl Load {
    /// Starts load from this process's own namespace.
    ///
    /// # Errors
    /// When the URL is none of HTTP, or a thread cannot be started.
    pub fn start(options: &Options) -> Result<Self> {
        let target = Arc::new(Target::parse(options)?);
        let shared: Arc<Shared> = Arc::default();
        let workers = (0..options.connections)
            .map(|_| {
                let (target, shared) = (Arc::clone(&target), Arc::clone(&shared));
                std::thread::Builder::new()
                    .name("load".to_owned())
                    .stack_size(512 << 10)
                    .spawn(move || work(&target, &shared))
                    .context("start a thread of load")
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            shared,
            workers,
            started: Instant::now(),
        })
    }

    /// Starts load from inside a pod.
    ///
    /// # Errors
    /// As [`start`](Self::start), and when the pod cannot be entered.
    pub fn start_in(pod: &Pod, options: &Options) -> Result<Self> {
        pod.run(|| Self::start(options))?
    }

    /// How many requests have ended so far: what a test waits on to know that load flows.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Acquire)
    }

    /// Ends the load, after the requests that are under way.
    pub fn stop(mut self) -> Report {
        self.shared.stopping.store(true, Ordering::Release);
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
        let mut report = self
            .shared
            .report
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        report.seconds = self.started.elapsed().as_secs_f64();
        report
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
    }
}

/// The request, ready to be sent, and where to.
struct Target {
    url: Url,
    request: String,
    close: bool,
    pause: Duration,
}

impl Target {
    fn parse(options: &Options) -> Result<Self> {
        let url = Url::parse(&options.url)?;
        let mut request = format!("GET {} HTTP/1.1\r\nHost: {}\r\n", url.path, url.authority);
        for header in &options.headers {
            request.push_str(header);
            request.push_str("\r\n");
        }
        if options.close {
            request.push_str("Connection: close\r\n");
        }
        request.push_str("\r\n");
        Ok(Self {
            url,
            request,
            close: options.close,
            pause: options.pause,
        })
    }

    fn connect(&self) -> Result<Client> {
        Client::new(TcpStream::connect((self.url.host.as_str(), self.url.port)).context("connect")?)
    }
}

/// The parts of an `http://` URL.
pub struct Url {
    /// The host to resolve, without the brackets of IPv6.
    pub host: String,
    /// The port, 80 unless given.
    pub port: u16,
    /// What the Host header says: host and port as they were written.
    pub authority: String,
    /// The path with its query.
    pub path: String,
}

impl Url {
    /// Reads a URL.
    ///
    /// # Errors
    /// When it is not `http://HOST...`.
    pub fn parse(url: &str) -> Result<Self> {
        let uri: http::Uri = url.parse().with_context(|| format!("the URL {url:?}"))?;
        ensure!(
            uri.scheme_str() == Some("http"),
            "the URL {url:?} is not http://"
        );
        let authority = uri
            .authority()
            .with_context(|| format!("the URL {url:?} has no host"))?;
        Ok(Self {
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(80),
            authority: authority.to_string(),
            path: uri
                .path_and_query()
                .map_or("/", |path| path.as_str())
                .to_owned(),
        })
    }
}

fn work(target: &Target, shared: &Shared) {
    let mut connection = None;
    while !shared.stopping.load(Ordering::Acquire) {
        let began = Instant::now();
        let result = exchange(target, &mut connection);
        let took = began.elapsed().as_secs_f64();
        let mut report = shared.report.lock().unwrap_or_else(PoisonError::into_inner);
        report.requests += 1;
        report.slowest = report.slowest.max(took);
        match result {
            Ok(server) => {
                if let Some(server) = server {
                    *report.servers.entry(server).or_default() += 1;
                }
            }
            Err(error) => {
                connection = None;
                *report.failures.entry(format!("{error:#}")).or_default() += 1;
            }
        }
        drop(report);
        shared.requests.fetch_add(1, Ordering::AcqRel);
        std::thread::sleep(target.pause);
    }
}

/// One request; the name of the server that answered, if it is one of ours.
fn exchange(target: &Target, connection: &mut Option<Client>) -> Result<Option<String>> {
    let client = match connection {
        Some(client) => client,
        None => connection.insert(target.connect()?),
    };
    let response = client.exchange(&target.request)?;
    if target.close || response.head.has_token("connection", "close") {
        *connection = None;
    }
    let status = response.status()?;
    if !(200..300).contains(&status) {
        bail!("status {status}: {}", response.text().trim());
    }
    let server = response.json().ok();
    Ok(server.and_then(|json| Some(json.get("server")?.as_str()?.to_owned())))
}
