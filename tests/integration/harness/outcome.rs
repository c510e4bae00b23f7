//! What a client saw of one exchange, without what cannot be the same twice.

use std::net::SocketAddr;

use outrider_testkit::clients::http1::Client;
use outrider_testkit::message::Message;
use serde_json::Value;

/// One response, comparable.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The first line; empty when the connection ended without a response.
    pub start: String,
    /// In lower case and sorted; values that differ from run to run are replaced by `*`.
    pub headers: Vec<(String, String)>,
    /// What an echo server saw, likewise made comparable; else the body.
    pub body: Value,
    /// Trailers in lower case.
    pub trailers: Vec<(String, String)>,
    /// Whether the connection took another request afterwards.
    pub kept: bool,
    /// The line of the access log.
    pub log: Option<String>,
}

impl Outcome {
    /// The status, 0 when there was no response.
    pub fn status(&self) -> u16 {
        let code = self.start.split(' ').nth(1);
        code.and_then(|code| code.parse().ok()).unwrap_or(0)
    }

    /// All values that the echo server saw of a request header.
    pub fn seen(&self, name: &str) -> Vec<&str> {
        let headers = self.body["headers"].as_array().map(Vec::as_slice);
        let fields = headers.unwrap_or_default().iter();
        fields
            .filter(|field| field[0] == name)
            .filter_map(|field| field[1].as_str())
            .collect()
    }

    /// Takes over the line of the access log. How long an echo is depends on what it echoes, so
    /// that its bytes are not compared.
    pub(super) fn set_log(&mut self, line: String) {
        self.log = Some(if self.body.get("headers").is_some() {
            let mut fields: Vec<&str> = line.split(' ').collect();
            if let Some(sent) = fields.get_mut(4) {
                *sent = "*";
            }
            fields.join(" ")
        } else {
            line
        });
    }

    /// Takes a response header out of the comparison.
    pub fn ignore(&mut self, name: &str) {
        self.headers.retain(|(known, _)| known != name);
    }

    /// Takes a request header that the echo server saw out of the comparison.
    pub fn ignore_seen(&mut self, name: &str) {
        if let Some(headers) = self.body["headers"].as_array_mut() {
            headers.retain(|field| field[0] != name);
        }
    }
}

/// Sends a request's bytes on a new connection, reads the response, and finds out whether the
/// connection can be used again.
pub fn exchange(address: SocketAddr, request: &[u8]) -> Outcome {
    let mut client = Client::connect(address).unwrap();
    let Ok(answer) = client.exchange(request) else {
        return Outcome {
            start: String::new(),
            headers: Vec::new(),
            body: Value::Null,
            trailers: Vec::new(),
            kept: false,
            log: None,
        };
    };
    let mut outcome = Outcome::from(answer);
    // A request to the whole server is answered by the proxy itself: it leaves no trace upstream.
    outcome.kept = client
        .exchange("OPTIONS * HTTP/1.1\r\nHost: probe\r\n\r\n")
        .is_ok();
    outcome
}

impl From<Message> for Outcome {
    fn from(message: Message) -> Self {
        let body = serde_json::from_slice(&message.body).map(seen_headers);
        Outcome {
            start: message.head.start.clone(),
            headers: comparable(&message.head.headers),
            body: body.unwrap_or_else(|_| Value::String(message.text())),
            trailers: comparable(&message.trailers),
            kept: false,
            log: None,
        }
    }
}

/// Makes an echo server's answer comparable.
pub fn seen_headers(mut echo: Value) -> Value {
    if let Some(object) = echo.as_object_mut() {
        object.remove("peer");
        for key in ["headers", "trailers"] {
            if let Some(Value::Array(fields)) = object.get_mut(key) {
                let pairs: Vec<(String, String)> = fields
                    .iter()
                    .map(|field| (text(&field[0]), text(&field[1])))
                    .collect();
                *fields = comparable(&pairs)
                    .into_iter()
                    .map(|(name, value)| serde_json::json!([name, value]))
                    .collect();
            }
        }
    }
    echo
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Values that differ from run to run.
const VARYING: [&str; 3] = ["date", "x-request-id", "x-envoy-upstream-service-time"];

/// Names in lower case, sorted, and without values that differ from run to run.
pub fn comparable(fields: &[(String, String)]) -> Vec<(String, String)> {
    let mut fields: Vec<(String, String)> = fields
        .iter()
        .map(|(name, value)| {
            let name = name.to_ascii_lowercase();
            let varies = VARYING.contains(&name.as_str());
            let value = if varies { "*" } else { value };
            (name, value.to_owned())
        })
        // The bodies are compared, and an echo's length depends on what it echoes. Envoy says
        // `content-length: 0` upstream for a POST that has none; ours passes it on as it came.
        .filter(|(name, _)| name != "content-length")
        .collect();
    // Stable: values of one name keep their order.
    fields.sort_by(|a, b| a.0.cmp(&b.0));
    fields
}
