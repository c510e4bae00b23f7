//! Everything at once: nothing may be counted any more when all is over.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::task::{JoinSet, yield_now};

use super::*;
use crate::tls::overrides::Overrides;
use crate::upstream::ConnectRequest;

#[test]
fn nothing_stays_counted_after_cancellations_updates_and_failures() {
    for (seed, protocol) in [(1, UpstreamProtocol::Http1), (2, UpstreamProtocol::Http2)] {
        on_worker(churn(seed, protocol));
    }
}

async fn churn(seed: u64, protocol: UpstreamProtocol) {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut servers = Vec::new();
    for answer in [Answer::Now, Answer::ThenClose, Answer::Now] {
        servers.push(match protocol {
            UpstreamProtocol::Http2 => Server::http2(answer, 3).await,
            _ => Server::http1(answer).await,
        });
    }
    // Nobody listens there any more.
    let dead = Server::http1(Answer::Now).await.address;
    let mut addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
    addresses.push(dead);

    let make = |random: &mut SmallRng| {
        let some = addresses.iter().filter(|_| random.random_ratio(3, 4));
        let mut config = config(some.map(|address| endpoint(*address)));
        config.protocol = protocol;
        config.circuit_breakers[0].max_connections = 4;
        config.circuit_breakers[0].max_pending_requests = 20;
        config.idle_timeout = Some(Duration::from_millis(100));
        config.max_requests_per_connection = Some(5);
        config
    };
    let worker = Worker::new(make(&mut random));
    let mut requests = JoinSet::new();
    let mut served = 0;
    for step in 0..1500 {
        let task = worker.clone();
        let patience = random.random_range(0..8);
        let dice: u32 = random.random_range(0..100);
        match dice {
            0..85 => {
                let mut want = want(Version::Http11);
                want.fresh = dice < 5;
                want.upgrade = (5..10).contains(&dice);
                requests.spawn_local(async move {
                    let request = async {
                        let mut exchange = task.cluster().exchange(want, &mut None).await.ok()?;
                        finish(&mut exchange).await.ok()
                    };
                    tokio::select! {
                        biased;
                        answer = request => answer.is_some(),
                        () = yield_times(patience * patience) => false,
                    }
                });
            }
            85..90 => {
                requests.spawn_local(async move {
                    let want = ConnectRequest {
                        overrides: Overrides::NONE,
                        original_destination: None,
                        name: None,
                        client: &Client::default(),
                    };
                    task.cluster().connect(want, &mut None).await.is_ok()
                });
            }
            90..97 => {
                let some = addresses.iter().filter(|_| random.random_ratio(3, 4));
                let endpoints: Vec<_> = some.map(|address| endpoint(*address)).collect();
                worker.assign(endpoints);
            }
            _ => worker.update(make(&mut random)),
        }
        if step % 5 == 0 {
            yield_now().await;
        }
        while let Some(finished) = requests.try_join_next() {
            served += u32::from(finished.expect("a task"));
        }
    }
    while let Some(finished) = requests.join_next().await {
        served += u32::from(finished.expect("a task"));
    }
    assert!(served > 100, "{served}");
    worker.clusters.apply(&ClusterSet::new());
    until("every connection is closed", || {
        worker.used(Resource::Connections) == 0
    })
    .await;
    for resource in [Resource::Pending, Resource::Requests, Resource::Retries] {
        assert_eq!(worker.used(resource), 0, "{resource:?}");
    }
    for server in &servers {
        until("the servers see it", || server.open() == 0).await;
    }
}

async fn yield_times(times: u32) {
    for _ in 0..times {
        yield_now().await;
    }
}
