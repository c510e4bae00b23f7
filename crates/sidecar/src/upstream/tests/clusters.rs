//! Updates of clusters and of their endpoints, and clusters without a list of endpoints.

use super::*;
use crate::config::cluster::LoadBalancer;

#[test]
fn endpoints_that_leave_are_left_and_those_that_stay_keep_their_connections() {
    on_worker(async {
        let (old, new) = (
            Server::http1(Answer::WhenReleased).await,
            Server::http1(Answer::Now).await,
        );
        let worker = Worker::new(config([endpoint(old.address)]));
        let mut busy = worker.exchange().await.expect("an exchange");
        let idle = worker.exchange().await.expect("an exchange");
        drop(idle);
        until("both are there", || old.open() == 2).await;

        // Another weight is no reason to drop a connection.
        let mut heavier = endpoint(old.address);
        heavier.weight = 5;
        worker.assign([heavier]);
        until("it is taken over", || worker.stat("membership_change") == 2).await;
        assert_eq!(old.open(), 2);

        worker.assign([endpoint(new.address)]);
        until("the idle one is closed", || old.open() == 1).await;
        assert_eq!(worker.get().await, "1");
        assert_eq!(new.accepted(), 1);
        // What is in flight finishes, and only then its connection is closed.
        old.release();
        assert_eq!(finish(&mut busy).await.expect("a response"), "1");
        drop(busy);
        until("the busy one is closed", || old.open() == 0).await;
        assert_eq!(worker.stat("membership_change"), 3);
        worker.assert_quiet();
    });
}

#[test]
fn further_addresses_of_before_are_dialled_no_more() {
    on_worker(async {
        let (old, new) = (
            Server::http1(Answer::Now).await,
            Server::http1(Answer::Now).await,
        );
        // Nothing listens on the first address, which stays.
        let with = |other: &Server| {
            let mut endpoint = endpoint(SocketAddr::from(([127, 0, 0, 1], 1)));
            endpoint.additional_addresses = vec![other.address];
            endpoint
        };
        let worker = Worker::new(config([with(&old)]));
        assert_eq!(worker.get().await, "1");
        worker.assign([with(&new)]);
        until("the connection is closed", || old.open() == 0).await;
        assert_eq!(worker.get().await, "1");
        assert_eq!((old.accepted(), new.accepted()), (1, 1));
    });
}

#[test]
fn no_endpoint_is_no_healthy_upstream() {
    on_worker(async {
        let worker = Worker::new(config([]));
        let error = worker.exchange().await.err();
        assert_eq!(error, Some(UpstreamError::NoHealthyUpstream));
        assert_eq!(worker.stat("upstream_cx_none_healthy"), 1);
        assert!(worker.clusters.cluster("another").is_none());
    });
}

#[test]
fn an_updated_cluster_counts_on_and_the_old_one_drains() {
    on_worker(async {
        let server = Server::http1(Answer::WhenReleased).await;
        let worker = Worker::new(config([endpoint(server.address)]));
        let before = worker.cluster();
        let mut busy = worker.exchange().await.expect("an exchange");
        drop(worker.exchange().await.expect("an exchange"));
        until("both are there", || server.open() == 2).await;

        worker.apply();
        assert!(
            Rc::ptr_eq(&before, &worker.cluster()),
            "the same is left alone"
        );
        let mut changed = config([endpoint(server.address)]);
        changed.circuit_breakers[0].max_requests = 1;
        worker.update(changed);
        assert!(!Rc::ptr_eq(&before, &worker.cluster()));
        drop(before);
        until("the idle one is closed", || server.open() == 1).await;
        // The request in flight is still counted, now against the new limit.
        let error = worker.exchange().await.err();
        assert_eq!(error, Some(UpstreamError::Overflow));

        server.release();
        assert_eq!(finish(&mut busy).await.expect("a response"), "1");
        drop(busy);
        assert_eq!(worker.get().await, "3");
        assert_eq!(worker.stat("upstream_cx_total"), 3);
        until("the old one is closed", || server.open() == 1).await;
        worker.assert_quiet();

        worker.clusters.apply(&ClusterSet::new());
        assert!(worker.clusters.cluster("backend").is_none());
        until("the last is closed", || server.open() == 0).await;
    });
}

#[test]
fn original_destinations_are_reached_and_forgotten() {
    on_worker(async {
        let (one, other) = (
            Server::http1(Answer::Now).await,
            Server::http1(Answer::Now).await,
        );
        let mut passthrough = config([]);
        passthrough.discovery = ClusterDiscovery::OriginalDestination;
        passthrough.load_balancing.policy = LoadBalancer::Provided;
        passthrough.idle_timeout = Some(Duration::from_millis(80));
        let worker = Worker::new(passthrough);
        let shown = || worker.shared.borrow().view().hosts.len();
        for server in [&one, &other, &one] {
            let mut want = want(Version::Http11);
            want.original_destination = Some(server.address);
            let exchange = worker.cluster().exchange(want, &mut None).await;
            let mut exchange = exchange.expect("an exchange");
            assert_eq!(exchange.endpoint().address, Address::Socket(server.address));
            assert_eq!(finish(&mut exchange).await.expect("a response"), "1");
        }
        assert_eq!(shown(), 2);
        until("they are forgotten", || shown() == 0).await;
        assert_eq!((one.open(), other.open()), (0, 0));
        let error = worker.exchange().await.err();
        assert_eq!(error, Some(UpstreamError::NoHealthyUpstream));
    });
}

#[test]
fn traffic_is_spread_by_weight() {
    on_worker(async {
        let (light, heavy) = (
            Server::http1(Answer::Now).await,
            Server::http1(Answer::Now).await,
        );
        let mut heavier = endpoint(heavy.address);
        heavier.weight = 9;
        let worker = Worker::new(config([endpoint(light.address), heavier]));
        for _ in 0..50 {
            worker.get().await;
        }
        assert_eq!((light.requests(), heavy.requests()), (5, 45));
    });
}

#[test]
fn what_is_the_same_on_all_workers_is_shown_once() {
    on_worker(async {
        let server = Server::http1(Answer::Now).await;
        let worker = Worker::new(config([endpoint(server.address)]));
        let second = Clusters::new(worker.registry.thread());
        let apply_to_second = || {
            let shared = worker.shared.borrow().clone();
            second.apply(&ClusterSet::from([("backend".into(), shared)]));
            second.cluster("backend").expect("the cluster")
        };
        apply_to_second();
        worker.cluster();
        assert_eq!(worker.stat("membership_total"), 1);
        // After an update the other worker may be the first to use the cluster.
        worker.update(config([endpoint(server.address), endpoint(server.address)]));
        worker.cluster();
        apply_to_second();
        assert_eq!(worker.stat("membership_total"), 2);
        assert_eq!(worker.stat("membership_healthy"), 2);
    });
}

#[test]
fn retries_are_limited() {
    on_worker(async {
        let worker = Worker::new(config([]));
        let cluster = worker.cluster();
        let held: Vec<_> = (0..5)
            .filter_map(|_| cluster.retry(Priority::Default))
            .collect();
        assert_eq!(held.len(), 3);
        assert_eq!(worker.stat("upstream_rq_retry"), 3);
        assert_eq!(worker.stat("upstream_rq_retry_overflow"), 2);
        drop(held);
        worker.assert_quiet();
    });
}
