//! Two pods with redirects and a sidecar each, and one outside of the mesh.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::time::Duration;

use outrider_testkit::certs::Authority;
use outrider_testkit::clients::http1::Client;
use outrider_testkit::mesh::Sidecar;
use outrider_testkit::netns::{Network, PROXY_UID, Pod};
use outrider_testkit::{Process, bins, envoy};

use crate::bootstrap;

/// The pods. `client` and `server` are in the mesh, `outside` is not.
pub struct Mesh {
    pub client: Member,
    pub server: Member,
    pub outside: Pod,
    _files: tempfile::TempDir,
    _network: Network,
}

/// A pod with its sidecar.
pub struct Member {
    pub pod: Pod,
    pub identity: String,
    _sidecar: Process,
}

impl Mesh {
    /// Starts both sidecars and installs both redirects.
    pub fn start(client: Sidecar, server: Sidecar) -> Self {
        let files = tempfile::tempdir().unwrap();
        fs::set_permissions(files.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let authority = Authority::new("test root").unwrap();
        let network = Network::new("mesh").unwrap();
        let (client_pod, server_pod) = (
            network.pod("client").unwrap(),
            network.pod("server").unwrap(),
        );
        let outside = network.pod("outside").unwrap();
        let service = server_pod.v4();
        let join = |pod: Pod, make: Sidecar| {
            let identity = format!("{}ns/test/sa/{}", bootstrap::TRUST_DOMAIN, pod.label());
            let folder = files.path().join(pod.label());
            write_files(&folder, &authority, &identity, service);
            let init = bins::path("outrider-init").unwrap();
            pod.output(init.to_str().unwrap(), &["apply"]).unwrap();
            let _sidecar = start_sidecar(&pod, make, &folder);
            Member {
                pod,
                _sidecar,
                identity,
            }
        };
        Self {
            client: join(client_pod, client),
            server: join(server_pod, server),
            outside,
            _files: files,
            _network: network,
        }
    }
}

fn write_files(folder: &Path, authority: &Authority, identity: &str, service: std::net::Ipv4Addr) {
    let leaf = authority
        .issue(identity, Duration::from_secs(3600))
        .unwrap();
    let bootstrap = bootstrap::pod(folder, service).to_string();
    fs::create_dir(folder).unwrap();
    let key = folder.join("key.pem");
    for (name, text) in [
        ("root.pem", authority.certificate()),
        ("certificate.pem", &leaf.certificate),
        ("key.pem", &leaf.key),
        ("bootstrap.json", &bootstrap),
    ] {
        fs::write(folder.join(name), text).unwrap();
    }
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    chown(&key, Some(PROXY_UID), Some(PROXY_UID)).unwrap();
}

fn start_sidecar(pod: &Pod, make: Sidecar, folder: &Path) -> Process {
    let (program, arguments): (_, &[&str]) = match make {
        Sidecar::Outrider => (bins::path("outrider-sidecar").unwrap(), &[]),
        Sidecar::Envoy => (envoy::binary().unwrap(), &["--disable-hot-restart"]),
    };
    let mut command = pod.command_as(PROXY_UID, program).unwrap();
    command.arg("-c").arg(folder.join("bootstrap.json"));
    command
        .args(["--concurrency", "1", "--log-level", "info"])
        .args(arguments);
    let mut sidecar = Process::start(&format!("{}'s {make:?}", pod.label()), command).unwrap();
    sidecar
        .wait_for("ready", Duration::from_secs(30), |_| is_ready(pod))
        .unwrap();
    sidecar
}

fn is_ready(pod: &Pod) -> bool {
    let answer = || -> anyhow::Result<u16> {
        Client::connect_from(pod, ("127.0.0.1", 15000))?
            .get("localhost", "/ready")?
            .status()
    };
    answer().is_ok_and(|status| status == 200)
}
