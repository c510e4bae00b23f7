//! The conformance suite of HTTP/2 servers, against the sidecar and against Envoy, both of which
//! relay to an nginx.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use outrider_testkit::Process;
use outrider_testkit::cluster::Program;
use outrider_testkit::eventually;

use crate::harness::{Bootstrap, Kind, PATIENCE, Proxy, closed_address};

/// How many of the suite's 145 tests must pass at least. Envoy 1.40 passes 132 to 134.
const PASSED: usize = 140;

/// An nginx whose answer is long enough for flow control to matter, and its address.
fn nginx(folder: &Path) -> (Process, SocketAddr) {
    let address = closed_address();
    let path = folder.display();
    fs::write(folder.join("index.html"), "x".repeat(4096)).unwrap();
    let configuration = format!(
        "daemon off; master_process off; pid {path}/pid; error_log stderr; \
         events {{ worker_connections 256; }} \
         http {{ access_log off; client_body_temp_path {path}/body; proxy_temp_path {path}/proxy; \
         fastcgi_temp_path {path}/fastcgi; uwsgi_temp_path {path}/uwsgi; scgi_temp_path {path}/scgi; \
         server {{ listen {address}; root {path}; error_page 405 =200 $uri; }} }}"
    );
    let file = folder.join("nginx.conf");
    fs::write(&file, configuration).unwrap();
    let mut command = Command::new("nginx");
    // It reports to a file of the distribution's before it has read its own configuration.
    command.args(["-e", "stderr", "-p"]).arg(folder);
    command.arg("-c").arg(&file);
    let process = Process::start("nginx", command).unwrap();
    eventually(PATIENCE, || {
        std::net::TcpStream::connect(address).map_err(Into::into)
    })
    .unwrap();
    (process, address)
}

/// The names of the suite's tests that pass and that fail against `address`.
fn run(address: SocketAddr, report: &Path) -> (BTreeSet<String>, BTreeSet<String>) {
    let mut command = Command::new(Program::H2spec.path().unwrap());
    command
        .args(["--host", &address.ip().to_string()])
        .args(["--port", &address.port().to_string()])
        // Seconds until a test that hears nothing has failed.
        .args(["--timeout", "2", "--junit-report"])
        .arg(report)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // Its exit code only says whether all have passed.
    command.status().unwrap();
    outcomes(&fs::read_to_string(report).unwrap())
}

/// Reads the suite's report, which has an element a test on a line of its own.
fn outcomes(report: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let attribute = |element: &str, name: &str| {
        let (_, rest) = element.split_once(&format!("{name}=\"")).unwrap();
        rest.split_once('"').unwrap().0.to_owned()
    };
    let (mut passed, mut failed) = (BTreeSet::new(), BTreeSet::new());
    for element in report.split("<testcase ").skip(1) {
        let (section, test) = (
            attribute(element, "package"),
            attribute(element, "classname"),
        );
        let is_wrong = element.contains("<failure") || element.contains("<error");
        let side = if is_wrong { &mut failed } else { &mut passed };
        side.insert(format!("{section}: {test}"));
    }
    (passed, failed)
}

#[test]
fn http2_conforms_at_least_as_well_as_envoys() {
    let folder = tempfile::tempdir().unwrap();
    let (_nginx, upstream) = nginx(folder.path());
    let bootstrap = Bootstrap::forward(upstream, "codec_type: HTTP2");
    let report = |kind: Kind, name: &str| {
        let proxy = Proxy::spawn(kind, &bootstrap).ready();
        run(proxy.listener(), &folder.path().join(name))
    };
    let ((ours, ours_failed), (envoys, envoys_failed)) = std::thread::scope(|scope| {
        let envoy = scope.spawn(|| report(Kind::Envoy, "envoy.xml"));
        let ours = report(Kind::Ours, "ours.xml");
        (ours, envoy.join().unwrap())
    });
    println!(
        "h2spec: ours {} and Envoy {} passed",
        ours.len(),
        envoys.len()
    );
    assert!(
        ours.len() >= PASSED,
        "{} of {} passed; failed: {ours_failed:#?}",
        ours.len(),
        ours.len() + ours_failed.len()
    );
    assert!(
        !envoys_failed.is_empty(),
        "Envoy fails some; a report without any is not read rightly"
    );
    let lost: Vec<_> = envoys.intersection(&ours_failed).collect();
    assert!(lost.is_empty(), "Envoy passes what ours fails: {lost:#?}");
}
