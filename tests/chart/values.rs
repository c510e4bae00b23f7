//! What users write in their values.

use crate::helm::{helm, render};

#[test]
fn helm_finds_nothing_to_complain_of() {
    let output = helm(&["lint", "--strict", "."]).unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("[WARNING]"), "{said}");
}

#[test]
fn a_wrong_value_is_refused_with_its_field_named() {
    for (value, field) in [
        ("revision=Canary", "/revision"),
        ("revision=a.b", "/revision"),
        ("shared.create=maybe", "/shared/create"),
        ("image.tagg=1", "'tagg'"),
        ("image.registry=https://example.com", "/image/registry"),
        ("image.pullPolicy=always", "/image/pullPolicy"),
        ("trustDomain=Example.com", "/trustDomain"),
        ("mutualTLS.mode=strict", "/mutualTLS/mode"),
        ("ca.certificateLifetime=1day", "/ca/certificateLifetime"),
        ("ca.rootPropagation=soon", "/ca/rootPropagation"),
        ("control.replicas=0", "/control/replicas"),
        ("control.resources.limits.memory=1GB", "/limits/memory"),
        ("control.replica=3", "'replica'"),
        (
            "injector.excludedNamespaces={A_b}",
            "/injector/excludedNamespaces/0",
        ),
        ("sidecar.native=sometimes", "/sidecar/native"),
        ("sidecar.concurrency=-1", "/sidecar/concurrency"),
        (
            "sidecar.capture.excludeInboundPorts=http",
            "/excludeInboundPorts",
        ),
        ("sidecar.capture.includeCidrs=all", "/includeCidrs"),
    ] {
        let Err(error) = render(&[value]) else {
            panic!("{value} is taken");
        };
        assert!(error.to_string().contains(field), "{value}: {error}");
    }
}

#[test]
fn what_the_values_page_shows_is_taken() {
    for values in [
        &["revision=canary-2"][..],
        &[
            "image.registry=localhost:5000/mesh",
            "image.tag=sha-1a2b",
            "image.pullSecrets={key}",
        ],
        &[
            "mutualTLS.mode=STRICT",
            "ca.existingSecret=my.ca",
            "ca.certificateLifetime=1h30m",
            "ca.rootPropagation=5m",
        ],
        &[
            "sidecar.native=false",
            "sidecar.concurrency=2",
            "sidecar.drainSeconds=30",
        ],
        &[
            "sidecar.capture.includeInboundPorts=*",
            "sidecar.capture.excludeCidrs=10.0.0.0/8\\,::1",
        ],
        &[
            "control.logLevel=info\\,outrider_control=debug",
            "control.priorityClassName=",
        ],
        &["networkPolicy.monitoringFrom[0].namespaceSelector.matchLabels.name=metrics"],
        &["crds.create=false", "shared.create=false"],
        &["global.anything=1"],
    ] {
        render(values).unwrap();
    }
}
