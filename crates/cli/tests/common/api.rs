//! An API server that knows a few answers.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

/// `GET /version` to what it answers; what is not there is not found.
type Answers = BTreeMap<&'static str, Value>;

pub struct Api {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    directory: tempfile::TempDir,
}

impl Api {
    /// Listens on loopback for as long as the test runs.
    pub fn start(answers: Answers) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, answers) = (Arc::clone(&requests), Arc::new(answers));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (seen, answers) = (Arc::clone(&seen), Arc::clone(&answers));
                std::thread::spawn(move || serve(stream.unwrap(), &answers, &seen));
            }
        });
        let api = Self {
            address,
            requests,
            directory: tempfile::tempdir().unwrap(),
        };
        std::fs::write(api.directory.path().join("config"), api.kubeconfig()).unwrap();
        api
    }

    /// The file for `--kubeconfig`.
    pub fn file(&self) -> String {
        self.directory.path().join("config").display().to_string()
    }

    /// The method and path of each request so far.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    fn kubeconfig(&self) -> String {
        let server = format!("http://{}", self.address);
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": server}}],
            "users": [{"name": "test", "user": {}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        })
        .to_string()
    }
}

fn serve(mut stream: TcpStream, answers: &Answers, seen: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut first, mut length) = (String::new(), 0);
    reader.read_line(&mut first).unwrap();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap() <= 2 {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let mut words = first.split_whitespace();
    let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let key = format!("{method} {}", target.split('?').next().unwrap());
    seen.lock().unwrap().push(format!("{method} {target}"));
    let missing = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404,
        "reason": "NotFound", "message": format!("nothing at {key}")});
    let (status, answer) = match answers.get(key.as_str()) {
        Some(answer) => ("200 OK", answer),
        None => ("404 Not Found", &missing),
    };
    let (body, date) = (
        answer.to_string(),
        OffsetDateTime::now_utc().format(&Rfc2822).unwrap(),
    );
    let head = format!(
        "HTTP/1.1 {status}\r\ndate: {date}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body.as_bytes()).unwrap();
}

/// A list of objects.
pub fn list(kind: &str, items: Value) -> Value {
    json!({"kind": format!("{kind}List"), "apiVersion": "v1", "metadata": {}, "items": items})
}
