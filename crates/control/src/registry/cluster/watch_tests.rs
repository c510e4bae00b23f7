use std::convert::Infallible;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http_body_util::StreamBody;
use hyper::body::Frame;
use outrider_testkit::poll::eventually_async;
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::super::kind::KINDS;
use super::*;

fn kind(name: &str) -> &'static Kind {
    KINDS.iter().find(|each| each.name == name).unwrap()
}

#[test]
fn what_the_safety_of_the_mesh_needs_is_waited_for_at_the_start_too() {
    for (name, has_objects, seconds, gone) in [
        ("HTTPRoute", false, 0, true),
        ("HTTPRoute", true, 29, false),
        ("HTTPRoute", true, 30, true),
        ("PeerAuthentication", false, 0, false),
        ("PeerAuthentication", false, 29, false),
        ("PeerAuthentication", false, 30, true),
        ("PeerAuthentication", true, 29, false),
    ] {
        let kind = KINDS.iter().find(|each| each.name == name).unwrap();
        let missing = Duration::from_secs(seconds);
        let verdict = is_gone(kind, has_objects, missing);
        assert_eq!(verdict, gone, "{name} {has_objects} {seconds}");
    }
}

/// An API server with Services, that lists but does not stream lists.
struct Server {
    /// What is listed; none while it is away.
    listed: Mutex<Option<Vec<&'static str>>>,
    /// How many requests it has turned away.
    refused: AtomicUsize,
    /// Gets the sending end of every watch.
    watches: UnboundedSender<UnboundedSender<Value>>,
}

impl Server {
    fn client(self: &Arc<Self>) -> kube::Client {
        let server = Arc::clone(self);
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let (code, lines) = server.answer(request.uri().query().unwrap_or_default());
            let body = UnboundedReceiverStream::new(lines)
                .map(|line| Ok::<_, Infallible>(Frame::data(Bytes::from(format!("{line}\n")))));
            let response = http::Response::builder().status(code);
            std::future::ready(Ok::<_, Infallible>(
                response.body(StreamBody::new(body)).unwrap(),
            ))
        });
        kube::Client::new(service, "default")
    }

    fn answer(&self, query: &str) -> (u16, UnboundedReceiver<Value>) {
        let (sender, lines) = unbounded_channel();
        let listed = self.listed.lock().unwrap().clone();
        let status = |code: u16| {
            json!({"kind": "Status", "status": "Failure", "code": code, "message": "no",
                "reason": "no"})
        };
        let (code, answer) = match listed {
            None => {
                self.refused.fetch_add(1, Ordering::SeqCst);
                (503, status(503))
            }
            Some(_) if query.contains("sendInitialEvents=true") => (422, status(422)),
            Some(_) if query.contains("watch=true") => {
                self.watches.send(sender).unwrap();
                return (200, lines);
            }
            Some(names) => {
                let items: Vec<_> = names.into_iter().map(service).collect();
                let metadata = json!({"resourceVersion": "1"});
                (
                    200,
                    json!({"apiVersion": "v1", "kind": "ServiceList", "metadata": metadata,
                    "items": items}),
                )
            }
        };
        sender.send(answer).unwrap();
        (code, lines)
    }
}

fn service(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "shop", "resourceVersion": "1"}, "spec": {}})
}

/// Waits for what is next, for as long as a test may take.
async fn next<T>(receiver: impl Future<Output = Option<T>>) -> T {
    timeout(Duration::from_secs(60), receiver)
        .await
        .unwrap()
        .unwrap()
}

/// The events up to this many, in short.
async fn told(events: &mut mpsc::Receiver<Event>, count: usize) -> Vec<String> {
    let mut told = Vec::new();
    for _ in 0..count {
        told.push(match next(events.recv()).await {
            Event::Set(object) => format!("+{}", object.metadata().name),
            Event::Gone(reference) => format!("-{}", reference.name.name),
            Event::Synced(_) => "synced".to_owned(),
            other => panic!("{other:?}"),
        });
    }
    told
}

#[tokio::test]
async fn a_watch_outlives_whatever_becomes_of_its_server() {
    let (watches, mut opened) = unbounded_channel();
    let server = Arc::new(Server {
        listed: Mutex::new(Some(vec!["a"])),
        refused: AtomicUsize::new(0),
        watches,
    });
    let (sender, mut events) = mpsc::channel(100);
    let following = tokio::spawn(follow(
        server.client(),
        kind("Service"),
        sender,
        Arc::default(),
    ));
    assert_eq!(told(&mut events, 2).await, ["+a", "synced"]);
    let watch = next(opened.recv()).await;
    let event = |what: &str, object: Value| json!({"type": what, "object": object});
    watch.send(event("ADDED", service("b"))).unwrap();
    watch.send(event("DELETED", service("a"))).unwrap();
    assert_eq!(told(&mut events, 2).await, ["+b", "-a"]);

    // What it missed is no longer known to the server: what is not listed anew is gone.
    *server.listed.lock().unwrap() = Some(vec!["c"]);
    let expired = json!({"kind": "Status", "status": "Failure", "code": 410, "message": "old",
        "reason": "Expired"});
    watch.send(event("ERROR", expired)).unwrap();
    assert_eq!(told(&mut events, 3).await, ["+c", "-b", "synced"]);

    // While the server is away, what was read stays; then the watch goes on.
    let watch = next(opened.recv()).await;
    *server.listed.lock().unwrap() = None;
    drop(watch);
    eventually_async(Duration::from_secs(60), || async {
        let refused = server.refused.load(Ordering::SeqCst);
        anyhow::ensure!(refused > 0, "the server was not asked");
        Ok(())
    })
    .await
    .unwrap();
    assert!(events.is_empty(), "nothing is forgotten");
    *server.listed.lock().unwrap() = Some(vec!["c"]);
    let watch = next(opened.recv()).await;
    watch.send(event("ADDED", service("d"))).unwrap();
    assert_eq!(told(&mut events, 1).await, ["+d"]);
    following.abort();
}
