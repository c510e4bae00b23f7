//! The files that the parts of the cluster are configured by.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use outrider_testkit::cluster::{self, STATE};
use serde_json::{Value, json};

use super::certificates::file as certificate;
use super::network::{NODE, PODS, RESOLVER, write_plugins};
use super::{addons, groups, node};

/// The path of a file of configuration.
pub(super) fn file(name: &str) -> PathBuf {
    Path::new(STATE).join("configuration").join(name)
}

/// Writes all of them.
///
/// # Errors
/// The folder cannot be written.
pub(super) fn write() -> Result<()> {
    let folder = file("");
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let parts = [
        "kube-controller-manager",
        "kube-scheduler",
        "kube-proxy",
        "kubelet",
    ];
    for user in parts {
        write_yaml(&kubeconfig(user), &access(user))?;
    }
    write_yaml(&file("kubelet.yaml"), &kubelet())?;
    write_yaml(&file("kube-proxy.yaml"), &kube_proxy())?;
    write_text(&file("containerd.toml"), &containerd())?;
    write_plugins(&plugins_folder())?;
    // The last: with it the cluster counts as there.
    write_yaml(&cluster::kubeconfig(), &access("admin"))
}

/// How a part reaches the API server.
pub(super) fn kubeconfig(user: &str) -> PathBuf {
    file(&format!("{user}.kubeconfig"))
}

fn plugins_folder() -> PathBuf {
    Path::new(STATE).join("network/plugins")
}

fn access(user: &str) -> Value {
    let key = certificate(&format!("{user}.key"));
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "outrider", "cluster": {
            "server": format!("https://{}:6443", NODE[0]),
            "certificate-authority": certificate("ca.crt"),
        }}],
        "users": [{"name": user, "user": {
            "client-certificate": certificate(&format!("{user}.crt")),
            "client-key": key,
        }}],
        "contexts": [{"name": user, "context": {"cluster": "outrider", "user": user}}],
        "current-context": user,
    })
}

fn kubelet() -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": certificate("ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": certificate("kubelet.crt"),
        "tlsPrivateKeyFile": certificate("kubelet.key"),
        "containerRuntimeEndpoint": format!("unix://{}", cluster::containerd_socket().display()),
        "clusterDNS": [RESOLVER],
        "clusterDomain": "cluster.local",
        // The machine's own resolver is not reachable from inside.
        "resolvConf": "",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": groups::ROOT,
        "failCgroupV1": false,
        "failSwapOn": false,
        // The machine is the developer's: it is neither reserved nor protected.
        "enforceNodeAllocatable": [],
        "evictionHard": {},
        // Images are given, not pulled: what is removed for a full disk never returns.
        "imageGCHighThresholdPercent": 100,
        "maxPods": 200,
        "podLogsDir": format!("{STATE}/pod-logs"),
        "volumePluginDir": format!("{STATE}/kubelet/volume-plugins"),
        // Tests end and start many pods; the defaults hold them up.
        "serializeImagePulls": false,
        "registryPullQPS": 0,
        "eventRecordQPS": 0,
        "kubeAPIQPS": 200,
        "kubeAPIBurst": 400,
    })
}

fn kube_proxy() -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "hostnameOverride": node::NAME,
        "clientConnection": {"kubeconfig": kubeconfig("kube-proxy")},
        "clusterCIDR": PODS.join(","),
        // These would be set for the whole machine, from a namespace that may not.
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
        },
    })
}

fn containerd() -> String {
    let pause = addons::PAUSE_IMAGE;
    let plugins = plugins_folder();
    let plugins = plugins.display();
    let socket = cluster::containerd_socket();
    let socket = socket.display();
    format!(
        r#"version = 2
root = "{STATE}/containerd"
state = "{STATE}/run"
[grpc]
  address = "{socket}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{STATE}/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  # Lowering a score takes a capability that root does not have everywhere.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{plugins}"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      Root = "{STATE}/run/runc"
"#
    )
}

/// JSON is YAML.
fn write_yaml(path: &Path, value: &Value) -> Result<()> {
    write_text(path, &serde_json::to_string_pretty(value)?)
}

fn write_text(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}
