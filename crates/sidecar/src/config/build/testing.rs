//! Resources from YAML, for tests.

use envoy_types::pb::envoy::config::route::v3 as route;
use prost::{Message, Name};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};

use super::context::Detached;
use super::resource;
use crate::config::cluster::Cluster;
use crate::config::error::Result;
use crate::config::listener::Listener;
use crate::config::route::RouteTable;

/// The bytes of a message that a YAML text describes.
pub fn bytes<M: Message + Name>(yaml: &str) -> Vec<u8> {
    let value = outrider_xds::transcode::yaml_to_value(yaml).unwrap();
    outrider_xds::transcode::json_to_proto(&M::full_name(), &value).unwrap()
}

/// The message that a YAML text describes.
pub fn message<M: Message + Name + Default>(yaml: &str) -> M {
    M::decode(&*bytes::<M>(yaml)).unwrap()
}

/// A route table that must be valid.
pub fn route_table(yaml: &str) -> RouteTable {
    resource::route_table(&bytes::<route::RouteConfiguration>(yaml), &Detached).unwrap()
}

/// A listener, built without discovery.
pub fn listener(yaml: &str) -> Result<Listener> {
    use envoy_types::pb::envoy::config::listener::v3::Listener as Proto;
    resource::listener(&bytes::<Proto>(yaml), &Detached)
}

/// A cluster, built without discovery.
pub fn cluster(yaml: &str) -> Result<Cluster> {
    use envoy_types::pb::envoy::config::cluster::v3::Cluster as Proto;
    resource::cluster(&bytes::<Proto>(yaml), &Detached)
}

/// Asserts that an error begins so.
pub fn assert_error<T>(result: Result<T>, expect: &str) {
    match result {
        Ok(_) => panic!("no error, expected {expect}"),
        Err(error) => {
            let error = error.to_string();
            assert!(error.starts_with(expect), "{error}\n expected {expect}");
        }
    }
}

/// PEM texts of a root, and of a certificate that it signed with its key.
pub struct Pems {
    pub root: String,
    pub certificate: String,
    pub key: String,
}

/// Makes a root and a certificate for `spiffe://cluster.local/ns/a/sa/b`.
pub fn pems() -> Pems {
    let root_key = KeyPair::generate().unwrap();
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root_pem = root.self_signed(&root_key).unwrap().pem();
    let key = KeyPair::generate().unwrap();
    let mut leaf = CertificateParams::default();
    let id = "spiffe://cluster.local/ns/a/sa/b".try_into().unwrap();
    leaf.subject_alt_names = vec![SanType::URI(id)];
    let certificate = leaf.signed_by(&key, &Issuer::new(root, root_key)).unwrap();
    Pems {
        root: root_pem,
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    }
}
