//! The user's command, `outrider`.

use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use outrider_testkit::{bins, eventually};
use serde_json::{Value, json};

use crate::harness::{PATIENCE, Place, client, server};

/// Runs the command with the administrator's rights, and returns what it wrote to standard output.
fn outrider(place: &Place, arguments: &[&str]) -> Result<String> {
    let mut command = place.cluster.command(bins::path("outrider")?);
    let output = command.args(arguments).stdin(Stdio::null()).output()?;
    let out = String::from_utf8(output.stdout)?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{arguments:?}: {error}{out}");
    Ok(out)
}

fn outrider_json(place: &Place, arguments: &[&str]) -> Result<Value> {
    let all = [arguments, &["-o", "json"]].concat();
    serde_json::from_str(&outrider(place, &all)?).context("not JSON")
}

/// What a check finds, and its exit code.
fn check(place: &Place, arguments: &[&str]) -> Result<(i32, Value)> {
    let mut command = place.cluster.command(bins::path("outrider")?);
    command.args(["check", "-o", "json"]).args(arguments);
    let output = command.stdin(Stdio::null()).output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    let report = serde_json::from_slice(&output.stdout).with_context(|| error.into_owned())?;
    Ok((output.status.code().context("killed")?, report))
}

/// A proxy of the status, once it is connected, has accepted everything and has a certificate.
fn settled(place: &Place, pod: &str) -> Result<Value> {
    eventually(PATIENCE, || {
        let status = outrider_json(place, &["status", "-n", &place.name])?;
        let mut proxies = status["proxies"].as_array().into_iter().flatten();
        let proxy = proxies.find(|proxy| proxy["name"] == pod);
        let proxy = proxy.with_context(|| format!("no {pod} in {status}"))?;
        ensure!(proxy["controlPlane"].is_string(), "{proxy}");
        ensure!(proxy["certificate"]["identity"].is_string(), "{proxy}");
        let kinds = proxy["kinds"].as_array().context("no kinds")?;
        let accepted = |kind: &&Value| kind["accepted"] == kind["sent"];
        ensure!(kinds.iter().filter(accepted).count() > 2, "{proxy}");
        Ok(proxy.clone())
    })
}

fn name(pod: &Value) -> String {
    pod["metadata"]["name"].as_str().unwrap().to_owned()
}

#[test]
fn a_proxy_is_shown_with_its_connection_and_what_it_has() {
    let Some(place) = Place::meshed("command") else {
        return;
    };
    place.run(&[server("web"), client("shop")]).unwrap();
    let url = format!("http://{}/", place.host("web"));
    place.request_until_ok("shop", &url).unwrap();
    let pod = name(&place.pod("shop").unwrap());
    let proxy = settled(&place, &pod).unwrap();
    let identity = format!("spiffe://cluster.local/ns/{}/sa/shop", place.name);
    assert_eq!(proxy["certificate"]["identity"], identity);
    assert_eq!(proxy["version"], env!("CARGO_PKG_VERSION"));

    let page = |verb: &str| {
        let pod = format!("{pod}.{}", place.name);
        outrider(&place, &["proxy", verb, &pod]).unwrap()
    };
    let cluster = format!("outbound|80||{}", place.host("web"));
    let address = place.pod("web").unwrap()["status"]["podIP"].clone();
    let address = format!("{}:8080", address.as_str().unwrap());
    let row = |table: &str, wanted: &[&str]| {
        let mut lines = table.lines();
        let found = lines.any(|line| wanted.iter().all(|text| line.contains(text)));
        assert!(found, "{wanted:?} in no row of\n{table}");
    };
    let server = format!("spiffe://cluster.local/ns/{}/sa/web", place.name);
    row(&page("clusters"), &[&cluster, "mutual TLS", &server]);
    row(&page("endpoints"), &[&cluster, &address, "HEALTHY"]);
    row(&page("routes"), &[&place.host("web"), "any path", &cluster]);
    row(&page("certs"), &["own", &identity]);
    row(&page("listeners"), &["virtualOutbound", "15001"]);
    row(&page("config"), &["cluster", &cluster, "active"]);
    row(&page("stats"), &[&cluster, "upstream_rq_2xx"]);
}

#[test]
fn the_installation_is_found_well() {
    let Some(place) = Place::meshed("well") else {
        return;
    };
    place.run(&[client("shop")]).unwrap();
    settled(&place, &name(&place.pod("shop").unwrap())).unwrap();
    // Other tests have namespaces that are young and a control plane that is away for a while, so
    // it is asked until what concerns all is well at once.
    eventually(PATIENCE, || {
        let (code, report) = check(&place, &["--installed"])?;
        let findings = report["findings"].as_array().context("no findings")?;
        let failed = findings
            .iter()
            .any(|finding| finding["outcome"] == "failure");
        ensure!(
            (code == 0, report["ok"] == true) == (!failed, !failed),
            "{code} {report}"
        );
        for name in [
            "control plane",
            "injector",
            "webhook",
            "injection",
            "certificate authority",
            "trust bundle",
        ] {
            let mut found = findings.iter().filter(|finding| finding["check"] == name);
            ensure!(found.clone().count() > 0, "no {name} in {report}");
            ensure!(
                found.all(|finding| finding["outcome"] == "pass"),
                "{name}: {report}"
            );
        }
        // Our own pod is connected, and took what it was sent.
        let mut of_pods = findings
            .iter()
            .filter(|finding| finding["check"] == "proxies" || finding["check"] == "configuration");
        let named = of_pods.any(|finding| finding.to_string().contains(&place.name));
        ensure!(!named, "{report}");
        Ok(())
    })
    .unwrap();
    eventually(PATIENCE, || {
        let versions = outrider_json(&place, &["version"])?;
        let replicas = versions["controlPlane"].as_array().context("no replicas")?;
        let own = |replica: &Value| replica["version"] == env!("CARGO_PKG_VERSION");
        ensure!(replicas.iter().any(own), "{versions}");
        Ok(())
    })
    .unwrap();
    // What there is already is said before another installation.
    let (_, before) = check(&place, &[]).unwrap();
    let before = before["findings"].as_array().unwrap();
    let installed = before
        .iter()
        .find(|finding| finding["check"] == "other webhooks");
    assert_eq!(installed.unwrap()["outcome"], "warning", "{before:?}");
}

/// The same as the webhook, for a namespace that it does not look at.
#[test]
fn a_pod_that_was_injected_by_hand_is_of_the_mesh() {
    let Some(place) = Place::plain("by-hand") else {
        return;
    };
    let objects = client("shop").objects();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shop.json");
    std::fs::write(&file, list.to_string()).unwrap();
    let file = file.to_str().unwrap();
    let inject = ["inject", "--from-cluster", "-n", &place.name, "-f", file];
    let injected = outrider(&place, &inject).unwrap();
    let injected: Value = serde_norway::from_str(&injected).unwrap();
    place.apply(injected["items"].as_array().unwrap()).unwrap();
    place.rolled_out("deployment/shop").unwrap();
    let pod = name(&place.pod("shop").unwrap());
    let proxy = settled(&place, &pod).unwrap();
    let identity = format!("spiffe://cluster.local/ns/{}/sa/shop", place.name);
    assert_eq!(proxy["certificate"]["identity"], identity);
}
