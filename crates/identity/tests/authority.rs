//! The authority, from its first start to the verification of what it signed.
#![allow(
    clippy::unwrap_used,
    reason = "the exemption for tests does not reach their helpers"
)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use outrider_identity::authority::{
    AUTHORITY_FILE, AuthorityFiles, AuthorityMaterial, Lifetimes, Text,
};
use outrider_identity::verify::unix_time;
use outrider_identity::{
    AuthorityError, CertificateAuthority, CertificateDetails, PeerRole, SpiffeId, TrustBundle,
    TrustBundles, TrustDomain, VerifyError, WorkloadKey, verify_chain,
};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, GeneralSubtree, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, NameConstraints, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256, RsaKeySize, SanType,
};
use rustls_pki_types::CertificateDer;

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn domain() -> TrustDomain {
    TrustDomain::new("cluster.local").unwrap()
}

fn cart() -> SpiffeId {
    SpiffeId::new(domain(), "shop", "cart").unwrap()
}

fn open(directory: &Path) -> Result<CertificateAuthority, AuthorityError> {
    CertificateAuthority::open_or_create(&directory.join("ca"), &domain(), now())
}

fn verify(
    bundle: &TrustBundle,
    chain: &[CertificateDer<'_>],
    at: SystemTime,
) -> Result<(), VerifyError> {
    for role in [PeerRole::Client, PeerRole::Server] {
        verify_chain(
            bundle.anchors(),
            &chain[0],
            &chain[1..],
            role,
            unix_time(at),
        )?;
    }
    Ok(())
}

#[test]
fn the_root_is_made_once_for_its_owner_only() {
    let directory = tempfile::tempdir().unwrap();
    let first = open(directory.path()).unwrap();
    let second = open(directory.path()).unwrap();
    assert_eq!(
        first.trust_bundle().to_pem(),
        second.trust_bundle().to_pem()
    );
    assert!(!first.trust_bundle().to_pem().contains("PRIVATE"));
    assert!(!format!("{first:?}").contains("PRIVATE"));

    let store = directory.path().join("ca");
    let file = store.join(AUTHORITY_FILE);
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&store), mode(&file)), (0o700, 0o600));
    assert_eq!(
        std::fs::read_dir(&store).unwrap().count(),
        1,
        "no copy of the key is left"
    );

    std::fs::set_permissions(&store, std::fs::Permissions::from_mode(0o755)).unwrap();
    let error = open(directory.path()).unwrap_err().to_string();
    assert!(error.contains("chmod 700"), "{error}");
}

#[test]
fn a_certificate_names_the_token_s_account_and_nothing_of_the_request() {
    let directory = tempfile::tempdir().unwrap();
    let authority = open(directory.path()).unwrap();
    let key = WorkloadKey::generate().unwrap();
    let other = SpiffeId::new(domain(), "kube-system", "admin").unwrap();
    let request = key.signing_request(Some(&other)).unwrap();
    let issued = authority.issue(&request, &cart(), None, now()).unwrap();

    let details = CertificateDetails::parse(&issued.chain[0]).unwrap();
    assert_eq!(details.uris, ["spiffe://cluster.local/ns/shop/sa/cart"]);
    assert_eq!(details.spiffe_id(), Some(cart()));
    assert_eq!(
        (details.subject.as_str(), details.is_authority),
        ("", false)
    );
    assert_eq!(details.not_before, now() - 2 * MINUTE);
    assert_eq!(details.not_after, now() + DAY);
    let again = authority.issue(&request, &cart(), None, now()).unwrap();
    assert_ne!(
        details.serial,
        CertificateDetails::parse(&again.chain[0]).unwrap().serial
    );

    let bundle = authority.trust_bundle();
    verify(bundle, &issued.chain, now() - MINUTE).unwrap();
    verify(bundle, &issued.chain, now() + DAY - MINUTE).unwrap();
    assert_eq!(
        verify(bundle, &issued.chain, now() + DAY + MINUTE),
        Err(VerifyError::Expired)
    );
    assert_eq!(
        verify(bundle, &issued.chain, now() - 3 * MINUTE),
        Err(VerifyError::NotYetValid)
    );
    let stranger = tempfile::tempdir().unwrap();
    let stranger = open(stranger.path()).unwrap();
    assert_eq!(
        verify(stranger.trust_bundle(), &issued.chain, now()),
        Err(VerifyError::UnknownIssuer)
    );
    let mut bundles = TrustBundles::default();
    bundles.insert(domain(), bundle.clone());
    assert!(bundles.bundle(&domain()).is_some());
    assert!(
        bundles
            .bundle(&TrustDomain::new("other").unwrap())
            .is_none()
    );
}

#[test]
fn lifetimes_are_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let lifetimes = Lifetimes {
        default: 10 * MINUTE,
        max: 30 * MINUTE,
    };
    let authority = open(directory.path()).unwrap().with_lifetimes(lifetimes);
    let request = WorkloadKey::generate()
        .unwrap()
        .signing_request(None)
        .unwrap();
    for (asked, got) in [
        (None, 10 * MINUTE),
        (Some(Duration::ZERO), 10 * MINUTE),
        (Some(MINUTE), MINUTE),
        (Some(DAY), 30 * MINUTE),
        (Some(Duration::from_secs(u64::MAX / 4)), 30 * MINUTE),
    ] {
        let issued = authority.issue(&request, &cart(), asked, now()).unwrap();
        assert_eq!(issued.not_after, now() + got, "{asked:?}");
    }
    let late = authority.signer_not_after() - 5 * MINUTE;
    let issued = authority.issue(&request, &cart(), None, late).unwrap();
    assert_eq!(issued.not_after, authority.signer_not_after());
    let after = authority.signer_not_after() + MINUTE;
    let refused = authority.issue(&request, &cart(), None, after);
    assert!(matches!(refused, Err(AuthorityError::Expired)));
}

#[test]
fn a_request_must_prove_possession_of_a_p256_key() {
    let directory = tempfile::tempdir().unwrap();
    let authority = open(directory.path()).unwrap();
    let pem = |params: &CertificateParams, key: &KeyPair| {
        params.serialize_request(key).unwrap().pem().unwrap()
    };
    let params = CertificateParams::default();
    let large = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let good = WorkloadKey::generate()
        .unwrap()
        .signing_request(None)
        .unwrap();
    // The last base64 line is of the signature.
    let forged = {
        let mut lines: Vec<String> = good.lines().map(str::to_owned).collect();
        let at = lines.len() - 3;
        let line = &mut lines[at];
        let flipped = if line.as_bytes()[40] == b'A' {
            "B"
        } else {
            "A"
        };
        line.replace_range(40..41, flipped);
        lines.join("\n")
    };
    for (request, reason) in [
        ("", "PEM"),
        (
            "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
            "PKCS",
        ),
        (&pem(&params, &large), "P-256"),
        (&forged, ""),
        (&"x".repeat(20_000), "16 KiB"),
    ] {
        let error = authority.issue(request, &cart(), None, now()).unwrap_err();
        assert!(matches!(error, AuthorityError::Request(_)), "{error}");
        assert!(error.to_string().contains(reason), "{error}");
    }
}

#[test]
fn serving_certificates_name_hosts_and_addresses() {
    let directory = tempfile::tempdir().unwrap();
    let authority = open(directory.path()).unwrap();
    let names = [
        "localhost",
        "control.outrider-system.svc",
        "127.0.0.1",
        "::1",
    ]
    .map(String::from);
    let (_, issued) = authority.issue_serving(&names, None, now()).unwrap();
    let details = CertificateDetails::parse(&issued.chain[0]).unwrap();
    assert_eq!(details.dns_names, names[..2]);
    assert_eq!(details.ip_addresses.len(), 2);
    let wrong = authority.issue_serving(&["a b".to_owned()], None, now());
    assert!(matches!(wrong, Err(AuthorityError::ServingName(_))));
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.not_before = (now() - DAY).into();
    params.not_after = (now() + 30 * DAY).into();
    params
}

#[test]
fn given_files_are_used_with_their_chain_and_checked() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let root_params = authority_params("root");
    let (root_key, middle_key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let root = root_params.self_signed(&root_key).unwrap();
    let issuer = Issuer::from_params(&root_params, &root_key);
    let middle = authority_params("middle")
        .signed_by(&middle_key, &issuer)
        .unwrap();
    let mut leaf = CertificateParams::default();
    leaf.subject_alt_names = vec![SanType::DnsName("x".try_into().unwrap())];
    leaf.not_after = (now() + DAY).into();
    let leaf = leaf.signed_by(&middle_key, &issuer).unwrap();

    let key = write("middle.key", &middle_key.serialize_pem());
    let other_key = write("other.key", &root_key.serialize_pem());
    let root_file = write("root.crt", &root.pem());
    let alone = write("middle.crt", &middle.pem());
    let full = write("full.crt", &format!("{}{}", middle.pem(), root.pem()));
    let leaf = write("leaf.crt", &format!("{}{}", leaf.pem(), root.pem()));
    let files = |key: &Path, certificate: &Path, root: Option<&Path>| AuthorityFiles {
        key: key.to_owned(),
        certificate: certificate.to_owned(),
        root: root.map(Path::to_owned),
    };
    let from_files = |files: &AuthorityFiles, at: SystemTime| {
        CertificateAuthority::new(&AuthorityMaterial::read(files)?, &domain(), at)
    };

    for files in [
        files(&key, &full, None),
        files(&key, &alone, Some(&root_file)),
    ] {
        let authority = from_files(&files, now()).unwrap();
        assert_eq!(authority.trust_bundle().roots(), [root.der().clone()]);
        let request = WorkloadKey::generate()
            .unwrap()
            .signing_request(None)
            .unwrap();
        let issued = authority.issue(&request, &cart(), None, now()).unwrap();
        assert_eq!(issued.chain.len(), 2, "the intermediate goes with the leaf");
        verify(authority.trust_bundle(), &issued.chain, now()).unwrap();
    }
    let root_only = from_files(&files(&other_key, &root_file, None), now());
    assert!(root_only.is_ok());

    let stranger = authority_params("stranger")
        .self_signed(&KeyPair::generate().unwrap())
        .unwrap();
    let stranger = write("stranger.crt", &stranger.pem());
    let missing = directory.path().join("missing");
    for (files, at, reason) in [
        (files(&missing, &full, None), now(), "missing"),
        (files(&full, &full, None), now(), "private key"),
        (files(&other_key, &full, None), now(), "another key"),
        (files(&key, &alone, None), now(), "root"),
        (files(&key, &leaf, None), now(), "no CA certificate"),
        (files(&key, &full, None), now() + 60 * DAY, "not valid now"),
        (
            files(&key, &alone, Some(&stranger)),
            now(),
            "lead to the root",
        ),
    ] {
        let error = from_files(&files, at).unwrap_err().to_string();
        assert!(error.contains(reason), "{error} should contain {reason}");
    }
}

/// A root or an intermediate as a test wants it, with its key.
fn authority_of(
    params: &CertificateParams,
    above: Option<&(CertificateParams, KeyPair)>,
    key: KeyPair,
) -> AuthorityMaterial {
    let text = |origin: &str, pem: String| Text {
        origin: origin.to_owned(),
        pem,
    };
    let (certificate, roots) = match above {
        None => (params.self_signed(&key).unwrap(), None),
        Some((root, root_key)) => {
            let issuer = Issuer::from_params(root, root_key);
            let roots = root.self_signed(root_key).unwrap();
            (params.signed_by(&key, &issuer).unwrap(), Some(roots))
        }
    };
    AuthorityMaterial {
        key: text("tls.key", key.serialize_pem()),
        certificate: text("tls.crt", certificate.pem()),
        roots: roots.map(|roots| text("ca.crt", roots.pem())),
    }
}

#[test]
fn a_root_among_several_signs_itself() {
    let new =
        |name: &str| authority_of(&authority_params(name), None, KeyPair::generate().unwrap());
    let (old, mut new) = (new("old"), new("new"));
    // The old root first, as one who appends does it.
    new.roots = Some(Text {
        origin: "ca.crt".to_owned(),
        pem: format!("{}{}", old.certificate.pem, new.certificate.pem),
    });
    let [old, new] =
        [old, new].map(|material| CertificateAuthority::new(&material, &domain(), now()).unwrap());
    let issue = |authority: &CertificateAuthority| {
        let (_, issued) = authority
            .issue_serving(&["x".to_owned()], None, now())
            .unwrap();
        assert_eq!(issued.chain.len(), 1);
        issued
    };
    let (by_old, by_new) = (issue(&old), issue(&new));
    for issued in [&by_old, &by_new] {
        verify(new.trust_bundle(), &issued.chain, now()).unwrap();
    }
    assert!(verify(old.trust_bundle(), &by_new.chain, now()).is_err());
    assert!(new.signed(&by_new.chain[0], now()) && !new.signed(&by_old.chain[0], now()));
    assert!(!new.signed(&by_new.chain[0], now() + 2 * DAY));
}

#[test]
fn keys_of_other_kinds_sign_too() {
    let rsa = || KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    for key in [
        rsa(),
        KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap(),
    ] {
        let material = authority_of(&authority_params("root"), None, key);
        CertificateAuthority::new(&material, &domain(), now()).unwrap();
    }
}

#[test]
fn what_no_peer_would_accept_is_refused_at_the_start() {
    let root = || (authority_params("root"), KeyPair::generate().unwrap());
    let mut short = root();
    short.0.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let middle = authority_params("middle");
    let mut constrained = authority_params("constrained");
    // May sign for workloads, which have no DNS name, and for servers of one domain.
    constrained.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName("example.org".to_owned())],
        excluded_subtrees: vec![],
    });
    let mut mute = authority_params("mute");
    mute.key_usages = vec![KeyUsagePurpose::CrlSign];
    let key = || KeyPair::generate().unwrap();
    for (material, reason) in [
        (authority_of(&middle, Some(&short), key()), "path length"),
        (authority_of(&mute, Some(&root()), key()), "keyCertSign"),
    ] {
        let error = CertificateAuthority::new(&material, &domain(), now())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("tls.crt") && error.contains(reason),
            "{error}"
        );
    }
    assert!(!format!("{:?}", authority_of(&middle, None, key())).contains("PRIVATE"));
    let constrained = authority_of(&constrained, Some(&root()), key());
    let constrained = CertificateAuthority::new(&constrained, &domain(), now()).unwrap();
    let serving = |name: &str| constrained.issue_serving(&[name.to_owned()], None, now());
    assert!(serving("control.example.org").is_ok());
    let error = serving("control.svc").unwrap_err().to_string();
    assert!(error.contains("control.svc"), "{error}");
}
