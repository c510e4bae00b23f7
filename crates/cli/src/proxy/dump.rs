//! Reading `/config_dump` (`envoy.admin.v3.ConfigDump`), ours or Envoy's.

use serde_json::Value;

/// How far a resource has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// From the bootstrap file.
    Static,
    /// In force.
    Active,
    /// Waiting for what it refers to.
    Warming,
    /// Its connections are being ended.
    Draining,
    /// Not taken; the version before it stays.
    Refused,
}

impl State {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Static => "static",
            Self::Active => "active",
            Self::Warming => "warming",
            Self::Draining => "draining",
            Self::Refused => "REFUSED",
        }
    }
}

/// One resource of the dump.
#[derive(Debug)]
pub(super) struct Resource<'a> {
    pub(super) name: &'a str,
    pub(super) state: State,
    pub(super) version: &'a str,
    /// RFC 3339
    pub(super) updated: &'a str,
    /// The resource itself, of what is not refused.
    pub(super) body: &'a Value,
    /// Why it is refused.
    pub(super) refusal: &'a str,
}

/// A section of the dump and where its entries keep the resource.
pub(super) const KINDS: [(&str, &str, &str); 5] = [
    ("Clusters", "cluster", "cluster"),
    ("Endpoints", "endpoints", "endpoint_config"),
    ("Listeners", "listener", "listener"),
    ("Routes", "routes", "route_config"),
    ("Secrets", "secret", "secret"),
];

/// The text at a JSON pointer, or nothing.
pub(super) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The list at a JSON pointer, or an empty one.
pub(super) fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value
        .pointer(pointer)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// The text of a number, which JSON of protobuf may write as a string.
pub(super) fn number(value: &Value, pointer: &str) -> Option<String> {
    match value.pointer(pointer)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// `address:port` of an `envoy.config.core.v3.Address`.
pub(super) fn address(value: &Value) -> String {
    if let Some(path) = value.pointer("/pipe/path").and_then(Value::as_str) {
        return path.to_owned();
    }
    let ip = text(value, "/socket_address/address");
    match number(value, "/socket_address/port_value") {
        Some(port) if ip.contains(':') => format!("[{ip}]:{port}"),
        Some(port) => format!("{ip}:{port}"),
        None => ip.to_owned(),
    }
}

fn is_section(section: &Value, name: &str) -> bool {
    text(section, "/@type")
        .rsplit('.')
        .next()
        .and_then(|message| message.strip_suffix("ConfigDump"))
        == Some(name)
}

/// The dump with no other sections than these.
pub(super) fn only(mut dump: Value, names: &[&str]) -> Value {
    if let Some(sections) = dump.get_mut("configs").and_then(Value::as_array_mut) {
        sections.retain(|section| names.iter().any(|name| is_section(section, name)));
    }
    dump
}

/// All resources of a section.
pub(super) fn resources<'a>(dump: &'a Value, section: &str) -> Vec<Resource<'a>> {
    let key = KINDS
        .iter()
        .find(|(name, ..)| *name == section)
        .map_or("", |(.., key)| key);
    let mut found = Vec::new();
    let sections = list(dump, "/configs").iter();
    for section in sections.filter(|each| is_section(each, section)) {
        let lists = section.as_object().into_iter().flatten();
        for (list, entries) in lists.filter_map(|(name, list)| Some((name, list.as_array()?))) {
            let state = match list.as_str() {
                name if name.starts_with("static") => State::Static,
                name if name.contains("warming") => State::Warming,
                _ => State::Active,
            };
            for entry in entries {
                add(entry, key, state, &mut found);
            }
        }
    }
    found
}

fn add<'a>(entry: &'a Value, key: &str, state: State, found: &mut Vec<Resource<'a>>) {
    let mut push = |holder: &'a Value, state| {
        let body = &holder[key];
        let names = [
            text(entry, "/name"),
            text(body, "/name"),
            text(body, "/cluster_name"),
        ];
        found.push(Resource {
            name: names
                .into_iter()
                .find(|name| !name.is_empty())
                .unwrap_or_default(),
            state,
            version: text(holder, "/version_info"),
            updated: text(holder, "/last_updated"),
            body,
            refusal: "",
        });
    };
    let listeners = [
        ("active_state", State::Active),
        ("warming_state", State::Warming),
        ("draining_state", State::Draining),
    ];
    let mut nested = false;
    for (name, state) in listeners {
        if let Some(holder) = entry.get(name) {
            nested = true;
            push(holder, state);
        }
    }
    if !nested && entry.get(key).is_some() {
        push(entry, state);
    }
    if let Some(error) = entry.get("error_state") {
        found.push(Resource {
            name: text(entry, "/name"),
            state: State::Refused,
            version: match text(error, "/version_info") {
                "" => text(entry, "/version_info"),
                version => version,
            },
            updated: text(error, "/last_update_attempt"),
            body: &Value::Null,
            refusal: text(error, "/details"),
        });
    }
}

/// The filters of a listener with their chain, the default one last.
pub(super) fn chains(listener: &Value) -> Vec<&Value> {
    let default = listener.get("default_filter_chain");
    list(listener, "/filter_chains")
        .iter()
        .chain(default)
        .collect()
}
