//! The three services, and a browser outside of the mesh.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use outrider_testkit::clients::http1::Client;
use outrider_testkit::mesh::{Mesh, Sidecar, Workload};
use outrider_testkit::netns::Pod;
use outrider_testkit::{Process, bins};
use serde_json::Value;

use super::interrupt::Interrupt;

/// The port of every service.
pub(super) const PORT: u16 = 80;
/// The name by which the frontend calls the other two.
pub(super) const REVIEWS: &str = "reviews.books.svc.cluster.local";
/// How long a program may take to start.
const START: Duration = Duration::from_secs(10);

/// Everything that runs. Ends and is removed on drop.
pub(super) struct Stage {
    pub(super) frontend: Workload,
    /// Version 1 and version 2.
    pub(super) reviews: [Workload; 2],
    pub(super) browser: Pod,
    _apps: Vec<Process>,
    mesh: Mesh,
}

impl Stage {
    /// Starts it all.
    pub(super) fn set(sidecar: Sidecar, interrupt: &Interrupt) -> Result<Self> {
        let mut mesh = Mesh::new("demo")?;
        mesh.service("web", "frontend", &[("http", PORT)])?;
        for name in ["reviews", "reviews-v1", "reviews-v2"] {
            mesh.service("books", name, &[("http", PORT)])?;
        }
        mesh.mutual_tls_of("books", "STRICT")?;
        let mut stage = Self {
            frontend: mesh.workload("web", "frontend")?,
            reviews: [
                mesh.workload("books", "reviews-v1")?,
                mesh.workload("books", "reviews-v2")?,
            ],
            browser: mesh.network().pod("browser")?,
            _apps: Vec::new(),
            mesh,
        };
        stage.route(90)?;
        stage.mesh.start_control(&[])?;
        println!(
            "    control plane: reads {}, certificates from its own root",
            stage.mesh.control().directory().display()
        );
        let [first, second] = &mut stage.reviews;
        for workload in [&mut stage.frontend, first, second] {
            interrupt.check()?;
            let calls = (workload.name == "frontend").then(|| format!("http://{REVIEWS}"));
            stage._apps.push(start_app(workload, calls.as_deref())?);
            stage.mesh.inject(workload, sidecar)?;
            println!(
                "    {:<11} {:<12} in namespace {}: is {}",
                workload.name,
                workload.pod.v4(),
                workload.pod.namespace(),
                workload.identity(),
            );
        }
        println!(
            "    {:<11} {:<12} in namespace {}: outside of the mesh",
            "browser",
            stage.browser.v4(),
            stage.browser.namespace()
        );
        Ok(stage)
    }

    /// Gives version 1 this share of the calls to `reviews`, in percent.
    pub(super) fn route(&self, share: u32) -> Result<()> {
        self.mesh.write("route-reviews", &route(share))
    }

    /// The file of the route.
    pub(super) fn route_file(&self) -> std::path::PathBuf {
        self.mesh.file("route-reviews")
    }

    /// A connection of the browser to the frontend, at its own address.
    pub(super) fn browse(&self) -> Result<Client> {
        Client::connect_from(&self.browser, (self.frontend.pod.v4(), PORT))
    }

    /// One request of the browser to the frontend, and what that answered. The frontend calls
    /// `reviews` with the same path, and tells what it was answered in `called`.
    pub(super) fn ask(&self, client: &mut Client, path: &str) -> Result<Value> {
        let response = client.get("frontend", path)?;
        let status = response.status()?;
        ensure!(
            status == 200,
            "the frontend answered {status}: {}",
            response.text().trim()
        );
        response.json()
    }

    /// What to try by hand.
    pub(super) fn print_hints(&self) -> Result<()> {
        let app = bins::path("outrider-testapp")?;
        let app = app.display();
        let (frontend, browser) = (self.frontend.pod.namespace(), self.browser.namespace());
        let reviews = self.reviews[0].pod.namespace();
        println!(
            "    as the browser:       ip netns exec {browser} {app} get http://{}/\n\
             \x20   as the frontend:      ip netns exec {frontend} {app} get http://{REVIEWS}/\n\
             \x20   refused, from outside: ip netns exec {browser} {app} get http://{}/\n\
             \x20   a sidecar's admin:    ip netns exec {frontend} curl -s 127.0.0.1:15000/certs \
             (/clusters, /config_dump, /stats, ...)\n\
             \x20   its redirects:        ip netns exec {frontend} iptables -t nat -S\n\
             \x20   the wire:             ip netns exec {reviews} tcpdump -Xni eth0 port {PORT}\n\
             \x20   the route, to edit:   {}\n\
             Ctrl-C ends it.",
            self.frontend.pod.v4(),
            self.reviews[0].pod.v4(),
            self.route_file().display(),
        );
        Ok(())
    }
}

/// The plain program of a workload, as an ordinary user: it knows nothing of the mesh.
fn start_app(workload: &Workload, calls: Option<&str>) -> Result<Process> {
    const NOBODY: u32 = 65534;
    let mut command = workload
        .pod
        .command_as(NOBODY, bins::path("outrider-testapp")?)?;
    command
        .args(["serve", "--listen", &format!("[::]:{PORT}")])
        .args(["--name", &workload.name]);
    if let Some(url) = calls {
        command.args(["--calls", url]);
    }
    let mut app = Process::start(&workload.name, command)?;
    app.wait_for_output("listens on", START)
        .with_context(|| format!("the program of {}", workload.name))?;
    Ok(app)
}

fn route(share: u32) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\n\
         kind: HTTPRoute\n\
         metadata: {{name: reviews, namespace: books}}\n\
         spec:\n\
         \x20 parentRefs:\n\
         \x20 - {{group: \"\", kind: Service, name: reviews}}\n\
         \x20 rules:\n\
         \x20 - backendRefs:\n\
         \x20   - {{name: reviews-v1, port: {PORT}, weight: {share}}}\n\
         \x20   - {{name: reviews-v2, port: {PORT}, weight: {}}}\n",
        100 - share
    )
}
