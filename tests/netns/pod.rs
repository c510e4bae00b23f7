//! A sidecar whose pod is all there is: no control plane answers.

use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::ensure;
use outrider_testkit::certs::Authority;
use outrider_testkit::clients::http1::Client;
use outrider_testkit::netns::{Network, PROXY_UID, Pod, require_root};
use outrider_testkit::servers::Server;
use outrider_testkit::{Process, bins, eventually};

/// Starts a sidecar as the injector does, with its control plane at `control`.
fn start(pod: &Pod, folder: &Path, control: &str) -> Process {
    let root = folder.join("root.pem");
    std::fs::write(&root, Authority::new("root").unwrap().certificate()).unwrap();
    let token = folder.join("token");
    std::fs::write(&token, "token").unwrap();
    let program = bins::path("outrider-sidecar").unwrap();
    let mut command = pod.command_as(PROXY_UID, program).unwrap();
    command
        .args(["--concurrency", "1"])
        .env("POD_NAME", "cart")
        .env("POD_NAMESPACE", "shop")
        .env("POD_IPS", pod.v4().to_string())
        .env("SERVICE_ACCOUNT", "cart")
        .env("OUTRIDER_CA_ADDRESS", control)
        .env("OUTRIDER_TOKEN_FILE", token)
        .env("OUTRIDER_ROOT_FILE", root);
    Process::start("sidecar", command).unwrap()
}

fn folder() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let readable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder.path(), readable).unwrap();
    folder
}

#[test]
fn without_a_control_plane_it_is_not_ready_and_says_why() {
    if !require_root() {
        return;
    }
    let network = Network::new("alone").unwrap();
    let pod = network.pod("cart").unwrap();
    let folder = folder();
    let _sidecar = start(&pod, folder.path(), "control.nowhere:15012");
    eventually(Duration::from_secs(20), || {
        let mut client = Client::connect_from(&pod, (pod.v4(), 15021))?;
        let answer = client.get("pod", "/healthz/ready")?;
        assert_eq!(answer.status()?, 503);
        ensure!(
            answer.text().contains("waiting for a certificate"),
            "{}",
            answer.text()
        );
        Ok(())
    })
    .unwrap();
    let program = bins::path("outrider-sidecar").unwrap();
    let wait = pod
        .command(program)
        .args(["wait", "--timeout-s", "1"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&wait.stderr).into_owned();
    assert_eq!(wait.status.code(), Some(1));
    assert!(said.contains("waiting for a certificate"), "{said}");
}

/// The control plane's name is looked up by the pod's resolv.conf, search domains and all, at each
/// attempt; each of its addresses is tried.
#[test]
fn the_control_plane_is_found_by_name() {
    if !require_root() {
        return;
    }
    let network = Network::new("dns").unwrap();
    let pod = network.pod("cart").unwrap();
    let resolver = Path::new("/etc/netns")
        .join(pod.namespace())
        .join("resolv.conf");
    let text = "search shop.svc.test svc.test test\nnameserver 127.0.0.1\noptions ndots:5\n";
    std::fs::write(resolver, text).unwrap();
    // Nothing listens at the first address.
    let addresses = [Ipv4Addr::new(127, 0, 0, 9), pod.v4()];
    let dns = Dns::start(&pod, "control.mesh.svc.test", addresses);
    let control = pod
        .run(|| std::net::TcpListener::bind((pod.v4(), 15012)))
        .unwrap();
    let control = Server::start(control.unwrap(), |connection| {
        drop(connection);
        Ok(())
    })
    .unwrap();
    let folder = folder();
    let _sidecar = start(&pod, folder.path(), "control.mesh.svc:15012");
    eventually(Duration::from_secs(30), || {
        let (answered, accepted) = (dns.answered.load(Ordering::Relaxed), control.accepted());
        // For both the authority and discovery, more than once.
        ensure!(
            answered >= 4 && accepted >= 4,
            "{answered} answers, {accepted} connections"
        );
        Ok(())
    })
    .unwrap();
}

/// A DNS server that knows one name.
struct Dns {
    answered: Arc<AtomicUsize>,
}

impl Dns {
    /// It ends with the process of the test.
    fn start(pod: &Pod, name: &'static str, addresses: [Ipv4Addr; 2]) -> Self {
        let socket = pod
            .run(|| UdpSocket::bind("127.0.0.1:53"))
            .unwrap()
            .unwrap();
        let answered = Arc::new(AtomicUsize::new(0));
        let count = answered.clone();
        std::thread::spawn(move || {
            let mut query = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut query) {
                let answer = answer(&query[..length], name, addresses, &count);
                let _ = socket.send_to(&answer, from);
            }
        });
        Dns { answered }
    }
}

/// RFC 1035: the header and the question come back; A records of the one name, else NXDOMAIN.
fn answer(query: &[u8], name: &str, addresses: [Ipv4Addr; 2], count: &AtomicUsize) -> Vec<u8> {
    let mut labels = Vec::new();
    let mut at = 12;
    while query[at] != 0 {
        let end = at + 1 + usize::from(query[at]);
        labels.push(String::from_utf8_lossy(&query[at + 1..end]).to_ascii_lowercase());
        at = end;
    }
    let question = &query[12..at + 5];
    let kind = u16::from_be_bytes([query[at + 1], query[at + 2]]);
    let known = labels.join(".") == name;
    let records: &[Ipv4Addr] = if known && kind == 1 { &addresses } else { &[] };
    if !records.is_empty() {
        count.fetch_add(1, Ordering::Relaxed);
    }
    let mut answer = query[..2].to_vec();
    answer.extend([
        0x81,
        if known { 0x80 } else { 0x83 },
        0,
        1,
        0,
        records.len() as u8,
        0,
        0,
        0,
        0,
    ]);
    answer.extend(question);
    for address in records {
        // A pointer to the question's name, A, IN, 5 seconds, 4 bytes.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4]);
        answer.extend(address.octets());
    }
    answer
}
