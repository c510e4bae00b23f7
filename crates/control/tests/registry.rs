//! The standalone registry: what it takes, what it refuses and how it says so, and how it follows
//! changes.
#![allow(
    clippy::unwrap_used,
    reason = "the exemption for tests does not reach their helpers"
)]

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use outrider_control::registry::watch::Watch;
use outrider_control::registry::{Directory, document};

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\n";

fn names(directory: &Directory) -> Vec<String> {
    directory
        .objects()
        .map(|(_, object)| object.reference().to_string())
        .collect()
}

fn refusals(scan: &outrider_control::registry::Scan) -> Vec<String> {
    scan.refused.iter().map(ToString::to_string).collect()
}

#[test]
fn every_kind_is_read() {
    let text = "---
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {outrider.dev/inject: enabled}, annotations: {any: thing}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: web, namespace: shop, uid: 0000, managedFields: []}
---
# nothing but a comment
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  type: ClusterIP
  clusterIP: 10.96.0.1
  clusterIPs: [10.96.0.1, 'fd00::1']
  ipFamilies: [IPv4, IPv6]
  ipFamilyPolicy: PreferDualStack
  sessionAffinity: None
  selector: {app: web}
  ports:
  - {name: http, port: 80, targetPort: web, protocol: TCP, nodePort: 30080}
  - {name: dns, port: 53, targetPort: 5353, protocol: UDP}
status: {loadBalancer: {}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints:
- {addresses: [10.0.0.9], conditions: {ready: true, serving: true}, nodeName: n, zone: z}
ports: [{name: http, port: 8080, protocol: TCP}]
---
apiVersion: outrider.dev/v1alpha1
kind: WorkloadEntry
metadata: {name: web-1, namespace: shop, labels: {app: web}}
spec: {addresses: [10.0.0.1, 'fd00::a'], serviceAccount: web, ports: {web: 8080}, weight: 2}
---
apiVersion: outrider.dev/v1alpha1
kind: PeerAuthentication
metadata: {name: default, namespace: shop}
spec: {mtls: {mode: STRICT}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: split, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: web, port: 80}]
  rules:
  - matches: [{path: {type: PathPrefix, value: /a}, headers: [{name: x, value: y}], method: GET}]
    filters:
    - {type: RequestHeaderModifier, requestHeaderModifier: {add: [{name: a, value: b}]}}
    backendRefs: [{name: web, port: 80, weight: 90}, {name: v2, port: 80, weight: 10}]
    timeouts: {request: 10s, backendRequest: 500ms}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: calls, namespace: shop}
spec: {parentRefs: [{group: '', kind: Service, name: web}], rules: [{matches: [{method: {service: a.B}}]}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: names, namespace: shop}
spec: {parentRefs: [{group: '', kind: Service, name: web}], hostnames: ['*.a.example'], rules: [{}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {name: bytes, namespace: shop}
spec: {parentRefs: [{group: '', kind: Service, name: web}], rules: [{backendRefs: [{name: web, port: 80}]}]}
";
    let objects = document::parse(&Arc::new(PathBuf::from("all.yaml")), text).unwrap();
    assert_eq!(objects.len(), 10);
    assert_eq!(objects[2].0.to_string(), "all.yaml, document 4");
}

#[test]
fn what_is_wrong_is_named_by_document_object_and_field() {
    let workload = "apiVersion: outrider.dev/v1alpha1\nkind: WorkloadEntry\nmetadata: {name: w}\n";
    let route = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\n";
    let policy =
        "apiVersion: outrider.dev/v1alpha1\nkind: PeerAuthentication\nmetadata: {name: p}\n";
    let parent = "parentRefs: [{group: '', kind: Service, name: s}]";
    let rule = |rule: &str| format!("{route}spec: {{{parent}, rules: [{{{rule}}}]}}");
    let route_of = |kind: &str, spec: &str| {
        let head = route.replace("HTTPRoute", kind);
        format!("{head}spec: {{{parent}, {spec}}}")
    };
    let cases: &[(String, &[&str])] = &[
        (format!("{SERVICE}spec: {{prots: []}}"), &["spec", "prots", "line 8"]),
        (format!("{SERVICE}spec: {{ports: [{{port: 0}}]}}"), &["spec.ports[0].port"]),
        (format!("{SERVICE}spec: {{ports: [{{port: 80, color: x}}]}}"), &["spec.ports[0]", "color"]),
        (format!("{SERVICE}spec: {{ports: [{{port: 80, targetPort: 70000}}]}}"), &["targetPort"]),
        (format!("{SERVICE}spec: {{clusterIP: 10.1}}"), &["spec.clusterIP", "Service shop/web"]),
        (
            format!("{SERVICE}spec: {{ports: [{{port: 80}}, {{port: 81}}]}}"),
            &["spec.ports[0].name", "several"],
        ),
        (format!("{SERVICE}spec: {{sessionAffinity: ClientIP}}"), &["spec.sessionAffinity", "None"]),
        (format!("{SERVICE}spec: {{}}\nspecs: 1"), &["specs"]),
        ("kind: Service".to_owned(), &["unknown kind", "Service (v1)"]),
        ("apiVersion: v1\nkind: Gadget\nmetadata: {name: g}".to_owned(), &["Gadget", "HTTPRoute"]),
        ("a: [".to_owned(), &["document 1"]),
        (
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: Shop}".to_owned(),
            &["metadata.name", "Shop"],
        ),
        (
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: n, labels: {outrider.dev/inject: on}}"
                .to_owned(),
            &["metadata.labels[outrider.dev/inject]", "enabled"],
        ),
        (format!("{workload}spec: {{addresses: [localhost]}}"), &["spec.addresses[0]"]),
        (format!("{workload}spec: {{addresses: [127.0.0.1]}}"), &["spec.addresses[0]"]),
        (format!("{workload}spec: {{address: 10.0.0.1}}"), &["address", "addresses"]),
        (
            format!("{workload}spec: {{addresses: [10.0.0.1], serviceAccount: A}}"),
            &["spec.serviceAccount"],
        ),
        (format!("{policy}spec: {{mtls: {{mode: strict}}}}"), &["spec.mtls.mode", "STRICT"]),
        (format!("{policy}spec: {{portLevelMtls: {{80: {{mode: STRICT}}}}}}"), &["portLevelMtls"]),
        (format!("{policy}spec: {{}}"), &["spec.mtls"]),
        (format!("{route}spec: {{parentRefs: [{{name: s}}]}}"), &["spec.parentRefs[0].kind"]),
        (rule("backendRefs: [{name: s}]"), &["spec.rules[0].backendRefs[0]", "port"]),
        (rule("matches: [{path: {value: a}}]"), &["spec.rules[0].matches[0].path.value"]),
        (
            rule("matches: [{path: {type: RegularExpression, value: '('}}]"),
            &["spec.rules[0].matches[0].path.value", "regular expression"],
        ),
        (rule("matches: [{headers: [{name: 'a b', value: x}]}]"), &["matches[0].headers[0].name"]),
        (route_of("GRPCRoute", "rules: [{matches: [{method: {service: a/b}}]}]"), &["spec.rules[0].matches[0].method.service"]),
        (route_of("GRPCRoute", "rules: [{filters: [{type: URLRewrite, urlRewrite: {}}]}]"), &["spec.rules[0].filters[0].type"]),
        (route_of("TLSRoute", "hostnames: ['a.*'], rules: [{}]"), &["spec.hostnames[0]"]),
        (route_of("TLSRoute", "rules: [{}]"), &["spec.hostnames"]),
        (route_of("TCPRoute", "rules: []"), &["spec.rules"]),
        (route_of("TCPRoute", "rules: [{backendRefs: [{name: a, port: 1, filters: [{type: CORS}]}]}]"), &["spec.rules[0].backendRefs[0].filters"]),
        (rule("filters: [{type: RequestMirror, requestMirror: {backendRef: {name: a, port: 1}, percent: 101}}]"), &["filters[0].requestMirror.percent"]),
        (rule("backendRefs: [{name: a}]"), &["spec.rules[0].backendRefs[0].port"]),
        (rule("retry: {attempts: 3}"), &["spec.rules[0].retry"]),
        (rule("filters: [{type: CORS, cors: {}}]"), &["spec.rules[0].filters[0].type"]),
        (
            rule("filters: [{type: URLRewrite, requestRedirect: {}}]"),
            &["spec.rules[0].filters[0].requestRedirect"],
        ),
        (
            rule("filters: [{type: RequestRedirect, requestRedirect: {statusCode: 200}}]"),
            &["filters[0].requestRedirect.statusCode"],
        ),
        (rule("timeouts: {request: 1x}"), &["spec.rules[0].timeouts.request"]),
        (rule("timeouts: {request: 1s, backendRequest: 2s}"), &["timeouts.backendRequest"]),
        (rule("retry: {}"), &["spec.rules[0]", "retry"]),
    ];
    let file = Arc::new(PathBuf::from("bad.yaml"));
    for (text, parts) in cases {
        // A good document before it, so that the index counts.
        let text = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: ok}}\n---\n{text}");
        let error = document::parse(&file, &text).unwrap_err().to_string();
        if !parts.contains(&"document 1") && !text.contains("a: [") {
            assert!(error.starts_with("bad.yaml, document 2"), "{error}");
        }
        for part in parts.iter().filter(|part| **part != "document 1") {
            assert!(error.contains(part), "{error:?} should contain {part:?}");
        }
    }
}

#[test]
fn a_bad_file_leaves_the_rest_and_its_last_good_version_in_force() {
    let root = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(root.path().join(name), text).unwrap();
    let service = |name: &str| {
        format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{}}\n")
    };
    write("a.yaml", &service("a"));
    write("b.yaml", &service("b"));
    write(".hidden.yaml", "broken: [");
    write("notes.txt", "broken: [");
    let mut directory = Directory::new(root.path());
    assert!(directory.scan().unwrap().changed);
    assert_eq!(
        names(&directory),
        ["Service default/a", "Service default/b"]
    );
    assert!(!directory.scan().unwrap().changed, "nothing happened");

    write("a.yaml", "apiVersion: v1\nkind: Servise\n");
    write("c.yaml", &service("c"));
    let scan = directory.scan().unwrap();
    let refused = refusals(&scan);
    assert!(scan.changed && refused.len() == 1 && refused[0].contains("a.yaml, document 1"));
    assert_eq!(names(&directory).len(), 3, "a's last version stays");
    assert!(directory.scan().unwrap().refused.is_empty(), "said once");

    // The same object in two files: the one that was there first stays.
    write("a.yaml", &service("c"));
    let scan = directory.scan().unwrap();
    let refused = refusals(&scan);
    assert!(!scan.changed && refused.len() == 1, "{refused:?}");
    for part in [
        "a.yaml, document 1",
        "Service default/c",
        "c.yaml, document 1",
    ] {
        assert!(refused[0].contains(part), "{refused:?}");
    }
    // Moving it there is no clash.
    write("c.yaml", &service("a"));
    let scan = directory.scan().unwrap();
    assert!(scan.changed && scan.refused.is_empty());
    assert_eq!(scan.recovered, [root.path().join("a.yaml")]);

    fs::remove_file(root.path().join("b.yaml")).unwrap();
    assert!(directory.scan().unwrap().changed);
    assert_eq!(
        names(&directory),
        ["Service default/c", "Service default/a"]
    );

    // One file that declares an object twice is refused as a whole.
    write("d.yaml", &format!("{}---\n{0}", service("d")));
    let refused = refusals(&directory.scan().unwrap());
    assert!(refused[0].contains("d.yaml, document 2") && refused[0].contains("document 1"));

    fs::remove_dir_all(root.path()).unwrap();
    assert!(directory.scan().is_err());
    assert_eq!(
        names(&directory).len(),
        2,
        "an unreadable directory changes nothing"
    );
}

#[tokio::test]
async fn changes_are_seen_within_a_second_however_the_file_is_written() {
    let root = tempfile::tempdir().unwrap();
    let mut directory = Directory::new(root.path());
    directory.scan().unwrap();
    let mut watch = Watch::new(root.path()).unwrap();
    let path = root.path().join("a.yaml");
    let text = |name: &str| {
        format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{}}\n")
    };
    for (index, by_rename) in [false, true, true, false].into_iter().enumerate() {
        let name = format!("s{index}");
        if by_rename {
            let temporary = root.path().join(".a.yaml.swp");
            fs::write(&temporary, text(&name)).unwrap();
            fs::rename(&temporary, &path).unwrap();
        } else {
            fs::write(&path, text(&name)).unwrap();
        }
        let start = Instant::now();
        loop {
            watch.changed().await;
            if directory.scan().unwrap().changed {
                break;
            }
        }
        assert!(
            start.elapsed() < Duration::from_secs(1),
            "{:?}",
            start.elapsed()
        );
        assert_eq!(names(&directory), [format!("Service default/{name}")]);
    }
    // Directories made later are watched too.
    fs::create_dir(root.path().join("more")).unwrap();
    watch.changed().await;
    fs::write(root.path().join("more/b.yml"), text("b")).unwrap();
    watch.changed().await;
    assert!(directory.scan().unwrap().changed);
}
