//! Running `outrider-init` again, over anything, at once with others, and taking it all away.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use nix::fcntl::{Flock, FlockArg};
use outrider_testkit::bins;
use outrider_testkit::netns::{Network, Pod, require_root};

use super::init_pod::{BACKENDS, Server, init, init_done, init_failed};

const FAMILIES: [&str; 2] = ["iptables", "ip6tables"];

/// What one backend holds, without comments, counters, and the legacy tables that are empty (which
/// exist from their first use on, and cannot be removed).
fn saved(pod: &Pod, backend: &str) -> Result<String> {
    let mut all = String::new();
    for family in FAMILIES {
        let text = pod.output(&format!("{family}-{backend}-save"), &[])?;
        for table in text.split("COMMIT") {
            let lines = table
                .lines()
                .filter(|line| !line.is_empty() && !line.starts_with('#'));
            let lines: Vec<_> = lines
                .map(|line| line.split(" [").next().unwrap_or(line))
                .collect();
            let is_kernels = |line: &&str| line.starts_with('*') || line.ends_with("ACCEPT");
            if backend == "nft" || !lines.iter().all(is_kernels) {
                all.push_str(&lines.join("\n"));
                all.push('\n');
            }
        }
    }
    Ok(all)
}

/// How many rules of both families lead from the kernel's chains to ours: with the standard rules
/// those of PREROUTING, OUTPUT and INPUT, once in each family.
fn jumps(pod: &Pod, backend: &str) -> Result<usize> {
    let saved = saved(pod, backend)?;
    let is_jump = |line: &&str| line.contains("-j OUTRIDER_") && !line.starts_with("-A OUTRIDER_");
    Ok(saved.lines().filter(is_jump).count())
}

fn iptables(pod: &Pod, backend: &str, line: &str) -> Result<()> {
    let arguments: Vec<_> = ["-w"].into_iter().chain(line.split(' ')).collect();
    for family in FAMILIES {
        pod.output(&format!("{family}-{backend}"), &arguments)?;
    }
    Ok(())
}

fn has_inbound_source(pod: &Pod) -> Result<bool> {
    let addresses = pod.output("ip", &["-6", "address", "show", "dev", "lo"])?;
    Ok(addresses.contains("inet6 ::6/128"))
}

#[test]
fn any_number_of_runs_over_any_state_is_the_same_and_clean_leaves_nothing() -> Result<()> {
    if !require_root() {
        return Ok(());
    }
    for backend in BACKENDS {
        let network = Network::new("rerun")?;
        let bare = network.pod("bare")?;
        let before = saved(&bare, backend)?;
        init_done(&bare, &["--backend", backend, "--dns-capture"])?;
        init_done(&bare, &["clean"])?;
        ensure!(
            saved(&bare, backend)? == before,
            "{backend}: {}",
            saved(&bare, backend)?
        );
        ensure!(pod_nft(&bare)?.is_empty() || backend == "legacy");

        // With rules of somebody else's.
        let pod = network.pod("app")?;
        iptables(
            &pod,
            backend,
            "-t nat -A OUTPUT -p tcp --dport 7777 -j RETURN",
        )?;
        iptables(&pod, backend, "-t nat -N MINE")?;
        iptables(
            &pod,
            backend,
            "-t filter -A INPUT -p tcp --dport 7777 -j ACCEPT",
        )?;
        iptables(&pod, backend, "-t filter -P FORWARD DROP")?;
        let before = saved(&pod, backend)?;
        let apply = |options: &[&str]| {
            let all = ["--backend", backend]
                .into_iter()
                .chain(options.iter().copied());
            init_done(&pod, &all.collect::<Vec<_>>())
        };
        apply(&[])?;
        let standard = saved(&pod, backend)?;
        for _ in 0..4 {
            apply(&[])?;
        }
        ensure!(saved(&pod, backend)? == standard);
        ensure!(jumps(&pod, backend)? == 6 && has_inbound_source(&pod)?);

        // Whatever was there: other options, half of a run, and somebody's meddling.
        for options in [
            &["--dns-capture"][..],
            &["--ipv6=off"],
            &[
                "--exclude-cidrs=10.0.0.0/8,fd00::/8",
                "--drop-invalid=false",
            ],
        ] {
            apply(options)?;
            apply(&[])?;
            ensure!(saved(&pod, backend)? == standard, "after {options:?}");
        }
        for meddling in [
            "-t nat -D OUTPUT -j OUTRIDER_OUTPUT",
            "-t nat -F OUTRIDER_INBOUND",
            "-t nat -A OUTPUT -j OUTRIDER_OUTPUT",
            "-t nat -I OUTPUT 1 -p udp -j RETURN",
            "-t nat -A MINE -p tcp -j OUTRIDER_TO_OUTBOUND",
            "-t nat -N OUTRIDER_OF_OLD",
            "-t raw -N OUTRIDER_DNS_LEAVING",
        ] {
            iptables(&pod, backend, meddling)?;
            apply(&[])?;
            if meddling.contains("-I OUTPUT") {
                // Their rule stays, behind ours.
                ensure!(saved(&pod, backend)?.contains("-A OUTPUT -p udp -j RETURN"));
                iptables(&pod, backend, "-t nat -D OUTPUT -p udp -j RETURN")?;
            }
            let after = saved(&pod, backend)?;
            ensure!(
                without_bare_chains(&after) == without_bare_chains(&standard),
                "after {meddling}: {after}"
            );
        }

        init_done(&pod, &["clean"])?;
        let after = saved(&pod, backend)?;
        ensure!(
            without_bare_chains(&after) == without_bare_chains(&before),
            "{backend}: {after}\n{before}"
        );
        ensure!(!has_inbound_source(&pod)?);
        ensure!(init_done(&pod, &["clean"])?.contains("nothing of ours"));
    }
    Ok(())
}

/// The kernel's own chains are listed or not by whether their table was used, and mean nothing
/// while they accept.
fn without_bare_chains(saved: &str) -> Vec<&str> {
    let is_bare = |line: &&str| line.ends_with(" ACCEPT") || line.starts_with('*');
    saved.lines().filter(|line| !is_bare(line)).collect()
}

/// All that nftables holds, from whomever.
fn pod_nft(pod: &Pod) -> Result<String> {
    match Command::new("nft").arg("--version").output() {
        Ok(_) => Ok(pod.output("nft", &["list", "ruleset"])?.trim().to_owned()),
        // Not one of the programs that we need.
        Err(_) => Ok(String::new()),
    }
}

#[test]
fn runs_at_once_take_turns() -> Result<()> {
    if !require_root() {
        return Ok(());
    }
    let network = Network::new("turns")?;
    for backend in BACKENDS {
        let pod = network.pod(backend)?;
        let mut children = Vec::new();
        for options in [
            ["--dns-capture=false"],
            ["--dns-capture=true"],
            ["--ipv6=off"],
            ["--ipv6=on"],
        ] {
            let mut command = pod.command(bins::path("outrider-init")?);
            command
                .args(["--backend", backend])
                .args(options)
                .stdout(Stdio::null());
            children.push(command.spawn()?);
        }
        for mut child in children {
            let status = child.wait()?;
            ensure!(status.success(), "{backend}: {status}");
        }
        init_done(&pod, &["--backend", backend])?;
        ensure!(
            jumps(&pod, backend)? == 6,
            "{backend}: {}",
            saved(&pod, backend)?
        );
    }
    Ok(())
}

#[test]
fn the_nodes_backend_is_found_and_the_other_one_is_cleaned() -> Result<()> {
    if !require_root() {
        return Ok(());
    }
    let network = Network::new("backend")?;
    for (here, there) in [("nft", "legacy"), ("legacy", "nft")] {
        let pod = network.pod(here)?;
        iptables(
            &pod,
            here,
            "-t filter -A INPUT -p tcp --dport 7777 -j ACCEPT",
        )?;
        init_done(&pod, &["--backend", there])?;
        ensure!(jumps(&pod, there)? == 6 && jumps(&pod, here)? == 0);
        let said = init_done(&pod, &[])?;
        ensure!(
            said.contains(&format!("using the {here} backend")),
            "{said}"
        );
        ensure!(
            said.contains(&format!("from the {there} backend")),
            "{said}"
        );
        ensure!(jumps(&pod, there)? == 0 && jumps(&pod, here)? == 6);
        ensure!(!saved(&pod, there)?.contains("OUTRIDER_"));
        // And clean looks into both.
        init_done(&pod, &["clean"])?;
        ensure!(!saved(&pod, here)?.contains("OUTRIDER_"));
    }
    Ok(())
}

#[test]
fn who_is_in_the_way_and_what_is_missing_is_named() -> Result<()> {
    if !require_root() {
        return Ok(());
    }
    let network = Network::new("errors")?;
    let pod = network.pod("app")?;
    let program = bins::path("outrider-init")?;
    let myself = std::process::id().to_string();

    // The lock of iptables, in a file of its own so that other tests do not wait for it.
    let file = tempfile::NamedTempFile::new()?;
    let lock = Flock::lock(file.reopen()?, FlockArg::LockExclusive).map_err(|(_, error)| error)?;
    let mut command = pod.command(&program);
    command
        .args(["--backend=legacy", "--lock-timeout=1"])
        .env("XTABLES_LOCKFILE", file.path());
    let said = init_failed(&command.output()?, 4)?;
    ensure!(said.contains(&format!("process {myself} (")), "{said}");
    ensure!(said.contains(&file.path().display().to_string()), "{said}");
    drop(lock);
    ensure!(command.output()?.status.success());

    // Another run at work in the same pod.
    let turn =
        pod.run(|| UnixListener::bind_addr(&SocketAddr::from_abstract_name("outrider-init")?))??;
    let said = init_failed(&init(&pod, &["clean", "--lock-timeout=1"])?, 4)?;
    ensure!(
        said.contains(&format!("another outrider-init (process {myself} (")),
        "{said}"
    );
    drop(turn);

    // No program, no capability, no IPv6, no sense.
    let said = init_failed(&pod.command(&program).env("PATH", "/nowhere").output()?, 1)?;
    ensure!(
        said.contains("iptables-nft-restore") && said.contains("apt-get install iptables"),
        "{said}"
    );
    let mut command = pod.command("setpriv");
    command
        .args(["--bounding-set=-all,+net_admin", "--inh-caps=-all"])
        .arg(&program);
    let said = init_failed(&command.output()?, 1)?;
    ensure!(said.contains("CAP_NET_RAW missing"), "{said}");
    let mut command = pod.command("unshare");
    let said = init_failed(
        &command
            .args(["--user", "--map-root-user"])
            .arg(&program)
            .output()?,
        1,
    )?;
    ensure!(
        said.contains("does not own this network namespace"),
        "{said}"
    );
    let said = init_failed(&init(&pod, &["--exclude-cidrs=10.0.0.0/99"])?, 2)?;
    ensure!(
        said.contains("--exclude-cidrs") && said.contains("10.0.0.0/99"),
        "{said}"
    );
    let said = init_failed(&init(&pod, &["--inbound-port=15001"])?, 2)?;
    ensure!(said.contains("--outbound-port"), "{said}");

    disable_ipv6(&pod)?;
    let said = init_failed(&init(&pod, &["--ipv6=on"])?, 1)?;
    ensure!(said.contains("disable_ipv6"), "{said}");
    Ok(())
}

/// Stands in for a kernel without one module: iptables with a front that refuses what needs it.
#[test]
fn the_module_that_a_node_lacks_is_found_out() -> Result<()> {
    if !require_root() {
        return Ok(());
    }
    let network = Network::new("module")?;
    let path = std::env::var("PATH")?;
    for (backend, needed, module) in [
        ("nft", "-m owner", "xt_owner"),
        ("legacy", "*nat", "ip6table_nat"),
        ("legacy", "-j CT", "xt_CT"),
    ] {
        let pod = network.pod("app")?;
        let folder = tempfile::tempdir()?;
        let name = format!("ip6tables-{backend}-restore");
        let front = folder.path().join(&name);
        let script = format!(
            "#!/bin/sh\n\
             PATH=${{PATH#*:}}\n\
             case $1 in --version) exec {name} \"$@\";; esac\n\
             text=$(cat)\n\
             case $text in *'{needed}'*) echo 'line 3 failed' >&2; exit 1;; esac\n\
             printf '%s\\n' \"$text\" | {name} \"$@\"\n"
        );
        // Another process writes what is to be executed: a file that is open for writing in a child
        // that another test is just starting cannot be.
        let text = folder.path().join("script");
        std::fs::write(&text, script)?;
        let mut install = Command::new("install");
        let status = install
            .args(["-m", "755"])
            .arg(&text)
            .arg(&front)
            .status()?;
        ensure!(status.success(), "install: {status}");
        let mut command = pod.command(bins::path("outrider-init")?);
        command.args(["--backend", backend, "--dns-capture"]);
        command.env("PATH", format!("{}:{path}", folder.path().display()));
        let said = init_failed(&command.output()?, 1)?;
        ensure!(said.contains(&format!("modprobe {module}`")), "{said}");
        // What was tried to find it out is gone.
        ensure!(!saved(&pod, backend)?.contains("OUTRIDER_PROBE"));
        // Once the node has it, the next run puts everything right.
        init_done(&pod, &["--backend", backend])?;
        ensure!(jumps(&pod, backend)? == 6);
    }
    Ok(())
}

fn disable_ipv6(pod: &Pod) -> Result<()> {
    let written = pod.run(|| {
        for scope in ["all", "default"] {
            std::fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6"), "1")?;
        }
        std::io::Result::Ok(())
    })?;
    written.context("disable IPv6")
}

#[test]
fn ipv6_that_is_disabled_stays_shut() -> Result<()> {
    if !require_root() {
        return Ok(());
    }
    let network = Network::new("disabled")?;
    let pod = network.pod("app")?;
    disable_ipv6(&pod)?;
    let said = init_done(&pod, &[])?;
    ensure!(said.contains("IPv6: TCP refused"), "{said}");
    ensure!(!has_inbound_source(&pod)?);
    let said = init_done(&pod, &["check"])?;
    ensure!(
        said.contains("outbound IPv4: ok") && said.contains("inbound IPv6: not tested"),
        "{said}"
    );
    init_done(&pod, &["clean"])?;
    Ok(())
}

#[test]
fn check_tells_capture_from_holes() -> Result<()> {
    if !require_root() {
        return Ok(());
    }
    let program = bins::path("outrider-init")?;
    for backend in BACKENDS {
        let network = Network::new("check")?;
        let pod = network.pod("app")?;
        let check = |options: &[&str]| -> Result<(Option<i32>, String)> {
            let all = ["check", "--backend", backend]
                .into_iter()
                .chain(options.iter().copied());
            let output = init(&pod, &all.collect::<Vec<_>>())?;
            Ok((output.status.code(), String::from_utf8(output.stdout)?))
        };
        let (code, said) = check(&[])?;
        ensure!(
            code == Some(3) && said.matches("NOT CAPTURED").count() == 4,
            "{said}"
        );

        for options in [
            &[][..],
            &["--dns-capture"],
            &["--ipv6=off"],
            &[
                "--exclude-cidrs=192.0.2.0/24,2001:db8::/32",
                "--exclude-outbound-ports=80-100",
            ],
            &[
                "--include-cidrs=10.96.0.0/16,fd96::/64",
                "--include-inbound-ports=7000",
            ],
        ] {
            let all = ["--backend", backend]
                .into_iter()
                .chain(options.iter().copied());
            init_done(&pod, &all.collect::<Vec<_>>())?;
            let (code, said) = check(options)?;
            ensure!(code == Some(0), "{options:?}: {said}");
            let tried = if options.contains(&"--dns-capture") {
                8
            } else {
                4
            };
            ensure!(
                said.matches(": ok: ").count() == tried,
                "{options:?}: {said}"
            );
        }

        // With the proxy there, and no more capabilities than the container gets.
        init_done(&pod, &["--backend", backend, "--dns-capture"])?;
        let proxy: Vec<_> = ["0.0.0.0", "::"]
            .iter()
            .flat_map(|any| {
                [15001, 15006, 15053]
                    .map(|port| Server::on(&pod, any.parse::<std::net::IpAddr>()?, port))
            })
            .collect::<Result<_>>()?;
        let mut command = pod.command("setpriv");
        command.args(["--bounding-set=-all,+net_admin,+net_raw", "--inh-caps=-all"]);
        command
            .arg(&program)
            .args(["check", "--dns-capture", "--backend", backend]);
        let output = command.output()?;
        let said = String::from_utf8(output.stdout)?;
        ensure!(
            output.status.success() && said.matches("redirected to the proxy").count() == 6,
            "{said}"
        );

        // A hole in one direction of one family, with the proxy and without.
        pod.output(
            &format!("ip6tables-{backend}"),
            &["-w", "-t", "nat", "-F", "OUTRIDER_INBOUND"],
        )?;
        let is_one_hole = || -> Result<()> {
            let (code, said) = check(&["--dns-capture"])?;
            ensure!(
                code == Some(3) && said.contains("inbound IPv6: NOT CAPTURED"),
                "{said}"
            );
            ensure!(said.matches("NOT CAPTURED").count() == 1, "{said}");
            Ok(())
        };
        is_one_hole()?;
        drop(proxy);
        is_one_hole()?;
        init_done(&pod, &["clean"])?;
        // Of its own it leaves nothing. (Other addresses come when the kernel gets to it.)
        let interfaces = pod.output("ip", &["-br", "address"])?;
        ensure!(!interfaces.contains("outrider-"), "{interfaces}");
        // Its answer is worth nothing if the proxy's user asks.
        let mut command = pod.command_as(1337, &program)?;
        init_failed(&command.arg("check").output()?, 1)?;
    }
    Ok(())
}
