//! What the environment says of the application: how its health is asked for, and where its metrics
//! are.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue};
use serde::Deserialize;

/// The application's own probes, by the paths at which the kubelet asks us for them.
const PROBES: &str = "OUTRIDER_PROBES";
/// Where the application's metrics are.
const METRICS: &str = "OUTRIDER_APP_METRICS";
/// How long a hook may take that says nothing of it: what a pod's end takes that says nothing either.
const HOOK_SECONDS: u64 = 30;
/// How many hexadecimal digits keep a hook from whom it is not for.
const SECRET_DIGITS: usize = 32;
/// What every such path begins with.
const PREFIX: &str = "/app-health/";

/// What is known of the application.
#[derive(Debug, Default)]
pub struct Application {
    /// By path.
    pub probes: BTreeMap<String, Probe>,
    /// `None`: the application has no metrics.
    pub metrics: Option<Metrics>,
}

/// A probe, or a hook of the pod's life that is a request.
#[derive(Debug, PartialEq)]
pub struct Probe {
    /// What is asked.
    pub action: Action,
    /// `timeoutSeconds`
    pub timeout: Duration,
    /// It is a hook: the kubelet only asks whether there was an answer.
    pub is_hook: bool,
}

/// `ProbeHandler`, but for `exec`, which is left to the kubelet.
#[derive(Debug, PartialEq)]
pub enum Action {
    /// `httpGet`
    Http(HttpGet),
    /// `tcpSocket`
    Tcp(Target),
    /// `grpc`
    Grpc {
        /// `port`
        port: u16,
        /// `service`, or empty.
        service: String,
    },
}

/// Where to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// `host`; `None` is the pod's address.
    pub host: Option<String>,
    /// `port`
    pub port: u16,
}

/// `HTTPGetAction`
#[derive(Debug, PartialEq)]
pub struct HttpGet {
    /// Where.
    pub target: Target,
    /// `scheme`
    pub tls: bool,
    /// `path`, with its query.
    pub path: PathAndQuery,
    /// `httpHeaders`, in order.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// The application's metrics, in Prometheus's text format.
#[derive(Debug, PartialEq)]
pub struct Metrics(pub HttpGet);

/// What may be told of a path: all but the secret of a hook.
pub fn shown(path: &str) -> &str {
    let secret = path.match_indices('/').nth(3);
    secret.map_or(path, |(index, _)| &path[..index])
}

/// What is wrong with what the environment says.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplicationError {
    /// It is not the JSON that it should be.
    #[error("{variable}: {reason}")]
    Syntax {
        /// The variable.
        variable: &'static str,
        /// What is wrong, and where.
        reason: String,
    },
    /// A field has a value that it cannot have.
    #[error("{PROBES}: {key:?}: {reason}")]
    Probe {
        /// The path that it is for.
        key: String,
        /// The field, and what is wrong with it.
        reason: String,
    },
}

impl Application {
    /// What the variables say, looked up by `variable`.
    ///
    /// # Errors
    /// [`ApplicationError`]
    pub fn from_environment(
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, ApplicationError> {
        let text =
            |name| variable(name).map(|value: OsString| value.to_string_lossy().into_owned());
        Ok(Application {
            probes: match text(PROBES) {
                Some(text) => probes(&text)?,
                None => BTreeMap::new(),
            },
            metrics: text(METRICS).map(|text| metrics(&text)).transpose()?,
        })
    }
}

fn probes(text: &str) -> Result<BTreeMap<String, Probe>, ApplicationError> {
    let raw: BTreeMap<String, raw::Probe> = json(PROBES, text)?;
    let built = raw.into_iter().map(|(key, raw)| match raw.build(&key) {
        Ok(probe) => Ok((key, probe)),
        Err(reason) => Err(ApplicationError::Probe {
            key: shown(&key).to_owned(),
            reason,
        }),
    });
    built.collect()
}

fn metrics(text: &str) -> Result<Metrics, ApplicationError> {
    let raw: raw::HttpGet = json(METRICS, text)?;
    let built = raw.build("/metrics");
    built
        .map(Metrics)
        .map_err(|reason| ApplicationError::Syntax {
            variable: METRICS,
            reason,
        })
}

fn json<'a, T: Deserialize<'a>>(
    variable: &'static str,
    text: &'a str,
) -> Result<T, ApplicationError> {
    serde_json::from_str(text).map_err(|error| ApplicationError::Syntax {
        variable,
        reason: error.to_string(),
    })
}

/// Kubernetes' own fields.
mod raw {
    use super::{
        Action, Deserialize, Duration, HOOK_SECONDS, PREFIX, PathAndQuery, SECRET_DIGITS, Target,
    };

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    pub struct Probe {
        http_get: Option<HttpGet>,
        tcp_socket: Option<TcpSocket>,
        grpc: Option<Grpc>,
        timeout_seconds: Option<u64>,
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    pub struct HttpGet {
        port: u16,
        path: Option<String>,
        host: Option<String>,
        scheme: Option<String>,
        #[serde(default)]
        http_headers: Vec<Header>,
    }

    #[derive(Deserialize)]
    struct Header {
        name: String,
        value: String,
    }

    #[derive(Deserialize)]
    struct TcpSocket {
        port: u16,
        host: Option<String>,
    }

    #[derive(Deserialize)]
    struct Grpc {
        port: u16,
        service: Option<String>,
    }

    impl Probe {
        pub fn build(self, key: &str) -> Result<super::Probe, String> {
            let rest = key
                .strip_prefix(PREFIX)
                .and_then(|rest| rest.split_once('/'));
            let Some((_, name)) = rest else {
                return Err(format!("it must be {PREFIX}<container>/<probe>"));
            };
            let (name, secret) = match name.split_once('/') {
                Some((name, secret)) => (name, Some(secret)),
                None => (name, None),
            };
            let is_hook = matches!(name, "prestop" | "poststart");
            // Everybody reaches this port, and a hook does something.
            if is_hook && !secret.is_some_and(is_secret) {
                return Err(format!(
                    "the path of a hook must end with / and {SECRET_DIGITS} random hexadecimal \
                     digits, as the injector writes it"
                ));
            }
            let action = match (self.http_get, self.tcp_socket, self.grpc) {
                (Some(http), None, None) => Action::Http(
                    http.build("/")
                        .map_err(|reason| format!("httpGet.{reason}"))?,
                ),
                (None, Some(tcp), None) => Action::Tcp(
                    target(tcp.host, tcp.port).map_err(|reason| format!("tcpSocket.{reason}"))?,
                ),
                (None, None, Some(Grpc { port, service })) => Action::Grpc {
                    port: target(None, port)
                        .map_err(|reason| format!("grpc.{reason}"))?
                        .port,
                    service: service.unwrap_or_default(),
                },
                _ => return Err("it must have one of httpGet, tcpSocket and grpc".to_owned()),
            };
            let default = if is_hook { HOOK_SECONDS } else { 1 };
            Ok(super::Probe {
                action,
                timeout: Duration::from_secs(self.timeout_seconds.unwrap_or(default).max(1)),
                is_hook,
            })
        }
    }

    impl HttpGet {
        pub fn build(self, default_path: &str) -> Result<super::HttpGet, String> {
            let mut path = match self.path {
                Some(path) if !path.is_empty() => path,
                _ => default_path.to_owned(),
            };
            if !path.starts_with('/') {
                path.insert(0, '/');
            }
            let headers = self.http_headers.into_iter().map(|Header { name, value }| {
                let wrong = |_| format!("httpHeaders: {name:?} is no header");
                let parsed = name.parse().map_err(|error| wrong(format!("{error}")))?;
                let value = value.parse().map_err(|error| wrong(format!("{error}")))?;
                Ok((parsed, value))
            });
            Ok(super::HttpGet {
                target: target(self.host, self.port)?,
                tls: match self.scheme.as_deref() {
                    None | Some("") => false,
                    Some(scheme) if scheme.eq_ignore_ascii_case("http") => false,
                    Some(scheme) if scheme.eq_ignore_ascii_case("https") => true,
                    Some(other) => return Err(format!("scheme: {other:?} is not HTTP or HTTPS")),
                },
                path: path
                    .parse::<PathAndQuery>()
                    .map_err(|error| format!("path: {path:?}: {error}"))?,
                headers: headers.collect::<Result<_, String>>()?,
            })
        }
    }

    fn is_secret(text: &str) -> bool {
        text.len() == SECRET_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    }

    fn target(host: Option<String>, port: u16) -> Result<Target, String> {
        match port {
            0 => Err("port: must not be 0".to_owned()),
            port => Ok(Target {
                host: host.filter(|host| !host.is_empty()),
                port,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_are_kubernetes_own() {
        let all = probes(
            r#"{
            "/app-health/cart/livez": {"httpGet": {"path": "live?full=1", "port": 8080, "scheme": "HTTPS",
                "httpHeaders": [{"name": "Host", "value": "cart"}, {"name": "X-A", "value": "1"}]},
                "timeoutSeconds": 3, "periodSeconds": 5},
            "/app-health/cart/readyz": {"tcpSocket": {"port": 1, "host": "127.0.0.1"}},
            "/app-health/cart/startupz": {"grpc": {"port": 2, "service": "s"}},
            "/app-health/cart/prestop/0123456789abcdef0123456789abcdef": {"httpGet": {"port": 8080}},
            "/app-health/cart/poststart/0123456789abcdef0123456789abcdef":
                {"httpGet": {"port": 8080}, "timeoutSeconds": 90}
        }"#,
        )
        .unwrap();
        let probe = |name: &str| &all[&format!("/app-health/cart/{name}")];
        let Action::Http(http) = &probe("livez").action else {
            panic!()
        };
        assert_eq!((http.path.as_str(), http.tls), ("/live?full=1", true));
        assert_eq!(http.headers[0].0, "host");
        assert_eq!(probe("livez").timeout, Duration::from_secs(3));
        let host = Some("127.0.0.1".to_owned());
        assert_eq!(
            probe("readyz").action,
            Action::Tcp(Target { host, port: 1 })
        );
        assert_eq!(probe("readyz").timeout, Duration::from_secs(1));
        let service = "s".to_owned();
        assert_eq!(probe("startupz").action, Action::Grpc { port: 2, service });
        let hook = |name: &str| probe(&format!("{name}/0123456789abcdef0123456789abcdef"));
        assert!(hook("prestop").is_hook && hook("poststart").is_hook && !probe("livez").is_hook);
        assert_eq!(hook("prestop").timeout, Duration::from_secs(30));
        assert_eq!(hook("poststart").timeout, Duration::from_secs(90));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases = [
            ("[]", "OUTRIDER_PROBES: invalid type"),
            (
                r#"{"/x/livez": {"tcpSocket": {"port": 1}}}"#,
                "it must be /app-health/<container>/<probe>",
            ),
            (
                r#"{"/app-health/a/prestop": {"httpGet": {"port": 1}}}"#,
                "\"/app-health/a/prestop\": the path of a hook must end with / and 32 random",
            ),
            (
                r#"{"/app-health/a/prestop/0123456789abcdef": {"httpGet": {"port": 1}}}"#,
                "\"/app-health/a/prestop\": the path of a hook",
            ),
            (
                r#"{"/app-health/a/livez": {}}"#,
                "\"/app-health/a/livez\": it must have one of httpGet",
            ),
            (
                r#"{"/app-health/a/livez": {"httpGet": {"port": 1}, "grpc": {"port": 1}}}"#,
                "it must have one of httpGet",
            ),
            (
                r#"{"/app-health/a/livez": {"httpGet": {"port": 0}}}"#,
                "httpGet.port: must not be 0",
            ),
            (
                r#"{"/app-health/a/livez": {"httpGet": {"port": "http"}}}"#,
                "OUTRIDER_PROBES: invalid type",
            ),
            (
                r#"{"/app-health/a/livez": {"httpGet": {"port": 1, "scheme": "ftp"}}}"#,
                "httpGet.scheme: \"ftp\"",
            ),
            (
                r#"{"/app-health/a/livez": {"httpGet": {"port": 1, "httpHeaders": [{"name": "a b", "value": ""}]}}}"#,
                "httpGet.httpHeaders: \"a b\" is no header",
            ),
        ];
        for (text, expected) in cases {
            let error = probes(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        let get = metrics(r#"{"port": 9000}"#).unwrap().0;
        assert_eq!((get.path.as_str(), get.target.port), ("/metrics", 9000));
        assert!(
            metrics("{}")
                .unwrap_err()
                .to_string()
                .contains("OUTRIDER_APP_METRICS")
        );
    }
}
