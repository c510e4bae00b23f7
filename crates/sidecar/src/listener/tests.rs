//! Listeners at work on loopback: from the socket through inspection and TLS to a tcp_proxy.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::binding::ActiveListener;
use crate::config::build::testing;
use crate::config::listener::{DownstreamTransport, FilterChain, Listener};
use crate::runtime::drain::DrainControl;
use crate::runtime::snapshot::ListenerSet;
use crate::runtime::worker::Worker;
use crate::telemetry::access_log::writer::WriterThread;
use crate::telemetry::metrics::{Family, Registry, Value};
use crate::tls::stream::Stream;
use crate::tls::testing::mutual;
use crate::upstream::shared::{ClusterSet, ClusterShared};

struct Sidecar {
    worker: Rc<Worker>,
    registry: Registry,
    listeners: RefCell<ListenerSet>,
    _writer: WriterThread,
    drain: DrainControl,
}

impl Sidecar {
    /// A worker with STATIC clusters by name.
    fn new(clusters: &[(&str, SocketAddr)]) -> Self {
        let registry = Registry::default();
        let stats = registry.thread();
        let writer = WriterThread::new(stats.clone());
        let drain = DrainControl::default();
        let worker = Worker::new(
            0,
            stats.clone(),
            drain.signal(),
            writer.handle().writer(&stats),
        );
        let set: ClusterSet = clusters
            .iter()
            .map(|(name, address)| {
                let cluster = testing::cluster(&format!(
                    "{{name: {name}, type: STATIC, connect_timeout: 2s, load_assignment: {{cluster_name: {name}, \
                     endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: \
                     {{address: {}, port_value: {}}}}}}}}}]}}]}}}}",
                    address.ip(),
                    address.port(),
                ))
                .unwrap();
                (Arc::from(*name), ClusterShared::new(Arc::new(cluster)))
            })
            .collect();
        worker.clusters.apply(&set);
        Sidecar {
            worker,
            registry,
            listeners: RefCell::new(BTreeMap::new()),
            _writer: writer,
            drain,
        }
    }

    /// Puts a listener in force, in place of the one of its name; answers its address.
    fn listen(&self, yaml: &str) -> SocketAddr {
        self.put(testing::listener(yaml).unwrap())
    }

    fn put(&self, config: Listener) -> SocketAddr {
        let mut listeners = self.listeners.borrow_mut();
        let name = Arc::clone(&config.name);
        let previous = listeners.get(&name).cloned();
        let active = ActiveListener::bind(Arc::new(config), previous.as_deref(), 1, false).unwrap();
        active.listen().unwrap();
        let address = active.addresses()[0].socket().unwrap();
        listeners.insert(name, active);
        self.worker.listeners.apply(&self.worker, &listeners);
        address
    }

    fn remove(&self, name: &str) {
        let mut listeners = self.listeners.borrow_mut();
        listeners.remove(name);
        self.worker.listeners.apply(&self.worker, &listeners);
    }

    fn count(&self, family: Family, stat: &str) -> u64 {
        let mut total = 0;
        self.registry.read(|in_family, _, name, value| {
            if in_family == family && name == stat {
                total += match value {
                    Value::Counter(value) => value,
                    Value::Gauge(value) => value as u64,
                    Value::Number(value) => value,
                    Value::Text(_) => 0,
                    Value::Histogram(..) => 0,
                };
            }
        });
        total
    }
}

fn on_worker(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let limit = Duration::from_secs(30);
    let test = async { tokio::time::timeout(limit, test).await.unwrap() };
    tokio::task::LocalSet::new().block_on(&runtime, test);
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !holds() {
        assert!(Instant::now() < deadline, "still not: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

const ANY_PORT: &str = "address: {socket_address: {address: 127.0.0.1, port_value: 0}}";
const INSPECTORS: &str = "listener_filters: [\
    {name: t, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}}, \
    {name: h, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.listener.http_inspector.v3.HttpInspector}}]";

/// The filters of a chain that relays to a cluster.
fn proxy(cluster: &str) -> String {
    format!(
        "filters: [{{name: tcp, typed_config: {{'@type': \
         type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, \
         stat_prefix: {cluster}, cluster: {cluster}}}}}]"
    )
}

/// A server that answers every connection with its name and what the client sends.
async fn server(greeting: &'static str) -> SocketAddr {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    // A burst of connections is not to be slowed down here.
    let listener = socket.listen(1024).unwrap();
    let address = listener.local_addr().unwrap();
    tokio::task::spawn_local(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::task::spawn_local(async move {
                let mut bytes = [0; 1024];
                stream.write_all(greeting.as_bytes()).await.ok();
                while let Ok(length @ 1..) = stream.read(&mut bytes).await {
                    stream.write_all(&bytes[..length]).await.ok();
                }
            });
        }
    });
    address
}

async fn expect(stream: &mut (impl AsyncRead + Unpin), text: &str) {
    let mut bytes = vec![0; text.len()];
    stream.read_exact(&mut bytes).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&bytes), text);
}

#[test]
fn a_connection_is_relayed_and_counted_until_it_ends() {
    on_worker(async {
        let sidecar = Sidecar::new(&[("app", server("").await)]);
        let address = sidecar.listen(&format!(
            "{{name: l, {ANY_PORT}, filter_chains: [{{{}}}]}}",
            proxy("app")
        ));
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"hello").await.unwrap();
        expect(&mut client, "hello").await;
        assert_eq!(sidecar.count(Family::Listener, "downstream_cx_active"), 1);
        client.shutdown().await.unwrap();
        assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
        until("counted", || {
            sidecar.count(Family::Listener, "downstream_cx_destroy") == 1
        })
        .await;
        assert_eq!(sidecar.count(Family::Listener, "downstream_cx_active"), 0);
        assert_eq!(
            sidecar.count(Family::Tcp, "downstream_cx_rx_bytes_total"),
            5
        );
        assert_eq!(
            sidecar.count(Family::Tcp, "downstream_cx_tx_bytes_total"),
            5
        );
    });
}

#[test]
fn refusals_and_missing_clusters_are_resets() {
    on_worker(async {
        let closed = TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap();
        let sidecar = Sidecar::new(&[("closed", closed)]);
        for (cluster, stat) in [
            ("closed", "downstream_cx_total"),
            ("absent", "downstream_cx_no_route"),
        ] {
            let yaml = format!(
                "{{name: {cluster}, {ANY_PORT}, filter_chains: [{{{}}}]}}",
                proxy(cluster)
            );
            let mut client = TcpStream::connect(sidecar.listen(&yaml)).await.unwrap();
            let error = client.read(&mut [0; 1]).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{cluster}");
            assert!(sidecar.count(Family::Tcp, stat) > 0, "{stat}");
        }
    });
}

#[test]
fn chains_are_chosen_by_what_the_client_says_and_a_silent_one_gets_the_server_that_speaks_first() {
    on_worker(async {
        let sidecar = Sidecar::new(&[
            ("http", server("").await),
            ("raw", server("").await),
            ("greets", server("220 ready\r\n").await),
        ]);
        let yaml = |default: &str| {
            format!(
                "{{name: l, {ANY_PORT}, {INSPECTORS}, listener_filters_timeout: 5s, filter_chains: [\
                 {{filter_chain_match: {{application_protocols: [http/1.1, h2c]}}, {}}}], \
                 default_filter_chain: {{{}}}}}",
                proxy("http"),
                proxy(default),
            )
        };
        let address = sidecar.listen(&yaml("greets"));
        let began = Instant::now();
        let mut silent = TcpStream::connect(address).await.unwrap();
        expect(&mut silent, "220 ready\r\n").await;
        assert!(
            began.elapsed() < Duration::from_secs(1),
            "{:?}",
            began.elapsed()
        );
        silent.write_all(b"QUIT").await.unwrap();
        expect(&mut silent, "QUIT").await;

        // Silent for longer than that, then HTTP: the server that was dialled is let go.
        let address = sidecar.listen(&yaml("raw"));
        let dialled = || sidecar.count(Family::Cluster, "upstream_cx_total");
        let before = dialled();
        let mut late = TcpStream::connect(address).await.unwrap();
        until("dialled", || dialled() == before + 1).await;
        late.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        expect(&mut late, "GET / HTTP/1.1\r\n").await;
        assert_eq!(dialled(), before + 2, "one more, of the other cluster");
        until("one is left", || {
            sidecar.count(Family::Cluster, "upstream_cx_active") == 2
        })
        .await;

        let mut raw = TcpStream::connect(address).await.unwrap();
        raw.write_all(b"\x00\x01binary").await.unwrap();
        expect(&mut raw, "\x00\x01binary").await;
        assert_eq!(sidecar.count(Family::Tcp, "downstream_cx_total"), 3);
    });
}

#[test]
fn a_silent_client_of_a_silent_server_is_waited_for_as_long_as_configured() {
    on_worker(async {
        let sidecar = Sidecar::new(&[("app", server("").await)]);
        for (goes_on, name) in [(false, "a"), (true, "b")] {
            let address = sidecar.listen(&format!(
                "{{name: {name}, {ANY_PORT}, {INSPECTORS}, listener_filters_timeout: 0.2s, \
                 continue_on_listener_filters_timeout: {goes_on}, filter_chains: [{{{}}}]}}",
                proxy("app")
            ));
            let mut client = TcpStream::connect(address).await.unwrap();
            until("timed out", || {
                sidecar.count(Family::Listener, "downstream_pre_cx_timeout") > 0
            })
            .await;
            if goes_on {
                client.write_all(b"late").await.unwrap();
                expect(&mut client, "late").await;
            } else {
                assert_eq!(client.read(&mut [0; 1]).await.unwrap_or(0), 0);
            }
        }
    });
}

#[test]
fn mutual_tls_ends_here_and_plaintext_is_refused() {
    on_worker(async {
        let sidecar = Sidecar::new(&[("app", server("").await)]);
        let (context, client) = mutual();
        let mut config = testing::listener(&format!(
            "{{name: l, {ANY_PORT}, {INSPECTORS}, filter_chains: [{{{}}}]}}",
            proxy("app")
        ))
        .unwrap();
        let chain = &config.filter_chains[0];
        let chain = Arc::new(FilterChain {
            name: Arc::clone(&chain.name),
            matcher: chain.matcher.clone(),
            transport: DownstreamTransport::Tls(context),
            transport_timeout: chain.transport_timeout,
            filters: chain.filters.clone(),
            filter: chain.filter.clone(),
            fingerprint: chain.fingerprint,
        });
        config.chains =
            super::filter_chain_match::FilterChainIndex::new(&[Arc::clone(&chain)], None).unwrap();
        config.filter_chains = vec![chain];
        let address = sidecar.put(config);

        let tcp = TcpStream::connect(address).await.unwrap();
        let mut stream = Stream::from(
            client
                .connect(tcp, &[b"istio"], Default::default())
                .await
                .unwrap(),
        );
        stream.write_all(b"secret").await.unwrap();
        expect(&mut stream, "secret").await;
        assert_eq!(sidecar.count(Family::Listener, "ssl.handshake"), 1);

        let mut plain = TcpStream::connect(address).await.unwrap();
        plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        plain.read_to_end(&mut answer).await.ok();
        // At most an alert; nothing of the application.
        assert!(answer.is_empty() || answer[0] == 21, "{answer:?}");
        until("counted", || {
            sidecar.count(Family::Listener, "ssl.connection_error") == 1
        })
        .await;
    });
}

#[test]
fn updates_and_removals_leave_connections_alone() {
    on_worker(async {
        let sidecar = Sidecar::new(&[("one", server("1").await), ("two", server("2").await)]);
        let yaml = |cluster: &str, port: u16| {
            format!(
                "{{name: l, address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}, \
                 filter_chains: [{{{}}}]}}",
                proxy(cluster)
            )
        };
        let address = sidecar.listen(&yaml("one", 0));
        let mut old = TcpStream::connect(address).await.unwrap();
        expect(&mut old, "1").await;
        assert_eq!(
            sidecar.listen(&yaml("two", 0)),
            address,
            "the socket is kept"
        );
        let mut new = TcpStream::connect(address).await.unwrap();
        expect(&mut new, "2").await;
        old.write_all(b"still").await.unwrap();
        expect(&mut old, "still").await;

        // Whom the system has accepted is served, more of them than tokio hands out in one turn.
        let queued: Vec<_> = (0..200)
            .map(|_| std::net::TcpStream::connect(address).unwrap())
            .collect();
        sidecar.remove("l");
        for client in queued {
            client.set_nonblocking(true).unwrap();
            expect(&mut TcpStream::from_std(client).unwrap(), "2").await;
        }
        until("closed", || std::net::TcpStream::connect(address).is_err()).await;
        old.write_all(b"here").await.unwrap();
        expect(&mut old, "here").await;
    });
}

#[test]
fn a_connection_to_a_port_of_the_proxy_that_takes_redirected_ones_is_reset() {
    on_worker(async {
        let sidecar = Sidecar::new(&[("app", server("").await)]);
        let address = sidecar.listen(&format!(
            "{{name: l, {ANY_PORT}, use_original_dst: true, listener_filters: [{{name: o, typed_config: \
             {{'@type': type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst}}}}], \
             filter_chains: [{{{}}}]}}",
            proxy("app")
        ));
        let mut client = TcpStream::connect(address).await.unwrap();
        let error = client.read(&mut [0; 1]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert_eq!(sidecar.count(Family::Cluster, "upstream_cx_total"), 0);
    });
}

#[test]
fn a_client_that_ends_or_is_silent_is_not_let_past_a_filter_behind_an_inspector() {
    const PATH: &str = "type.googleapis.com/envoy.extensions.filters.listener";
    on_worker(async {
        let sidecar = Sidecar::new(&[("greets", server("220 ready\r\n").await)]);
        let limit = format!(
            "{{'@type': {PATH}.local_ratelimit.v3.LocalRateLimit, stat_prefix: few, \
             token_bucket: {{max_tokens: 1, fill_interval: 600s}}}}"
        );
        let proxy_protocol = format!("{{'@type': {PATH}.proxy_protocol.v3.ProxyProtocol}}");
        for (name, behind) in [("limit", limit), ("proxy", proxy_protocol)] {
            let address = sidecar.listen(&format!(
                "{{name: {name}, {ANY_PORT}, listener_filters_timeout: 0.1s, listener_filters: [\
                 {{name: h, typed_config: {{'@type': {PATH}.http_inspector.v3.HttpInspector}}}}, \
                 {{name: b, typed_config: {behind}}}], filter_chains: [{{{}}}]}}",
                proxy("greets")
            ));
            for said in ["G", ""] {
                let mut client = TcpStream::connect(address).await.unwrap();
                if !said.is_empty() {
                    client.write_all(said.as_bytes()).await.unwrap();
                    client.shutdown().await.unwrap();
                }
                let length = client.read(&mut [0; 1]).await.unwrap_or(0);
                assert_eq!(length, 0, "{name} {said:?}");
            }
        }
        assert_eq!(sidecar.count(Family::Cluster, "upstream_cx_total"), 0);
    });
}

#[test]
fn a_connection_whose_chain_changes_before_it_is_served_drains() {
    on_worker(async {
        let sidecar = Sidecar::new(&[]);
        let put = |cluster: &str| {
            let chain = proxy(cluster);
            let address = sidecar.listen(&format!(
                "{{name: l, {ANY_PORT}, filter_chains: [{{{chain}}}]}}"
            ));
            sidecar.worker.listeners.at(address).unwrap()
        };
        let running = put("one");
        let one = running.config().filter_chains[0].clone();
        let served = running.drain_of(&one);
        assert!(!served.is_draining());
        put("two");
        assert!(served.is_draining());
        let late = running.drain_of(&one);
        assert!(late.is_draining());
        late.begun().await;

        // One that nobody was served by before the listener is removed.
        let two = running.config().filter_chains[0].clone();
        sidecar.remove("l");
        assert!(running.drain_of(&two).is_draining());
    });
}

#[test]
fn failing_health_checks_ends_connections_with_their_next_answer() {
    on_worker(async {
        let sidecar = Sidecar::new(&[]);
        let listen = |name: &str, drain_type: &str| {
            sidecar.listen(&format!(
                "{{name: {name}, {ANY_PORT}, drain_type: {drain_type}, filter_chains: [{{filters: [\
                 {{name: http, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, \
                 stat_prefix: s, route_config: {{virtual_hosts: [{{name: v, domains: ['*'], \
                 routes: [{{match: {{prefix: /}}, direct_response: {{status: 200}}}}]}}]}}, \
                 http_filters: [{{name: r, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}]}}}}]}}]}}"
            ))
        };
        for (name, drain_type, closes) in [("a", "DEFAULT", true), ("b", "MODIFY_ONLY", false)] {
            let mut client = TcpStream::connect(listen(name, drain_type)).await.unwrap();
            for (fail, closes) in [(false, false), (true, closes), (false, false)] {
                sidecar.drain.fail_health_check(fail);
                client
                    .write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
                    .await
                    .unwrap();
                let mut answer = Vec::new();
                while !answer.ends_with(b"\r\n\r\n") {
                    assert_ne!(client.read_buf(&mut answer).await.unwrap(), 0);
                }
                let answer = String::from_utf8_lossy(&answer).to_ascii_lowercase();
                assert_eq!(
                    answer.contains("connection: close"),
                    closes,
                    "{name}: {answer}"
                );
                if closes {
                    assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
                    break;
                }
            }
        }
    });
}
