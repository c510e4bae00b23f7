//! What a port speaks, from what its service says of it.

use crate::registry::kinds::ServicePort;

/// How the proxies treat the bytes of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AppProtocol {
    /// HTTP/1 or HTTP/2, as the client speaks it.
    Http,
    /// HTTP/2 without TLS; gRPC too.
    Http2,
    /// Bytes.
    Tcp,
    /// Not said: the first bytes of each connection decide.
    Auto,
}

impl AppProtocol {
    /// The field `appProtocol` decides, else the part of the port's name before the first '-'.
    /// What is encrypted by the application, and protocols that are known but not HTTP, are bytes.
    pub fn of(port: &ServicePort) -> Self {
        if let Some(protocol) = &port.app_protocol {
            return match protocol.to_ascii_lowercase().as_str() {
                "http" | "http/1.1" | "kubernetes.io/ws" => Self::Http,
                "http2" | "h2c" | "kubernetes.io/h2c" | "grpc" | "grpc-web" => Self::Http2,
                _ => Self::Tcp,
            };
        }
        let name = port
            .name
            .split('-')
            .next()
            .unwrap_or("")
            .to_ascii_lowercase();
        match name.as_str() {
            "http" => Self::Http,
            "http2" | "h2c" | "grpc" => Self::Http2,
            "tcp" | "tls" | "https" | "mongo" | "mysql" | "redis" | "postgres" => Self::Tcp,
            _ => Self::Auto,
        }
    }

    /// Whether requests on it can be routed.
    pub fn may_be_http(self) -> bool {
        self != Self::Tcp
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_fields() {
        for (name, field, expected) in [
            ("http", None, AppProtocol::Http),
            ("http-web", None, AppProtocol::Http),
            ("HTTP2", None, AppProtocol::Http2),
            ("grpc-api", None, AppProtocol::Http2),
            ("https", None, AppProtocol::Tcp),
            ("mysql", None, AppProtocol::Tcp),
            ("", None, AppProtocol::Auto),
            ("web", None, AppProtocol::Auto),
            ("httpfoo", None, AppProtocol::Auto),
            ("tcp", Some("http"), AppProtocol::Http),
            ("http", Some("kubernetes.io/h2c"), AppProtocol::Http2),
            ("http", Some("example.com/own"), AppProtocol::Tcp),
        ] {
            let field = field.map_or(String::new(), |field| format!("appProtocol: {field}"));
            let port = format!("name: {name:?}\nport: 80\n{field}");
            let port: ServicePort = serde_norway::from_str(&port).unwrap();
            assert_eq!(AppProtocol::of(&port), expected, "{port:?}");
        }
    }
}
