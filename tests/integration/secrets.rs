//! Certificates from the control plane: in the sidecar, and over its socket in a real Envoy.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail, ensure};
use outrider_identity::CertificateDetails;
use outrider_testkit::clients::http1;
use outrider_testkit::{Process, bins, envoy, eventually};
use serde_json::{Value, json};

use crate::handshake;
use crate::harness::closed_address;

/// Longer than anything here takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(40);
const IDENTITY: &str = "spiffe://cluster.local/ns/shop/sa/cart";

/// The control plane, whose certificates live for so many seconds, and what its sidecars need.
struct Control {
    process: Process,
    port: u16,
    folder: tempfile::TempDir,
    life: u64,
}

impl Control {
    fn new(life: u64) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        fs::create_dir(folder.path().join("mesh"))?;
        let port = closed_address().port();
        let process = start_control(folder.path(), port, life)?;
        let control = Control {
            process,
            port,
            folder,
            life,
        };
        let verb = |name: &str, arguments: &[&str]| -> Result<Vec<u8>> {
            let output = Command::new(bins::path("outrider-control")?)
                .arg(name)
                .arg("--ca-dir")
                .arg(control.file("ca"))
                .args(arguments)
                .output()?;
            ensure!(output.status.success(), "{output:?}");
            Ok(output.stdout)
        };
        fs::write(control.file("root.pem"), verb("root", &[])?)?;
        let token = verb("token", &["--namespace", "shop", "--account", "cart"])?;
        fs::write(control.file("token"), token)?;
        Ok(control)
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn restart(&mut self) -> Result<()> {
        self.process = start_control(self.folder.path(), self.port, self.life)?;
        Ok(())
    }

    /// A cluster that reaches it.
    fn cluster(&self) -> Value {
        json!({
            "name": "control",
            "connect_timeout": "2s",
            "typed_extension_protocol_options": http2(),
            "load_assignment": assignment("control", json!({"socket_address":
                {"address": "127.0.0.1", "port_value": self.port}})),
            "transport_socket": {"name": "tls", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "sni": "localhost",
                "common_tls_context": {"validation_context": {
                    "trusted_ca": {"filename": self.file("root.pem")},
                    "match_typed_subject_alt_names": [
                        {"san_type": "DNS", "matcher": {"exact": "localhost"}}],
                }},
            }},
        })
    }

    fn sidecar(&self, bootstrap: &Value) -> Result<Process> {
        let path = self.file("sidecar.json");
        fs::write(&path, bootstrap.to_string())?;
        let mut command = Command::new(bins::path("outrider-sidecar")?);
        command
            .args(["--concurrency", "1", "-c"])
            .arg(path)
            .env("OUTRIDER_CA_ADDRESS", format!("localhost:{}", self.port))
            .env("OUTRIDER_TOKEN_FILE", self.file("token"))
            .env("OUTRIDER_ROOT_FILE", self.file("root.pem"))
            .env("OUTRIDER_SDS_SOCKET", self.file("sds.sock"));
        Process::start("sidecar", command)
    }
}

fn start_control(folder: &Path, port: u16, life: u64) -> Result<Process> {
    let mut command = Command::new(bins::path("outrider-control")?);
    command
        .arg("--config-dir")
        .arg(folder.join("mesh"))
        .arg("--ca-dir")
        .arg(folder.join("ca"))
        .args(["--address", "127.0.0.1", "--port", &port.to_string()])
        .args(["--monitoring-port", &closed_address().port().to_string()])
        .args(["--cert-ttl", &format!("{life}s")]);
    let mut process = Process::start("control", command)?;
    process.wait_for("it listens", DEADLINE, |_| {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    })?;
    Ok(process)
}

fn http2() -> Value {
    json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }})
}

fn assignment(name: &str, address: Value) -> Value {
    json!({"cluster_name": name, "endpoints": [
        {"lb_endpoints": [{"endpoint": {"address": address}}]}]})
}

fn grpc(kind: &str, cluster: &str) -> Value {
    json!({"api_type": kind, "transport_api_version": "V3",
        "grpc_services": [{"envoy_grpc": {"cluster_name": cluster}}]})
}

/// A listener whose certificate and roots are secrets of the SDS cluster `cluster`.
fn listener(port: u16, cluster: &str) -> Value {
    let secret = |name: &str| {
        json!({"name": name, "sds_config": {
            "resource_api_version": "V3", "api_config_source": grpc("GRPC", cluster)}})
    };
    json!({
        "name": "tls",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{
            "filters": [{"name": "http", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": "http",
                "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
                    {"match": {"prefix": "/"}, "direct_response": {"status": 200}}]}]},
                "http_filters": [{"name": "router", "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
            }}],
            "transport_socket": {"name": "tls", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "common_tls_context": {
                    "tls_params": {"tls_minimum_protocol_version": "TLSv1_3"},
                    "tls_certificate_sds_secret_configs": [secret("default")],
                    "validation_context_sds_secret_config": secret("ROOTCA"),
                },
            }},
        }],
    })
}

fn node() -> Value {
    json!({"id": "sidecar~127.0.0.1~cart-1.shop~shop.svc.cluster.local", "cluster": "cart.shop"})
}

fn admin(port: u16) -> Value {
    json!({"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}})
}

/// The certificate that a server shows, which must be good at this moment.
fn shown(port: u16, root: &Path) -> Result<CertificateDetails> {
    let details = handshake::shown(port, &fs::read(root)?)?;
    ensure!(details.uris == [IDENTITY], "{:?}", details.uris);
    Ok(details)
}

/// Waits for another certificate than `before`; at no time the one that is shown may be bad.
fn renewed(port: u16, root: &Path, before: &CertificateDetails) -> Result<CertificateDetails> {
    let deadline = SystemTime::now() + DEADLINE;
    while SystemTime::now() < deadline {
        let now = shown(port, root)?;
        if now.serial != before.serial {
            return Ok(now);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    bail!("still the same certificate")
}

fn ready(admin: u16) -> Result<()> {
    let response = http1::Client::connect(("127.0.0.1", admin))?.get("localhost", "/ready")?;
    ensure!(response.status()? == 200, "{response:?}");
    Ok(())
}

#[test]
fn the_built_in_source_renews_and_a_real_envoy_takes_its_secrets_from_the_socket() -> Result<()> {
    let mut control = Control::new(6)?;
    let root = control.file("root.pem");
    let (port, admin_port) = (closed_address().port(), closed_address().port());
    let mut sidecar = control.sidecar(&json!({
        "node": node(),
        "admin": admin(admin_port),
        "static_resources": {
            "clusters": [control.cluster()], "listeners": [listener(port, "sds-grpc")]},
        "dynamic_resources": {
            "ads_config": grpc("DELTA_GRPC", "control"),
            "cds_config": {"ads": {}, "resource_api_version": "V3"},
        },
    }))?;
    eventually(DEADLINE, || ready(admin_port)).with_context(|| sidecar.output())?;
    let first = shown(port, &root).with_context(|| sidecar.output())?;
    // By then discovery has answered too, with the token.
    let dump =
        http1::Client::connect(("127.0.0.1", admin_port))?.get("localhost", "/config_dump")?;
    let dump = dump.text();
    ensure!(
        dump.contains("dynamic_active_clusters") && dump.contains("version_info"),
        "{dump}"
    );
    for secret in ["PRIVATE KEY", "LS0tLS1CRUdJTiBQUklWQVRF"] {
        ensure!(!dump.contains(secret), "the dump shows a key");
    }

    // A real Envoy gets the same, in the state-of-the-world form.
    let envoy_port = closed_address().port();
    let path = control.file("envoy.json");
    let bootstrap = json!({
        "node": {"id": "envoy", "cluster": "envoy"},
        "static_resources": {
            "clusters": [{
                "name": "sds", "typed_extension_protocol_options": http2(),
                "load_assignment": assignment("sds", json!({"pipe": {"path": control.file("sds.sock")}})),
            }],
            "listeners": [listener(envoy_port, "sds")],
        },
    });
    fs::write(&path, bootstrap.to_string())?;
    let mut command = Command::new(envoy::binary()?);
    command
        .args([
            "--use-dynamic-base-id",
            "--concurrency",
            "1",
            "-l",
            "warn",
            "-c",
        ])
        .arg(path);
    let envoy = Process::start("envoy", command)?;
    let theirs =
        eventually(DEADLINE, || shown(envoy_port, &root)).with_context(|| envoy.output())?;

    // Both follow two renewals, and no handshake meets a certificate that has expired.
    let second = renewed(port, &root, &first).with_context(|| sidecar.output())?;
    let third = renewed(port, &root, &second).with_context(|| sidecar.output())?;
    ensure!(third.serial != first.serial);
    renewed(envoy_port, &root, &theirs).with_context(|| envoy.output())?;

    // The control plane is away until the certificate has expired, and comes back.
    control.process.kill()?;
    eventually(DEADLINE, || match shown(port, &root) {
        Ok(_) => bail!("still good"),
        Err(_) => Ok(()),
    })?;
    control.restart()?;
    eventually(DEADLINE, || shown(port, &root)).with_context(|| sidecar.output())?;
    ensure!(sidecar.exited()?.is_none());
    let log = sidecar.output();
    let token = fs::read_to_string(control.file("token"))?;
    ensure!(
        !log.contains(token.trim()) && !log.contains("PRIVATE KEY"),
        "the log shows a secret"
    );
    ensure!(log.contains("no new certificate: cannot connect"), "{log}");
    Ok(())
}
