//! One of the two proxies, with its own servers behind it and its own connections to it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use outrider_testkit::Proxy;
use outrider_testkit::proxy::{self, Kind};
use serde_json::{Value, json};
use tokio::task::block_in_place;

use super::connection::{Connection, PATIENCE, Request, Target};
use super::file::{End, Read, Setup, Step, Via};
use super::names::Names;
use super::pages;
use super::tls::Certificates;
use super::upstream::Upstreams;
use super::xds::Discovery;
use super::{bytes, config, http1};

pub(super) struct Side {
    pub(super) proxy: Proxy,
    pub(super) names: Names,
    upstreams: Upstreams,
    certificates: Arc<Certificates>,
    listeners: Vec<(String, SocketAddr)>,
    connections: BTreeMap<String, Connection>,
    /// The one of the present step.
    current: Option<String>,
    logs: BTreeMap<std::path::PathBuf, usize>,
    /// How long a read waits.
    patience: Duration,
    discovery: Option<Discovery>,
}

/// The name of the connection of a step that names none.
const UNNAMED: &str = "";

/// All that a proxy is started with.
pub(super) struct Prepared {
    pub(super) bootstrap: Value,
    pub(super) names: Names,
    upstreams: Upstreams,
    discovery: Option<Discovery>,
}

impl Prepared {
    /// Starts the servers behind, and makes the bootstrap; `${folder}`, `${log}` and the admin
    /// address are left to be filled in.
    ///
    /// # Errors
    /// When the setup is wrong.
    pub(super) fn new(setup: &Setup, certificates: &Arc<Certificates>) -> Result<Self> {
        let mut names = Names::default();
        // Envoy says the machine's own address in x-forwarded-for where the client is on loopback.
        if let Some(address) = own_address() {
            names.know(address.to_string(), "127.0.0.1");
        }
        let mut upstreams_names = Names::default();
        let upstreams = Upstreams::start(&setup.upstreams, certificates, &mut upstreams_names)?;
        names.extend(upstreams_names);
        let mut bootstrap = config::bootstrap(setup)?;
        let discovery = match setup.via {
            Via::Static => None,
            Via::Xds => Some(Discovery::start(&mut bootstrap, setup, &mut names)?),
        };
        Ok(Self {
            bootstrap,
            names,
            upstreams,
            discovery,
        })
    }

    /// Writes the case's files to the proxy's folder and fills in the bootstrap.
    ///
    /// # Errors
    /// When a placeholder is unknown.
    pub(super) fn finish(
        &mut self,
        setup: &Setup,
        certificates: &Certificates,
        folder: &std::path::Path,
        admin: SocketAddr,
    ) -> Result<String> {
        self.names.set("folder", folder.display().to_string());
        self.names.know(folder.display().to_string(), "<folder>");
        self.names
            .set("log", folder.join("access.log").display().to_string());
        self.names.port("admin", admin.port());
        for (name, path) in certificates.write(folder)? {
            self.names.set(name, path);
        }
        for (name, text) in &setup.files {
            let text = self
                .names
                .fill(text)
                .with_context(|| format!("files.{name}"))?;
            std::fs::write(folder.join(name), text).with_context(|| format!("files.{name}"))?;
        }
        let mut bootstrap = self.bootstrap.clone();
        let map = bootstrap.as_object_mut().context("config: not a map")?;
        let address = json!({ "socket_address": {
            "address": admin.ip().to_string(), "port_value": admin.port(),
        }});
        map.entry("admin").or_insert_with(|| json!({}))["address"] = address;
        self.names.fill_value(&mut bootstrap)?;
        if let Some(discovery) = &self.discovery {
            discovery.fill(&self.names)?;
        }
        Ok(serde_json::to_string_pretty(&bootstrap)?)
    }
}

impl Side {
    /// Starts a proxy and waits until it is ready.
    ///
    /// # Errors
    /// When it does not start; the error has what it wrote.
    pub(super) fn start(
        kind: Kind,
        setup: &Setup,
        certificates: &Arc<Certificates>,
    ) -> Result<Self> {
        let mut prepared = Prepared::new(setup, certificates)?;
        let arguments: Vec<&str> = setup.arguments.iter().map(String::as_str).collect();
        let mut proxy = Proxy::spawn(kind, &arguments, |folder, admin| {
            prepared.finish(setup, certificates, folder, admin)
        })?;
        block_in_place(|| proxy.wait_until_ready())?;
        let mut side = Self {
            proxy,
            names: prepared.names,
            upstreams: prepared.upstreams,
            certificates: Arc::clone(certificates),
            listeners: Vec::new(),
            connections: BTreeMap::new(),
            current: None,
            logs: BTreeMap::new(),
            patience: PATIENCE,
            discovery: prepared.discovery,
        };
        side.learn_listeners()?;
        Ok(side)
    }

    fn learn_listeners(&mut self) -> Result<()> {
        let listeners = block_in_place(|| self.proxy.listeners())?;
        for (name, address) in &listeners {
            if address.port() != 0 && !self.listeners.contains(&(name.clone(), *address)) {
                self.names.port(&format!("listener.{name}"), address.port());
            }
        }
        self.listeners = listeners;
        Ok(())
    }

    fn target(&self, step: &Step) -> Result<Target> {
        if let Some(unix) = step.open.as_ref().and_then(|open| open.unix.as_ref()) {
            return Ok(Target::Unix(self.names.fill(unix)?));
        }
        let wanted = |name: &String| step.to.as_ref().is_none_or(|to| to == name);
        let found = self.listeners.iter().find(|(name, _)| wanted(name));
        let (_, mut address) = found.cloned().with_context(|| {
            format!(
                "there is no listener {:?}",
                step.to.as_deref().unwrap_or("")
            )
        })?;
        if address.ip().is_unspecified() {
            address.set_ip(match address {
                SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
                SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
            });
        }
        Ok(Target::Tcp(address))
    }

    /// Does what a step says; tells what came of it.
    ///
    /// # Errors
    /// When the step is wrong, or cannot be done at all.
    pub(super) async fn act(&mut self, step: &Step) -> Result<Vec<String>> {
        self.current = None;
        if let Some(gate) = &step.release {
            self.upstreams.release(gate);
            return Ok(Vec::new());
        }
        for (name, text) in &step.write {
            let text = self.names.fill(text)?;
            let path = self.proxy.folder().join(name);
            let new = path.with_extension("new");
            std::fs::write(&new, text)
                .and_then(|()| std::fs::rename(&new, &path))
                .with_context(|| format!("write {name}"))?;
        }
        if let Some(signal) = &step.signal {
            let signal = format!("SIG{signal}").parse().context("signal")?;
            self.proxy.process.signal(signal)?;
            return Ok(Vec::new());
        }
        if let Some(update) = &step.update {
            let discovery = self.discovery.as_ref().context("update: needs via: xds")?;
            let lines = discovery.update(update, &self.names).await?;
            self.learn_listeners()?;
            return Ok(lines);
        }
        if !step.until.is_empty() {
            return self.wait_for_stats(&step.until).await;
        }
        if let Some(page) = &step.admin
            && page.starts_with("POST ")
        {
            return self.page(page, step);
        }
        if step.admin.is_some() || !step.stats.is_empty() || !step.write.is_empty() {
            // Asked for until both agree.
            return Ok(Vec::new());
        }
        self.converse(step).await
    }

    async fn converse(&mut self, step: &Step) -> Result<Vec<String>> {
        let name = step.on.clone().unwrap_or_else(|| UNNAMED.to_owned());
        let mut connection = match self.connections.remove(&name) {
            Some(_) if step.open.is_some() => bail!("on: {name} is open already"),
            Some(connection) => connection,
            None => {
                if self.target(step).is_err() {
                    self.learn_listeners()?;
                }
                match self.open(step).await? {
                    Ok(connection) => connection,
                    Err(line) => return Ok(vec![line]),
                }
            }
        };
        let lines = self.exchange(&mut connection, step).await?;
        if matches!(step.end, None | Some(End::Half)) {
            if step.read != Some(Read::Nothing) || step.open.is_some() {
                self.current = Some(name.clone());
            }
            self.connections.insert(name, connection);
        }
        Ok(lines)
    }

    /// Does a step on a connection of its own, whatever else goes on; all that was seen of it.
    ///
    /// # Errors
    /// When the step is wrong.
    pub(super) async fn probe(&self, step: &Step) -> Result<Vec<String>> {
        match self.open(step).await? {
            Err(line) => Ok(vec![line]),
            Ok(mut connection) => {
                let mut lines = self.exchange(&mut connection, step).await?;
                if step.read != Some(Read::End) {
                    connection.wait_for_the_end(step).await;
                }
                lines.extend(connection.rest(true));
                Ok(lines)
            }
        }
    }

    /// A connection, or why there is none.
    async fn open(&self, step: &Step) -> Result<Result<Connection, String>> {
        let target = self.target(step)?;
        let mut open = step.open.clone().unwrap_or_default();
        for first in [&mut open.first, &mut open.first_hex].into_iter().flatten() {
            *first = self.names.fill(first)?;
        }
        let opened = Connection::open(&target, &open, &self.certificates).await;
        Ok(match opened {
            Ok(mut connection) => {
                connection.set_patience(self.patience);
                Ok(connection)
            }
            Err(error) => Err(format!("connect: {}", refusal(&error))),
        })
    }

    /// Sends what a step sends, and reads what it reads.
    async fn exchange(&self, connection: &mut Connection, step: &Step) -> Result<Vec<String>> {
        let mut sent = false;
        if step.request.is_some() {
            sent = true;
            connection.request(self.request(step)?).await?;
        }
        let raw = self.raw(step)?;
        if !raw.is_empty() {
            sent = true;
            let kind = if raw.starts_with(b"HEAD ") {
                http1::Kind::ResponseToHead
            } else {
                http1::Kind::Response
            };
            connection.send(&raw, kind).await?;
        }
        if let Some(end) = step.end {
            connection.end(end).await?;
            if end != End::Half {
                return Ok(Vec::new());
            }
        }
        // A step that sends nothing reads what earlier ones left; one that only opens, nothing.
        let read = match step.read {
            None if !sent && step.open.is_some() => Read::Nothing,
            None => Read::Responses(1),
            Some(read) => read,
        };
        Ok(connection.read(read).await)
    }

    fn request(&self, step: &Step) -> Result<Request> {
        let line = step.request.as_deref().unwrap_or_default();
        let (method, target) = line.split_once(' ').context("request: METHOD TARGET")?;
        let fields = |fields: &[String]| {
            let filled = fields.iter().map(|text| field(&self.names.fill(text)?));
            filled.collect::<Result<Vec<_>>>()
        };
        let body = match &step.body {
            None => None,
            Some(body) => Some(bytes::exact(&self.names.fill(body)?)?),
        };
        Ok(Request {
            method: method.to_owned(),
            target: self.names.fill(target)?,
            headers: fields(&step.headers)?,
            body,
            trailers: fields(&step.trailers)?,
        })
    }

    fn raw(&self, step: &Step) -> Result<Vec<u8>> {
        let mut raw = Vec::new();
        if let Some(text) = &step.text {
            raw.extend(bytes::lines(&self.names.fill(text)?));
        }
        if let Some(text) = &step.raw {
            raw.extend(bytes::exact(&self.names.fill(text)?)?);
        }
        if let Some(text) = &step.hex {
            raw.extend(bytes::hex(&self.names.fill(text)?)?);
        }
        Ok(raw)
    }

    /// What else can be seen now; taken, so that it is not seen again, when `take`.
    ///
    /// # Errors
    /// When the proxy does not answer its admin API.
    pub(super) fn rest(&mut self, step: Option<&Step>, take: bool) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        if let Some(name) = &self.current
            && let Some(connection) = self.connections.get_mut(name)
        {
            lines.extend(connection.rest(take));
        }
        if let Some(step) = step {
            if let Some(page) = &step.admin
                && !page.starts_with("POST ")
            {
                lines.extend(self.page(page, step)?);
            }
            for name in &step.stats {
                let name = self.names.fill(name)?;
                let value = block_in_place(|| self.proxy.stat(&name))?;
                let value = value.map_or("none".to_owned(), |value| value.to_string());
                lines.push(format!("stat {name}: {value}"));
            }
        }
        lines.extend(self.upstreams.seen(take));
        lines.extend(self.log_lines(take));
        Ok(lines)
    }

    /// Lets reads wait that long.
    pub(super) fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// How many bytes the access log has.
    pub(super) fn log_length(&self) -> u64 {
        let file = self.proxy.folder().join("access.log");
        std::fs::metadata(file).map_or(0, |file| file.len())
    }

    /// Ends the connections of a step, or of a case.
    pub(super) fn end_connections(&mut self, all: bool) {
        self.connections.retain(|name, _| !all && name != UNNAMED);
        self.current = None;
    }

    fn page(&self, page: &str, step: &Step) -> Result<Vec<String>> {
        let (method, path) = page.split_once(' ').unwrap_or(("GET", page));
        let path = self.names.fill(path)?;
        let page = block_in_place(|| self.proxy.page(method, &path))?;
        Ok(pages::lines(&page, &step.at, &step.without))
    }

    async fn wait_for_stats(&self, wanted: &BTreeMap<String, i64>) -> Result<Vec<String>> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let mut missing = Vec::new();
            for (name, value) in wanted {
                let name = self.names.fill(name)?;
                let now = block_in_place(|| self.proxy.stat(&name))?;
                if now != Some(*value) {
                    missing.push(format!("stat {name}: {now:?}, not {value}, in time"));
                }
            }
            if missing.is_empty() || tokio::time::Instant::now() >= deadline {
                return Ok(missing);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// New lines of all `*.log` in the proxy's folder.
    fn log_lines(&mut self, take: bool) -> Vec<String> {
        let mut lines = Vec::new();
        let mut files: Vec<_> = std::fs::read_dir(self.proxy.folder())
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
            .collect();
        files.sort();
        for file in files {
            let Ok(content) = std::fs::read(&file) else {
                continue;
            };
            let name = match file
                .file_stem()
                .map(|stem| stem.to_string_lossy().into_owned())
            {
                Some(name) if name != "access" => format!("log {name}"),
                _ => "log".to_owned(),
            };
            let read = self.logs.entry(file).or_insert(0);
            let rest = content.get(*read..).unwrap_or_default();
            let whole = rest
                .iter()
                .rposition(|byte| *byte == b'\n')
                .map_or(0, |end| end + 1);
            for line in rest[..whole]
                .split(|byte| *byte == b'\n')
                .filter(|line| !line.is_empty())
            {
                lines.push(format!("{name}: {}", String::from_utf8_lossy(line)));
            }
            if take {
                *read += whole;
            }
        }
        lines
    }
}

/// The address that this machine has towards others, if any; nothing is sent.
fn own_address() -> Option<IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback()).then_some(address)
}

fn refusal(error: &anyhow::Error) -> String {
    let io = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<std::io::Error>());
    io.map_or_else(|| format!("{error:#}"), |io| format!("{:?}", io.kind()))
}

/// `name: value`.
///
/// # Errors
/// When there is no colon behind the name.
pub(super) fn field(text: &str) -> Result<(String, String)> {
    // A pseudo-header begins with a colon.
    let from = usize::from(text.starts_with(':'));
    let colon = text[from..]
        .find(':')
        .with_context(|| format!("{text:?}: name: value"))?
        + from;
    Ok((
        text[..colon].to_owned(),
        text[colon + 1..].trim().to_owned(),
    ))
}

/// Asks a program whether it takes a setup's bootstrap; what it wrote if it does not.
///
/// # Errors
/// When it cannot be asked.
pub(super) fn refuses(
    kind: Kind,
    setup: &Setup,
    certificates: &Arc<Certificates>,
) -> Result<Option<String>> {
    let folder = tempfile::tempdir()?;
    let mut prepared = Prepared::new(setup, certificates)?;
    let bootstrap =
        prepared.finish(setup, certificates, folder.path(), proxy::closed_address()?)?;
    let file = folder.path().join("bootstrap.yaml");
    std::fs::write(&file, bootstrap)?;
    let mut command = proxy::program(kind)?;
    command
        .arg("-c")
        .arg(&file)
        .args(["--mode", "validate", "-l", "warn"]);
    if kind == Kind::Envoy {
        command.arg("--use-dynamic-base-id");
    }
    command.args(&setup.arguments);
    let output = block_in_place(|| command.output())?;
    if output.status.success() {
        return Ok(None);
    }
    let said = [output.stdout, output.stderr].concat();
    Ok(Some(String::from_utf8_lossy(&said).into_owned()))
}
