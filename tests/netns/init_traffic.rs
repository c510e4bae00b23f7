//! Real connections through the real redirects.

use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use outrider_testkit::netns::{Network, Pod, require_root};
use socket2::{Domain, Protocol, Socket, Type};

use super::init_pod::{As, BACKENDS, Pair, Server, Try, init_done};

const V4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// The address of `pod` of the same family as `any`.
fn address(pod: &Pod, any: IpAddr) -> IpAddr {
    if any.is_ipv4() {
        pod.v4().into()
    } else {
        pod.v6().into()
    }
}

fn loopback(any: IpAddr) -> IpAddr {
    if any.is_ipv4() {
        Ipv4Addr::LOCALHOST.into()
    } else {
        Ipv6Addr::LOCALHOST.into()
    }
}

fn inbound_source(any: IpAddr) -> IpAddr {
    if any.is_ipv4() {
        Ipv4Addr::new(127, 0, 0, 6).into()
    } else {
        Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6).into()
    }
}

/// All that `any` stands for is captured as it should be, by rules without any option.
fn is_captured(pair: &Pair, any: IpAddr) -> Result<()> {
    let Pair { app, peer, .. } = pair;
    let outbound = Server::on(app, loopback(any), 15001)?;
    let inbound = Server::on(app, any, 15006)?;
    let own = Server::on(app, any, 8081)?;
    let readiness = Server::on(app, any, 15021)?;
    let remote = Server::on(peer, any, 8080)?;
    let (app_address, peer_address) = (address(app, any), address(peer, any));

    // Out: the app's is redirected, whether or not anybody is there; the proxy's is not.
    Try::to(peer_address, 8080).reaches(app, &outbound)?;
    Try::to(peer_address, 1).reaches(app, &outbound)?;
    Try::to(peer_address, 8080)
        .by(As::ProxyUser)
        .reaches(app, &remote)?;
    Try::to(peer_address, 8080)
        .by(As::ProxyGroup)
        .reaches(app, &remote)?;
    // In: every port but those that the proxy serves.
    Try::to(app_address, 8081).reaches(peer, &inbound)?;
    Try::to(app_address, 2).reaches(peer, &inbound)?;
    Try::to(app_address, 15021).reaches(peer, &readiness)?;
    // Self: the app reaches itself, the proxy comes back in, but not from its inbound side.
    Try::to(app_address, 8081).reaches(app, &own)?;
    Try::to(loopback(any), 8081).reaches(app, &own)?;
    Try::to(app_address, 8081)
        .by(As::ProxyUser)
        .reaches(app, &inbound)?;
    Try::to(app_address, 8081)
        .by(As::ProxyUser)
        .from(inbound_source(any))
        .reaches(app, &own)?;
    Try::to(loopback(any), 8081)
        .by(As::ProxyUser)
        .reaches(app, &own)?;
    Ok(())
}

/// Nothing of IPv6 gets past the proxy, and the proxy itself does.
fn ipv6_is_refused(pair: &Pair) -> Result<()> {
    let Pair { app, peer, .. } = pair;
    let remote = Server::on(peer, V6, 8080)?;
    let own = Server::on(app, V6, 8081)?;
    let readiness = Server::on(app, V6, 15021)?;
    let _proxy = (Server::on(app, V6, 15001)?, Server::on(app, V6, 15006)?);
    Try::to(peer.v6(), 8080).is_refused(app)?;
    Try::to(app.v6(), 8081).is_refused(peer)?;
    Try::to(app.v6(), 15006).is_refused(peer)?;
    Try::to(peer.v6(), 8080)
        .by(As::ProxyUser)
        .reaches(app, &remote)?;
    Try::to(app.v6(), 15021).reaches(peer, &readiness)?;
    Try::to(app.v6(), 8081).reaches(app, &own)?;
    Try::to(loopback(V6), 8081).reaches(app, &own)
}

#[test]
fn both_families_are_captured_by_both_backends() -> Result<()> {
    if !require_root() {
        return Ok(());
    }
    for backend in BACKENDS {
        let pair = Pair::new("capture")?;
        init_done(&pair.app, &["--backend", backend])?;
        for any in [V4, V6] {
            is_captured(&pair, any).with_context(|| format!("{backend} {any}"))?;
        }
    }
    Ok(())
}

#[test]
fn ipv6_that_is_off_is_no_way_around_and_can_be_turned_on() -> Result<()> {
    if !require_root() {
        return Ok(());
    }
    for backend in BACKENDS {
        let pair = Pair::new("ipv6")?;
        let apply = |ipv6| init_done(&pair.app, &["--backend", backend, "--ipv6", ipv6]);
        apply("off")?;
        ipv6_is_refused(&pair).context(backend)?;
        is_captured(&pair, V4).context(backend)?;
        apply("on")?;
        is_captured(&pair, V6).context(backend)?;
        apply("off")?;
        ipv6_is_refused(&pair).context(backend)?;
        init_done(&pair.app, &["clean"])?;
        let remote = Server::on(&pair.peer, V6, 8080)?;
        Try::to(pair.peer.v6(), 8080).reaches(&pair.app, &remote)?;
    }
    Ok(())
}

#[test]
fn exclusions_and_inclusions_hold() -> Result<()> {
    if !require_root() {
        return Ok(());
    }
    let network = Network::new("exclude")?;
    let [app, peer, friend] = ["app", "peer", "friend"].map(|label| network.pod(label));
    let (app, peer, friend) = (app?, peer?, friend?);
    for (backend, any) in [("nft", V4), ("legacy", V6)] {
        let outbound = Server::on(&app, loopback(any), 15001)?;
        let inbound = Server::on(&app, any, 15006)?;
        let own = Server::on(&app, any, 9091)?;
        let remote = Server::on(&peer, any, 5432)?;
        let befriended = Server::on(&friend, any, 80)?;
        let [to_app, to_peer, to_friend] = [&app, &peer, &friend].map(|pod| address(pod, any));
        let apply = |arguments: &[&str]| {
            let all = ["--backend", backend]
                .into_iter()
                .chain(arguments.iter().copied());
            init_done(&app, &all.collect::<Vec<_>>())
        };

        apply(&[
            "--exclude-outbound-ports=5430-5439",
            &format!("--exclude-cidrs={to_friend}"),
            "--exclude-inbound-ports=9090,9091",
        ])?;
        Try::to(to_peer, 5432).reaches(&app, &remote)?;
        Try::to(to_peer, 5440).reaches(&app, &outbound)?;
        Try::to(to_friend, 80).reaches(&app, &befriended)?;
        Try::to(to_app, 9091).reaches(&peer, &own)?;
        Try::to(to_app, 9092).reaches(&peer, &inbound)?;

        apply(&[
            &format!("--include-cidrs={to_peer}"),
            "--include-outbound-ports=81",
            "--include-inbound-ports=9000-9010",
        ])?;
        Try::to(to_peer, 5432).reaches(&app, &outbound)?;
        Try::to(to_friend, 80).reaches(&app, &befriended)?;
        Try::to(to_friend, 81).reaches(&app, &outbound)?;
        Try::to(to_app, 9091).reaches(&peer, &own)?;
        Try::to(to_app, 9005).reaches(&peer, &inbound)?;

        apply(&["--exclude-interfaces=eth+"])?;
        Try::to(to_peer, 5432).reaches(&app, &remote)?;
        Try::to(to_app, 9091).reaches(&peer, &own)?;

        // Another user and other ports, as the environment can say too.
        let mut command = app.command(outrider_testkit::bins::path("outrider-init")?);
        command.envs([
            ("OUTRIDER_PROXY_UID", "7"),
            ("OUTRIDER_PROXY_GID", "7"),
            ("OUTRIDER_OUTBOUND_PORT", "25001"),
            ("OUTRIDER_INBOUND_PORT", "25006"),
            ("OUTRIDER_BACKEND", backend),
        ]);
        let output = command.output()?;
        ensure!(output.status.success(), "{output:?}");
        let other_outbound = Server::on(&app, loopback(any), 25001)?;
        let other_inbound = Server::on(&app, any, 25006)?;
        Try::to(to_peer, 5432)
            .by(As::ProxyUser)
            .reaches(&app, &other_outbound)?;
        Try::to(to_app, 9091).reaches(&peer, &other_inbound)?;
    }
    Ok(())
}

/// A UDP socket in a pod that waits no longer than anything takes.
fn udp(pod: &Pod, by: As, address: SocketAddr) -> Result<UdpSocket> {
    let socket = pod.run(|| {
        by.assume();
        UdpSocket::bind(address)
    })?;
    let socket = socket.with_context(|| format!("bind {address}"))?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    Ok(socket)
}

/// Sends from `client` to `target`, where `server` is to get it, and back; the answer has to come
/// from `target`, for `client` is connected to it.
fn exchange(client: &UdpSocket, target: SocketAddr, server: &UdpSocket) -> Result<()> {
    let mut buffer = [0; 16];
    client.connect(target)?;
    client.send(b"question")?;
    let (length, from) = server
        .recv_from(&mut buffer)
        .context("the question is lost")?;
    ensure!(buffer[..length] == *b"question");
    server.send_to(b"answer", from)?;
    let length = client.recv(&mut buffer).context("the answer is lost")?;
    ensure!(buffer[..length] == *b"answer");
    Ok(())
}

#[test]
fn dns_goes_to_the_proxy_and_its_own_queries_do_not() -> Result<()> {
    if !require_root() {
        return Ok(());
    }
    for backend in BACKENDS {
        let pair = Pair::new("dns")?;
        let Pair { app, peer, .. } = &pair;
        init_done(app, &["--backend", backend, "--dns-capture"])?;
        for any in [V4, V6] {
            let context = || format!("{backend} {any}");
            let server = SocketAddr::new(address(peer, any), 53);
            // TCP first: it tries until the link is up, which a datagram does not.
            let tcp_proxy = Server::on(app, loopback(any), 15053)?;
            let tcp_upstream = Server::on(peer, any, 53)?;
            let query = Try::to(address(peer, any), 53);
            query.reaches(app, &tcp_proxy).with_context(context)?;
            query
                .by(As::ProxyUser)
                .reaches(app, &tcp_upstream)
                .with_context(context)?;

            let proxy = udp(app, As::App, SocketAddr::new(loopback(any), 15053))?;
            let upstream = udp(peer, As::App, SocketAddr::new(any, 53))?;
            let source = SocketAddr::new(any, 40_053);
            // The proxy asks upstream from the very port that an app's query has just used: only
            // the zones keep the second from being taken for the first.
            for _ in 0..2 {
                let client = udp(app, As::App, source)?;
                exchange(&client, server, &proxy).with_context(context)?;
                drop(client);
                let own = udp(app, As::ProxyUser, source)?;
                exchange(&own, server, &upstream).with_context(context)?;
                drop(own);
                let own = udp(app, As::ProxyGroup, source)?;
                exchange(&own, server, &upstream).with_context(context)?;
            }
            // A resolver on loopback is the pod's own.
            let local = udp(app, As::App, SocketAddr::new(loopback(any), 53))?;
            let client = udp(app, As::App, SocketAddr::new(any, 0))?;
            exchange(&client, SocketAddr::new(loopback(any), 53), &local).with_context(context)?;
        }
        // Off again: the queries go where they are sent.
        init_done(app, &["--backend", backend])?;
        let upstream = udp(peer, As::App, SocketAddr::new(V4, 53))?;
        let client = udp(app, As::App, SocketAddr::new(V4, 0))?;
        exchange(&client, SocketAddr::new(peer.v4().into(), 53), &upstream).context(backend)?;
    }
    Ok(())
}

/// A TCP header without data, with its checksum over IPv4 addresses.
fn segment(from: SocketAddrV4, to: SocketAddrV4, flags: u8) -> Vec<u8> {
    let mut header = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    header.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    let pseudo = [from.ip().octets(), to.ip().octets(), [0, 6, 0, 20]].concat();
    let words = pseudo.chunks(2).chain(header.chunks(2));
    let sum: u32 = words
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap();
    header[16..18].copy_from_slice(&checksum.to_be_bytes());
    header
}

#[test]
fn a_packet_that_conntrack_does_not_know_does_not_reset_the_connection() -> Result<()> {
    const SYN_FIN: u8 = 0x03;
    const RST: u8 = 0x04;
    if !require_root() {
        return Ok(());
    }
    let pair = Pair::new("invalid")?;
    let Pair { app, peer, .. } = &pair;
    let inbound = Server::on(app, V4, 15006)?;
    let from = SocketAddrV4::new(peer.v4(), 40_001);
    let to = SocketAddrV4::new(app.v4(), 8081);
    for backend in BACKENDS {
        for (drop, is_reset) in [("true", false), ("false", true)] {
            init_done(app, &["--backend", backend, "--drop-invalid", drop])?;
            // Flags that no packet has: not of the connection, so not translated.
            let mut raw =
                peer.run(|| Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::TCP)))??;
            raw.set_read_timeout(Some(Duration::from_millis(100)))?;
            raw.send_to(&segment(from, to, SYN_FIN), &SocketAddr::from(to).into())?;
            // What comes later has come round by then.
            Try::to(app.v4(), 8082).reaches(peer, &inbound)?;
            let mut resets = 0;
            let mut buffer = [0; 128];
            while let Ok(length) = raw.read(&mut buffer) {
                let tcp = buffer.get(20..length).unwrap_or_default();
                let is_answer = tcp.get(..2) == Some(&to.port().to_be_bytes()[..]);
                resets += usize::from(is_answer && tcp[13] & RST != 0);
            }
            ensure!((resets > 0) == is_reset, "{backend} {drop}: {resets}");
        }
    }
    Ok(())
}
