//! The case files: tests/conform/README.md describes them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Map, Value};

/// What a pair of proxies is started with; cases of one file with the same share a pair.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Setup {
    /// Whether the resources are in the file or come over ADS.
    pub(super) via: Via,
    /// The scripted servers behind the proxies, by name.
    pub(super) upstreams: BTreeMap<String, Upstream>,
    /// More certificates than the ones that are always there.
    pub(super) certificates: BTreeMap<String, Certificate>,
    /// Files written to the proxy's folder, by name.
    pub(super) files: BTreeMap<String, String>,
    /// A bootstrap.
    pub(super) config: Value,
    /// Fields of the connection manager of a listener named `http`.
    pub(super) http: Option<Value>,
    /// Fields of that listener's filter chain.
    pub(super) chain: Value,
    /// Fields of that listener.
    pub(super) listener: Value,
    /// Fields of the clusters that the upstreams make.
    pub(super) clusters: BTreeMap<String, Value>,
    /// More resources over ADS: `routes`, `endpoints`, `secrets`.
    pub(super) xds: Resources,
    /// More arguments of both programs.
    pub(super) arguments: Vec<String>,
}

/// How resources reach the proxies.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum Via {
    /// In the bootstrap.
    #[default]
    Static,
    /// From an ADS server.
    Xds,
}

/// Resources by kind. What is absent stays as it is.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Resources {
    pub(super) clusters: Option<Vec<Value>>,
    pub(super) endpoints: Option<Vec<Value>>,
    pub(super) listeners: Option<Vec<Value>>,
    pub(super) routes: Option<Vec<Value>>,
    pub(super) secrets: Option<Vec<Value>>,
    pub(super) runtimes: Option<Vec<Value>>,
}

/// A scripted server.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Upstream {
    pub(super) protocol: Protocol,
    /// The address that it listens on; 127.0.0.1 unless set. Any 127.0.0.0/8 and `::1`.
    pub(super) address: Option<std::net::IpAddr>,
    /// Nothing listens there.
    pub(super) refuses: bool,
    pub(super) tls: Option<ServerTls>,
    /// HTTP: the first one that fits answers; what fits none gets 200 and the server's name.
    pub(super) answers: Vec<Answer>,
    /// TCP: what is done on each connection.
    pub(super) script: Vec<Act>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum Protocol {
    #[default]
    Http1,
    Http2,
    Tcp,
    Udp,
}

/// TLS of a scripted server.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ServerTls {
    /// Its certificate's name.
    pub(super) certificate: String,
    pub(super) alpn: Vec<String>,
    /// The authority that clients must have a certificate of.
    pub(super) require: Option<String>,
    /// `TLSv1.2` or `TLSv1.3`; both unless set.
    pub(super) version: Option<String>,
}

impl Default for ServerTls {
    fn default() -> Self {
        Self {
            certificate: "server".to_owned(),
            alpn: Vec::new(),
            require: None,
            version: None,
        }
    }
}

/// One answer of an HTTP server.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Answer {
    /// The beginning of the path that it is for.
    pub(super) on: String,
    /// How often it is given; without end unless set.
    pub(super) times: Option<u32>,
    /// Given when the head is there, before the body was read.
    pub(super) early: bool,
    /// Waits for a step `release` of this name.
    pub(super) waits: Option<String>,
    /// Interim heads before it: `103`, or `103 Early Hints\nlink: x`.
    pub(super) interim: Vec<String>,
    pub(super) status: u16,
    /// `name: value` each.
    pub(super) headers: Vec<String>,
    pub(super) body: Option<String>,
    /// The body is what the server saw of the request instead.
    pub(super) echo: bool,
    /// The body is this many bytes long instead.
    pub(super) size: Option<usize>,
    /// `name: value` each; the body is chunked then.
    pub(super) trailers: Vec<String>,
    /// The body is chunked.
    pub(super) chunked: bool,
    /// Exactly these bytes (HTTP/1).
    pub(super) raw: Option<String>,
    /// What happens next.
    pub(super) then: Then,
}

impl Default for Answer {
    fn default() -> Self {
        Self {
            on: String::new(),
            times: None,
            early: false,
            waits: None,
            interim: Vec::new(),
            status: 200,
            headers: Vec::new(),
            body: None,
            echo: false,
            size: None,
            trailers: Vec::new(),
            chunked: false,
            raw: None,
            then: Then::Keep,
        }
    }
}

/// What becomes of a connection (HTTP/2: reset is the stream's).
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum Then {
    #[default]
    Keep,
    Close,
    Reset,
    /// Sends back what comes.
    Echo,
    /// HTTP/2: GOAWAY, and serves what is there.
    Goaway,
}

/// One act of a TCP server.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(super) enum Act {
    Say(String),
    /// Reads this many bytes.
    Read(usize),
    /// Reads to the end.
    End,
    /// Sends back what comes, to the end.
    Echo,
    /// Ends its direction.
    Half,
    Close,
    Reset,
    /// Waits for a step `release` of this name.
    Wait(String),
}

/// A certificate.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Certificate {
    /// The authority that signs: `root` or `stranger`, or a certificate with `authority: true`.
    pub(super) by: String,
    pub(super) authority: bool,
    pub(super) common_name: Option<String>,
    pub(super) dns: Vec<String>,
    pub(super) uri: Vec<String>,
    pub(super) email: Vec<String>,
    pub(super) ip: Vec<std::net::IpAddr>,
    /// `p256`, `p384`, `rsa` or `ed25519`.
    pub(super) key: Option<String>,
    /// It ended yesterday.
    pub(super) expired: bool,
    /// Its authority's list (`${root.crl}`) names it.
    pub(super) revoked: bool,
    /// A user principal name: an `otherName` of 1.3.6.1.4.1.311.20.2.3.
    pub(super) user: Option<String>,
}

impl Default for Certificate {
    fn default() -> Self {
        Self {
            by: "root".to_owned(),
            authority: false,
            common_name: None,
            dns: Vec::new(),
            uri: Vec::new(),
            email: Vec::new(),
            ip: Vec::new(),
            key: None,
            expired: false,
            revoked: false,
            user: None,
        }
    }
}

/// What one case does and compares.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Script {
    pub(super) about: String,
    pub(super) steps: Vec<Step>,
    /// Who refuses the file.
    pub(super) rejects: Rejects,
    /// What our refusal must name.
    pub(super) names: Vec<String>,
    /// A heading of differences.md.
    pub(super) differs: Option<String>,
    pub(super) compare: Compare,
    /// Proxies of its own, though the configuration is the file's.
    pub(super) fresh: bool,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(try_from = "Value")]
pub(super) enum Rejects {
    #[default]
    Nobody,
    Both,
    Ours,
}

impl TryFrom<Value> for Rejects {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        match value {
            Value::Bool(true) => Ok(Self::Both),
            Value::Bool(false) => Ok(Self::Nobody),
            Value::String(text) if text == "ours" => Ok(Self::Ours),
            other => Err(format!("rejects is true or ours, not {other}")),
        }
    }
}

/// What is left out of a comparison or added to it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Compare {
    /// Lines that begin so are left out (`response header x-a`, `log`, `upstream up`).
    pub(super) without: Vec<String>,
    /// The case of header names.
    pub(super) case: bool,
    /// Which connection of an upstream took which request.
    pub(super) pool: bool,
}

/// One step. Which kind it is follows from which keys it has.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Step {
    pub(super) about: Option<String>,
    /// The connection's name; without one, a connection of this step alone.
    pub(super) on: Option<String>,
    /// The listener's name; the first unless set.
    pub(super) to: Option<String>,
    pub(super) open: Option<Open>,
    /// `GET /path` or `GET http://host/path`.
    pub(super) request: Option<String>,
    /// `name: value` each.
    pub(super) headers: Vec<String>,
    pub(super) body: Option<String>,
    pub(super) trailers: Vec<String>,
    /// Lines: each ends with CRLF, and a head is completed with an empty line.
    pub(super) text: Option<String>,
    /// Exactly these bytes (characters up to U+00FF).
    pub(super) raw: Option<String>,
    pub(super) hex: Option<String>,
    /// What our side does after sending.
    pub(super) end: Option<End>,
    pub(super) read: Option<Read>,

    pub(super) admin: Option<String>,
    /// Only what is below these paths of JSON.
    pub(super) at: Vec<String>,
    /// Without what is below these paths (in each line: its beginning).
    pub(super) without: Vec<String>,
    pub(super) stats: Vec<String>,
    pub(super) release: Option<String>,
    /// Waits until these stats have these values.
    pub(super) until: BTreeMap<String, i64>,
    pub(super) update: Option<Resources>,
    /// Files of the proxy's folder to replace in one step each.
    pub(super) write: BTreeMap<String, String>,
    /// A signal to the proxies, such as `TERM`.
    pub(super) signal: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Open {
    pub(super) tls: Option<ClientTls>,
    pub(super) http2: bool,
    /// The address that we connect from, such as 127.0.0.7.
    pub(super) from: Option<std::net::IpAddr>,
    /// The address that we connect to instead of the listener's, with its port.
    pub(super) at: Option<std::net::IpAddr>,
    /// A path in the proxy's folder (or `@name`) instead of a listener's address.
    pub(super) unix: Option<String>,
    /// Datagrams: each step sends one.
    pub(super) udp: bool,
    /// Bytes before everything (a PROXY header, say), also before TLS.
    pub(super) first: Option<String>,
    pub(super) first_hex: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ClientTls {
    pub(super) sni: Option<String>,
    pub(super) alpn: Vec<String>,
    pub(super) certificate: Option<String>,
    /// `TLSv1.2` or `TLSv1.3`; both unless set.
    pub(super) version: Option<String>,
    /// The only kind of key that it can verify: `rsa` or `ecdsa`.
    pub(super) verifies: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum End {
    Half,
    Close,
    Reset,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "Value")]
pub(super) enum Read {
    /// This many HTTP responses, or to the end.
    Responses(usize),
    /// This many bytes, or to the end.
    Bytes(usize),
    /// This many frames of HTTP/2 (but SETTINGS and WINDOW_UPDATE), or to the end.
    Frames(usize),
    /// To the end of the connection.
    End,
    /// Nothing yet; a later step does.
    Nothing,
}

impl TryFrom<Value> for Read {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let number = |value: &Value| {
            value
                .as_u64()
                .and_then(|number| usize::try_from(number).ok())
        };
        match &value {
            Value::String(text) if text == "end" => return Ok(Self::End),
            Value::String(text) if text == "nothing" => return Ok(Self::Nothing),
            Value::Number(_) => {
                if let Some(count) = number(&value) {
                    return Ok(Self::Responses(count));
                }
            }
            Value::Object(map) => {
                if let Some(count) = map.get("bytes").and_then(number) {
                    return Ok(Self::Bytes(count));
                }
                if let Some(count) = map.get("frames").and_then(number) {
                    return Ok(Self::Frames(count));
                }
            }
            _ => {}
        }
        Err(format!(
            "read is a number of responses, {{bytes: N}}, {{frames: N}}, end or nothing, not {value}"
        ))
    }
}

/// A case, ready to be run.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) setup: Setup,
    pub(super) script: Script,
}

/// A file of cases.
#[derive(Clone, Debug)]
pub(super) struct CaseFile {
    /// Such as `route/prefix`.
    pub(super) name: String,
    pub(super) cases: Vec<Case>,
}

impl CaseFile {
    /// The area: the folder.
    pub(super) fn area(&self) -> &str {
        self.name.split('/').next().unwrap_or_default()
    }

    /// Reads a file.
    ///
    /// # Errors
    /// When it is not of the format; the error names the key.
    pub(super) fn read(path: &Path, name: String) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        Self::parse(&text, name).with_context(|| path.display().to_string())
    }

    pub(super) fn parse(text: &str, name: String) -> Result<Self> {
        let value: serde_norway::Value = serde_norway::from_str(text)?;
        let mut value: Value = serde_json::to_value(merge_keys(value)?)?;
        let file = value.as_object_mut().context("not a map")?;
        let cases = match file.remove("cases") {
            None => vec![Value::Object(Map::new())],
            Some(Value::Array(cases)) => cases,
            Some(_) => bail!("cases: not a list"),
        };
        ensure!(!cases.is_empty(), "cases: none");
        let (setup, mut script) = split(file);
        let file_about = script.remove("about");
        ensure!(
            file_about.as_ref().is_some_and(Value::is_string),
            "about: say what the file is about"
        );
        let mut result = Vec::new();
        for (index, case) in cases.into_iter().enumerate() {
            let at = || format!("cases[{index}]");
            let mut case = case;
            let case = case.as_object_mut().with_context(at)?;
            let (more_setup, more_script) = split(case);
            let mut setup = Value::Object(setup.clone());
            merge(&mut setup, Value::Object(more_setup));
            let mut script = Value::Object(script.clone());
            merge(&mut script, Value::Object(more_script));
            let mut script: Script = serde_json::from_value(script).with_context(at)?;
            if script.about.is_empty() {
                script.about = file_about
                    .as_ref()
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .to_owned();
            }
            result.push(Case {
                setup: serde_json::from_value(setup).with_context(at)?,
                script,
            });
        }
        Ok(Self {
            name,
            cases: result,
        })
    }
}

/// All files below the folder whose names contain `filter`, by name.
///
/// # Errors
/// When one is not of the format.
pub(super) fn all(folder: &Path, filter: &str) -> Result<Vec<CaseFile>> {
    let mut paths: Vec<PathBuf> = Vec::new();
    for area in std::fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let area = area?.path();
        if area.is_dir() {
            for file in std::fs::read_dir(&area)? {
                let path = file?.path();
                if path
                    .extension()
                    .is_some_and(|extension| extension == "yaml")
                {
                    paths.push(path);
                }
            }
        }
    }
    paths.sort();
    let mut files = Vec::new();
    for path in paths {
        let name = path.strip_prefix(folder)?.with_extension("");
        let name = name.to_string_lossy().into_owned();
        if name.contains(filter) {
            files.push(CaseFile::read(&path, name)?);
        }
    }
    Ok(files)
}

/// Resolves YAML's `<<`.
fn merge_keys(mut value: serde_norway::Value) -> Result<serde_norway::Value> {
    value.apply_merge().context("<<")?;
    Ok(value)
}

/// The keys of [`Setup`] apart from the others.
fn split(map: &mut Map<String, Value>) -> (Map<String, Value>, Map<String, Value>) {
    const SETUP: [&str; 12] = [
        "via",
        "upstreams",
        "certificates",
        "files",
        "config",
        "http",
        "chain",
        "listener",
        "clusters",
        "xds",
        "arguments",
        "anchors",
    ];
    let mut setup = Map::new();
    let mut script = Map::new();
    for (key, value) in std::mem::take(map) {
        // A place for YAML anchors.
        if key == "anchors" {
            continue;
        }
        let target = if SETUP.contains(&key.as_str()) {
            &mut setup
        } else {
            &mut script
        };
        target.insert(key, value);
    }
    (setup, script)
}

/// Puts the fields of `more` over those of `base`, maps within maps likewise.
pub(super) fn merge(base: &mut Value, more: Value) {
    match (base, more) {
        (Value::Object(base), Value::Object(more)) => {
            for (key, value) in more {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, more) => *base = more,
    }
}
