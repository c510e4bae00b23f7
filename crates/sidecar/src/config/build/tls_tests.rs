use std::fs;

use serde_json::json;

use super::super::resource;
use super::super::testing::{assert_error, cluster, listener, pems};
use crate::config::cluster::UpstreamTransport;
use crate::config::error::Result;
use crate::config::listener::DownstreamTransport;
use crate::config::secret::{SanKind, Secret};
use crate::config::tls::{DownstreamTls, TlsVersion, UpstreamTls, Validation};

use super::super::secret::Built;

fn secret(value: &serde_json::Value) -> Result<Built> {
    let bytes = outrider_xds::transcode::json_to_proto(
        "envoy.extensions.transport_sockets.tls.v3.Secret",
        value,
    );
    resource::secret(&bytes.unwrap())
}

fn downstream(context: &serde_json::Value) -> Result<DownstreamTls> {
    let mut context = context.clone();
    context["@type"] =
        "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext".into();
    let yaml = json!({
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{
            "transport_socket": {"name": "tls", "typed_config": context},
            "filters": [{"name": "tcp", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                "stat_prefix": "tcp", "cluster": "c",
            }}],
        }],
    });
    let listener = listener(&yaml.to_string())?;
    match &listener.filter_chains[0].transport {
        DownstreamTransport::Tls(context) => Ok(context.settings().clone()),
        DownstreamTransport::Plain => panic!(),
    }
}

fn upstream(context: &serde_json::Value) -> Result<UpstreamTls> {
    let mut context = context.clone();
    context["@type"] =
        "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext".into();
    let yaml = json!({
        "name": "c",
        "load_assignment": {"cluster_name": "c"},
        "transport_socket": {"name": "tls", "typed_config": context},
    });
    match cluster(&yaml.to_string())?.transport_socket {
        UpstreamTransport::Tls(context) => Ok(context.settings().clone()),
        UpstreamTransport::Plain | UpstreamTransport::ProxyProtocol(..) => panic!(),
    }
}

#[test]
fn secrets_are_checked() {
    let (pems, other) = (pems(), pems());
    let inline = |text: &str| json!({"inline_string": text});
    let good = json!({"name": "default", "tls_certificate": {
        "certificate_chain": inline(&pems.certificate), "private_key": inline(&pems.key)}});
    let built = secret(&good).unwrap();
    assert!(built.files.is_none());
    let Secret::Certificate(certificate) = built.secret else {
        panic!()
    };
    assert_eq!(certificate.certified.cert.len(), 1);
    let trust = json!({"validation_context": {
        "trusted_ca": inline(&format!("{}{}", pems.root, other.root)),
        "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": "spiffe://x/y"}}],
        "match_subject_alt_names": [{"exact": "z"}],
        "verify_certificate_hash": ["00:".repeat(31) + "fF"]}});
    let Secret::Validation(context) = secret(&trust).unwrap().secret else {
        panic!()
    };
    assert_eq!(context.trusted_ca.len(), 2);
    assert_eq!(context.subject_alt_names.len(), 5);
    assert_eq!(context.subject_alt_names[0].kind, SanKind::Uri);
    assert_eq!(context.certificate_hashes[0][31], 0xff);

    for (bad, expect) in [
        (json!({"name": "x"}), "set one of tls_certificate, "),
        (
            json!({"tls_certificate": {"certificate_chain": inline(&pems.certificate), "private_key": inline(&other.key)}}),
            "tls_certificate.private_key: does not belong to the first certificate",
        ),
        (
            json!({"tls_certificate": {"certificate_chain": inline(&pems.certificate), "private_key": inline("-----BEGIN secret")}}),
            "tls_certificate.private_key: holds no private key",
        ),
        (
            json!({"tls_certificate": {"certificate_chain": inline("x"), "private_key": inline(&pems.key)}}),
            "tls_certificate.certificate_chain: no CERTIFICATE section",
        ),
        (
            json!({"tls_certificate": {"certificate_chain": inline(&pems.certificate)}}),
            "tls_certificate.private_key: must be set",
        ),
        (
            json!({"tls_certificate": {"certificate_chain": {"filename": "/nonexistent/c"}, "private_key": inline(&pems.key)}}),
            "tls_certificate.certificate_chain.filename: cannot read /nonexistent/c: No such file",
        ),
        (
            json!({"validation_context": {"match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": "a"}}]}}),
            "validation_context.trusted_ca: must be set",
        ),
        (
            json!({"validation_context": {"trusted_ca": inline(&pems.root), "match_typed_subject_alt_names": [{"matcher": {"exact": "a"}}]}}),
            "validation_context.match_typed_subject_alt_names[0].san_type: must be",
        ),
        (
            json!({"validation_context": {"verify_certificate_hash": ["00"]}}),
            "validation_context.verify_certificate_hash[0]: must be a SHA-256",
        ),
        (
            json!({"validation_context": {"trusted_ca": inline(&pems.root), "crl": inline("x")}}),
            "validation_context.crl: has no X509 CRL section",
        ),
    ] {
        let error = secret(&bad);
        if let Err(error) = &error {
            assert!(!error.to_string().contains("BEGIN"), "{error}");
        }
        assert_error(error, expect);
    }
}

#[test]
fn files_are_reported_and_loaded_again() {
    let (first, second) = (pems(), pems());
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let write = |pems: &super::super::testing::Pems| {
        fs::write(path("cert.pem"), &pems.certificate).unwrap();
        fs::write(path("key.pem"), &pems.key).unwrap();
    };
    write(&first);
    let built = secret(&json!({"name": "files", "tls_certificate": {
        "certificate_chain": {"filename": path("cert.pem")},
        "private_key": {"filename": path("key.pem")},
        "watched_directory": {"path": directory.path()}}}))
    .unwrap();
    let files = built.files.unwrap();
    let watched = [
        directory.path().to_owned(),
        path("cert.pem"),
        path("key.pem"),
    ];
    assert_eq!(files.watched(), watched);
    let leaf = |secret: Secret| match secret {
        Secret::Certificate(certificate) => certificate.certified.cert[0].clone(),
        _ => panic!(),
    };
    let old = leaf(built.secret);
    assert_eq!(leaf(files.load().unwrap()), old);
    fs::write(path("key.pem"), &second.key).unwrap();
    assert_error(files.load(), "tls_certificate.private_key: does not belong");
    write(&second);
    assert_ne!(leaf(files.load().unwrap()), old);
    assert!(!format!("{files:?}").contains("PRIVATE"));
}

#[test]
fn contexts_have_their_slots() {
    let pems = pems();
    let certificate = json!({"certificate_chain": {"inline_string": pems.certificate},
        "private_key": {"inline_string": pems.key}});
    let settings = downstream(&json!({
        "require_client_certificate": true,
        "common_tls_context": {
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_3",
                "cipher_suites": ["[ECDHE-ECDSA-AES128-GCM-SHA256|ECDHE-ECDSA-CHACHA20-POLY1305]", "AES128-SHA"],
                "ecdh_curves": ["P-256"]},
            "alpn_protocols": ["h2", "http/1.1"],
            "tls_certificates": [certificate],
            "validation_context": {"trusted_ca": {"inline_string": pems.root}}}}))
    .unwrap();
    assert!(settings.require_client_certificate);
    assert_eq!(settings.settings.min_version, TlsVersion::V1_3);
    assert_eq!(settings.settings.cipher_suites.len(), 2);
    assert_eq!(settings.settings.groups.len(), 1);
    assert!(settings.settings.certificates[0].is_filled());
    assert_eq!(&*settings.settings.alpn[1], b"http/1.1");

    let ads = json!({"ads": {}, "resource_api_version": "V3"});
    let settings = upstream(&json!({
        "sni": "outbound_.80_._.svc",
        "common_tls_context": {
            "tls_certificate_sds_secret_configs": [{"name": "default", "sds_config": ads}],
            "combined_validation_context": {
                "default_validation_context": {"match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": "spiffe://x"}}]},
                "validation_context_sds_secret_config": {"name": "ROOTCA", "sds_config": ads}}}}))
    .unwrap();
    assert_eq!(
        (settings.settings.min_version, settings.settings.max_version),
        (TlsVersion::V1_2, TlsVersion::V1_3)
    );
    assert_eq!(&**settings.settings.certificates[0].name(), "default");
    assert!(!settings.settings.certificates[0].is_filled());
    let Validation::Combined { defaults, slot } = settings.settings.validation else {
        panic!()
    };
    assert_eq!(
        (defaults.subject_alt_names.len(), &**slot.name()),
        (1, "ROOTCA")
    );
    assert_eq!(settings.max_session_keys, 1);
}

#[test]
fn mistakes_in_contexts_are_named() {
    let pems = pems();
    let certificate = json!([{"certificate_chain": {"inline_string": pems.certificate},
        "private_key": {"inline_string": pems.key}}]);
    let at = "filter_chains[0].transport_socket.typed_config";
    for (context, expect) in [
        (json!({}), "common_tls_context: must be set"),
        (
            json!({"common_tls_context": {}}),
            "common_tls_context: needs a certificate",
        ),
        (
            json!({"require_client_certificate": true, "common_tls_context": {"tls_certificates": certificate}}),
            "require_client_certificate: needs a validation context",
        ),
        (
            json!({"common_tls_context": {"tls_certificates": [{"certificate_chain": {"inline_string": pems.certificate}}]}}),
            "common_tls_context.tls_certificates[0].private_key: must be set",
        ),
        (
            json!({"common_tls_context": {"tls_certificate_sds_secret_configs": [{"name": "x"}]}}),
            "common_tls_context.tls_certificate_sds_secret_configs[0]: there is no static secret `x`",
        ),
        (
            json!({"common_tls_context": {"tls_certificates": certificate, "tls_params": {"cipher_suites": ["AES128-SHA"]}}}),
            "common_tls_context.tls_params.cipher_suites: none of these is supported: AES128-SHA",
        ),
        (
            json!({"common_tls_context": {"tls_certificates": certificate, "tls_params": {"tls_maximum_protocol_version": "TLSv1_1"}}}),
            "common_tls_context.tls_params.tls_maximum_protocol_version: TLS 1.0 and 1.1",
        ),
        (
            json!({"common_tls_context": {"tls_certificates": certificate, "validation_context": {"trusted_ca": {"inline_string": ""}}}}),
            "common_tls_context.validation_context.trusted_ca: no CERTIFICATE section",
        ),
    ] {
        assert_error(downstream(&context), &format!("{at}.{expect}"));
    }
    let at = "transport_socket.typed_config.";
    for (context, expect) in [
        (
            json!({"auto_sni_san_validation": true, "common_tls_context": {}}),
            "auto_sni_san_validation: needs a validation context",
        ),
        (
            json!({"common_tls_context": {"tls_params": {"ecdh_curves": ["X25519", "P-255"]}}}),
            "common_tls_context.tls_params.ecdh_curves: `P-255` is not known here; supported: X25519",
        ),
        (
            json!({"common_tls_context": {"tls_params": {"signature_algorithms": ["rsa_pkcs1_sha1"]}}}),
            "common_tls_context.tls_params.signature_algorithms: none of these is supported: rsa_pkcs1_sha1 (SHA-1 is broken)",
        ),
        (
            json!({"allow_renegotiation": true, "common_tls_context": {}}),
            "allow_renegotiation: not supported: renegotiation is insecure",
        ),
    ] {
        assert_error(upstream(&context), &format!("{at}{expect}"));
    }
}
