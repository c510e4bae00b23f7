//! Sessions that are resumed, staples and key logs, with OpenSSL as the client: it shows what of a
//! handshake a client of ours would not.

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use outrider_testkit::certs::Leaf;
use outrider_testkit::{poll, servers};
use tempfile::TempDir;

use crate::harness::tls::Certificates;
use crate::harness::{Bootstrap, Proxy, ROUTES_TO_UP, bind};

/// What a test works with, and where OpenSSL finds it.
struct Bench {
    certificates: Certificates,
    folder: TempDir,
}

impl Bench {
    fn new() -> Self {
        let bench = Bench {
            certificates: Certificates::new(),
            folder: tempfile::tempdir().unwrap(),
        };
        let Certificates {
            root,
            server,
            client,
        } = &bench.certificates;
        for (name, text) in [
            ("root.crt", root.certificate()),
            ("root.key", &root.key()),
            ("server.crt", &server.certificate),
            ("client.crt", &client.certificate),
            ("client.key", &client.key),
        ] {
            fs::write(bench.path(name), text).unwrap();
        }
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Ours with these fields of its `DownstreamTlsContext`.
    fn start(&self, upstream: SocketAddr, fields: &str) -> Proxy {
        let certificate: Option<&Leaf> = Some(&self.certificates.server);
        let socket = self
            .certificates
            .socket("DownstreamTlsContext", certificate, fields);
        let bootstrap = Bootstrap::new()
            .http_listener("http", ROUTES_TO_UP, "stat_prefix: in")
            .cluster("up", upstream, "")
            .amend_chain(&socket);
        Proxy::ours(&bootstrap)
    }

    fn openssl(&self, arguments: &[&str]) -> String {
        let output = Command::new("openssl")
            .args(arguments)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .output()
            .expect("openssl is installed: `cargo xtask test --install`");
        assert!(output.status.success(), "openssl {arguments:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What OpenSSL's client says while it makes one request.
    fn client(&self, proxy: &Proxy, arguments: &[&str]) -> String {
        let mut client = Command::new("openssl")
            .args(["s_client", "-ign_eof", "-connect"])
            .arg(proxy.listener().to_string())
            .args(arguments)
            .current_dir(self.folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("openssl is installed: `cargo xtask test --install`");
        let request = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        // It does not read where the handshake fails.
        let _ = client.stdin.take().unwrap().write_all(request);
        let output = client.wait_with_output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// 80 bytes in a file.
    fn ticket_key(&self, name: &str) {
        self.openssl(&["rand", "-out", name, "80"]);
    }

    fn keys(&self, names: &[&str]) -> String {
        let key = |name: &&str| format!("{{ filename: {} }}", self.path(name).display());
        let keys: Vec<_> = names.iter().map(key).collect();
        format!("session_ticket_keys: {{ keys: [{}] }}", keys.join(", "))
    }
}

#[test]
fn a_ticket_is_taken_by_every_sidecar_with_its_key() {
    let bench = Bench::new();
    let upstream = servers::http1::echo(bind(), "app").unwrap();
    for name in ["first", "second"] {
        bench.ticket_key(name);
    }
    let start = |keys: &[&str], more: &str| {
        bench.start(upstream.address(), &format!("{}\n{more}", bench.keys(keys)))
    };
    let demand = "require_client_certificate: true";
    let giver = start(&["first"], demand);
    let same = start(&["first"], demand);
    let rotated = start(&["second", "first"], demand);
    let other = start(&["second"], demand);
    // It has the key, but lets in whom the giver would not.
    let open = start(&["first"], "require_client_certificate: false");
    for version in ["-tls1_2", "-tls1_3"] {
        let identity = ["-cert", "client.crt", "-key", "client.key", version];
        let with = |more: &[&'static str]| [&identity[..], more].concat();
        let first = bench.client(&giver, &with(&["-sess_out", "session"]));
        assert!(first.contains("200 OK"), "{first}");
        for (proxy, resumes) in [
            (&giver, true),
            (&same, true),
            (&rotated, true),
            (&other, false),
            (&open, false),
        ] {
            let said = bench.client(proxy, &with(&["-sess_in", "session"]));
            assert!(said.contains("200 OK"), "{version}: {said}");
            assert_eq!(said.contains("\nReused, "), resumes, "{version}: {said}");
        }
    }
    giver.wait_for_stat("listener.in.ssl.session_reused", 2);
}

#[test]
fn sessions_are_resumed_as_configured() {
    let bench = Bench::new();
    let upstream = servers::http1::echo(bind(), "app").unwrap();
    for (fields, with_tickets, resumes) in [
        // Clients that are verified do not come back unverified unless that is asked for.
        ("require_client_certificate: true", true, false),
        ("session_timeout: 60s", true, true),
        (
            "common_tls_context: { validation_context: null }",
            true,
            true,
        ),
        (
            "common_tls_context: { validation_context: null }\n\
             disable_stateless_session_resumption: true\n\
             disable_stateful_session_resumption: true",
            true,
            false,
        ),
        (
            "common_tls_context: { validation_context: null }\n\
             disable_stateless_session_resumption: true",
            false,
            true,
        ),
    ] {
        let proxy = bench.start(upstream.address(), fields);
        let mut arguments = vec!["-cert", "client.crt", "-key", "client.key", "-tls1_2"];
        if !with_tickets {
            arguments.push("-no_ticket");
        }
        let out = [&arguments[..], &["-sess_out", "session"]].concat();
        let first = bench.client(&proxy, &out);
        assert!(first.contains("200 OK"), "{fields}: {first}");
        if !bench.path("session").exists() {
            assert!(!resumes, "{fields}: no session was given");
            continue;
        }
        let again = [&arguments[..], &["-sess_in", "session"]].concat();
        let said = bench.client(&proxy, &again);
        assert_eq!(said.contains("\nReused, "), resumes, "{fields}: {said}");
        fs::remove_file(bench.path("session")).unwrap();
    }
}

#[test]
fn a_ticket_ends_with_the_certificate_that_it_was_given_for() {
    let bench = Bench::new();
    let upstream = servers::http1::echo(bind(), "app").unwrap();
    let demand = "require_client_certificate: true\nsession_timeout: 600s";
    let proxy = bench.start(upstream.address(), demand);
    for (version, session) in [("-tls1_2", "older"), ("-tls1_3", "newer")] {
        let id = "spiffe://cluster.local/ns/test/sa/client";
        let brief = bench.certificates.root.issue(id, Duration::from_secs(6));
        let Leaf { certificate, key } = brief.unwrap();
        fs::write(bench.path("brief.crt"), certificate).unwrap();
        fs::write(bench.path("brief.key"), key).unwrap();
        let brief = ["-cert", "brief.crt", "-key", "brief.key", version];
        let first = bench.client(&proxy, &[&brief[..], &["-sess_out", session]].concat());
        assert!(first.contains("200 OK"), "{first}");
        // The client has a new certificate by then: it is never turned away for the old one.
        let renewed = ["-cert", "client.crt", "-key", "client.key", version];
        let again = [&renewed[..], &["-sess_in", session]].concat();
        let limit = Duration::from_secs(20);
        let full = poll::eventually(limit, || {
            let said = bench.client(&proxy, &again);
            assert!(said.contains("200 OK"), "{version}: {said}");
            anyhow::ensure!(!said.contains("\nReused, "), "{version}: resumed");
            Ok(())
        });
        full.unwrap();
    }
}

/// Writes a response of the root about the server's certificate.
fn respond(bench: &Bench, name: &str, validity: &[&str]) {
    let serial = bench.openssl(&["x509", "-in", "server.crt", "-noout", "-serial"]);
    let serial = serial.trim().trim_start_matches("serial=");
    let index = format!("V\t491231235959Z\t\t{serial}\tunknown\t/CN=server\n");
    fs::write(bench.path("index.txt"), index).unwrap();
    let fixed = [
        "ocsp",
        "-index",
        "index.txt",
        "-CA",
        "root.crt",
        "-rsigner",
        "root.crt",
        "-rkey",
        "root.key",
        "-issuer",
        "root.crt",
        "-cert",
        "server.crt",
        "-noverify",
        "-respout",
        name,
    ];
    bench.openssl(&[&fixed[..], validity].concat());
}

#[test]
fn staples_follow_the_policy() {
    const SENT: &str = "OCSP Response Status: successful";
    const NONE: &str = "OCSP response: no response sent";
    let bench = Bench::new();
    let upstream = servers::http1::echo(bind(), "app").unwrap();
    respond(&bench, "valid.der", &["-ndays", "1"]);
    // Without an end it is no better than an expired one.
    respond(&bench, "endless.der", &[]);
    for (policy, staple, asked) in [
        ("LENIENT_STAPLING", Some("valid.der"), Some(SENT)),
        ("LENIENT_STAPLING", Some("endless.der"), Some(NONE)),
        ("LENIENT_STAPLING", None, Some(NONE)),
        ("STRICT_STAPLING", Some("valid.der"), Some(SENT)),
        ("STRICT_STAPLING", Some("endless.der"), None),
        ("STRICT_STAPLING", None, Some(NONE)),
        ("MUST_STAPLE", Some("valid.der"), Some(SENT)),
        ("MUST_STAPLE", Some("endless.der"), None),
    ] {
        let what = format!("{policy} {staple:?}");
        let proxy = start_with_staple(&bench, upstream.address(), policy, staple);
        for version in ["-tls1_2", "-tls1_3"] {
            let said = bench.client(&proxy, &["-status", version]);
            match asked {
                Some(asked) => assert!(
                    said.contains(asked) && said.contains("200 OK"),
                    "{what}: {said}"
                ),
                None => assert!(!said.contains("200 OK"), "{what}: {said}"),
            }
            let unasked = bench.client(&proxy, &[version]);
            assert!(unasked.contains("200 OK"), "{what}: {unasked}");
        }
        let name = match asked {
            Some(SENT) => "ocsp_staple_responses",
            Some(_) => "ocsp_staple_omitted",
            None => "ocsp_staple_failed",
        };
        proxy.wait_for_stat(&format!("listener.in.ssl.{name}"), 2);
    }
}

fn start_with_staple(
    bench: &Bench,
    upstream: SocketAddr,
    policy: &str,
    staple: Option<&str>,
) -> Proxy {
    let Leaf { certificate, key } = &bench.certificates.server;
    let inline = |text: &str| serde_json::json!({ "inline_string": text });
    let mut certificate = serde_json::json!({
        "certificate_chain": inline(certificate), "private_key": inline(key),
    });
    if let Some(staple) = staple {
        certificate["ocsp_staple"] = serde_json::json!({ "filename": bench.path(staple) });
    }
    let fields = serde_json::json!({
        "ocsp_staple_policy": policy,
        "common_tls_context": { "tls_certificates": [certificate] },
    });
    bench.start(upstream, &fields.to_string())
}

#[test]
fn keys_are_logged_where_that_is_configured() {
    let bench = Bench::new();
    let upstream = servers::http1::echo(bind(), "app").unwrap();
    let log = |path: &Path, range: &str| {
        format!(
            "common_tls_context: {{ key_log: {{ path: {}, remote_address_range: [{{ address_prefix: {range}, prefix_len: 8 }}] }} }}",
            path.display()
        )
    };
    for (range, logs) in [("127.0.0.0", true), ("10.0.0.0", false)] {
        let path = bench.path(range);
        let proxy = bench.start(upstream.address(), &log(&path, range));
        assert!(bench.client(&proxy, &["-tls1_3"]).contains("200 OK"));
        let text = fs::read_to_string(&path).unwrap();
        for label in ["CLIENT_TRAFFIC_SECRET_0 ", "SERVER_TRAFFIC_SECRET_0 "] {
            assert_eq!(text.contains(label), logs, "{text}");
        }
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
