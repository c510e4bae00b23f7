//! Private keys in files, as OpenSSL writes them: encrypted ones, and files that are none.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use outrider_testkit::{bins, servers};

use crate::harness::tls::{Certificates, Hello, TlsClient};
use crate::harness::{Bootstrap, Proxy, bind};

fn openssl(folder: &Path, arguments: &[&str]) {
    let output = Command::new("openssl")
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .expect("openssl is installed: `cargo xtask test --install`");
    assert!(output.status.success(), "openssl {arguments:?}: {output:?}");
}

/// What the program says of a file with a secret that has the server's certificate and these fields.
fn validate(certificates: &Certificates, folder: &Path, fields: &str) -> String {
    let chain = serde_json::json!({ "inline_string": certificates.server.certificate });
    let file = folder.join("bootstrap.yaml");
    let secret =
        format!("{{ name: s, tls_certificate: {{ certificate_chain: {chain}, {fields} }} }}");
    fs::write(
        &file,
        format!("static_resources: {{ secrets: [{secret}] }}"),
    )
    .unwrap();
    let output = Command::new(bins::path("outrider-sidecar").unwrap())
        .arg("-c")
        .arg(&file)
        .args(["--mode", "validate"])
        .output()
        .unwrap();
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn encrypted_keys_are_opened_by_their_password() {
    let certificates = Certificates::new();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("plain"), &certificates.server.key).unwrap();
    fs::write(at("password"), "correct horse").unwrap();
    let upstream = servers::http1::echo(bind(), "app").unwrap();
    let convert = [
        "pkcs8",
        "-topk8",
        "-in",
        "plain",
        "-passout",
        "file:password",
    ];
    for (name, how) in [
        ("default", &[][..]),
        ("aes-128", &["-v2", "aes-128-cbc"][..]),
        ("scrypt", &["-scrypt"]),
    ] {
        openssl(
            folder.path(),
            &[&convert[..], how, &["-out", name]].concat(),
        );
        let key = format!("private_key: {{ filename: {} }}", at(name).display());
        let password = format!("password: {{ filename: {} }}", at("password").display());
        let chain = serde_json::json!({ "inline_string": certificates.server.certificate });
        let fields = format!(
            "common_tls_context: {{ tls_certificates: [{{ certificate_chain: {chain}, {key}, {password} }}] }}"
        );
        let socket = certificates.socket("DownstreamTlsContext", None, &fields);
        let bootstrap = Bootstrap::forward(upstream.address(), "").amend_chain(&socket);
        let proxy = Proxy::ours(&bootstrap);
        let mut client = TlsClient::connect(proxy.listener(), Hello::default()).unwrap();
        let response = client
            .exchange("GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            .unwrap();
        assert_eq!(response.status().unwrap(), 200, "{name}");
        let dump = proxy.admin("GET", "/config_dump").1;
        assert!(!dump.contains("correct horse"), "{dump}");
        for (password, expected) in [
            (
                "",
                "secrets[0].tls_certificate.password: must be set: private_key is encrypted",
            ),
            (
                ", password: { inline_string: wrong-secret }",
                "secrets[0].tls_certificate.password: does not decrypt private_key",
            ),
        ] {
            let said = validate(&certificates, folder.path(), &format!("{key}{password}"));
            assert!(said.contains(expected), "{name}: {said}");
            assert!(!said.contains("wrong-secret"), "{said}");
        }
    }
}

#[test]
fn keys_that_take_too_long_to_open_are_refused() {
    let certificates = Certificates::new();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("plain"), &certificates.server.key).unwrap();
    for work in [&["-iter", "2000001"][..], &["-scrypt", "-scrypt_p", "32"]] {
        let convert = ["pkcs8", "-topk8", "-in", "plain", "-passout", "pass:x"];
        let out = ["-out", "slow"];
        openssl(folder.path(), &[&convert[..], work, &out].concat());
        let key = folder.path().join("slow");
        let fields = format!(
            "private_key: {{ filename: {} }}, password: {{ inline_string: x }}",
            key.display()
        );
        let said = validate(&certificates, folder.path(), &fields);
        let expected = "private_key: takes too much work to decrypt: at most";
        assert!(said.contains(expected), "{work:?}: {said}");
    }
}

#[test]
fn files_that_are_no_keys_are_named() {
    let certificates = Certificates::new();
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for (file, expected) in [
        ("/dev/zero", "is longer than 67108864 bytes"),
        (pipe.to_str().unwrap(), "it is a pipe, not a file"),
        ("/", "cannot read /: "),
        ("/dev/null", "holds no private key"),
    ] {
        let key = format!("private_key: {{ filename: {file} }}");
        let said = validate(&certificates, folder.path(), &key);
        assert!(
            said.contains("secrets[0].tls_certificate.private_key") && said.contains(expected),
            "{file}: {said}"
        );
    }
}
