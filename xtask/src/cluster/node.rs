//! What runs on the node, with which arguments.

use std::path::Path;

use anyhow::Result;
use outrider_testkit::cluster::{Program, STATE};

use super::certificates::file as certificate;
use super::configuration::{file as configuration, kubeconfig};
use super::daemon::Daemon;
use super::network::{NODE, PODS, SERVICES};

/// The node's name.
pub(super) const NAME: &str = "node";
/// All programs, in the order in which they are shown.
pub(super) const DAEMONS: &[&str] = &[
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "containerd",
    "kubelet",
    "kube-proxy",
];

/// What the API server stands on, and itself.
///
/// # Errors
/// A program cannot be built.
pub(super) fn control_plane() -> Result<[Daemon; 2]> {
    Ok([etcd()?, kube_apiserver()?])
}

/// What works through the API server, and so is started once that serves: at their first start
/// they end when it does not answer, or does not know their rights yet.
///
/// # Errors
/// A program cannot be built.
pub(super) fn controllers() -> Result<[Daemon; 4]> {
    Ok([
        kube_controller_manager()?,
        kube_scheduler()?,
        kubelet()?,
        kube_proxy()?,
    ])
}

/// Debian's containerd, of which this is an instance of its own.
pub(super) fn containerd() -> Daemon {
    Daemon {
        name: "containerd",
        program: "containerd".into(),
        arguments: vec![flag("config", configuration("containerd.toml").display())],
    }
}

fn etcd() -> Result<Daemon> {
    daemon(
        Program::Etcd,
        [
            flag("name", NAME),
            flag("data-dir", format!("{STATE}/etcd")),
            // The data is the tests': whoever loses power starts anew.
            flag("unsafe-no-fsync", true),
            flag("listen-client-urls", "http://127.0.0.1:2379"),
            flag("advertise-client-urls", "http://127.0.0.1:2379"),
            flag("listen-peer-urls", "http://127.0.0.1:2380"),
            flag("log-level", "warn"),
        ],
    )
}

fn kube_apiserver() -> Result<Daemon> {
    let file = |name: &str| certificate(name).display().to_string();
    daemon(
        Program::KubeApiserver,
        [
            flag("etcd-servers", "http://127.0.0.1:2379"),
            flag("advertise-address", NODE[0]),
            flag("secure-port", 6443),
            flag("cert-dir", certificate("").display()),
            flag("tls-cert-file", file("kube-apiserver.crt")),
            flag("tls-private-key-file", file("kube-apiserver.key")),
            flag("client-ca-file", file("ca.crt")),
            flag("authorization-mode", "Node,RBAC"),
            flag("enable-admission-plugins", "NodeRestriction"),
            flag("allow-privileged", true),
            flag(
                "service-account-issuer",
                "https://kubernetes.default.svc.cluster.local",
            ),
            flag("service-account-key-file", file("service-accounts.pub")),
            flag(
                "service-account-signing-key-file",
                file("service-accounts.key"),
            ),
            flag("service-cluster-ip-range", SERVICES.join(",")),
            // The node's name resolves nowhere.
            flag("kubelet-preferred-address-types", "InternalIP"),
            flag("kubelet-certificate-authority", file("ca.crt")),
            flag("kubelet-client-certificate", file("admin.crt")),
            flag("kubelet-client-key", file("admin.key")),
            // For the servers that extend the API.
            flag("requestheader-client-ca-file", file("front-proxy.crt")),
            flag("requestheader-allowed-names", "front-proxy-client"),
            flag("requestheader-username-headers", "X-Remote-User"),
            flag("requestheader-group-headers", "X-Remote-Group"),
            flag("requestheader-extra-headers-prefix", "X-Remote-Extra-"),
            flag("proxy-client-cert-file", file("front-proxy-client.crt")),
            flag("proxy-client-key-file", file("front-proxy-client.key")),
        ],
    )
}

fn kube_controller_manager() -> Result<Daemon> {
    let file = |name: &str| certificate(name).display().to_string();
    let access = kubeconfig("kube-controller-manager");
    let access = access.display();
    daemon(
        Program::KubeControllerManager,
        [
            flag("kubeconfig", &access),
            flag("authentication-kubeconfig", &access),
            flag("authorization-kubeconfig", &access),
            flag("bind-address", "127.0.0.1"),
            flag("leader-elect", false),
            flag("use-service-account-credentials", true),
            flag("root-ca-file", file("ca.crt")),
            flag(
                "service-account-private-key-file",
                file("service-accounts.key"),
            ),
            flag("cluster-signing-cert-file", file("ca.crt")),
            flag("cluster-signing-key-file", file("ca.key")),
            flag("allocate-node-cidrs", true),
            flag("cluster-cidr", PODS.join(",")),
            flag("service-cluster-ip-range", SERVICES.join(",")),
            // Tests wait for its work.
            flag("kube-api-qps", 200),
            flag("kube-api-burst", 400),
        ],
    )
}

fn kube_scheduler() -> Result<Daemon> {
    let access = kubeconfig("kube-scheduler");
    let access = access.display();
    daemon(
        Program::KubeScheduler,
        [
            flag("kubeconfig", &access),
            flag("authentication-kubeconfig", &access),
            flag("authorization-kubeconfig", &access),
            flag("bind-address", "127.0.0.1"),
            flag("leader-elect", false),
            flag("kube-api-qps", 200),
            flag("kube-api-burst", 400),
        ],
    )
}

fn kubelet() -> Result<Daemon> {
    daemon(
        Program::Kubelet,
        [
            flag("config", configuration("kubelet.yaml").display()),
            flag("kubeconfig", kubeconfig("kubelet").display()),
            flag("root-dir", format!("{STATE}/kubelet")),
            flag("cert-dir", Path::new(STATE).join("kubelet/pki").display()),
            flag("hostname-override", NAME),
            flag("node-ip", NODE.join(",")),
        ],
    )
}

fn kube_proxy() -> Result<Daemon> {
    daemon(
        Program::KubeProxy,
        [flag("config", configuration("kube-proxy.yaml").display())],
    )
}

fn daemon(program: Program, arguments: impl Into<Vec<String>>) -> Result<Daemon> {
    Ok(Daemon {
        name: program.name(),
        program: program.path()?,
        arguments: arguments.into(),
    })
}

fn flag(name: &str, value: impl std::fmt::Display) -> String {
    format!("--{name}={value}")
}
