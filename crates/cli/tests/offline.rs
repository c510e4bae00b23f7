//! What needs no cluster.

mod common;

use common::{file, outrider};
use serde_json::Value;

#[test]
fn a_saved_page_is_shown_as_a_table_or_as_it_is() {
    let dump = file("recorded/config_dump.json");
    let run = outrider(&["proxy", "routes", "--file", &dump], "");
    let golden = std::fs::read_to_string(file("golden/routes.txt")).unwrap();
    assert_eq!((run.code, run.out), (0, golden));
    let run = outrider(
        &["proxy", "routes", "--file", &dump, "--contains", "/old"],
        "",
    );
    assert_eq!(run.out.lines().count(), 2, "{run:?}");
    let run = outrider(&["proxy", "clusters", "--file", &dump, "-o", "json"], "");
    let json: Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(json["configs"].as_array().unwrap().len(), 1);
    let page = std::fs::read_to_string(file("recorded/certs.json")).unwrap();
    let run = outrider(&["proxy", "certs", "--file", "-", "-o", "yaml"], &page);
    assert!(
        run.out
            .contains("uri: spiffe://cluster.local/ns/web/sa/frontend"),
        "{run:?}"
    );
}

#[test]
fn a_page_that_is_another_or_none_is_refused_by_name() {
    let certs = file("recorded/certs.json");
    for (arguments, input, expected) in [
        (
            ["proxy", "routes", "--file", &certs],
            "",
            "has no `configs`, so it is not what /config_dump of a proxy answers",
        ),
        (["proxy", "stats", "--file", "-"], "{", "-: not JSON: "),
        (
            ["proxy", "certs", "--file", "/gone"],
            "",
            "/gone: No such file",
        ),
    ] {
        let run = outrider(&arguments, input);
        assert_eq!((run.code, run.out.as_str()), (1, ""), "{arguments:?}");
        assert!(run.error.contains(expected), "{}", run.error);
    }
}

#[test]
fn injection_is_undone_by_uninjection() {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\n  namespace: shop\nspec:\n  \
               containers:\n  - name: app\n    image: app:1\n";
    let config = "# kept as it is\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n---\n";
    let text = format!("{config}{pod}");
    let injected = outrider(&["inject", "-f", "-", "--system-namespace", "mesh"], &text);
    assert_eq!(injected.code, 0, "{injected:?}");
    assert_eq!(injected.error, "Pod shop/web: injected\n");
    assert!(injected.out.starts_with(config));
    for expected in [
        "name: outrider-sidecar",
        "name: outrider-init",
        concat!(
            "image: ghcr.io/outrider/outrider-sidecar:",
            env!("CARGO_PKG_VERSION")
        ),
        "value: outrider-control.mesh.svc:15012",
        "outrider.dev/mutual-tls: enabled",
    ] {
        assert!(
            injected.out.contains(expected),
            "{expected}\n{}",
            injected.out
        );
    }
    let back = outrider(&["uninject", "-f", "-"], &injected.out);
    assert_eq!((back.code, back.out), (0, text));
    assert_eq!(back.error, "Pod shop/web: uninjected\n");
}

#[test]
fn what_is_not_injected_is_told_with_the_reason() {
    let pod = |spec: &str| {
        format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: p, namespace: n}}\nspec: {spec}\n")
    };
    let host = pod("{hostNetwork: true, containers: [{name: a, image: a}]}");
    let run = outrider(&["inject", "-f", "-"], &host);
    assert_eq!((run.code, run.out.as_str()), (0, host.as_str()));
    assert!(
        run.error.starts_with("Pod n/p: left as it is: "),
        "{}",
        run.error
    );
    let proxy = pod("{containers: [{name: a, image: a, securityContext: {runAsUser: 1337}}]}");
    let run = outrider(&["inject", "-f", "-"], &proxy);
    assert_eq!((run.code, run.out.as_str()), (1, ""), "{run:?}");
    assert!(
        run.error.contains("standard input: Pod n/p: "),
        "{}",
        run.error
    );
    let run = outrider(&["inject", "-f", "-", "--config", "/gone"], &host);
    assert!(run.error.contains("/gone: No such file"), "{}", run.error);
    let run = outrider(&["inject", "-f", "-"], "apiVersion: v1\nkind: Secret\n");
    assert_eq!(run.error, "no document has a pod: nothing was changed\n");
}

#[test]
fn validation_names_file_document_and_field() {
    let directory = file("validate");
    let run = outrider(&["validate", "-f", &directory], "");
    let golden = std::fs::read_to_string(file("golden/validate.txt")).unwrap();
    let shown = run.out.replace(&format!("{directory}/"), "validate/");
    assert_eq!((run.code, shown), (1, golden));
    let run = outrider(&["validate", "-f", &directory, "-o", "json"], "");
    let report: Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!((run.code, &report["ok"]), (1, &Value::Bool(false)));
    let good = "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\n\
                spec: {selector: {app: web}, ports: [{name: http, port: 80}]}\n";
    let run = outrider(&["validate", "-f", "-"], good);
    let expected =
        "1 file, 1 object of the mesh, 0 documents of other kinds: 0 errors, 0 warnings\n";
    assert_eq!((run.code, run.out.as_str()), (0, expected));
    let empty = tempfile::tempdir().unwrap();
    let run = outrider(&["validate", "-f", empty.path().to_str().unwrap()], "");
    assert!(run.error.contains("has no .yaml"), "{}", run.error);
}

#[test]
fn shells_get_their_completion() {
    for shell in ["bash", "zsh", "fish"] {
        let run = outrider(&["completion", shell], "");
        assert_eq!(run.code, 0);
        assert!(run.out.contains("uninject"), "{shell}");
    }
    let run = outrider(&["version", "--client", "-o", "json"], "");
    let versions: Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(
        versions,
        serde_json::json!({"client": env!("CARGO_PKG_VERSION")})
    );
}
