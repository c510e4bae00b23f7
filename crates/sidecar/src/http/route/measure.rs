//! How long a lookup takes: `cargo xtask bench --routes` runs it, optimised.

use std::hint::black_box;
use std::time::{Duration, Instant};

use super::*;
use envoy_types::pb::envoy::config::route::v3 as proto;

use crate::config::build::context::Detached;
use crate::config::build::resource;
use crate::config::build::testing::message;

/// Virtual hosts and routes of each, of the large table.
const HOSTS: usize = 10_000;
const ROUTES: usize = 50;
const LOOKUPS: usize = 200_000;
/// What a lookup may cost more than in a table of one virtual host with one route.
const MOST: Duration = Duration::from_micros(2);

fn table(hosts: usize, routes: usize) -> RouteTable {
    let mut all_of_it: proto::RouteConfiguration = message("{}");
    let one = |route: usize| {
        let matcher = match route % 5 {
            0 => format!("path: /api/v{route}/item"),
            4 => format!("path_separated_prefix: /service{route}"),
            _ => format!("prefix: /api/v{route}/"),
        };
        let yaml = format!("{{match: {{{matcher}}}, route: {{cluster: c}}}}");
        message::<proto::Route>(&yaml)
    };
    let all: Vec<_> = (0..routes).map(one).collect();
    for host in 0..hosts {
        let mut virtual_host: proto::VirtualHost = message("{}");
        virtual_host.name = format!("h{host}");
        virtual_host.domains = vec![
            format!("host{host}.example"),
            format!("*.host{host}.example"),
        ];
        virtual_host.routes = all.clone();
        all_of_it.virtual_hosts.push(virtual_host);
    }
    let encoded = prost::Message::encode_to_vec(&all_of_it);
    drop(all_of_it);
    let begun = Instant::now();
    let table = resource::route_table(&encoded, &Detached).unwrap();
    println!(
        "{hosts} hosts of {routes} routes: built in {:?}",
        begun.elapsed()
    );
    table
}

/// The mean time of a lookup, of requests that go all over the table.
fn lookup(table: &RouteTable, hosts: usize, routes: usize) -> Duration {
    let requests: Vec<_> = (0..4096_usize)
        .map(|number| {
            let number = number.wrapping_mul(2_654_435_761);
            let (host, route) = (number % hosts, (number / 7) % routes);
            let mut request = RequestHead::new();
            request.authority = match number % 2 {
                0 => format!("host{host}.example").into_bytes(),
                _ => format!("any.host{host}.example").into_bytes(),
            };
            request.path = match route % 5 {
                0 => format!("/api/v{route}/item").into_bytes(),
                4 => format!("/service{route}/some/thing").into_bytes(),
                _ => format!("/api/v{route}/some/thing?and=query").into_bytes(),
            };
            request
        })
        .collect();
    let state = ConnectionState::default();
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let begun = Instant::now();
        for number in 0..LOOKUPS {
            let facts = Facts {
                request: &requests[number % requests.len()],
                random: 0,
                certificate: ClientCertificate::default(),
                state: &state,
            };
            let found = matches!(
                black_box(table.route(&facts)),
                RouteMatchResult::Found { .. }
            );
            assert!(found);
        }
        best = best.min(begun.elapsed() / LOOKUPS as u32);
    }
    println!("{hosts} hosts of {routes} routes: a lookup takes {best:?}");
    best
}

#[test]
#[ignore = "a measurement"]
fn a_lookup_in_a_large_table_costs_little_more() {
    let small = lookup(&table(1, 1), 1, 1);
    let large = lookup(&table(HOSTS, ROUTES), HOSTS, ROUTES);
    assert!(
        large < small + MOST,
        "{large:?}, and {small:?} in a small one"
    );
}
