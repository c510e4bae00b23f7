//! What every test stands on: the cluster with the mesh, a namespace of one's own, apps in it, and
//! requests from inside one to another.

mod app;
mod load;

use std::net::IpAddr;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use outrider_testkit::cluster::Cluster;
use outrider_testkit::eventually;
use serde_json::{Value, json};

pub use app::{App, IMAGE, client, server};
pub use load::Load;

/// Where the mesh is.
pub const SYSTEM: &str = "outrider-system";
/// How long anything may take to come about. What is faster is not waited for.
pub const PATIENCE: Duration = Duration::from_secs(90);
/// The test program in every container of ours.
pub const PROGRAM: &str = "/outrider-testapp";

/// The cluster with the mesh on it; `None` where there is none, which is told, and where `CI` is
/// set a failure, so that the suite never passes because nothing of it ran.
pub fn cluster() -> Option<Cluster> {
    let found = Cluster::running().and_then(|cluster| {
        let arguments = [
            "get",
            "deployment",
            "outrider-control",
            "-o",
            "name",
            "-n",
            SYSTEM,
        ];
        cluster
            .kubectl(&arguments)
            .context("the mesh is not installed: cargo xtask cluster install")?;
        Ok(cluster)
    });
    match found {
        Ok(cluster) => Some(cluster),
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "{error:#}");
            eprintln!("skipped: {error:#}");
            None
        }
    }
}

/// A namespace of one test, gone with it.
pub struct Place {
    pub cluster: Cluster,
    pub name: String,
}

/// What came back for a request.
#[derive(Debug)]
pub struct Answer {
    pub status: u64,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Place {
    /// A namespace whose pods are injected.
    pub fn meshed(label: &str) -> Option<Self> {
        Self::labelled(label, &json!({"outrider.dev/inject": "enabled"}))
    }

    /// A namespace whose pods are not.
    pub fn plain(label: &str) -> Option<Self> {
        Self::labelled(label, &json!({}))
    }

    /// A namespace with these labels.
    pub fn labelled(label: &str, labels: &Value) -> Option<Self> {
        static SEQUENCE: AtomicU32 = AtomicU32::new(0);
        let cluster = cluster()?;
        let sequence = SEQUENCE.fetch_add(1, Ordering::Relaxed);
        // A process id, since the namespaces of the last run may still be going away.
        let name = format!("{label}-{}-{sequence}", std::process::id());
        let metadata = json!({"name": name, "labels": labels});
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata});
        let place = Self { cluster, name };
        place.cluster.apply(&namespace.to_string()).unwrap();
        Some(place)
    }

    /// The name of a service of this namespace, as everybody resolves it.
    pub fn host(&self, service: &str) -> String {
        format!("{service}.{}.svc.cluster.local", self.name)
    }

    /// Runs `kubectl` in this namespace.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        output(self.kubectl_command(arguments))
    }

    /// A `kubectl` in this namespace, to be run as the caller likes.
    pub fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let mut all = vec!["--namespace", &self.name];
        all.extend(arguments);
        self.cluster.kubectl_command(&all)
    }

    /// Applies objects in this namespace.
    pub fn apply(&self, objects: &[Value]) -> Result<()> {
        let mut objects = objects.to_vec();
        for object in &mut objects {
            object["metadata"]["namespace"] = json!(self.name);
        }
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        self.cluster.apply(&list.to_string())
    }

    /// Applies apps and waits until all of their pods are ready.
    pub fn run(&self, apps: &[App]) -> Result<()> {
        let objects: Vec<Value> = apps.iter().flat_map(App::objects).collect();
        self.apply(&objects)?;
        apps.iter()
            .try_for_each(|app| self.rolled_out(app.resource()))
    }

    /// Waits until a deployment or stateful set is what it should be.
    pub fn rolled_out(&self, resource: impl AsRef<str>) -> Result<()> {
        let timeout = format!("--timeout={}s", PATIENCE.as_secs());
        let outcome = self.kubectl(&["rollout", "status", resource.as_ref(), &timeout]);
        outcome.map(drop).with_context(|| self.state())
    }

    /// What a failing test shows: the pods, and what happened to them.
    fn state(&self) -> String {
        let pods = self.kubectl(&["get", "pods", "-o", "wide"]);
        let events = self.kubectl(&["get", "events", "--field-selector=type!=Normal"]);
        format!(
            "{}\n{}",
            pods.unwrap_or_default(),
            events.unwrap_or_default()
        )
    }

    /// An object as the API server has it.
    pub fn get(&self, resource: &str) -> Result<Value> {
        Ok(serde_json::from_str(
            &self.kubectl(&["get", resource, "-o", "json"])?,
        )?)
    }

    /// The pods that have the label `app=NAME` and are not on their way out.
    pub fn pods(&self, app: &str) -> Result<Vec<Value>> {
        let selector = format!("--selector=app={app}");
        let list = self.kubectl(&["get", "pods", &selector, "-o", "json"])?;
        let mut list: Value = serde_json::from_str(&list)?;
        let Value::Array(mut pods) = list["items"].take() else {
            bail!("no list of pods");
        };
        pods.retain(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        Ok(pods)
    }

    /// The only pod of an app.
    pub fn pod(&self, app: &str) -> Result<Value> {
        let mut pods = self.pods(app)?;
        ensure!(pods.len() == 1, "{} pods of {app}", pods.len());
        Ok(pods.remove(0))
    }

    /// Waits until `condition` of the only pod of an app holds.
    pub fn wait_for_pod(
        &self,
        app: &str,
        within: Duration,
        condition: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        eventually(within, || {
            let pod = self.pod(app)?;
            ensure!(condition(&pod), "the pod is not so: {}", pod["status"]);
            Ok(pod)
        })
    }

    /// Runs the test program in the container `app` of a pod, given as `pod/NAME` or
    /// `deployment/NAME`, and returns what it wrote.
    pub fn exec(&self, inside: &str, arguments: &[&str]) -> Result<String> {
        output(self.exec_command(inside, arguments))
    }

    /// The command of [`exec`](Self::exec), with a standard input.
    pub fn exec_command(&self, inside: &str, arguments: &[&str]) -> Command {
        let mut all = vec!["exec", "-i", inside, "-c", "app", "--", PROGRAM];
        all.extend(arguments);
        self.kubectl_command(&all)
    }

    /// One GET from an app to a URL, whatever it is answered.
    pub fn request(&self, from: &str, url: &str, headers: &[&str]) -> Result<Answer> {
        let inside = format!("deployment/{from}");
        let mut arguments = vec!["get", url, "--json"];
        for header in headers {
            arguments.extend(["--header", header]);
        }
        let answer: Value = serde_json::from_str(&self.exec(&inside, &arguments)?)?;
        Ok(Answer {
            status: answer["status"].as_u64().context("no status")?,
            headers: serde_json::from_value(answer["headers"].clone())?,
            body: answer["body"].as_str().unwrap_or_default().to_owned(),
        })
    }

    /// [`request`](Self::request) until it is answered by 200, for configuration takes a moment.
    pub fn request_until_ok(&self, from: &str, url: &str) -> Result<Answer> {
        eventually(PATIENCE, || {
            let answer = self.request(from, url, &[])?;
            ensure!(answer.status == 200, "{answer:?}");
            Ok(answer)
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.name, self.state());
        }
        let arguments = ["delete", "namespace", &self.name, "--wait=false"];
        if let Err(error) = self.cluster.kubectl(&arguments) {
            eprintln!("{error:#}");
        }
    }
}

impl Answer {
    /// What the echo server told of the request that it saw.
    pub fn seen(&self) -> Result<Value> {
        serde_json::from_str(&self.body).with_context(|| format!("not an echo: {self:?}"))
    }

    /// The value of a header of the answer.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// The value of a header that an echo server saw.
pub fn seen_header<'a>(seen: &'a Value, name: &str) -> Option<&'a str> {
    let headers = seen["headers"].as_array()?;
    let is = |header: &&Value| {
        header[0]
            .as_str()
            .is_some_and(|key| key.eq_ignore_ascii_case(name))
    };
    headers.iter().find(is)?[1].as_str()
}

/// A pod's addresses.
pub fn addresses(pod: &Value) -> Vec<IpAddr> {
    let addresses = pod["status"]["podIPs"].as_array().into_iter().flatten();
    addresses
        .filter_map(|address| address["ip"].as_str()?.parse().ok())
        .collect()
}

/// Whether the pod counts as ready.
pub fn is_ready(pod: &Value) -> bool {
    condition(&pod["status"]["conditions"], "Ready") == Some("True")
}

/// The status of a condition.
pub fn condition<'a>(conditions: &'a Value, kind: &str) -> Option<&'a str> {
    let found = conditions
        .as_array()?
        .iter()
        .find(|condition| condition["type"] == kind);
    found?["status"].as_str()
}

/// The status of one container, the init containers among them.
pub fn container<'a>(pod: &'a Value, name: &str) -> Option<&'a Value> {
    let of = |list: &str| pod["status"][list].as_array();
    let all = [of("initContainerStatuses"), of("containerStatuses")];
    let mut all = all.into_iter().flatten().flatten();
    all.find(|container| container["name"] == name)
}

/// What was asked for of one container, the init containers among them.
pub fn container_spec<'a>(pod: &'a Value, name: &str) -> Option<&'a Value> {
    let of = |list: &str| pod["spec"][list].as_array();
    let all = [of("initContainers"), of("containers")];
    let mut all = all.into_iter().flatten().flatten();
    all.find(|container| container["name"] == name)
}

fn output(mut command: Command) -> Result<String> {
    let arguments: Vec<String> = command
        .get_args()
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    let shown = arguments.join(" ");
    let output = command
        .output()
        .with_context(|| format!("start kubectl {shown}"))?;
    ensure!(
        output.status.success(),
        "kubectl {shown}: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8(output.stdout)?)
}
