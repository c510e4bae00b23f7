use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::*;
use crate::config::address::Address;
use crate::config::listener::{DownstreamTransport, FilterChain, Listener, NetworkFilter};
use crate::config::tcp_proxy::TcpProxy;
use crate::config::tls::TlsVersion;
use crate::http::message::{RequestHead, ResponseHead, Version};
use crate::listener::connection::Connection;
use crate::telemetry::access_log::flags::Flags;
use crate::telemetry::access_log::record::{LogKind, Moments};
use crate::tls::stream::Handshake;

fn connection() -> Connection {
    let chain = Arc::new(FilterChain {
        name: "plain".into(),
        matcher: Default::default(),
        transport: DownstreamTransport::Plain,
        transport_timeout: Duration::from_secs(15),
        filters: Box::default(),
        filter: NetworkFilter::TcpProxy(Arc::new(TcpProxy::to("c"))),
        fingerprint: 0,
    });
    let listener = Arc::new(Listener {
        name: "inbound".into(),
        stat_prefix: "".into(),
        addresses: Vec::new(),
        bind_to_port: true,
        hand_over: false,
        filters: Vec::new(),
        access_log: Vec::new(),
        listener_filters_timeout: None,
        continue_on_timeout: false,
        filter_chains: vec![Arc::clone(&chain)],
        default_filter_chain: None,
        chains: Default::default(),
        direction: crate::config::listener::TrafficDirection::Inbound,
        buffer_limit: None,
        accept_at_once: None,
        connection_limit: crate::runtime_layer::number_at("", u32::MAX),
        udp: None,
        ignores_global_limit: false,
        bypasses_overload: false,
        drains_when_unhealthy: true,
        fingerprint: 0,
    });
    Connection {
        id: 7,
        peer: Address::Socket("[::ffff:10.0.0.1]:5000".parse().unwrap()),
        direct_peer: Address::Socket("[::ffff:10.0.0.9]:5009".parse().unwrap()),
        local: Address::Socket("10.0.0.2:80".parse().unwrap()),
        direct_local: Address::Socket("10.0.0.2:15006".parse().unwrap()),
        restored: true,
        listener,
        chain,
        server_name: Some("a\nb.example".into()),
        tls: Some(Rc::new(Handshake {
            peer_validated: true,
            version: TlsVersion::V1_3,
            cipher: "TLS_AES_128_GCM_SHA256",
            group: None,
            peer_scheme: None,
            resumed: false,
            staple: None,
            own_certificate: None,
            alpn: Vec::new(),
            peer_chain: Vec::new(),
            own_uri: None,
            peer_uris: vec!["spiffe://cluster.local/ns/a/sa/b".into()],
        })),
        accepted: Instant::now(),
        accepted_at: SystemTime::UNIX_EPOCH,
        drain: std::rc::Rc::default(),
        state: Default::default(),
    }
}

fn rendered(format: &Format, http: bool) -> String {
    let connection = connection();
    let mut request = RequestHead::new();
    request.method = b"GET".to_vec();
    request.path = b"/a/b?c=d".to_vec();
    request.authority = b"svc".to_vec();
    request.version = Version::Http11;
    request.headers.push(b"User-Agent", b"curl\"/8");
    request.headers.push(b"content-type", b"application/grpc");
    request.headers.push(b"x-envoy-original-path", b"/old?q");
    request.headers.push(b"X-Two", b"first");
    request.headers.push(b"X-Two", b"second");
    let mut response = ResponseHead::new();
    response.status = 200;
    response.headers.push(b"grpc-status", b"14");
    let mut flags = Flags::NONE;
    if !http {
        flags |= Flags::UPSTREAM_CONNECTION_FAILURE;
    }
    let host = Address::Socket(SocketAddr::from(([10, 0, 0, 9], 8080)));
    let cluster: Arc<str> = "outbound".into();
    let mut out = Vec::new();
    format.render(
        &Record {
            kind: LogKind::TcpConnectionEnd,
            started: SystemTime::UNIX_EPOCH + Duration::from_nanos(1_459_995_017_310_020_007),
            request: http.then_some(&request),
            response: http.then_some(&response),
            status: if http { 200 } else { 0 },
            flags,
            details: "via upstream",
            bytes_received: 12,
            bytes_sent: 34,
            duration: Duration::from_millis(56),
            response_duration: http.then_some(Duration::from_millis(50)),
            moments: Moments {
                request_end: Some(Duration::from_micros(1500)),
                upstream_begin: Some(Duration::from_millis(2)),
                ..Moments::default()
            },
            upstream_host: Some(&host),
            upstream_hostname: "app.example:8080",
            upstream_version: Some(Version::Http2),
            upstream_cluster: Some(&cluster),
            upstream_cluster_told: Some(&cluster),
            upstream_tls: None,
            attempts: 1,
            ..Record::of_connection(&connection)
        },
        &mut out,
    );
    String::from_utf8(out).unwrap()
}

#[test]
fn the_default_line() {
    let format = Format::text(DEFAULT, Missing::Dash).unwrap();
    assert_eq!(
        rendered(&format, true),
        "[2016-04-07T02:10:17.310Z] \"GET /old?q HTTP/1.1\" 200 - 12 34 56 - \"-\" \"curl\"/8\" \
         \"-\" \"svc\" \"10.0.0.9:8080\"\n"
    );
    assert_eq!(
        rendered(&format, false),
        "[2016-04-07T02:10:17.310Z] \"- - -\" 0 UF 12 34 56 - \"-\" \"-\" \"-\" \"-\" \
         \"10.0.0.9:8080\"\n"
    );
}

#[test]
fn operators() {
    for (format, expect) in [
        ("100%%", "100%"),
        ("%REQ(X-NONE?:AUTHORITY)%", "svc"),
        ("%REQ(user-agent):4%", "curl"),
        ("%REQ(x-two)%", "first"),
        ("%RESP(:STATUS)%|%TRAILER(x)%", "200|-"),
        (
            "%START_TIME(%Y/%m/%dT%H:%M:%S%z %s.%3f)%",
            "2016/04/07T02:10:17+0000 1459995017.310",
        ),
        ("%START_TIME(%b %e %f %a)%", "Apr  7 310020007 Thu"),
        ("%RESPONSE_CODE_DETAILS%", "via_upstream"),
        (
            "%DURATION% %RESPONSE_DURATION% %RESPONSE_TX_DURATION%",
            "56 50 6",
        ),
        (
            "%DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
            "10.0.0.1:5000 10.0.0.1",
        ),
        (
            "%DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_DIRECT_LOCAL_PORT%",
            "10.0.0.2:80 15006",
        ),
        // A server name is the client's choice, and this may become a header.
        ("%REQUESTED_SERVER_NAME%", "ab.example"),
        (
            "%DOWNSTREAM_TLS_VERSION% %DOWNSTREAM_TLS_CIPHER%",
            "TLSv1.3 TLS_AES_128_GCM_SHA256",
        ),
        (
            "%DOWNSTREAM_PEER_URI_SAN%|%DOWNSTREAM_PEER_SUBJECT%",
            "spiffe://cluster.local/ns/a/sa/b|-",
        ),
        ("%GRPC_STATUS% %GRPC_STATUS_NUMBER%", "Unavailable 14"),
        (
            "%UPSTREAM_CLUSTER% %UPSTREAM_LOCAL_ADDRESS% %ROUTE_NAME% %CONNECTION_ID%",
            "outbound - - 7",
        ),
        (
            "%GRPC_STATUS(SNAKE_STRING)% %GRPC_STATUS(NUMBER)%",
            "UNAVAILABLE 14",
        ),
        (
            "%PATH% %PATH(NQ)% %PATH(WQ:PATH)% %PATH(NQ:PATH)%",
            "/old?q /old /a/b?c=d /a/b",
        ),
        (
            "%QUERY_PARAM(c)% %QUERY_PARAM(d)% %QUERY_PARAMS(DECODED)%",
            "d - c=d",
        ),
        ("%REQ_WITHOUT_QUERY(:path)%", "/a/b"),
        (
            "%REQUESTED_SERVER_NAME(HOST_FIRST:HOST)% %REQUESTED_SERVER_NAME(SNI_FIRST)%",
            "svc ab.example",
        ),
        (
            "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(8)% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(64)%",
            "10.0.0.0/8 10.0.0.1/32",
        ),
        (
            "%UPSTREAM_HOST_NAME% %UPSTREAM_HOST_NAME_WITHOUT_PORT% %UPSTREAM_HOSTS_ATTEMPTED%",
            "app.example:8080 app.example 10.0.0.9:8080",
        ),
        (
            "%COMMON_DURATION(DS_RX_BEG:DS_RX_END:us)% %COMMON_DURATION(US_RX_BEG:US_TX_BEG:ms)% %REQUEST_DURATION%",
            "1500 -48 1",
        ),
        (
            "%COALESCE({\"operators\": [\"ROUTE_NAME\", {\"command\": \"REQ\", \"param\": \"x-two\", \"max_length\": 3}]})%",
            "fir",
        ),
        (
            "%RESPONSE_CODE_DETAILS(ALLOW_WHITESPACES)% %TRACE_ID% %CUSTOM_FLAGS%",
            "via upstream - ",
        ),
        (
            "%LISTENER_NAME%/%FILTER_CHAIN_NAME% %ENVIRONMENT(NO_SUCH_VARIABLE)%",
            "inbound/plain -",
        ),
    ] {
        let parsed = Format::text(format, Missing::Dash).unwrap();
        assert_eq!(rendered(&parsed, true), expect, "{format}");
    }
    let nothing = Format::text("<%REQ(x-none)%>", Missing::Nothing).unwrap();
    assert_eq!(rendered(&nothing, true), "<>");
    assert_eq!(
        Format::text("plain", Missing::Nothing)
            .unwrap()
            .as_literal(),
        Some(&b"plain"[..])
    );
}

#[test]
fn json_is_typed() {
    let format = serde_json::json!({
        "agent": "%REQ(USER-AGENT)%",
        "code": "%RESPONSE_CODE%",
        "fixed": 5,
        "nested": {"none": "%ROUTE_NAME%", "list": ["%PROTOCOL%", true]},
        "text": "%BYTES_SENT% bytes \"%ROUTE_NAME%\"",
    });
    let serde_json::Value::Object(format) = format else {
        panic!()
    };
    let parsed = |missing| Format::json(&format, missing).unwrap();
    assert_eq!(
        rendered(&parsed(Missing::Dash), true),
        "{\"agent\":\"curl\\\"/8\",\"code\":200,\"fixed\":5,\"nested\":{\"none\":null,\
         \"list\":[\"HTTP/1.1\",true]},\"text\":\"34 bytes \\\"-\\\"\"}\n"
    );
    assert_eq!(
        rendered(&parsed(Missing::Nothing), false),
        "{\"code\":0,\"fixed\":5,\"nested\":{\"list\":[true]},\"text\":\"34 bytes \\\"\\\"\"}\n"
    );
}

#[test]
fn mistakes_are_named() {
    for (format, expect) in [
        ("a % b", "the % at byte 2 begins no operator"),
        ("%PROTOCOL", "the % at byte 0"),
        ("%NO_SUCH%", "unknown operator %NO_SUCH%"),
        ("%REQ%", "%REQ% needs an argument"),
        ("%REQ(a?b?c)%", "must be a header, or two"),
        ("%PROTOCOL(x)%", "%PROTOCOL% takes no argument"),
        ("%REQ(a):x%", "length after the colon of %REQ%"),
        ("%START_TIME(%Q)%", "unknown time specifier"),
        ("%CEL(1)%", "CEL expressions in formats are not supported"),
        ("%COMMON_DURATION(A:B:ms)%", "supported points are"),
        ("%METADATA(ROUTE:a)%", "supported is DYNAMIC"),
        ("%COALESCE({})%", "must be a JSON object"),
    ] {
        let error = Format::text(format, Missing::Dash).unwrap_err().to_string();
        assert!(error.contains(expect), "{format}: {error}");
    }
}
