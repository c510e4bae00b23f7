//! The bootstrap of a sidecar in a pod of the mesh, made from the environment that the injector
//! gives it: everything else comes from the control plane.

mod environment;
mod labels;

use std::net::IpAddr;
use std::path::PathBuf;

use outrider_xds::pb::envoy::config::bootstrap::v3 as bootstrap;
use outrider_xds::pb::envoy::config::bootstrap::v3::bootstrap::{
    DynamicResources, StaticResources,
};
use outrider_xds::pb::envoy::config::cluster::v3::Cluster;
use outrider_xds::pb::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, CustomClusterType, DiscoveryType,
};
use outrider_xds::pb::envoy::config::core::v3 as core;
use outrider_xds::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use outrider_xds::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use outrider_xds::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint,
};
use outrider_xds::pb::envoy::extensions::clusters::dns::v3::DnsCluster;
use outrider_xds::pb::envoy::extensions::transport_sockets::tls::v3 as tls;
use outrider_xds::pb::envoy::extensions::upstreams::http::v3 as upstream;
use outrider_xds::pb::envoy::r#type::matcher::v3::{StringMatcher, string_matcher};
use outrider_xds::pb::google::protobuf::value::Kind;
use outrider_xds::pb::google::protobuf::{Any, BoolValue, Duration, Struct, Value};
use prost::{Message, Name};

pub use environment::EnvironmentError;

use crate::pod;

/// The cluster by which the control plane is reached.
const CONTROL: &str = "xds-grpc";
/// The admin API's port, on loopback.
const ADMIN_PORT: u32 = 15000;

/// A pod of the mesh, as the environment tells it.
#[derive(Debug)]
pub struct Mesh {
    /// `POD_NAME`
    pub pod: String,
    /// `POD_NAMESPACE`
    pub namespace: String,
    /// `POD_IPS`, at least one.
    pub addresses: Vec<IpAddr>,
    /// `SERVICE_ACCOUNT`
    pub service_account: String,
    /// `NODE_NAME`, or empty.
    pub node: String,
    /// `OUTRIDER_DISCOVERY_ADDRESS`, else `OUTRIDER_CA_ADDRESS`: host and port.
    pub control: (String, u16),
    /// `OUTRIDER_ROOT_FILE`
    pub root_file: PathBuf,
    /// `OUTRIDER_CLUSTER_DOMAIN`
    pub cluster_domain: String,
    /// `OUTRIDER_TRUST_DOMAIN`
    pub trust_domain: String,
    /// `OUTRIDER_REVISION`, or empty.
    pub revision: String,
    /// What the file `OUTRIDER_LABELS_FILE` holds.
    pub labels: Vec<(String, String)>,
    /// `OUTRIDER_STATE_DIR`
    pub state: Option<PathBuf>,
    /// `OUTRIDER_NATIVE`: SIGTERM means that the application has ended.
    pub native: bool,
    /// What the servers for the pod need to know of the application.
    pub application: pod::Application,
}

impl Mesh {
    /// `node.id`
    pub fn node_id(&self) -> String {
        let Mesh { pod, namespace, .. } = self;
        let (address, domain) = (self.addresses[0], &self.cluster_domain);
        format!("sidecar~{address}~{pod}.{namespace}~{namespace}.svc.{domain}")
    }

    /// Whose state is on disk: what another pod, or the same one under another control plane, left
    /// is not ours.
    pub fn owner(&self) -> String {
        let (host, port) = &self.control;
        format!("{} {} {host}:{port}", self.node_id(), self.trust_domain)
    }

    /// The bootstrap.
    pub fn bootstrap(&self) -> bootstrap::Bootstrap {
        let from_control = core::ConfigSource {
            resource_api_version: core::ApiVersion::V3.into(),
            // For ever: a proxy without its listeners must not be taken for ready.
            initial_fetch_timeout: Some(Duration::default()),
            config_source_specifier: Some(ConfigSourceSpecifier::Ads(
                core::AggregatedConfigSource::default(),
            )),
            ..Default::default()
        };
        bootstrap::Bootstrap {
            node: Some(self.node()),
            admin: Some(bootstrap::Admin {
                address: Some(socket_address("127.0.0.1", ADMIN_PORT)),
                ..Default::default()
            }),
            dynamic_resources: Some(DynamicResources {
                lds_config: Some(from_control.clone()),
                cds_config: Some(from_control),
                ads_config: Some(ads()),
                ..Default::default()
            }),
            static_resources: Some(StaticResources {
                clusters: vec![self.control_cluster()],
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn node(&self) -> core::Node {
        let addresses: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        let labels = self.labels.iter();
        let labels = labels.map(|(name, value)| (name.clone(), text(value)));
        let labels = Kind::StructValue(Struct {
            fields: labels.collect(),
        });
        let fields = [
            ("NAMESPACE", text(&self.namespace)),
            ("SERVICE_ACCOUNT", text(&self.service_account)),
            ("INSTANCE_IPS", text(&addresses.join(","))),
            ("LABELS", Value { kind: Some(labels) }),
            ("POD_NAME", text(&self.pod)),
            ("NODE_NAME", text(&self.node)),
            ("REVISION", text(&self.revision)),
        ];
        let fields = fields.map(|(name, value)| (name.to_owned(), value));
        core::Node {
            id: self.node_id(),
            cluster: format!("{}.{}", self.service_account, self.namespace),
            metadata: Some(Struct {
                fields: fields.into(),
            }),
            ..Default::default()
        }
    }

    fn control_cluster(&self) -> Cluster {
        let (host, port) = &self.control;
        let is_address = host.parse::<IpAddr>().is_ok();
        let kind = match is_address {
            true => ClusterDiscoveryType::Type(DiscoveryType::Static.into()),
            // The name is looked up at each connection; what is known in between is for display.
            false => ClusterDiscoveryType::ClusterType(CustomClusterType {
                name: "envoy.cluster.dns".into(),
                typed_config: Some(any(&DnsCluster {
                    dns_refresh_rate: Some(Duration {
                        seconds: 300,
                        nanos: 0,
                    }),
                    ..Default::default()
                })),
            }),
        };
        let endpoint = Endpoint {
            address: Some(socket_address(host, (*port).into())),
            ..Default::default()
        };
        let endpoint = LbEndpoint {
            host_identifier: Some(lb_endpoint::HostIdentifier::Endpoint(endpoint)),
            ..Default::default()
        };
        Cluster {
            name: CONTROL.into(),
            cluster_discovery_type: Some(kind),
            connect_timeout: Some(Duration {
                seconds: 5,
                nanos: 0,
            }),
            wait_for_warm_on_init: Some(BoolValue { value: false }),
            typed_extension_protocol_options: [(
                upstream::HttpProtocolOptions::full_name(),
                any(&http2()),
            )]
            .into(),
            load_assignment: Some(ClusterLoadAssignment {
                cluster_name: CONTROL.into(),
                endpoints: vec![LocalityLbEndpoints {
                    lb_endpoints: vec![endpoint],
                    ..Default::default()
                }],
                ..Default::default()
            }),
            transport_socket: Some(core::TransportSocket {
                name: "envoy.transport_sockets.tls".into(),
                config_type: Some(core::transport_socket::ConfigType::TypedConfig(any(
                    &self.control_tls(is_address)
                ))),
            }),
            ..Default::default()
        }
    }

    /// TLS to a server whose certificate leads to the mesh's root and has the control plane's name.
    fn control_tls(&self, is_address: bool) -> tls::UpstreamTlsContext {
        use tls::common_tls_context::ValidationContextType;
        use tls::subject_alt_name_matcher::SanType;

        let host = &self.control.0;
        let san_type = match is_address {
            true => SanType::IpAddress,
            false => SanType::Dns,
        };
        let name = tls::SubjectAltNameMatcher {
            san_type: san_type.into(),
            matcher: Some(StringMatcher {
                match_pattern: Some(string_matcher::MatchPattern::Exact(host.clone())),
                ..Default::default()
            }),
            ..Default::default()
        };
        let roots = core::data_source::Specifier::Filename(self.root_file.display().to_string());
        let validation = tls::CertificateValidationContext {
            trusted_ca: Some(core::DataSource {
                specifier: Some(roots),
                ..Default::default()
            }),
            match_typed_subject_alt_names: vec![name],
            ..Default::default()
        };
        tls::UpstreamTlsContext {
            sni: match is_address {
                true => String::new(),
                false => host.clone(),
            },
            common_tls_context: Some(tls::CommonTlsContext {
                alpn_protocols: vec!["h2".into()],
                // Envoy's clients go up to 1.2 unless told.
                tls_params: Some(tls::TlsParameters {
                    tls_maximum_protocol_version: tls::tls_parameters::TlsProtocol::TlSv13.into(),
                    ..Default::default()
                }),
                validation_context_type: Some(ValidationContextType::ValidationContext(validation)),
                ..Default::default()
            }),
            ..Default::default()
        }
    }
}

fn ads() -> core::ApiConfigSource {
    use core::grpc_service::{EnvoyGrpc, TargetSpecifier};

    let control = EnvoyGrpc {
        cluster_name: CONTROL.into(),
        ..Default::default()
    };
    core::ApiConfigSource {
        api_type: core::api_config_source::ApiType::DeltaGrpc.into(),
        transport_api_version: core::ApiVersion::V3.into(),
        set_node_on_first_message_only: true,
        grpc_services: vec![core::GrpcService {
            target_specifier: Some(TargetSpecifier::EnvoyGrpc(control)),
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn http2() -> upstream::HttpProtocolOptions {
    use upstream::http_protocol_options::explicit_http_config::ProtocolConfig;
    use upstream::http_protocol_options::{ExplicitHttpConfig, UpstreamProtocolOptions};

    let http2 = ProtocolConfig::Http2ProtocolOptions(core::Http2ProtocolOptions::default());
    upstream::HttpProtocolOptions {
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(
            ExplicitHttpConfig {
                protocol_config: Some(http2),
            },
        )),
        ..Default::default()
    }
}

fn socket_address(address: &str, port: u32) -> core::Address {
    let socket = core::SocketAddress {
        address: address.to_owned(),
        port_specifier: Some(PortSpecifier::PortValue(port)),
        ..Default::default()
    };
    core::Address {
        address: Some(core::address::Address::SocketAddress(socket)),
    }
}

fn any<M: Message + Name>(message: &M) -> Any {
    Any {
        type_url: format!("type.googleapis.com/{}", M::full_name()),
        value: message.encode_to_vec(),
    }
}

fn text(text: &str) -> Value {
    Value {
        kind: Some(Kind::StringValue(text.to_owned())),
    }
}
