//! The certificates and keys of one cluster: made anew with it, gone with it.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use outrider_testkit::cluster::STATE;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};

use super::network::{API_SERVICE, NODE};
use super::node::NAME as NODE_NAME;

/// Whom a certificate is for: file, organisation (a group of Kubernetes), name (a user of it).
const CLIENTS: &[(&str, &str, &str)] = &[
    ("admin", "system:masters", "outrider-admin"),
    (
        "kube-controller-manager",
        "",
        "system:kube-controller-manager",
    ),
    ("kube-scheduler", "", "system:kube-scheduler"),
    ("kube-proxy", "", "system:kube-proxy"),
];

/// The path of a certificate, key or other file of the cluster's own.
pub(super) fn file(name: &str) -> PathBuf {
    Path::new(STATE).join("pki").join(name)
}

/// Makes all of them, unless the last one is there.
///
/// # Errors
/// A certificate cannot be made, or the folder cannot be written.
pub(super) fn make() -> Result<()> {
    let last = file("service-accounts.pub");
    if last.is_file() {
        return Ok(());
    }
    let folder = file("");
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let authority = authority("ca")?;
    for (name, organisation, user) in CLIENTS {
        sign(&authority, name, organisation, user, &[])?;
    }
    let names = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "localhost",
        "127.0.0.1",
    ];
    let names: Vec<&str> = names.into_iter().chain(API_SERVICE).chain(NODE).collect();
    sign(&authority, "kube-apiserver", "", "kube-apiserver", &names)?;
    let [v4, v6] = NODE;
    let user = format!("system:node:{NODE_NAME}");
    sign(
        &authority,
        "kubelet",
        "system:nodes",
        &user,
        &[NODE_NAME, v4, v6],
    )?;

    // What the API server shows to the servers that extend it; an authority of its own, since its
    // certificate vouches for whatever user it names.
    let front = self::authority("front-proxy")?;
    sign(&front, "front-proxy-client", "", "front-proxy-client", &[])?;

    let key = KeyPair::generate().context("make the key of service accounts")?;
    write("service-accounts.key", &key.serialize_pem())?;
    write("service-accounts.pub", &key.public_key_pem())
}

fn authority(name: &str) -> Result<Issuer<'static, KeyPair>> {
    let key = KeyPair::generate().context("make an authority's key")?;
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished("", name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key).context("sign an authority")?;
    write(&format!("{name}.crt"), &certificate.pem())?;
    write(&format!("{name}.key"), &key.serialize_pem())?;
    Ok(Issuer::new(params, key))
}

/// Makes a certificate for a client, which may also serve under `names`.
fn sign(
    authority: &Issuer<'static, KeyPair>,
    file: &str,
    organisation: &str,
    user: &str,
    names: &[&str],
) -> Result<()> {
    let key = KeyPair::generate().context("make a key")?;
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).context("the names of a certificate")?;
    params.distinguished_name = distinguished(organisation, user);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let certificate = params.signed_by(&key, authority).context("sign")?;
    write(&format!("{file}.crt"), &certificate.pem())?;
    write(&format!("{file}.key"), &key.serialize_pem())
}

fn distinguished(organisation: &str, name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    if !organisation.is_empty() {
        distinguished.push(DnType::OrganizationName, organisation);
    }
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// Keys are for root alone.
fn write(name: &str, text: &str) -> Result<()> {
    let path = file(name);
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let file = options.open(&path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("write {}", path.display()))
}
