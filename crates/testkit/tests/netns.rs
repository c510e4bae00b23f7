//! Pods as namespaces: addresses, names, processes, and that nothing stays behind.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs as _};
use std::path::Path;

use outrider_testkit::netns::{self, Network};

#[test]
fn pods_reach_each_other_by_address_and_name_and_leave_nothing() {
    if !netns::require_root() {
        return;
    }
    let network = Network::new("reach").unwrap();
    let client = network.pod("client").unwrap();
    let server = network.pod("server").unwrap();
    for address in server.addresses() {
        let listener = server
            .run(|| TcpListener::bind((address, 80)))
            .unwrap()
            .unwrap();
        let mut outgoing = client
            .run(|| TcpStream::connect((address, 80)))
            .unwrap()
            .unwrap();
        let (mut incoming, peer) = listener.accept().unwrap();
        assert!(client.addresses().contains(&peer.ip()), "{peer}");
        outgoing.write_all(b"hello").unwrap();
        let mut read = [0; 5];
        incoming.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"hello");
    }

    // A name added after the pods were made, seen by a thread and by a process inside.
    network.add_host("cart.default.svc", server.v4()).unwrap();
    let resolved: Vec<IpAddr> = client
        .run(|| ("cart.default.svc", 80).to_socket_addrs())
        .unwrap()
        .unwrap()
        .map(|address: SocketAddr| address.ip())
        .collect();
    assert_eq!(resolved, [IpAddr::from(server.v4())]);
    let hosts = client.output("cat", &["/etc/hosts"]).unwrap();
    assert!(
        hosts.contains(&format!("{} cart.default.svc\n", server.v4())),
        "{hosts}"
    );
    let outside = std::fs::read_to_string("/etc/hosts").unwrap();
    assert!(
        !outside.contains("cart.default.svc"),
        "the host's own file was changed"
    );

    // As the proxy's user, also a program that lies where only root can go.
    let private = tempfile::tempdir().unwrap();
    let program = private.path().join("id");
    std::fs::copy("/usr/bin/id", &program).unwrap();
    for program in [Path::new("id"), &program] {
        let user = client
            .command_as(netns::PROXY_UID, program)
            .unwrap()
            .arg("-u")
            .output();
        assert_eq!(user.unwrap().stdout, b"1337\n");
    }

    // A process that is still inside ends with the pod.
    let mut sleeper = server.command("sleep").arg("600").spawn().unwrap();
    let names = [
        client.namespace().to_owned(),
        server.namespace().to_owned(),
        network.switch_name().into(),
    ];
    drop((client, server, network));
    assert!(!sleeper.wait().unwrap().success());
    for name in names {
        assert!(!Path::new("/run/netns").join(&name).exists(), "{name}");
        assert!(!Path::new("/etc/netns").join(&name).exists(), "{name}");
    }
}

#[test]
fn two_networks_with_the_same_addresses_are_apart() {
    if !netns::require_root() {
        return;
    }
    let first = Network::new("apart").unwrap();
    let second = Network::new("apart").unwrap();
    let server = first.pod("server").unwrap();
    let alone = second.pod("alone").unwrap();
    let stranger = second.pod("stranger").unwrap();
    assert_eq!(server.v4(), alone.v4());
    let _listener = server
        .run(|| TcpListener::bind(("0.0.0.0", 80)))
        .unwrap()
        .unwrap();
    let refused = stranger
        .run(|| TcpStream::connect((server.v4(), 80)))
        .unwrap();
    assert_eq!(
        refused.unwrap_err().kind(),
        std::io::ErrorKind::ConnectionRefused
    );
}
