//! A real Envoy as the client of our servers, and its configuration dump through our transcoder.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use outrider_testkit::certs::Authority;
use outrider_testkit::clients::http1;
use outrider_testkit::{Process, envoy, eventually};
use outrider_xds::ads::ResourceType::{self, Cluster, Endpoint, Listener, Route, Secret};
use outrider_xds::ads::server::{self, Answer, ResourceSet, Resources, Source, Versioned};
use outrider_xds::pb::envoy::config::core::v3::Node;
use outrider_xds::sds;
use outrider_xds::transcode::{json_to_proto, proto_to_json, yaml_to_value};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Status, async_trait};

const DEADLINE: Duration = Duration::from_secs(30);
const HTTP2: &str = r#"{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {"@type":
    "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
    "explicit_http_config": {"http2_protocol_options": {}}}}"#;
/// The one part of Envoy's dump that we have no equivalent of.
const SCOPED_ROUTES: &str = "type.googleapis.com/envoy.admin.v3.ScopedRoutesConfigDump";

struct Mesh {
    set: watch::Receiver<Arc<ResourceSet>>,
    answers: mpsc::UnboundedSender<Answer>,
}

#[async_trait]
impl Source for Mesh {
    type Caller = ();
    type Client = ();

    async fn authenticate(&self, _: &MetadataMap, _: &Extensions) -> Result<(), Status> {
        Ok(())
    }

    async fn admit(&self, node: Node, (): ()) -> Result<(), Status> {
        if node.id == "real-envoy" {
            Ok(())
        } else {
            Err(Status::permission_denied(node.id))
        }
    }

    fn watch(&self, (): &()) -> watch::Receiver<Arc<ResourceSet>> {
        self.set.clone()
    }

    fn answered(&self, (): &(), answer: Answer) {
        let _ = self.answers.send(answer);
    }
}

fn resources(kind: ResourceType, documents: &[(&str, String)]) -> Result<Arc<Resources>> {
    let all = documents.iter().map(|(name, yaml)| {
        let bytes = json_to_proto(kind.message_name(), &yaml_to_value(yaml)?)?;
        Ok((name.to_string(), Versioned::encoded(kind, &bytes)))
    });
    Ok(Arc::new(all.collect::<Result<_>>()?))
}

fn cluster(name: &str) -> (&str, String) {
    let text = format!(
        "{{name: {name}, type: EDS, connect_timeout: 1s, eds_cluster_config: {{eds_config: \
         {{ads: {{}}, resource_api_version: V3}}}}, metadata: {{filter_metadata: {{b: {{z: 1, y: \
         [true]}}, a: {{x: s}}}}}}}}"
    );
    (name, text)
}

fn endpoints(name: &str) -> (&str, String) {
    let text = format!(
        "{{cluster_name: {name}, endpoints: [{{lb_endpoints: [{{endpoint: {{address: \
         {{socket_address: {{address: 127.0.0.1, port_value: 9}}}}}}}}]}}]}}"
    );
    (name, text)
}

/// A listener whose certificate comes over the Unix socket in one form of the protocol.
fn listener<'a>(name: &'a str, api_type: &str) -> (&'a str, String) {
    let text = format!(
        r#"
name: {name}
address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
filter_chains:
- filters:
  - name: hcm
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
      stat_prefix: {name}
      rds: {{route_config_name: routes, config_source: {{ads: {{}}, resource_api_version: V3}}}}
      http_filters:
      - name: router
        typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  transport_socket:
    name: tls
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
      common_tls_context:
        tls_certificate_sds_secret_configs:
        - name: default
          sds_config:
            resource_api_version: V3
            api_config_source:
              api_type: {api_type}
              transport_api_version: V3
              grpc_services: [{{envoy_grpc: {{cluster_name: sds}}}}]
"#
    );
    (name, text)
}

fn secret(authority: &Authority) -> Result<Arc<Resources>> {
    let leaf = authority.issue("spiffe://cluster.local/ns/a/sa/b", DEADLINE * 60)?;
    let document = json!({"name": "default", "tls_certificate": {
        "certificate_chain": {"inline_string": leaf.certificate},
        "private_key": {"inline_string": leaf.key}}});
    resources(Secret, &[("default", document.to_string())])
}

fn bootstrap(control: u16, sds: &Path) -> String {
    format!(
        r#"
node: {{id: real-envoy, cluster: test}}
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}}}
dynamic_resources:
  ads_config:
    api_type: DELTA_GRPC
    transport_api_version: V3
    grpc_services: [{{envoy_grpc: {{cluster_name: control}}}}]
  cds_config: {{ads: {{}}, resource_api_version: V3}}
  lds_config: {{ads: {{}}, resource_api_version: V3}}
static_resources:
  clusters:
  - name: control
    connect_timeout: 1s
    typed_extension_protocol_options: {HTTP2}
    load_assignment: {{cluster_name: control, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {control}}}}}}}}}]}}]}}
  - name: sds
    connect_timeout: 1s
    typed_extension_protocol_options: {HTTP2}
    load_assignment: {{cluster_name: sds, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{pipe: {{path: {sds:?}}}}}}}}}]}}]}}
"#
    )
}

fn get(address: &str, path: &str) -> Result<Value> {
    let message = http1::Client::connect(address)?.get("admin", path)?;
    message.json()
}

/// The names of the dynamic resources in a dump, in order.
fn dumped(dump: &Value, list: &str, name: &[&str]) -> Vec<String> {
    let configs = dump["configs"].as_array().into_iter().flatten();
    let all = configs
        .filter_map(|config| config[list].as_array())
        .flatten();
    let mut names: Vec<String> = all
        .filter_map(|each| {
            name.iter()
                .try_fold(each, |value, key| value.get(key))?
                .as_str()
                .map(str::to_owned)
        })
        .collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_envoy_takes_what_our_servers_give() -> Result<()> {
    let authority = Authority::new("test")?;
    let first = ResourceSet::new("1")
        .with(
            Cluster,
            resources(Cluster, &[cluster("one"), cluster("two")])?,
        )
        .with(
            Endpoint,
            resources(Endpoint, &[endpoints("one"), endpoints("two")])?,
        )
        .with(
            Listener,
            resources(
                Listener,
                &[listener("sotw", "GRPC"), listener("delta", "DELTA_GRPC")],
            )?,
        )
        .with(
            Route,
            resources(
                Route,
                &[(
                    "routes",
                    "{name: routes, virtual_hosts: [{name: all, \
            domains: ['*'], routes: [{match: {prefix: /}, route: {cluster: one}}]}]}"
                        .to_owned(),
                )],
            )?,
        );
    let (set, receive) = watch::channel(Arc::new(first.clone()));
    let (answers, mut answered) = mpsc::unbounded_channel();
    let control = TcpListener::bind("127.0.0.1:0").await?;
    let port = control.local_addr()?.port();
    let service = server::service(
        Arc::new(Mesh {
            set: receive,
            answers,
        }),
        "outrider",
    );
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpListenerStream::new(control)),
    );
    let secrets = ResourceSet::new("1").with(Secret, secret(&authority)?);
    let (send_secrets, receive) = watch::channel(Arc::new(secrets));
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("sds.sock");
    let served = socket.clone();
    tokio::spawn(async move {
        let service = sds::service(receive, "outrider");
        sds::serve_unix(&served, 0o600, service, std::future::pending()).await
    });

    let config = folder.path().join("bootstrap.yaml");
    let text = bootstrap(port, &socket);
    std::fs::write(&config, &text)?;
    let admin = folder.path().join("admin");
    let mut command = Command::new(envoy::binary()?);
    command.args([
        "--concurrency",
        "1",
        "--disable-hot-restart",
        "-l",
        "warning",
        "-c",
    ]);
    command.arg(&config).arg("--admin-address-path").arg(&admin);
    let mut process = Process::start("envoy", command)?;
    process.wait_for("its admin port", DEADLINE, |_| {
        std::fs::read_to_string(&admin).is_ok_and(|text| text.contains(':'))
    })?;
    let admin = std::fs::read_to_string(&admin)?;
    let wait = |what: &str, list: &str, name: &[&str], expected: &[&str]| {
        eventually(DEADLINE, || {
            let dump = get(&admin, "/config_dump")?;
            let found = dumped(&dump, list, name);
            ensure!(found == expected, "{what}: {found:?}");
            Ok(dump)
        })
    };
    wait(
        "clusters",
        "dynamic_active_clusters",
        &["cluster", "name"],
        &["one", "two"],
    )?;
    // Listeners are active once their routes and secrets are there, in both forms.
    let active = ["active_state", "listener", "name"];
    wait(
        "listeners",
        "dynamic_listeners",
        &active,
        &["delta", "sotw"],
    )?;
    let before = wait(
        "secrets",
        "dynamic_active_secrets",
        &["name"],
        &["default", "default"],
    )?;

    // Envoy's own dump comes through our transcoder unchanged.
    let mut ours = before.clone();
    let configs = ours["configs"]
        .as_array_mut()
        .context("a dump without configs")?;
    configs.retain(|config| config["@type"] != SCOPED_ROUTES);
    ensure!(configs.len() > 4, "{configs:?}");
    let name = "envoy.admin.v3.ConfigDump";
    let bytes = json_to_proto(name, &ours)?;
    let again = proto_to_json(name, &bytes)?;
    let (again, ours) = (format!("{again:#}"), format!("{ours:#}"));
    let differing = again
        .lines()
        .zip(ours.lines())
        .find(|(one, other)| one != other);
    ensure!(
        differing.is_none() && again.len() == ours.len(),
        "{differing:?}"
    );

    // A bad cluster is refused by its name; the good one beside it goes in, the old one goes.
    let bad = (
        "bad",
        "{name: bad, type: EDS, connect_timeout: 1s}".to_owned(),
    );
    let next = first
        .with(
            Cluster,
            resources(Cluster, &[cluster("one"), cluster("three"), bad])?,
        )
        .with(
            Endpoint,
            resources(Endpoint, &[endpoints("one"), endpoints("three")])?,
        )
        .versioned("2");
    set.send_replace(Arc::new(next));
    wait(
        "clusters",
        "dynamic_active_clusters",
        &["cluster", "name"],
        &["one", "three"],
    )?;
    let refusal = loop {
        let answer = tokio::time::timeout(DEADLINE, answered.recv())
            .await?
            .context("ended")?;
        if let Some(refusal) = answer.refusal {
            ensure!(
                answer.names.contains(&"bad".to_owned()),
                "{:?}",
                answer.names
            );
            break refusal;
        }
    };
    ensure!(refusal.contains("bad"), "{refusal}");

    // A renewed certificate reaches it on both streams.
    let versions = |dump: &Value| dumped(dump, "dynamic_active_secrets", &["version_info"]);
    let old = versions(&before);
    send_secrets.send_replace(Arc::new(
        ResourceSet::new("2").with(Secret, secret(&authority)?),
    ));
    eventually(DEADLINE, || {
        let new = versions(&get(&admin, "/config_dump")?);
        ensure!(
            new.len() == 2 && new.iter().all(|each| !old.contains(each)),
            "{new:?}"
        );
        Ok(())
    })?;
    process.terminate(DEADLINE)?;
    Ok(())
}
