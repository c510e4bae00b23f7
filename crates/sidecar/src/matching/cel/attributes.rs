//! Envoy's attributes, as far as a connection and a request have them here.

use std::collections::HashMap;
use std::sync::Arc;

use cel::Value;
use cel::objects::{Key, Map};

use crate::http::headers::{Headers, Name};
use crate::telemetry::access_log::format::{Format, Missing, grpc};
use crate::telemetry::access_log::record::Record;

/// Where an attribute's value comes from.
#[derive(Clone, Copy)]
enum Source {
    /// What an operator of formats writes.
    Text(&'static str),
    /// The first of the names that one writes.
    First(&'static str),
    /// The number that one writes.
    Number(&'static str),
    /// Anything else.
    Made(fn(&Record<'_>) -> Option<Value>),
}

use Source::{First, Made, Number, Text};

/// The attributes, by name. Those that no one could read wrongly for another are worth their row.
const ATTRIBUTES: &[(&str, Source)] = &[
    ("request.path", Text("%REQ(:PATH)%")),
    (
        "request.url_path",
        Made(|record| path_and_query(record).map(|(path, _)| text(path))),
    ),
    (
        "request.query",
        Made(|record| path_and_query(record).map(|(_, query)| text(query))),
    ),
    ("request.host", Text("%REQ(:AUTHORITY)%")),
    ("request.scheme", Text("%REQ(:SCHEME)%")),
    ("request.method", Text("%REQ(:METHOD)%")),
    ("request.referer", Text("%REQ(REFERER)%")),
    ("request.useragent", Text("%REQ(USER-AGENT)%")),
    ("request.id", Text("%REQ(X-REQUEST-ID)%")),
    (
        "request.protocol",
        Made(|record| {
            record
                .request
                .map(|request| text(request.version.as_str().as_bytes()))
        }),
    ),
    ("request.headers", Made(request_headers)),
    (
        "request.time",
        Made(|record| {
            Some(Value::Timestamp(
                chrono::DateTime::<chrono::Utc>::from(record.started).fixed_offset(),
            ))
        }),
    ),
    (
        "request.duration",
        Made(|record| {
            chrono::Duration::from_std(record.duration)
                .ok()
                .map(Value::Duration)
        }),
    ),
    (
        "request.size",
        Made(|record| record.request.map(|_| int(record.bytes_received))),
    ),
    (
        "response.code",
        Made(|record| (record.status != 0).then(|| int(record.status.into()))),
    ),
    ("response.code_details", Text("%RESPONSE_CODE_DETAILS%")),
    ("response.grpc_status", Made(grpc_status)),
    (
        "response.headers",
        Made(|record| record.response.map(|head| headers(&head.headers, []))),
    ),
    (
        "response.trailers",
        Made(|record| record.trailers.map(|trailers| headers(trailers, []))),
    ),
    (
        "response.size",
        Made(|record| record.request.map(|_| int(record.bytes_sent))),
    ),
    ("source.address", Text("%DOWNSTREAM_REMOTE_ADDRESS%")),
    ("source.port", Number("%DOWNSTREAM_REMOTE_PORT%")),
    ("destination.address", Text("%DOWNSTREAM_LOCAL_ADDRESS%")),
    ("destination.port", Number("%DOWNSTREAM_LOCAL_PORT%")),
    (
        "connection.id",
        Made(|record| Some(Value::UInt(record.connection.id))),
    ),
    (
        "connection.mtls",
        Made(|record| {
            let tls = record.connection.tls.as_ref();
            Some(Value::Bool(
                tls.is_some_and(|handshake| !handshake.peer_chain.is_empty()),
            ))
        }),
    ),
    (
        "connection.requested_server_name",
        Text("%REQUESTED_SERVER_NAME%"),
    ),
    ("connection.tls_version", Text("%DOWNSTREAM_TLS_VERSION%")),
    (
        "connection.subject_local_certificate",
        Text("%DOWNSTREAM_LOCAL_SUBJECT%"),
    ),
    (
        "connection.subject_peer_certificate",
        Text("%DOWNSTREAM_PEER_SUBJECT%"),
    ),
    (
        "connection.dns_san_local_certificate",
        First("%DOWNSTREAM_LOCAL_DNS_SAN%"),
    ),
    (
        "connection.dns_san_peer_certificate",
        First("%DOWNSTREAM_PEER_DNS_SAN%"),
    ),
    (
        "connection.uri_san_local_certificate",
        First("%DOWNSTREAM_LOCAL_URI_SAN%"),
    ),
    (
        "connection.uri_san_peer_certificate",
        First("%DOWNSTREAM_PEER_URI_SAN%"),
    ),
    (
        "connection.sha256_peer_certificate_digest",
        Text("%DOWNSTREAM_PEER_FINGERPRINT_256%"),
    ),
    (
        "connection.termination_details",
        Text("%CONNECTION_TERMINATION_DETAILS%"),
    ),
    ("upstream.address", Text("%UPSTREAM_HOST%")),
    ("upstream.port", Number("%UPSTREAM_REMOTE_PORT%")),
    ("upstream.local_address", Text("%UPSTREAM_LOCAL_ADDRESS%")),
    (
        "upstream.transport_failure_reason",
        Text("%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
    ),
    (
        "upstream.request_attempt_count",
        Number("%UPSTREAM_REQUEST_ATTEMPT_COUNT%"),
    ),
    ("metadata.filter_metadata", Made(metadata)),
    ("filter_state", Made(filter_state)),
    ("xds.cluster_name", Text("%UPSTREAM_CLUSTER%")),
    ("xds.route_name", Text("%ROUTE_NAME%")),
    ("xds.filter_chain_name", Text("%FILTER_CHAIN_NAME%")),
];

/// One attribute that an expression asks for.
#[derive(Debug)]
pub(super) struct Attribute {
    pub(super) name: &'static str,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Text(Format),
    First(Format),
    Number(Format),
    Made(fn(&Record<'_>) -> Option<Value>),
    /// All that begin with the name, as a map.
    All(Vec<Attribute>),
}

impl Attribute {
    /// The attribute of that name, or all whose names begin with it; `None` where there is none.
    pub(super) fn find(name: &str) -> Option<Option<Attribute>> {
        if let Some((name, source)) = ATTRIBUTES.iter().find(|(known, _)| *known == name) {
            return Some(Attribute::new(name, *source));
        }
        let inner = ATTRIBUTES.iter().filter_map(|(known, source)| {
            let field = known.strip_prefix(name)?.strip_prefix('.')?;
            Attribute::new(field, *source)
        });
        let inner: Vec<_> = inner.collect();
        let first = ATTRIBUTES.iter().find(|(known, _)| {
            known
                .strip_prefix(name)
                .is_some_and(|rest| rest.starts_with('.'))
        });
        let name = first.map(|(known, _)| &known[..name.len()])?;
        Some(Some(Attribute {
            name,
            kind: Kind::All(inner),
        }))
    }

    fn new(name: &'static str, source: Source) -> Option<Attribute> {
        let format = |operator| Format::text(operator, Missing::Nothing).ok();
        let kind = match source {
            Text(operator) => Kind::Text(format(operator)?),
            First(operator) => Kind::First(format(operator)?),
            Number(operator) => Kind::Number(format(operator)?),
            Made(make) => Kind::Made(make),
        };
        Some(Attribute { name, kind })
    }

    /// Its value; `None` where there is none.
    pub(super) fn value(&self, record: &Record<'_>) -> Option<Value> {
        let written = |format: &Format| {
            let mut written = Vec::new();
            format.render(record, &mut written);
            (!written.is_empty()).then_some(written)
        };
        match &self.kind {
            Kind::Text(format) => written(format).map(|written| text(&written)),
            Kind::First(format) => {
                let names = written(format)?;
                names.split(|byte| *byte == b',').next().map(text)
            }
            Kind::Number(format) => {
                let digits = String::from_utf8(written(format)?).ok()?;
                digits.parse().ok().map(Value::Int)
            }
            Kind::Made(make) => make(record),
            Kind::All(all) => {
                let fields = all.iter();
                Some(map(fields.filter_map(|field| {
                    Some((field.name.to_owned(), field.value(record)?))
                })))
            }
        }
    }
}

/// The names of all attributes.
pub(super) fn names() -> String {
    let names: Vec<&str> = ATTRIBUTES.iter().map(|(name, _)| *name).collect();
    names.join(", ")
}

fn text(bytes: &[u8]) -> Value {
    Value::String(Arc::new(String::from_utf8_lossy(bytes).into_owned()))
}

fn int(number: u64) -> Value {
    Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
}

fn map(entries: impl Iterator<Item = (String, Value)>) -> Value {
    let entries = entries.map(|(name, value)| (Key::from(name), value));
    Value::Map(Map {
        map: Arc::new(entries.collect::<HashMap<_, _>>()),
    })
}

fn path_and_query<'a>(record: &Record<'a>) -> Option<(&'a [u8], &'a [u8])> {
    let path: &[u8] = &record.request?.path;
    Some(match path.iter().position(|byte| *byte == b'?') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (path, b""),
    })
}

fn request_headers(record: &Record<'_>) -> Option<Value> {
    let request = record.request?;
    let pseudo = [
        (":method", &request.method[..]),
        (":path", &request.path),
        (":authority", &request.authority),
        (":scheme", request.scheme.as_bytes()),
    ];
    Some(headers(&request.headers, pseudo))
}

/// Headers by their names in lower case; the values of one that came several times are joined.
fn headers<const N: usize>(headers: &Headers, pseudo: [(&str, &[u8]); N]) -> Value {
    let mut all: HashMap<String, Vec<u8>> = HashMap::new();
    for (name, value) in pseudo {
        all.insert(name.to_owned(), value.to_vec());
    }
    for (_, name, value) in headers.iter() {
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        let values = all.entry(name).or_default();
        if !values.is_empty() {
            values.push(b',');
        }
        values.extend_from_slice(value);
    }
    map(all.into_iter().map(|(name, value)| (name, text(&value))))
}

/// A response of 200 that says nothing of gRPC is none of it.
fn grpc_status(record: &Record<'_>) -> Option<Value> {
    let said = record
        .trailers
        .into_iter()
        .chain(record.response.map(|head| &head.headers));
    let is_said = said
        .into_iter()
        .any(|headers| headers.contains(Name::GrpcStatus));
    match grpc::status(record)? {
        0 if !is_said => Some(int(grpc::UNKNOWN)),
        status => Some(int(status)),
    }
}

/// The request's namespaces; the connection's where the request has none of that name.
fn metadata(record: &Record<'_>) -> Option<Value> {
    let of_connection = record.connection.state.metadata.borrow();
    let of_request = record.state.map(|state| &state.metadata);
    let mut all = HashMap::new();
    for (namespace, object) in of_connection.iter().chain(of_request.into_iter().flatten()) {
        all.insert(namespace.to_string(), object_value(object));
    }
    Some(map(all.into_iter()))
}

fn object_value(object: &serde_json::Map<String, serde_json::Value>) -> Value {
    map(object
        .iter()
        .map(|(name, value)| (name.clone(), json(value))))
}

/// Numbers of metadata are doubles.
fn json(value: &serde_json::Value) -> Value {
    match value {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(flag) => Value::Bool(*flag),
        serde_json::Value::Number(number) => Value::Float(number.as_f64().unwrap_or_default()),
        serde_json::Value::String(it) => text(it.as_bytes()),
        serde_json::Value::Array(values) => {
            Value::List(Arc::new(values.iter().map(json).collect()))
        }
        serde_json::Value::Object(object) => object_value(object),
    }
}

/// As bytes, which is what Envoy has of them.
fn filter_state(record: &Record<'_>) -> Option<Value> {
    let of_connection = record.connection.state.filter_state.borrow();
    let mut all = HashMap::new();
    let of_request = record.state.map(|state| &state.filter_state);
    for (key, value) in of_connection
        .iter()
        .chain(of_request.into_iter().flat_map(|it| it.iter()))
    {
        if let Some(plain) = value.plain() {
            all.insert(key.to_string(), Value::Bytes(Arc::new(plain.into_bytes())));
        }
    }
    Some(map(all.into_iter()))
}
