//! Resources and secrets from files, followed as they change.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use outrider_testkit::certs::{Authority, Leaf};
use outrider_testkit::clients::http1::Client;
use outrider_testkit::{Process, bins, eventually};
use serde_json::{Value, json};

use crate::handshake;
use crate::harness::closed_address;

const DEADLINE: Duration = Duration::from_secs(30);

/// Writes a file as a careful program does.
fn replace(path: &Path, content: &str) {
    let new = path.with_extension("new");
    fs::write(&new, content).unwrap();
    fs::rename(new, path).unwrap();
}

fn response(resources: &[Value]) -> String {
    json!({"resources": resources}).to_string()
}

fn listener(name: &str, port: u16, body: &str, transport: &Value) -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
        "name": name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{
            "filters": [{"name": "http", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": "http",
                "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
                    {"match": {"prefix": "/"},
                     "direct_response": {"status": 200, "body": {"inline_string": body}}}]}]},
                "http_filters": [{"name": "router", "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
            }}],
            "transport_socket": transport,
        }],
    })
}

fn tls(certificate: &Value) -> Value {
    let mut context = certificate.clone();
    context["tls_params"] = json!({"tls_minimum_protocol_version": "TLSv1_3"});
    json!({"name": "tls", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": context,
    }})
}

fn body(port: u16) -> Result<String> {
    Ok(Client::connect(("127.0.0.1", port))?
        .get("localhost", "/")?
        .text())
}

fn names(port: u16, root: &str) -> Result<Vec<String>> {
    Ok(handshake::shown(port, root.as_bytes())?.uris)
}

#[test]
fn listeners_and_secrets_follow_their_files() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    let authority = Authority::new("files")?;
    let root = authority.certificate();
    let issue =
        |account: &str| authority.issue(&format!("spiffe://a/ns/b/sa/{account}"), DEADLINE * 10);
    // As Kubernetes mounts a secret: every file is a link through a link that is replaced.
    let mount = |version: &str, leaf: &Leaf| {
        let folder = at(&format!("..{version}"));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("tls.crt"), &leaf.certificate).unwrap();
        fs::write(folder.join("tls.key"), &leaf.key).unwrap();
        symlink(format!("..{version}"), at("..tmp")).unwrap();
        fs::rename(at("..tmp"), at("..data")).unwrap();
    };
    mount("1", &issue("first")?);
    for name in ["tls.crt", "tls.key"] {
        symlink(format!("..data/{name}"), at(name))?;
    }
    let secret = |leaf: &Leaf| {
        response(&[json!({
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            "name": "mine",
            "tls_certificate": {
                "certificate_chain": {"inline_string": leaf.certificate},
                "private_key": {"inline_string": leaf.key}},
        })])
    };
    replace(&at("sds.json"), &secret(&issue("discovered")?));

    let [plain, mounted, discovered] = [(); 3].map(|()| closed_address().port());
    let in_place = tls(&json!({"tls_certificates": [{
        "certificate_chain": {"filename": at("tls.crt")},
        "private_key": {"filename": at("tls.key")}}]}));
    let by_sds = tls(
        &json!({"tls_certificate_sds_secret_configs": [{"name": "mine", "sds_config": {
        "resource_api_version": "V3", "path_config_source": {"path": at("sds.json")}}}]}),
    );
    let others = [
        listener("mounted", mounted, "", &in_place),
        listener("discovered", discovered, "", &by_sds),
    ];
    let all = |plain: Value| response(&[&[plain], &others[..]].concat());
    replace(
        &at("lds.json"),
        &all(listener("plain", plain, "one", &Value::Null)),
    );
    let bootstrap = json!({
        "node": {"id": "n", "cluster": "c"},
        "dynamic_resources": {"lds_config": {
            "resource_api_version": "V3", "path_config_source": {"path": at("lds.json")}}},
    });
    fs::write(at("bootstrap.json"), bootstrap.to_string())?;
    let mut command = Command::new(bins::path("outrider-sidecar")?);
    command
        .args(["--concurrency", "1", "-c"])
        .arg(at("bootstrap.json"));
    let mut sidecar = Process::start("sidecar", command)?;

    let expect = |port, account: &str| {
        eventually(DEADLINE, || {
            let names = names(port, root)?;
            ensure!(
                names == [format!("spiffe://a/ns/b/sa/{account}")],
                "{names:?}"
            );
            Ok(())
        })
    };
    let expect_body = |text: &str| {
        eventually(DEADLINE, || {
            let body = body(plain)?;
            ensure!(body == text, "{body}");
            Ok(())
        })
    };
    expect_body("one")?;
    expect(mounted, "first")?;
    expect(discovered, "discovered")?;

    // A change of each; before it, one that is bad and changes nothing.
    replace(&at("lds.json"), "{\"resources\": [{");
    sidecar.wait_for_output("what it gave before stays", DEADLINE)?;
    replace(
        &at("lds.json"),
        &all(listener("plain", plain, "two", &Value::Null)),
    );
    expect_body("two")?;
    let (second, third) = (issue("second")?, issue("third")?);
    mount(
        "2",
        &Leaf {
            key: third.key.clone(),
            ..second.clone()
        },
    );
    sidecar.wait_for_output(
        "private_key: does not belong to the first certificate",
        DEADLINE,
    )?;
    expect(mounted, "first")?;
    mount("3", &third);
    expect(mounted, "third")?;
    replace(&at("sds.json"), &secret(&second));
    expect(discovered, "second")?;

    // What is not in the file any more is gone, and the rest stays.
    replace(&at("lds.json"), &response(&others[1..]));
    eventually(DEADLINE, || match body(plain) {
        Ok(body) => bail!("still there: {body}"),
        Err(_) => Ok(()),
    })?;
    expect(discovered, "second")?;
    ensure!(sidecar.exited()?.is_none());
    ensure!(!sidecar.output().contains("PRIVATE KEY"));
    Ok(())
}
