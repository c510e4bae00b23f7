//! What a killed test process left behind goes with the next one's first network. In a program of
//! its own, since a process sweeps once.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use outrider_testkit::Process;
use outrider_testkit::netns::{self, Network};

#[test]
fn namespaces_and_processes_of_dead_owners_are_removed() {
    if !netns::require_root() {
        return;
    }
    let mut owner = Command::new("true").spawn().unwrap();
    let dead = owner.id();
    owner.wait().unwrap();
    let names = [
        format!("outrider-{dead}-0-left"),
        format!("outrider-{}-0-kept", 1),
    ];
    for name in &names {
        assert!(
            Command::new("ip")
                .args(["netns", "add", name])
                .status()
                .unwrap()
                .success()
        );
        std::fs::create_dir_all(Path::new("/etc/netns").join(name)).unwrap();
    }
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &names[0], "sleep", "600"]);
    let mut left = Process::start("left", command).unwrap();
    let namespace = std::fs::metadata(Path::new("/run/netns").join(&names[0])).unwrap();
    left.wait_for("inside", Duration::from_secs(5), |left| {
        use std::os::unix::fs::MetadataExt as _;
        let path = format!("/proc/{}/ns/net", left.pid());
        std::fs::metadata(path).is_ok_and(|now| now.ino() == namespace.ino())
    })
    .unwrap();

    drop(Network::new("sweep").unwrap());
    assert!(!left.wait(Duration::from_secs(5)).unwrap().success());
    let exists = |name: &String| Path::new("/run/netns").join(name).exists();
    assert!(!exists(&names[0]) && !Path::new("/etc/netns").join(&names[0]).exists());
    // Process 1 lives, so what is its own stays.
    assert!(exists(&names[1]));
    Command::new("ip")
        .args(["netns", "delete", &names[1]])
        .status()
        .unwrap();
    std::fs::remove_dir(Path::new("/etc/netns").join(&names[1])).unwrap();
}
