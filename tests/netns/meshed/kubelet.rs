//! What the kubelet and Prometheus ask of a pod whose ports take mutual TLS only.

use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use outrider_testkit::clients::http1::Client;
use outrider_testkit::message::{Kind, Message, read_body, read_head};
use outrider_testkit::servers::{self, Server};
use outrider_testkit::{bins, eventually};
use serde_json::json;

use super::{Pair, for_pairs};
use crate::common::listen;

for_pairs!(ours: probes metrics readiness);

const APP: u16 = 8080;
const TLS: u16 = 8443;
const GRPC: u16 = 9090;
const CLOSED: u16 = 9999;
const METRICS: u16 = 9100;
const AGENT: u16 = 15020;

/// An app that is well only for who asks as its probe says.
fn particular_app(pair: &Pair) -> Server {
    Server::start(listen(&pair.server.pod, APP), |connection| {
        let mut reader = std::io::BufReader::new(connection.try_clone()?);
        let mut writer = connection;
        let head = read_head(&mut reader)?.context("no request")?;
        let request = read_body(&mut reader, head, Kind::Request)?;
        let head = &request.head;
        let path = head.start.split(' ').nth(1).unwrap_or_default();
        let answer = match path {
            "/live?full=1" => {
                let is_probe = head.header("host") == Some("cart")
                    && head.header("x-probe") == Some("1")
                    && head.header("user-agent") == Some("kube-probe/1.34");
                let status = if is_probe { "204 Fine" } else { "418 Strange" };
                format!("HTTP/1.1 {status}\r\n\r\n")
            }
            "/sick" => "HTTP/1.1 503 Sick\r\ncontent-length: 0\r\n\r\n".to_owned(),
            "/away" => "HTTP/1.1 302 Found\r\nlocation: http://elsewhere/\r\n\r\n".to_owned(),
            "/to-sick" => "HTTP/1.1 302 Found\r\nlocation: /sick\r\n\r\n".to_owned(),
            "/round" => "HTTP/1.1 302 Found\r\nlocation: /round\r\n\r\n".to_owned(),
            "/slow" => {
                std::thread::sleep(Duration::from_millis(1500));
                "HTTP/1.1 200 OK\r\n\r\n".to_owned()
            }
            _ => "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned(),
        };
        writer.write_all(answer.as_bytes())?;
        Ok(())
    })
    .unwrap()
}

/// Asks as the kubelet does, from outside of the pod and without a certificate.
fn ask(pair: &Pair, port: u16, path: &str) -> anyhow::Result<Message> {
    let mut client = Client::connect_from(&pair.outside, (pair.server.pod.v4(), port))?;
    client.exchange(format!(
        "GET {path} HTTP/1.1\r\nHost: pod\r\nUser-Agent: kube-probe/1.34\r\n\r\n"
    ))
}

const CLOSED_HOOK: &str = "/app-health/closed/prestop/0123456789abcdef0123456789abcdef";

/// Probes of all four kinds pass and fail as the app does, where the app's ports take mutual TLS
/// only.
fn probes(mut pair: Pair) {
    pair.mesh.mutual_tls("STRICT").unwrap();
    let get = |path: &str| json!({"httpGet": {"port": APP, "path": path}});
    let headers = json!([{"name": "Host", "value": "cart"}, {"name": "X-Probe", "value": "1"}]);
    let live = json!({"httpGet": {"port": APP, "path": "/live?full=1", "httpHeaders": headers}});
    let tls = |port: u16| json!({"httpGet": {"port": port, "scheme": "HTTPS"}});
    let grpc = |port: u16, service: &str| json!({"grpc": {"port": port, "service": service}});
    let cases = [
        ("http/livez", live, 200, ""),
        ("strange/livez", get("/live?full=1"), 418, "answered 418"),
        ("http/readyz", get("/sick"), 503, "answered 503"),
        ("away/readyz", get("/away"), 200, ""),
        ("to-sick/readyz", get("/to-sick"), 503, "answered 503"),
        (
            "round/readyz",
            get("/round"),
            500,
            "stopped after 10 redirects",
        ),
        ("slow/livez", get("/slow"), 500, "no answer within 1s"),
        ("https/livez", tls(TLS), 200, ""),
        ("plain/livez", tls(APP), 500, "TLS"),
        (
            "closed/livez",
            json!({"httpGet": {"port": CLOSED}}),
            500,
            "refused",
        ),
        ("tcp/livez", json!({"tcpSocket": {"port": APP}}), 200, ""),
        (
            "tcp/readyz",
            json!({"tcpSocket": {"port": CLOSED}}),
            500,
            "refused",
        ),
        ("grpc/livez", grpc(GRPC, ""), 200, ""),
        (
            "grpc/readyz",
            grpc(GRPC, "down"),
            500,
            "the service is NOT_SERVING",
        ),
        ("closed/startupz", grpc(CLOSED, ""), 500, "refused"),
        (
            "http/prestop/0123456789abcdef0123456789abcdef",
            get("/sick"),
            503,
            "answered 503",
        ),
    ];
    let all = cases
        .iter()
        .map(|(path, probe, ..)| (format!("/app-health/{path}"), probe.clone()));
    let mut all: serde_json::Map<String, serde_json::Value> = all.collect();
    all.insert(CLOSED_HOOK.into(), json!({"httpGet": {"port": CLOSED}}));
    pair.server.set(
        "OUTRIDER_PROBES",
        serde_json::Value::Object(all).to_string(),
    );
    let pair = pair.start(&[]);
    let _app = particular_app(&pair);
    let _tls = servers::https::start(listen(&pair.server.pod, TLS)).unwrap();
    let _grpc = servers::grpc::echo(listen(&pair.server.pod, GRPC), "app").unwrap();

    let direct = Client::connect_from(&pair.outside, (pair.server.pod.v4(), APP));
    let direct = direct.and_then(|mut client| client.get("pod", "/live?full=1"));
    assert!(direct.is_err(), "the app's own port takes plaintext");
    for (path, _, status, reason) in cases {
        let answer = ask(&pair, AGENT, &format!("/app-health/{path}")).unwrap();
        assert_eq!(
            answer.status().unwrap(),
            status,
            "{path}: {}",
            answer.text()
        );
        assert!(answer.text().contains(reason), "{path}: {}", answer.text());
    }
    // Of a hook the kubelet asks whether there is an answer.
    assert!(ask(&pair, AGENT, CLOSED_HOOK).is_err());
    // Nobody else runs a hook: its path has to be known.
    for unknown in [
        "http/startupz",
        "http/prestop",
        "http/prestop/",
        "http/prestop/0123456789abcdef0123456789abcdee",
        "http/prestop/0123456789abcdef0123456789abcdef0",
    ] {
        let answer = ask(&pair, AGENT, &format!("/app-health/{unknown}")).unwrap();
        assert_eq!(answer.status().unwrap(), 404, "{unknown}");
    }
}

/// The app's metrics and ours on one page; ours alone, and a count, where the app has none.
fn metrics(mut pair: Pair) {
    pair.mesh.mutual_tls("STRICT").unwrap();
    let metrics = json!({"port": METRICS, "path": "/numbers"});
    pair.server.set("OUTRIDER_APP_METRICS", metrics.to_string());
    let pair = pair.start(&[]);
    let app = Server::start(listen(&pair.server.pod, METRICS), |connection| {
        let mut reader = std::io::BufReader::new(connection.try_clone()?);
        let head = read_head(&mut reader)?.context("no request")?;
        ensure!(head.start.starts_with("GET /numbers "), "{}", head.start);
        let page = "# TYPE orders counter\norders 7\n";
        let length = page.len();
        let mut writer = connection;
        write!(
            writer,
            "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{page}"
        )?;
        Ok(())
    })
    .unwrap();
    let ours = "envoy_server_live 1\n";
    let page = |port| {
        let answer = ask(&pair, port, "/stats/prometheus").unwrap();
        assert_eq!(answer.status().unwrap(), 200);
        answer.text()
    };
    let merged = page(AGENT);
    assert!(
        merged.contains("orders 7\n") && merged.contains(ours),
        "{merged}"
    );
    let alone = page(15090);
    assert!(!alone.contains("orders") && alone.contains(ours), "{alone}");
    assert!(alone.contains("envoy_server_app_metrics_failures 0\n"));

    drop(app);
    let without = page(AGENT);
    assert!(
        without.contains("metrics are missing: ") && without.contains(ours),
        "{without}"
    );
    assert!(page(15090).contains("envoy_server_app_metrics_failures 1\n"));
}

/// Ready is who has a certificate and a configuration, and is not about to end; `wait` waits for it.
fn readiness(pair: Pair) {
    let program = bins::path("outrider-sidecar").unwrap();
    let wait = |pod: &outrider_testkit::netns::Pod| {
        let mut command = pod.command(&program);
        command
            .args(["wait", "--timeout-s", "1"])
            .env("RUST_BACKTRACE", "0")
            .output()
            .unwrap()
    };
    let said = |output: &std::process::Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let nobody = wait(&pair.server.pod);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(
        said(&nobody).contains("not ready after 1s: 127.0.0.1:15021"),
        "{}",
        said(&nobody)
    );

    let mut pair = pair.start(&[]);
    let ready = wait(&pair.server.pod);
    assert!(ready.status.success(), "{}", said(&ready));
    for port in [AGENT, 15021] {
        let answer = ask(&pair, port, "/healthz/ready").unwrap();
        assert_eq!(answer.status().unwrap(), 200, "{}", answer.text());
    }

    // Its end is for the pod's own programs to order.
    let post = b"POST /quitquitquit HTTP/1.1\r\nHost: a\r\ncontent-length: 0\r\n\r\n";
    let from = |pod, address| {
        let mut client = Client::connect_from(pod, (address, AGENT)).unwrap();
        client.exchange(post).unwrap().status().unwrap()
    };
    let address = std::net::IpAddr::from(pair.server.pod.v4());
    assert_eq!(from(&pair.outside, address), 403);
    let mut app = Client::connect_from(&pair.server.pod, ("127.0.0.1", AGENT)).unwrap();
    let get = app.get("localhost", "/quitquitquit").unwrap();
    assert_eq!(get.status().unwrap(), 405);
    // A connection keeps it from ending at once.
    let _tcp = servers::tcp::echo(listen(&pair.server.pod, super::TCP)).unwrap();
    let target = (super::HOST, super::TCP);
    let mut kept = Client::connect_from(&pair.client.pod, target).unwrap();
    kept.send("hello").unwrap();
    kept.read(5).unwrap();
    assert_eq!(
        from(&pair.server.pod, std::net::Ipv4Addr::LOCALHOST.into()),
        200
    );
    eventually(Duration::from_secs(5), || {
        let answer = ask(&pair, 15021, "/healthz/ready")?;
        ensure!(answer.status()? == 503, "still ready");
        ensure!(answer.text().contains("draining"), "{}", answer.text());
        Ok(())
    })
    .unwrap();
    drop(kept);
    let proxy = pair.server.proxy().unwrap();
    assert!(proxy.wait(Duration::from_secs(15)).unwrap().success());
}
