//! Apps as Kubernetes objects.

use serde_json::{Value, json};

/// The image of the test program.
pub const IMAGE: &str = "outrider.test/testapp:1";

/// An app with a service and a service account of its own, all of one name.
pub struct App {
    name: String,
    kind: &'static str,
    replicas: u32,
    containers: Vec<Value>,
    ports: Vec<Value>,
    pod: Value,
    metadata: Value,
}

/// An app that does nothing but hold a pod that requests are made from.
pub fn client(name: &str) -> App {
    App::new(name, "Deployment", &["pause"])
}

/// An app that answers HTTP on 80 (8080 in the pod), gRPC on 7070, TCP on 9000, and speaks first
/// on 9001.
pub fn server(name: &str) -> App {
    let listen = "[::]:8080";
    let verb = [
        "serve", "--listen", listen, "--name", "$(POD)", "--linger", "3",
    ];
    let mut app = App::new(name, "Deployment", &verb);
    app.containers[0]["readinessProbe"] = json!({
        "httpGet": {"port": 8080, "path": "/ready"},
        "periodSeconds": 1,
    });
    app.port("http", 80, 8080)
        .beside("grpc", 7070)
        .beside("tcp", 9000)
        .beside("banner", 9001)
}

impl App {
    /// An app of one container called `app`, that runs the test program with these arguments;
    /// `$(POD)` in them is the pod's name.
    pub fn new(name: &str, kind: &'static str, arguments: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            kind,
            replicas: 1,
            containers: vec![container("app", arguments)],
            ports: Vec::new(),
            pod: json!({"serviceAccountName": name, "terminationGracePeriodSeconds": 10}),
            metadata: json!({"labels": {"app": name}}),
        }
    }

    /// A port of the service.
    pub fn port(mut self, name: &str, port: u16, target: u16) -> Self {
        self.ports
            .push(json!({"name": name, "port": port, "targetPort": target}));
        self
    }

    /// Another container, which serves a protocol on a port of the service.
    pub fn beside(mut self, protocol: &str, port: u16) -> Self {
        let listen = format!("[::]:{port}");
        let verb = ["serve", "--listen", &listen, "--name", "$(POD)"];
        let mut arguments = verb.to_vec();
        arguments.extend(["--protocol", protocol, "--linger", "3"]);
        self.containers.push(container(protocol, &arguments));
        // What speaks first is opaque: its name says no more than TCP.
        let name = if protocol == "banner" {
            "tcp-banner"
        } else {
            protocol
        };
        self.port(name, port, port)
    }

    /// How many pods.
    pub fn replicas(mut self, replicas: u32) -> Self {
        self.replicas = replicas;
        self
    }

    /// A field of the pod's specification.
    pub fn with(mut self, field: &str, value: Value) -> Self {
        self.pod[field] = value;
        self
    }

    /// A field of the container `app`.
    pub fn with_container(mut self, field: &str, value: Value) -> Self {
        self.containers[0][field] = value;
        self
    }

    /// A label of the pods.
    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.metadata["labels"][name] = json!(value);
        self
    }

    /// The workload as `kubectl` takes it.
    pub fn resource(&self) -> String {
        format!("{}/{}", self.kind.to_lowercase(), self.name)
    }

    /// Its template of a pod.
    pub fn template(&self) -> Value {
        let mut spec = self.pod.clone();
        spec["containers"] = json!(self.containers);
        json!({"metadata": self.metadata, "spec": spec})
    }

    /// All of its objects.
    pub fn objects(&self) -> Vec<Value> {
        let name = &self.name;
        let metadata = json!({"name": name});
        let labels = json!({"app": name});
        let mut objects = vec![
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}),
            json!({
                "apiVersion": "apps/v1",
                "kind": self.kind,
                "metadata": metadata,
                "spec": {
                    "replicas": self.replicas,
                    "selector": {"matchLabels": labels},
                    "template": self.template(),
                },
            }),
        ];
        if self.kind == "StatefulSet" {
            objects[1]["spec"]["serviceName"] = json!(name);
            objects[1]["spec"]["podManagementPolicy"] = json!("Parallel");
        }
        if !self.ports.is_empty() {
            let mut spec = json!({
                "selector": labels,
                "ports": self.ports,
                "ipFamilyPolicy": "PreferDualStack",
            });
            if self.kind == "StatefulSet" {
                spec["clusterIP"] = json!("None");
            }
            let kind = json!("Service");
            objects.push(
                json!({"apiVersion": "v1", "kind": kind, "metadata": metadata, "spec": spec}),
            );
        }
        objects
    }
}

/// A container of the test program, as the strictest of Kubernetes' profiles wants it.
fn container(name: &str, arguments: &[&str]) -> Value {
    json!({
        "name": name,
        "image": IMAGE,
        "args": arguments,
        "env": [{"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "resources": {"requests": {"cpu": "5m", "memory": "8Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": true,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    })
}
