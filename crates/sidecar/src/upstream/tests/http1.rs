//! HTTP/1 pools.

use std::pin::pin;
use std::time::Duration;

use tokio::task::spawn_local;

use super::*;

#[test]
fn a_connection_is_used_again_the_last_used_first() {
    on_worker(async {
        let server = Server::http1(Answer::Now).await;
        let worker = Worker::new(config([endpoint(server.address)]));
        for _ in 0..3 {
            assert_eq!(worker.get().await, "1");
        }
        let mut first = worker.exchange().await.expect("an exchange");
        let mut second = worker.exchange().await.expect("an exchange");
        assert!(first.reused() && !second.reused());
        assert_eq!(finish(&mut first).await.expect("a response"), "1");
        assert_eq!(finish(&mut second).await.expect("a response"), "2");
        drop((second, first));
        assert_eq!(worker.get().await, "1", "the last to become idle");
        assert_eq!(server.accepted(), 2);
        worker.assert_quiet();
        for (stat, want) in [
            ("upstream_cx_total", 2),
            ("upstream_cx_active", 2),
            ("upstream_cx_http1_total", 2),
            ("upstream_rq_total", 6),
            ("upstream_rq_pending_total", 2),
            ("upstream_rq_200", 6),
            ("upstream_rq_completed", 6),
            ("membership_total", 1),
            ("upstream_cx_tx_bytes_total", 6 * 33),
            ("upstream_cx_rx_bytes_total", 6 * 39),
        ] {
            assert_eq!(worker.stat(stat), want, "{stat}");
        }
        let view = worker.shared.borrow().view();
        let totals: Vec<_> = view.hosts[0].totals.iter().collect();
        assert!(totals.contains(&("rq_success", 6)), "{totals:?}");
        assert!(totals.contains(&("cx_active", 2)), "{totals:?}");
        assert!(totals.contains(&("rq_active", 0)), "{totals:?}");
    });
}

#[test]
fn who_waits_takes_a_connection_that_becomes_free() {
    on_worker(async {
        let server = Server::http1(Answer::WhenReleased).await;
        let mut one_connection = config([endpoint(server.address)]);
        one_connection.circuit_breakers[0].max_connections = 1;
        let worker = Worker::new(one_connection);
        let requests: Vec<_> = (0..5)
            .map(|_| {
                let worker = worker.clone();
                spawn_local(async move { worker.get().await })
            })
            .collect();
        until("a request arrives", || server.requests() == 1).await;
        assert_eq!(worker.used(Resource::Pending), 4);
        server.release();
        for request in requests {
            assert_eq!(request.await.expect("an answer"), "1");
        }
        assert_eq!(server.accepted(), 1);
        assert_ne!(worker.stat("upstream_cx_overflow"), 0);
        worker.assert_quiet();
    });
}

#[test]
fn breakers_refuse_what_is_too_much() {
    on_worker(async {
        let server = Server::http1(Answer::WhenReleased).await;
        let mut narrow = config([endpoint(server.address)]);
        narrow.circuit_breakers[0].max_pending_requests = 1;
        narrow.circuit_breakers[0].max_requests = 1;
        let worker = Worker::new(narrow);
        let first = worker.exchange().await.expect("the first");
        // The second waits for its connection and is then one too many; the third may not wait.
        let mut second = pin!(worker.exchange());
        assert!(is_pending(second.as_mut()).await);
        let third = worker.exchange().await.err();
        assert_eq!(third, Some(UpstreamError::Overflow));
        assert_eq!(second.await.err(), Some(UpstreamError::Overflow));
        assert_eq!(worker.stat("upstream_rq_pending_overflow"), 1);
        assert_eq!(worker.stat("upstream_rq_active_overflow"), 1);
        drop(first);
        worker.assert_quiet();
    });
}

#[test]
fn a_connection_that_its_endpoint_closed_is_noticed() {
    on_worker(async {
        let server = Server::http1(Answer::ThenClose).await;
        let worker = Worker::new(config([endpoint(server.address)]));
        assert_eq!(worker.get().await, "1");
        until("it is gone", || worker.stat("upstream_cx_active") == 0).await;
        assert_eq!(worker.get().await, "2");
        assert_eq!(worker.used(Resource::Requests), 0);
    });
}

#[test]
fn idle_connections_are_closed_in_time() {
    on_worker(async {
        let server = Server::http1(Answer::Now).await;
        let mut short = config([endpoint(server.address)]);
        short.idle_timeout = Some(Duration::from_millis(80));
        let worker = Worker::new(short);
        assert_eq!(worker.get().await, "1");
        assert_eq!(worker.stat("upstream_cx_active"), 1);
        until("the server sees it closed", || server.open() == 0).await;
        assert_eq!(worker.stat("upstream_cx_idle_timeout"), 1);
        worker.assert_quiet();
    });
}

#[test]
fn a_connection_serves_so_many_requests_and_no_more() {
    on_worker(async {
        let server = Server::http1(Answer::Now).await;
        let mut twice = config([endpoint(server.address)]);
        twice.max_requests_per_connection = Some(2);
        let worker = Worker::new(twice);
        for want in ["1", "1", "2", "2", "3"] {
            assert_eq!(worker.get().await, want);
        }
        assert_eq!(worker.stat("upstream_cx_max_requests"), 2);
    });
}

#[test]
fn requests_that_are_given_up_leave_nothing_behind() {
    on_worker(async {
        let server = Server::http1(Answer::Now).await;
        let worker = Worker::new(config([endpoint(server.address)]));
        let mut waiting = Vec::new();
        for _ in 0..8 {
            let mut request = Box::pin(worker.exchange());
            assert!(is_pending(request.as_mut()).await);
            waiting.push(request);
        }
        assert_eq!(worker.used(Resource::Pending), 8);
        drop(waiting);
        assert_eq!(worker.used(Resource::Pending), 0);
        assert_eq!(worker.stat("upstream_rq_cancelled"), 8);
        // The attempts went on: their connections serve those who come later.
        until("they land", || server.accepted() == 8).await;
        let connections = server.accepted();
        let mut exchange = worker.exchange().await.expect("an exchange");
        assert!(!exchange.reused());
        finish(&mut exchange).await.expect("a response");
        drop(exchange);
        assert_eq!(server.accepted(), connections);
        worker.assert_quiet();
    });
}

#[test]
fn an_exchange_that_was_given_up_unused_gives_its_connection_back() {
    on_worker(async {
        let server = Server::http1(Answer::Now).await;
        let worker = Worker::new(config([endpoint(server.address)]));
        drop(worker.exchange().await.expect("an exchange"));
        assert_eq!(worker.get().await, "1");
        assert_eq!(server.accepted(), 1);
    });
}

#[test]
fn retries_and_upgrades_get_connections_of_their_own() {
    on_worker(async {
        let server = Server::http1(Answer::Now).await;
        let worker = Worker::new(config([endpoint(server.address)]));
        let cluster = worker.cluster();
        assert_eq!(worker.get().await, "1");
        let mut fresh = want(Version::Http11);
        fresh.fresh = true;
        let mut retry = cluster
            .exchange(fresh, &mut None)
            .await
            .expect("an exchange");
        assert_eq!(finish(&mut retry).await.expect("a response"), "2");
        drop(retry);
        assert_eq!(worker.get().await, "2", "a retry's connection is kept");

        let mut upgrade = want(Version::Http11);
        upgrade.upgrade = true;
        let mut declined = cluster
            .exchange(upgrade, &mut None)
            .await
            .expect("an exchange");
        assert_eq!(finish(&mut declined).await.expect("a response"), "3");
        drop(declined);
        until("the third is closed", || server.open() == 2).await;
        worker.assert_quiet();
    });
}

#[test]
fn a_refusal_fails_those_who_wait_and_says_so() {
    on_worker(async {
        let address = Server::http1(Answer::Now).await.address;
        // The server has gone, so its port refuses.
        tokio::task::yield_now().await;
        let worker = Worker::new(config([endpoint(address)]));
        for version in [Version::Http11, Version::Http2] {
            let error = worker
                .cluster()
                .exchange(want(version), &mut None)
                .await
                .err();
            let error = error.expect("a refusal");
            assert!(error.refused(), "{error}");
            assert_eq!(
                error.transport_failure(),
                "delayed connect error: Connection refused"
            );
        }
        assert_eq!(worker.stat("upstream_cx_connect_fail"), 2);
        assert_eq!(worker.stat("upstream_rq_pending_failure_eject"), 2);
        assert_eq!(worker.stat("upstream_cx_active"), 0);
        worker.assert_quiet();
    });
}

#[test]
fn a_connect_that_takes_too_long_is_a_timeout() {
    on_worker(async {
        // A full queue of connections that nobody accepts: the next SYN gets no answer.
        let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
            .expect("a socket");
        let any: SocketAddr = ([127, 0, 0, 1], 0).into();
        listener.bind(&any.into()).expect("a port");
        listener.listen(0).expect("a listener");
        let address = listener.local_addr().expect("an address").as_socket();
        let address = address.expect("IPv4");
        let _queued = std::net::TcpStream::connect(address).expect("the queue's place");

        let mut hasty = config([endpoint(address)]);
        hasty.connect_timeout = Duration::from_millis(100);
        let worker = Worker::new(hasty);
        let error = worker.exchange().await.err();
        assert_eq!(error, Some(UpstreamError::Timeout));
        assert_eq!(worker.stat("upstream_cx_connect_timeout"), 1);
        worker.assert_quiet();
    });
}
