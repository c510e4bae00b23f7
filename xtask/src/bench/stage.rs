//! Where the bench plays: two pods, the redirects in both, the app, and the files.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use outrider_testkit::certs::Authority;
use outrider_testkit::clients::{http1, http2};
use outrider_testkit::netns::{Network, Pod};
use outrider_testkit::{Process, eventually};

use super::{USER, bootstrap};

/// The size of the app's answer, in bytes.
const ANSWER: usize = 512;

/// The pods with everything but the sidecars.
pub(super) struct Stage {
    pub(super) client: Pod,
    pub(super) server: Pod,
    /// The folder of the bootstrap files and of what the loads write.
    files: tempfile::TempDir,
    _nginx: Process,
    _iperf3: Process,
    _network: Network,
}

impl Stage {
    /// Makes the pods, installs the redirects with `init`, starts the app.
    pub(super) fn set(init: &Path) -> Result<Self> {
        let files = tempfile::tempdir().context("make a folder for the files")?;
        // The sidecars' user reads it.
        fs::set_permissions(files.path(), fs::Permissions::from_mode(0o755))?;
        let network = Network::new("bench")?;
        let client = network.pod("client")?;
        let server = network.pod("server")?;
        // In a folder of their own: it is watched, and a load's log beside them would keep the
        // watchers busy.
        let certificates = files.path().join("certificates");
        fs::create_dir(&certificates).context("make a folder for the certificates")?;
        write_certificates(&certificates)?;
        let address = server.v4();
        write(
            &files.path().join("client.yaml"),
            &bootstrap::client(address, &certificates),
        )?;
        write(
            &files.path().join("server.yaml"),
            &bootstrap::server(address, &certificates),
        )?;

        let nginx = start_nginx(&server, files.path())?;
        let mut command = server.command("iperf3");
        command.args(["--server", "--port", &bootstrap::BULK_PORT.to_string()]);
        let iperf3 = Process::start("iperf3", command)?;
        let stage = Self {
            client,
            server,
            files,
            _nginx: nginx,
            _iperf3: iperf3,
            _network: network,
        };
        // Without sidecars and redirects, so that a failure here is the app's.
        stage.check().context("the app, without any sidecar")?;
        for pod in [&stage.client, &stage.server] {
            let program = init
                .to_str()
                .context("the path of the init program is not UTF-8")?;
            pod.output(program, &["apply"])?;
        }
        Ok(stage)
    }

    /// A file of the stage.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// The URL of the app, as the load in the client's pod calls it.
    pub(super) fn url(&self, port: u16) -> String {
        format!("http://{}:{port}/", self.server.v4())
    }

    /// Whether the app answers on each of its HTTP ports, rightly and wholly.
    pub(super) fn check(&self) -> Result<()> {
        let address = self.server.v4();
        eventually(Duration::from_secs(10), || {
            let mut client =
                http1::Client::connect_from(&self.client, (address, bootstrap::HTTP1_PORT))?;
            let response = client.get("bench", "/")?;
            let status = response.status()?;
            ensure!(
                status == 200 && response.body.len() == ANSWER,
                "{response:?}"
            );
            Ok(())
        })
        .context("HTTP/1")?;
        let url = self.url(bootstrap::HTTP2_PORT);
        let response = self
            .client
            .block_on(|| async {
                let work = async {
                    let client = http2::Client::connect((address, bootstrap::HTTP2_PORT)).await?;
                    client.get(&url).await
                };
                tokio::time::timeout(Duration::from_secs(10), work)
                    .await
                    .context("it hangs")?
            })?
            .context("HTTP/2")?;
        let right = response.status() == 200 && response.body().body.len() == ANSWER;
        ensure!(right, "HTTP/2: {} {:?}", response.status(), response.body());
        Ok(())
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

fn write_certificates(folder: &Path) -> Result<()> {
    let authority = Authority::new("bench root")?;
    write(&folder.join("root.pem"), authority.certificate())?;
    for (side, id) in [
        ("client", bootstrap::CLIENT_ID),
        ("server", bootstrap::SERVER_ID),
    ] {
        let leaf = authority.issue(id, Duration::from_secs(24 * 3600))?;
        write(&folder.join(format!("{side}.pem")), &leaf.certificate)?;
        let key = folder.join(format!("{side}.key"));
        write(&key, &leaf.key)?;
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
        chown(&key, Some(USER), Some(USER)).context("give the key to the sidecars' user")?;
    }
    Ok(())
}

/// nginx with one worker: HTTP/1 on one port, cleartext HTTP/2 on another.
fn start_nginx(pod: &Pod, folder: &Path) -> Result<Process> {
    let answer = "x".repeat(ANSWER);
    let folder = folder.join("nginx");
    fs::create_dir(&folder).context("make nginx's folder")?;
    let at = folder.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("  {kind}_temp_path {at}/{kind};\n"))
        .concat();
    let (http1, http2) = (bootstrap::HTTP1_PORT, bootstrap::HTTP2_PORT);
    let text = format!(
        "daemon off;
worker_processes 1;
pid {at}/pid;
error_log stderr warn;
events {{ worker_connections 8192; }}
http {{
  access_log off;
{temporary}  keepalive_requests 1000000000;
  keepalive_timeout 1h;
  default_type text/plain;
  server {{ listen {http1} backlog=4096; location / {{ return 200 {answer}; }} }}
  server {{ listen {http2} http2 backlog=4096; location / {{ return 200 {answer}; }} }}
}}
"
    );
    let configuration = folder.join("nginx.conf");
    write(&configuration, &text)?;
    let mut command = pod.command("nginx");
    command
        .arg("-c")
        .arg(&configuration)
        .arg("-e")
        .arg("stderr");
    Process::start("nginx", command)
}
