//! The real Envoy can be had and runs.

use outrider_testkit::envoy;

#[test]
fn the_peer_is_the_version_that_is_named() {
    let output = std::process::Command::new(envoy::binary().unwrap())
        .arg("--version")
        .output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    assert!(text.contains(&format!("/{}/", envoy::VERSION)), "{text}");
}
