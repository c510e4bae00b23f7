//! A short notation for meshes, and what tests of the translation share.
#![allow(dead_code, reason = "each test program uses its own part")]

pub mod control;

use std::path::PathBuf;
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::api_config_source::ApiType;
use envoy_types::pb::envoy::config::core::v3::grpc_service::{EnvoyGrpc, TargetSpecifier};
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::{
    Address, ApiConfigSource, ApiVersion, GrpcService, SocketAddress, address,
};
use envoy_types::pb::envoy::config::listener::v3::{Filter, filter};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use outrider_control::mesh::{MeshSettings, MeshState};
use outrider_control::registry::kinds::MutualTlsMode;
use outrider_control::registry::{Object, Source, document, lenient};
use outrider_control::translate::Proxy;
use outrider_identity::{ServiceAccount, TrustDomain};
use outrider_xds::ads::server::Versioned;
use prost::Message;
use serde::Deserialize as _;

pub fn settings() -> MeshSettings {
    MeshSettings {
        trust_domain: TrustDomain::new("cluster.local").unwrap(),
        cluster_domain: "cluster.local".to_owned(),
        root_namespace: "outrider-system".to_owned(),
        mutual_tls: MutualTlsMode::Permissive,
        access_log: false,
    }
}

/// Reads `kind name [namespace] [{labels}]: {spec}`, one after the other; a spec may go over lines.
pub fn documents(short: &str) -> String {
    let mut text = String::new();
    for line in short.lines() {
        let mut words = line.split([' ', ':']);
        let kind = match words.next() {
            Some("service") => "apiVersion: v1\nkind: Service",
            Some("workload") => "apiVersion: outrider.dev/v1alpha1\nkind: WorkloadEntry",
            Some("policy") => "apiVersion: outrider.dev/v1alpha1\nkind: PeerAuthentication",
            Some("route") => "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute",
            Some("grpc-route") => "apiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute",
            Some("tls-route") => "apiVersion: gateway.networking.k8s.io/v1\nkind: TLSRoute",
            Some("tcp-route") => "apiVersion: gateway.networking.k8s.io/v1\nkind: TCPRoute",
            _ => {
                text += &format!("{line}\n");
                continue;
            }
        };
        let (head, spec) = line.split_once(": {").unwrap();
        let (names, labels) = head.split_once(" {").unwrap_or((head, "}"));
        let mut names = names.split(' ').skip(1);
        let (name, namespace) = (names.next().unwrap(), names.next().unwrap_or("shop"));
        text += &format!(
            "---\n{kind}\nmetadata: {{name: {name}, namespace: {namespace}, labels: {{{labels}}}\n\
             spec: {{{spec}\n"
        );
    }
    text
}

pub fn add(short: &str, settings: MeshSettings) -> MeshState {
    let text = documents(short);
    let file = Arc::new(PathBuf::from("mesh.yaml"));
    let objects = document::parse(&file, &text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let objects: Vec<_> = objects
        .into_iter()
        .map(|(at, object)| (at, Arc::new(object)))
        .collect();
    MeshState::build(Arc::new(settings), objects.iter())
}

pub fn mesh(short: &str) -> MeshState {
    add(short, settings())
}

/// The mesh of objects that a cluster has let in: what a directory would refuse is judged.
pub fn lenient_mesh(short: &str) -> MeshState {
    cluster_mesh(&documents(short))
}

/// The same, of whole documents.
pub fn cluster_mesh(text: &str) -> MeshState {
    let read = |document: serde_norway::Deserializer<'_>| -> Object {
        let value = serde_json::Value::deserialize(document).unwrap();
        let kind = value["kind"].as_str().unwrap().to_owned();
        macro_rules! read {
            ($kind:ident) => {
                Object::$kind(lenient::decode(value).unwrap())
            };
        }
        match kind.as_str() {
            "Service" => read!(Service),
            "HTTPRoute" => read!(HttpRoute),
            "GRPCRoute" => read!(GrpcRoute),
            "TLSRoute" => read!(TlsRoute),
            "TCPRoute" => read!(TcpRoute),
            other => panic!("{other}"),
        }
    };
    let objects: Vec<_> = serde_norway::Deserializer::from_str(text)
        .map(|document| (Source::Cluster, Arc::new(read(document))))
        .collect();
    MeshState::build(Arc::new(settings()), objects.iter())
}

pub fn proxy(namespace: &str, account: &str, addresses: &[&str]) -> Proxy {
    Proxy {
        name: "p".to_owned(),
        account: ServiceAccount::new(namespace, account).unwrap(),
        addresses: addresses
            .iter()
            .map(|address| address.parse().unwrap())
            .collect(),
        labels: [("app".to_owned(), "cart".to_owned())].into(),
    }
}

/// The proxy of account `cart`.
pub fn cart(addresses: &[&str]) -> Proxy {
    proxy("shop", "cart", addresses)
}

pub fn address(port: u16) -> Address {
    let socket = SocketAddress {
        address: "127.0.0.1".to_owned(),
        port_specifier: Some(PortSpecifier::PortValue(port.into())),
        ..SocketAddress::default()
    };
    Address {
        address: Some(address::Address::SocketAddress(socket)),
    }
}

pub fn ads_over(cluster: &str) -> ApiConfigSource {
    ApiConfigSource {
        api_type: ApiType::DeltaGrpc.into(),
        transport_api_version: ApiVersion::V3.into(),
        grpc_services: vec![GrpcService {
            target_specifier: Some(TargetSpecifier::EnvoyGrpc(EnvoyGrpc {
                cluster_name: cluster.to_owned(),
                ..EnvoyGrpc::default()
            })),
            ..GrpcService::default()
        }],
        ..ApiConfigSource::default()
    }
}

pub fn edit_manager(filter: &mut Filter, edit: impl FnOnce(&mut HttpConnectionManager)) {
    let Some(filter::ConfigType::TypedConfig(any)) = &mut filter.config_type else {
        panic!()
    };
    let mut manager = HttpConnectionManager::decode(any.value.as_ref()).unwrap();
    edit(&mut manager);
    any.value = manager.encode_to_vec();
}

/// Three services for routes to choose among.
pub const ROUTED: &str = "
service web: {clusterIP: 10.96.0.1, ports: [{name: http, port: 80}]}
service v1: {clusterIP: 10.96.0.2, ports: [{name: http, port: 80}]}
service v2: {clusterIP: 10.96.0.3, ports: [{name: http, port: 80}]}
";

pub fn decode<M: Message + Default>(resource: &Versioned) -> M {
    M::decode(resource.body.value.as_ref()).unwrap()
}
