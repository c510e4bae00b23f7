//! Pods that are reached one by one.

use crate::harness::{App, Place, client, seen_header};

/// A headless service of a StatefulSet: each pod by its own name, over mutual TLS, and any of them
/// by the service's.
#[test]
fn a_headless_stateful_set_is_reached_pod_by_pod() {
    let Some(place) = Place::meshed("stateful") else {
        return;
    };
    let verb = ["serve", "--listen", "[::]:8080", "--name", "$(POD)"];
    let set = App::new("set", "StatefulSet", &verb)
        .port("http", 8080, 8080)
        .replicas(2);
    place.run(&[set, client("client")]).unwrap();
    let host = place.host("set");
    for pod in ["set-0", "set-1"] {
        let url = format!("http://{pod}.{host}:8080/");
        let seen = place
            .request_until_ok("client", &url)
            .unwrap()
            .seen()
            .unwrap();
        assert_eq!(seen["server"], pod);
        let certificate = seen_header(&seen, "x-forwarded-client-cert");
        assert!(
            certificate.is_some_and(|text| text.contains("/sa/client")),
            "{seen}"
        );
    }
    let url = format!("http://{host}:8080/");
    let seen = place
        .request_until_ok("client", &url)
        .unwrap()
        .seen()
        .unwrap();
    assert!(
        seen_header(&seen, "x-forwarded-client-cert").is_some(),
        "{seen}"
    );
}
