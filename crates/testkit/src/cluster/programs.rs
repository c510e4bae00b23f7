//! The programs of a cluster, and what else is written in Go, built from their modules into the
//! cache once a version.
//!
//! Kubernetes has a module of its own, because it pins its staging modules; what works with a
//! cluster shares one, and so compiles what its parts have in common once; `h2spec`, which every
//! run of the integration tests needs, is built alone in seconds. None has code of ours: requirements, sums
//! and `tool` lines only.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use aws_lc_rs::digest;
use nix::fcntl::{Flock, FlockArg};

use super::go;
use crate::envoy::cache_folder;

/// The version of Kubernetes: the last minor one whose kubelet takes cgroup v1 as it is.
pub const KUBERNETES: &str = "v1.34.4";

/// A Go module of requirements.
struct Module {
    name: &'static str,
    requirements: &'static str,
    sums: &'static str,
    /// What the linker is told beside leaving out symbols.
    link: &'static str,
}

static KUBERNETES_MODULE: Module = Module {
    name: "kubernetes",
    requirements: include_str!("../../go/kubernetes/go.mod"),
    sums: include_str!("../../go/kubernetes/go.sum"),
    // Without it each of them calls itself v0.0.0, which Helm's charts and kubectl refuse.
    link: "-X k8s.io/component-base/version.gitVersion=v1.34.4 \
           -X k8s.io/component-base/version.gitMajor=1 \
           -X k8s.io/component-base/version.gitMinor=34",
};
static TOOLS_MODULE: Module = Module {
    name: "tools",
    requirements: include_str!("../../go/tools/go.mod"),
    sums: include_str!("../../go/tools/go.sum"),
    link: "",
};

static H2SPEC_MODULE: Module = Module {
    name: "h2spec",
    requirements: include_str!("../../go/h2spec/go.mod"),
    sums: include_str!("../../go/h2spec/go.sum"),
    link: "",
};

/// How a thing comes out of a module.
#[derive(Clone, Copy)]
enum How {
    /// `go build` of a package.
    Program(&'static str),
    /// `go test -c` of a package.
    Test(&'static str),
    /// A folder of YAML in one of the required modules, joined into one file.
    Manifests {
        module: &'static str,
        folder: &'static str,
    },
}

/// Something that a cluster is made of, or that is run against one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // Each is what its name says; `Program::how` has the packages.
pub enum Program {
    Etcd,
    KubeApiserver,
    KubeControllerManager,
    KubeScheduler,
    Kubelet,
    KubeProxy,
    Kubectl,
    Coredns,
    Helm,
    /// The standard channel's custom resource definitions of the Gateway API.
    GatewayApiDefinitions,
    /// The Gateway API's conformance suite.
    Conformance,
    /// The app of the suite's mesh tests.
    EchoServer,
    /// The client of the suite's mesh tests.
    EchoClient,
    /// The conformance suite of HTTP/2 servers.
    H2spec,
}

impl Program {
    /// What a cluster runs, and what works with one.
    pub const CLUSTER: &[Self] = &[
        Self::Etcd,
        Self::KubeApiserver,
        Self::KubeControllerManager,
        Self::KubeScheduler,
        Self::Kubelet,
        Self::KubeProxy,
        Self::Kubectl,
        Self::Coredns,
        Self::Helm,
        Self::GatewayApiDefinitions,
    ];
    /// What the conformance suite is.
    pub const CONFORMANCE: &[Self] = &[Self::Conformance, Self::EchoServer, Self::EchoClient];

    fn how(self) -> (&'static Module, &'static str, How) {
        let kubernetes = |name, package| (&KUBERNETES_MODULE, name, How::Program(package));
        let tools = |name, how| (&TOOLS_MODULE, name, how);
        match self {
            Self::Etcd => kubernetes("etcd", "go.etcd.io/etcd/server/v3"),
            Self::KubeApiserver => {
                kubernetes("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver")
            }
            Self::KubeControllerManager => kubernetes(
                "kube-controller-manager",
                "k8s.io/kubernetes/cmd/kube-controller-manager",
            ),
            Self::KubeScheduler => {
                kubernetes("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler")
            }
            Self::Kubelet => kubernetes("kubelet", "k8s.io/kubernetes/cmd/kubelet"),
            Self::KubeProxy => kubernetes("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy"),
            Self::Kubectl => kubernetes("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
            Self::Coredns => tools("coredns", How::Program("github.com/coredns/coredns")),
            Self::Helm => tools("helm", How::Program("helm.sh/helm/v4/cmd/helm")),
            Self::GatewayApiDefinitions => tools(
                "gateway-api.yaml",
                How::Manifests {
                    module: "sigs.k8s.io/gateway-api",
                    folder: "config/crd/standard",
                },
            ),
            Self::Conformance => tools(
                "conformance",
                How::Test("sigs.k8s.io/gateway-api/conformance"),
            ),
            Self::EchoServer => tools(
                "echo-server",
                How::Program("istio.io/istio/pkg/test/echo/cmd/server"),
            ),
            Self::EchoClient => tools(
                "echo-client",
                How::Program("istio.io/istio/pkg/test/echo/cmd/client"),
            ),
            Self::H2spec => (
                &H2SPEC_MODULE,
                "h2spec",
                How::Program("github.com/summerwind/h2spec/cmd/h2spec"),
            ),
        }
    }

    /// What its file is called.
    pub fn name(self) -> &'static str {
        self.how().1
    }

    /// Its file in the cache, built first if it is not there, which is told on standard error:
    /// minutes with an empty Go cache.
    ///
    /// # Errors
    /// There is neither Go nor pip to fetch it, a module cannot be fetched, or does not build.
    pub fn path(self) -> Result<PathBuf> {
        let (module, name, how) = self.how();
        let cache = cache_folder()?;
        let folder = cache.join(format!("{}-{}", module.name, module.key()));
        let path = folder.join(name);
        if path.is_file() {
            return Ok(path);
        }
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        let lock_path = cache.join("go.lock");
        let lock =
            File::create(&lock_path).with_context(|| format!("create {}", lock_path.display()))?;
        // Held to the end: two test programs build it once.
        let _lock = Flock::lock(lock, FlockArg::LockExclusive)
            .map_err(|(_, error)| error)
            .with_context(|| format!("lock {}", lock_path.display()))?;
        if !path.is_file() {
            let began = Instant::now();
            eprintln!("==> build {name} from its Go module");
            build(module, how, &folder, &path).with_context(|| format!("build {name}"))?;
            let seconds = began.elapsed().as_secs_f64();
            eprintln!("==> build {name} from its Go module: done in {seconds:.0} s");
        }
        Ok(path)
    }
}

impl Module {
    /// Tells versions of it apart: the same requirements make the same programs.
    fn key(&self) -> String {
        let mut context = digest::Context::new(&digest::SHA256);
        for part in [self.requirements, self.sums, self.link] {
            context.update(part.as_bytes());
        }
        let sum = context.finish();
        sum.as_ref()[..6]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

fn build(module: &Module, how: How, folder: &Path, path: &Path) -> Result<()> {
    fs::write(folder.join("go.mod"), module.requirements)?;
    fs::write(folder.join("go.sum"), module.sums)?;
    // Renamed when it is whole: an interrupted build leaves nothing that looks like a program.
    let unfinished = path.with_extension("unfinished");
    let out = unfinished
        .to_str()
        .context("the cache's path is not UTF-8")?;
    let flags = format!("-s -w {}", module.link);
    let common = [
        "-trimpath",
        "-buildvcs=false",
        "-ldflags",
        &flags,
        "-o",
        out,
    ];
    match how {
        How::Program(package) => run(folder, &["build"], &common, package)?,
        How::Test(package) => run(folder, &["test", "-c"], &common, package)?,
        How::Manifests {
            module,
            folder: inner,
        } => {
            go::output(folder, &["mod", "download", module])?;
            let source = go::output(folder, &["list", "-m", "-f", "{{.Dir}}", module])?;
            fs::write(&unfinished, join(&Path::new(&source).join(inner))?)?;
        }
    }
    fs::rename(&unfinished, path).with_context(|| format!("write {}", path.display()))
}

fn run(folder: &Path, verb: &[&str], flags: &[&str], package: &str) -> Result<()> {
    let mut arguments = verb.to_vec();
    arguments.extend(flags);
    arguments.push(package);
    let status = go::command(folder, &arguments)?
        .status()
        .context("start go")?;
    ensure!(status.success(), "go {} failed", arguments.join(" "));
    Ok(())
}

/// All documents of a folder's YAML files, in the order of their names.
fn join(folder: &Path) -> Result<String> {
    let entries = fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    let paths = entries.map(|entry| Ok(entry?.path()));
    let mut paths: Vec<PathBuf> = paths.collect::<Result<_>>()?;
    paths.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "yaml")
    });
    paths.sort();
    ensure!(!paths.is_empty(), "{} has no YAML", folder.display());
    let mut text = String::new();
    for path in paths {
        text.push_str("---\n");
        text.push_str(&fs::read_to_string(&path)?);
        text.push('\n');
    }
    Ok(text)
}
