//! HTTP/2 pools.

use tokio::task::spawn_local;

use super::*;

fn http2(server: &Server) -> cluster::Cluster {
    let mut config = config([endpoint(server.address)]);
    config.protocol = UpstreamProtocol::Http2;
    config
}

async fn burst(worker: &Rc<Worker>, requests: usize) -> Vec<String> {
    let requests: Vec<_> = (0..requests)
        .map(|_| {
            let worker = worker.clone();
            spawn_local(async move { worker.get().await })
        })
        .collect();
    let mut answers = Vec::new();
    for request in requests {
        answers.push(request.await.expect("an answer"));
    }
    answers
}

#[test]
fn a_burst_of_requests_makes_one_connection() {
    on_worker(async {
        let server = Server::http2(Answer::Now, 1024).await;
        let worker = Worker::new(http2(&server));
        assert_eq!(burst(&worker, 50).await, vec!["1"; 50]);
        assert_eq!(burst(&worker, 50).await, vec!["1"; 50]);
        assert_eq!(server.accepted(), 1);
        assert_eq!(worker.stat("upstream_cx_http2_total"), 1);
        assert_eq!(worker.stat("upstream_rq_200"), 100);
        worker.assert_quiet();
    });
}

#[test]
fn more_connections_come_when_the_streams_are_used_up() {
    on_worker(async {
        let server = Server::http2(Answer::WhenReleased, 2).await;
        let worker = Worker::new(http2(&server));
        // The first exchange learns the server's limit.
        let first = spawn_local({
            let worker = worker.clone();
            async move { worker.get().await }
        });
        until("it arrives", || server.requests() == 1).await;
        let more = spawn_local({
            let worker = worker.clone();
            async move { burst(&worker, 4).await }
        });
        until("all arrive", || server.requests() == 5).await;
        assert_eq!(server.accepted(), 3);
        server.release();
        assert_eq!(first.await.expect("an answer"), "1");
        more.await.expect("answers");
        worker.assert_quiet();
    });
}

#[test]
fn nothing_new_begins_after_goaway() {
    on_worker(async {
        let server = Server::http2(Answer::WhenReleased, 1024).await;
        let worker = Worker::new(http2(&server));
        let early = spawn_local({
            let worker = worker.clone();
            async move { worker.get().await }
        });
        until("it arrives", || server.requests() == 1).await;
        server.go_away();
        // It has arrived when an exchange has to wait for another connection.
        let deadline = Instant::now() + Duration::from_secs(5);
        while !is_pending(Box::pin(worker.exchange()).as_mut()).await {
            assert!(Instant::now() < deadline, "no GOAWAY");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let late = spawn_local({
            let worker = worker.clone();
            async move { worker.get().await }
        });
        until("a second connection", || server.accepted() == 2).await;
        server.release();
        assert_eq!(early.await.expect("an answer"), "1");
        assert_eq!(late.await.expect("an answer"), "2");
    });
}

#[test]
fn a_request_that_is_given_up_leaves_its_connection_to_the_next() {
    on_worker(async {
        let server = Server::http2(Answer::Now, 1024).await;
        let worker = Worker::new(http2(&server));
        let mut waiting = Box::pin(worker.exchange());
        assert!(is_pending(waiting.as_mut()).await);
        drop(waiting);
        assert_eq!(worker.get().await, "1");
        assert_eq!(server.accepted(), 1);
        worker.assert_quiet();
    });
}

#[test]
fn an_idle_connection_is_closed_and_a_worn_out_one_replaced() {
    on_worker(async {
        let server = Server::http2(Answer::Now, 1024).await;
        let mut limited = http2(&server);
        limited.idle_timeout = Some(Duration::from_millis(80));
        limited.max_requests_per_connection = Some(2);
        let worker = Worker::new(limited);
        for want in ["1", "1", "2"] {
            assert_eq!(worker.get().await, want);
        }
        until("both are closed", || server.open() == 0).await;
        assert_eq!(worker.stat("upstream_cx_max_requests"), 1);
        assert_eq!(worker.stat("upstream_cx_idle_timeout"), 1);
        until("and not counted", || worker.stat("upstream_cx_active") == 0).await;
        worker.assert_quiet();
    });
}

#[test]
fn requests_go_upstream_as_they_came() {
    on_worker(async {
        let (one, two) = (
            Server::http1(Answer::Now).await,
            Server::http2(Answer::Now, 10).await,
        );
        for (server, version) in [(&one, Version::Http11), (&two, Version::Http2)] {
            let mut config = config([endpoint(server.address)]);
            config.protocol = UpstreamProtocol::Downstream;
            let worker = Worker::new(config);
            let exchange = worker.cluster().exchange(want(version), &mut None).await;
            let mut exchange = exchange.expect("an exchange");
            assert_eq!(exchange.version(), version);
            assert_eq!(finish(&mut exchange).await.expect("a response"), "1");
        }
    });
}
