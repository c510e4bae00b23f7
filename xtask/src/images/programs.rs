//! Which images there are, and what goes into each.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::libraries;
use super::oci::{Entry, ImageConfig};
use crate::{machine, shell};

/// Where users' clusters find the images: the chart's default `image.registry`.
const REGISTRY: &str = "ghcr.io/outrider";
/// The proxy's user, whose connections the redirects leave alone.
const PROXY: User = User {
    name: "outrider",
    id: 1337,
};
/// The user of everything else: the one that images without a distribution use for "nobody".
const NONROOT: User = User {
    name: "nonroot",
    id: 65532,
};

#[derive(Debug, Clone, Copy)]
struct User {
    name: &'static str,
    id: u32,
}

/// One image to build.
#[derive(Debug)]
pub(super) struct Program {
    /// The image's file in `target/images`, without its ending.
    pub(super) file: &'static str,
    /// The cargo package of its program.
    pub(super) package: &'static str,
    /// Its program's name.
    pub(super) binary: &'static str,
    user: User,
    kind: Kind,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// A program of the product, alone.
    Product,
    /// The program that sets the redirects, with the programs that it runs.
    Init,
    /// The app of the tests.
    App,
    /// A shell and an HTTP client for the tests: no program of ours.
    Tools,
}

const fn product(file: &'static str, package: &'static str, binary: &'static str) -> Program {
    Program {
        file,
        package,
        binary,
        user: NONROOT,
        kind: Kind::Product,
    }
}

const fn test_app(file: &'static str, kind: Kind) -> Program {
    Program {
        file,
        package: "outrider-testkit",
        binary: "outrider-testapp",
        user: NONROOT,
        kind,
    }
}

/// The images of the product.
pub(super) const PRODUCT: &[Program] = &[
    product("outrider-control", "outrider-control", "outrider-control"),
    product(
        "outrider-injector",
        "outrider-injector",
        "outrider-injector",
    ),
    Program {
        user: PROXY,
        ..product("outrider-sidecar", "outrider-sidecar", "outrider-sidecar")
    },
    Program {
        user: PROXY,
        kind: Kind::Init,
        ..product("outrider-init", "outrider-init", "outrider-init")
    },
    product("outrider-cli", "outrider-cli", "outrider"),
];

/// The images of the tests on a cluster.
pub(super) const TEST_APPS: &[Program] = &[
    test_app("testapp", Kind::App),
    test_app("tools", Kind::Tools),
];

impl Program {
    /// The image's name: of this workspace's version, or of the tests.
    pub(super) fn name(&self) -> String {
        match self.kind {
            Kind::Product | Kind::Init => {
                format!("{REGISTRY}/{}:{}", self.file, env!("CARGO_PKG_VERSION"))
            }
            Kind::App | Kind::Tools => format!("outrider.test/{}:1", self.file),
        }
    }

    /// Whether a program of ours is in it.
    pub(super) fn is_ours(&self) -> bool {
        !matches!(self.kind, Kind::Tools)
    }

    /// What of this machine goes into it.
    pub(super) fn needs(&self) -> &'static [machine::Tool] {
        match self.kind {
            Kind::Product | Kind::App => &[],
            Kind::Init => machine::IPTABLES,
            Kind::Tools => machine::TOOLS_IMAGE,
        }
    }

    /// What is in the image around its built program, and how it is run.
    ///
    /// # Errors
    /// When something of this machine that goes into it cannot be found.
    pub(super) fn content(&self, built: &Path) -> Result<(Vec<Entry>, ImageConfig)> {
        let program = format!("/{}", self.binary);
        let mut entries = accounts(self.user);
        let mut config = ImageConfig {
            user: format!("{0}:{0}", self.user.id),
            entrypoint: vec![program.clone()],
            environment: Vec::new(),
        };
        if self.is_ours() {
            entries.push(Entry::program(&program, built));
        }
        match self.kind {
            Kind::Product | Kind::App => {}
            Kind::Init => {
                entries.extend(iptables()?);
                config.environment = vec!["PATH=/usr/sbin".to_owned()];
            }
            Kind::Tools => {
                entries.extend(tools()?);
                config.entrypoint = vec!["/bin/sh".to_owned()];
                config.environment = vec!["PATH=/bin:/usr/bin".to_owned()];
            }
        }
        Ok((entries, config))
    }
}

/// Who there is, and that names are looked up in `/etc/hosts` and by DNS and nowhere else.
fn accounts(User { name, id }: User) -> Vec<Entry> {
    let passwd = format!("root:x:0:0:root:/:\n{name}:x:{id}:{id}:{name}:/:\n");
    let group = format!("root:x:0:\n{name}:x:{id}:\n");
    let lookup = "passwd: files\ngroup: files\nhosts: files dns\n";
    vec![
        Entry::bytes("/etc/group", group),
        Entry::bytes("/etc/nsswitch.conf", lookup),
        Entry::bytes("/etc/passwd", passwd),
    ]
}

/// Programs and libraries of this machine by their path in the image.
#[derive(Default)]
struct Borrowed(BTreeMap<String, PathBuf>);

impl Borrowed {
    /// Adds a file and the libraries that it needs.
    fn add(&mut self, path: &str, source: &Path) -> Result<()> {
        for library in libraries::needed(source)? {
            let path = library.to_str().context("a library's path is not UTF-8")?;
            self.0.insert(path.to_owned(), library.clone());
        }
        self.0.insert(path.to_owned(), source.to_owned());
        Ok(())
    }

    fn entries(self) -> impl Iterator<Item = Entry> {
        let files = self.0.into_iter();
        files.map(|(path, source)| Entry::program(&path, source))
    }
}

/// Both kinds of iptables under the names that `outrider-init` looks for, with their extensions.
///
/// The legacy programs lock `/run/xtables.lock`. Since a container's root is read-only, a writable
/// volume (an emptyDir) is mounted at `/run`; nothing else is written.
fn iptables() -> Result<Vec<Entry>> {
    let mut borrowed = Borrowed::default();
    let mut entries = Vec::new();
    for kind in ["nft", "legacy"] {
        let program = format!("xtables-{kind}-multi");
        borrowed.add(&format!("/usr/sbin/{program}"), &machine::path(&program)?)?;
        for family in ["iptables", "ip6tables"] {
            for end in ["", "-save", "-restore"] {
                let name = format!("/usr/sbin/{family}-{kind}{end}");
                entries.push(Entry::link(&name, &program));
                if kind == "nft" {
                    let name = format!("/usr/sbin/{family}{end}");
                    entries.push(Entry::link(&name, &program));
                }
            }
        }
    }
    let extensions = extensions()?;
    let listed =
        std::fs::read_dir(&extensions).with_context(|| format!("list {}", extensions.display()))?;
    for entry in listed {
        let source = entry?.path();
        let name = source
            .to_str()
            .context("an extension's path is not UTF-8")?;
        if name.ends_with(".so") {
            borrowed.add(name, &source)?;
        }
    }
    entries.extend(borrowed.entries());
    entries.push(Entry::folder("/run", 0o755));
    Ok(entries)
}

/// The folder in which iptables looks for its extensions: `xtables` beside its libraries.
fn extensions() -> Result<PathBuf> {
    let roots = ["/usr/lib", "/usr/lib64"].map(PathBuf::from);
    let inner = std::fs::read_dir("/usr/lib")
        .context("list /usr/lib")?
        .filter_map(|entry| Some(entry.ok()?.path()));
    roots
        .into_iter()
        .chain(inner)
        .map(|folder| folder.join("xtables"))
        .find(|folder| folder.join("libxt_owner.so").exists())
        .context("no folder /usr/lib*/xtables with libxt_owner.so: apt-get install iptables")
}

/// A static busybox under all its names, whose resolver crashes now and then; so curl, with the
/// libraries of this machine, makes the requests.
fn tools() -> Result<Vec<Entry>> {
    let mut borrowed = Borrowed::default();
    let busybox = machine::path("busybox")?;
    let mut list = Command::new(&busybox);
    list.arg("--list");
    let mut entries: Vec<Entry> = shell::output(list)?
        .lines()
        .filter(|applet| *applet != "busybox")
        .map(|applet| Entry::link(&format!("/bin/{applet}"), "busybox"))
        .collect();
    entries.push(Entry::program("/bin/busybox", &busybox));
    borrowed.add("/usr/bin/curl", &machine::path("curl")?)?;
    entries.extend(borrowed.entries());
    entries.push(Entry::folder("/tmp", 0o1777));
    Ok(entries)
}
