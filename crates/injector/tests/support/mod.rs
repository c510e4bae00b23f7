//! The built program, and a client as the API server is one.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use outrider_identity::{CertificateAuthority, TrustDomain};
use outrider_testkit::process::Process;
use rustls::RootCertStore;
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How long anything may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);
pub const CONFIG: &str = "images: {sidecar: 'example/sidecar:1', init: i}\n\
                          controlAddress: outrider-control.outrider-system.svc:15012\n";

/// An authority of its own in every test, and what it signed in files.
pub struct Files {
    folder: tempfile::TempDir,
    authority: CertificateAuthority,
}

impl Files {
    pub fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let authority = authority(&folder.path().join("ca"))?;
        let files = Self { folder, authority };
        files.renew()?;
        files.write("config.yaml", CONFIG)?;
        Ok(files)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        // By another name first, as whatever writes such files should.
        let draft = self.path("draft");
        std::fs::write(&draft, text)?;
        std::fs::rename(draft, self.path(name))?;
        Ok(())
    }

    pub fn renew(&self) -> Result<()> {
        let names = ["localhost".to_owned()];
        let (key, issued) = self
            .authority
            .issue_serving(&names, None, SystemTime::now())?;
        self.write("tls.key", key.private_pem().expose())?;
        self.write("tls.crt", &issued.chain_pem())
    }

    /// From now on another authority signs.
    pub fn change_authority(&mut self) -> Result<()> {
        self.authority = authority(&self.path("other-ca"))?;
        self.renew()
    }

    pub fn roots(&self) -> RootCertStore {
        self.authority.trust_bundle().root_store()
    }

    pub fn command(&self) -> Result<Command> {
        let mut command = Command::new(outrider_testkit::bins::path("outrider-injector")?);
        command.env_clear();
        command.args(["--port=0", "--monitoring-port=0", "--address=127.0.0.1"]);
        command.arg("--config").arg(self.path("config.yaml"));
        command.arg("--tls-cert").arg(self.path("tls.crt"));
        command.arg("--tls-key").arg(self.path("tls.key"));
        Ok(command)
    }
}

fn authority(directory: &std::path::Path) -> Result<CertificateAuthority> {
    let domain: TrustDomain = "cluster.local".parse()?;
    Ok(CertificateAuthority::open_or_create(
        directory,
        &domain,
        SystemTime::now(),
    )?)
}

/// A running injector.
pub struct Running {
    pub process: Process,
    pub port: u16,
    pub monitoring_port: u16,
}

impl Running {
    pub fn start(command: Command) -> Result<Self> {
        let mut process = Process::start("injector", command)?;
        process.wait_for_output(" serving ", PATIENCE)?;
        let output = process.output();
        let port = |name: &str| -> Result<u16> {
            let rest = output.split(name).nth(1).context("no address in the log")?;
            Ok(rest.split_whitespace().next().unwrap_or_default().parse()?)
        };
        Ok(Self {
            port: port(" address=127.0.0.1:")?,
            monitoring_port: port(" monitoring=127.0.0.1:")?,
            process,
        })
    }

    pub async fn client(&self, roots: RootCertStore, protocol: &str) -> Result<Client> {
        Client::connect(self.port, roots, protocol).await
    }

    /// What the monitoring port answers.
    pub async fn monitor(&self, path: &str) -> Result<(StatusCode, String)> {
        let stream = TcpStream::connect(("127.0.0.1", self.monitoring_port)).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = Request::get(path)
            .header("host", "x")
            .body(Full::new(Bytes::new()))?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        Ok((status, String::from_utf8(body.to_vec())?))
    }
}

/// One connection to the webhook.
pub enum Client {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Client {
    pub async fn connect(port: u16, roots: RootCertStore, protocol: &str) -> Result<Self> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from("localhost")?;
        let connector = TlsConnector::from(Arc::new(config));
        let io = TokioIo::new(connector.connect(name, stream).await?);
        if protocol == "h2" {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
            tokio::spawn(connection);
            Ok(Self::Http2(sender))
        } else {
            let (sender, connection) = http1::handshake(io).await?;
            tokio::spawn(connection);
            Ok(Self::Http1(sender))
        }
    }

    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes)> {
        let response = match self {
            Self::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Self::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
        };
        let status = response.status();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    }

    pub async fn post(&mut self, body: impl Into<Bytes>) -> Result<(StatusCode, Bytes)> {
        self.send(request("POST", "/inject", "application/json", body)?)
            .await
    }

    /// The pod as the answer makes it.
    pub async fn inject(&mut self) -> Result<Value> {
        let (status, body) = self.post(review(&pod())).await?;
        anyhow::ensure!(status == StatusCode::OK, "{status}");
        let answer: Value = serde_json::from_slice(&body)?;
        let patch = patch_of(&answer["response"]["patch"])?;
        let mut pod = pod();
        json_patch::patch(&mut pod, &patch)?;
        Ok(pod)
    }
}

fn patch_of(patch: &Value) -> Result<Vec<json_patch::PatchOperation>> {
    use base64::Engine as _;
    let text = patch.as_str().context("the patch is not a string")?;
    let bytes = base64::engine::general_purpose::STANDARD.decode(text)?;
    Ok(serde_json::from_slice(&bytes)?)
}

pub fn request(
    method: &str,
    path: &str,
    content_type: &str,
    body: impl Into<Bytes>,
) -> Result<Request<Full<Bytes>>> {
    let request = Request::builder()
        .method(method)
        .uri(format!("https://localhost{path}"))
        .header("host", "localhost")
        .header("content-type", content_type);
    Ok(request.body(Full::new(body.into()))?)
}

/// As the API server writes a pod of a Deployment: with its defaults.
pub fn pod() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": "web-7d4b9c-",
            "creationTimestamp": null,
            "labels": {"app": "web", "pod-template-hash": "7d4b9c"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet",
                "name": "web-7d4b9c", "uid": "0c9a", "controller": true}],
        },
        "spec": {
            "volumes": [{"name": "kube-api-access-x", "projected": {"defaultMode": 420, "sources": [
                {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}}]}}],
            "containers": [{
                "name": "app", "image": "example/app:1",
                "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
                "readinessProbe": {"httpGet": {"path": "/", "port": "http", "scheme": "HTTP"},
                    "timeoutSeconds": 1, "periodSeconds": 10},
                "resources": {},
                "volumeMounts": [{"name": "kube-api-access-x", "readOnly": true,
                    "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}],
            }],
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 30,
            "serviceAccountName": "web",
            "securityContext": {},
            "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists",
                "effect": "NoExecute", "tolerationSeconds": 300}],
        },
        "status": {},
    })
}

pub fn review(pod: &Value) -> Vec<u8> {
    json!({
        "kind": "AdmissionReview",
        "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "requestKind": {"group": "", "version": "v1", "kind": "Pod"},
            "requestResource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": "shop",
            "operation": "CREATE",
            "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller"},
            "object": pod,
            "oldObject": null,
            "dryRun": false,
            "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
        },
    })
    .to_string()
    .into_bytes()
}
