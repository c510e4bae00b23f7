//! The plain program that the other suites and the demo put behind the mesh.

use std::net::SocketAddr;
use std::process::{Command, Output};
use std::time::Duration;

use outrider_testkit::{Process, bins};

use crate::harness::closed_address;

fn run(arguments: &[&str]) -> Output {
    let program = bins::path("outrider-testapp").unwrap();
    Command::new(program).args(arguments).output().unwrap()
}

/// Starts the app on a free port.
fn serve(protocol: &str) -> (Process, SocketAddr) {
    let address = closed_address();
    let mut command = Command::new(bins::path("outrider-testapp").unwrap());
    command.args(["serve", "--name", "app", "--protocol", protocol]);
    command.args(["--listen", &address.to_string()]);
    let mut app = Process::start("app", command).unwrap();
    app.wait_for_output("app listens", Duration::from_secs(10))
        .unwrap();
    (app, address)
}

#[test]
fn it_serves_and_calls_each_protocol() {
    for (protocol, verb, arguments, expected) in [
        ("http1", "get", &[][..], r#""server":"app""#),
        ("http2", "get", &["--h2"], r#""version":"HTTP/2""#),
        ("grpc", "grpc", &["--text", "hi"], r#"text: "hi""#),
    ] {
        let (_app, address) = serve(protocol);
        let url = format!("http://{address}/");
        let output = run(&[&[verb, &url][..], arguments].concat());
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.status.success() && text.contains(expected),
            "{protocol}: {text}"
        );
    }
    for (protocol, expected) in [("tcp", "hi\n"), ("banner", "hello from app\nhi\n")] {
        let (_app, address) = serve(protocol);
        let output = run(&["tcp", &address.to_string(), "--send", "hi"]);
        assert_eq!(
            String::from_utf8(output.stdout).unwrap(),
            expected,
            "{protocol}"
        );
    }
}

#[test]
fn its_load_fails_when_a_request_does() {
    let (_app, address) = serve("http1");
    for (path, succeeds) in [("", true), ("?status=500", false)] {
        let url = format!("http://{address}/{path}");
        let output = run(&["load", &url, "--connections", "2", "--seconds", "0.2"]);
        assert_eq!(output.status.success(), succeeds, "{output:?}");
    }
}
