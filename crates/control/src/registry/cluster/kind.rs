//! The kinds that are watched.

use std::sync::Arc;

use kube::core::ApiResource;
use kube::core::dynamic::DynamicObject;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::present::Present;
use crate::registry::lenient;
use crate::registry::{FieldError, NamespacedName, Object, ObjectRef};

/// A kind, and how it is watched.
#[derive(Debug)]
pub(super) struct Kind {
    /// Its name, as [`ObjectRef`] has it.
    pub(super) name: &'static str,
    pub(super) group: &'static str,
    /// The versions that are understood, the best one first.
    pub(super) versions: &'static [&'static str],
    plural: &'static str,
    /// Whether every API server has it, so that it need not be looked for.
    pub(super) built_in: bool,
    /// Whether the mesh is not safe without it: a control plane that may not read it serves nothing.
    pub(super) required: bool,
    /// Whether its objects get a status from us.
    reports: bool,
    pub(super) labels: Option<&'static str>,
    pub(super) fields: Option<&'static str>,
    decode: fn(Value) -> Result<Object, FieldError>,
}

/// An object as it came.
pub(super) struct Read {
    pub(super) reference: ObjectRef,
    pub(super) generation: i64,
    pub(super) object: Result<Object, FieldError>,
    /// Of kinds that get a status.
    pub(super) present: Option<Present>,
}

const BUILT_IN: Kind = Kind {
    name: "",
    group: "",
    versions: &["v1"],
    plural: "",
    built_in: true,
    required: true,
    reports: false,
    labels: None,
    fields: None,
    decode: |_| Err(FieldError::new("kind", "is none")),
};

const GATEWAY: Kind = Kind {
    group: "gateway.networking.k8s.io",
    built_in: false,
    required: false,
    reports: true,
    ..BUILT_IN
};

const OURS: Kind = Kind {
    group: "outrider.dev",
    versions: &["v1alpha1"],
    required: true,
    ..GATEWAY
};

fn read<T: DeserializeOwned>(value: Value, wrap: fn(T) -> Object) -> Result<Object, FieldError> {
    lenient::decode(value).map(wrap)
}

/// All of them.
pub(super) const KINDS: &[Kind] = &[
    Kind {
        name: "Namespace",
        plural: "namespaces",
        decode: |value| read(value, Object::Namespace),
        ..BUILT_IN
    },
    Kind {
        name: "Service",
        plural: "services",
        decode: |value| read(value, Object::Service),
        ..BUILT_IN
    },
    Kind {
        name: "EndpointSlice",
        group: "discovery.k8s.io",
        plural: "endpointslices",
        labels: Some("kubernetes.io/service-name"),
        decode: |value| read(without_host_names(value), Object::EndpointSlice),
        ..BUILT_IN
    },
    Kind {
        name: "Pod",
        plural: "pods",
        // Ended pods, of which a cluster may keep many, are none of the mesh's.
        fields: Some("status.phase!=Succeeded,status.phase!=Failed"),
        decode: |value| read(value, Object::Pod),
        ..BUILT_IN
    },
    Kind {
        name: "HTTPRoute",
        plural: "httproutes",
        decode: |value| read(value, Object::HttpRoute),
        ..GATEWAY
    },
    Kind {
        name: "GRPCRoute",
        plural: "grpcroutes",
        decode: |value| read(value, Object::GrpcRoute),
        ..GATEWAY
    },
    Kind {
        name: "TLSRoute",
        // Before Gateway API 1.5 it had only these; what they say is the same.
        versions: &["v1", "v1alpha3", "v1alpha2"],
        plural: "tlsroutes",
        decode: |value| read(value, Object::TlsRoute),
        ..GATEWAY
    },
    Kind {
        name: "TCPRoute",
        versions: &["v1", "v1alpha2"],
        plural: "tcproutes",
        decode: |value| read(value, Object::TcpRoute),
        ..GATEWAY
    },
    Kind {
        name: "PeerAuthentication",
        plural: "peerauthentications",
        decode: |value| read(value, Object::PeerAuthentication),
        ..OURS
    },
    Kind {
        name: "WorkloadEntry",
        plural: "workloadentries",
        decode: |value| read(value, Object::WorkloadEntry),
        ..OURS
    },
];

/// The endpoints of a slice of host names cannot be read as addresses, and are not needed.
fn without_host_names(mut slice: Value) -> Value {
    if slice.get("addressType").and_then(Value::as_str) == Some("FQDN")
        && let Some(slice) = slice.as_object_mut()
    {
        slice.remove("endpoints");
    }
    slice
}

impl Kind {
    /// How requests for a version name it.
    pub(super) fn resource(&self, version: &str) -> ApiResource {
        let api_version = match self.group {
            "" => version.to_owned(),
            group => format!("{group}/{version}"),
        };
        ApiResource {
            group: self.group.to_owned(),
            version: version.to_owned(),
            api_version,
            kind: self.name.to_owned(),
            plural: self.plural.to_owned(),
        }
    }

    pub(super) fn reference(&self, object: &DynamicObject) -> ObjectRef {
        let metadata = &object.metadata;
        let namespace = metadata.namespace.as_deref().unwrap_or_default();
        ObjectRef {
            kind: self.name,
            name: NamespacedName::new(namespace, metadata.name.as_deref().unwrap_or_default()),
        }
    }

    /// Reads an object and drops what the mesh has no use for.
    pub(super) fn read(&self, resource: &Arc<ApiResource>, object: DynamicObject) -> Read {
        let reference = self.reference(&object);
        let DynamicObject { metadata, data, .. } = object;
        let mut data = match data {
            Value::Object(data) => data,
            _ => Map::new(),
        };
        let present = self.reports.then(|| Present {
            resource: Arc::clone(resource),
            generation: metadata.generation.unwrap_or_default(),
            resource_version: metadata.resource_version.unwrap_or_default(),
            status: data.remove("status").unwrap_or_default(),
        });
        data.insert("apiVersion".to_owned(), json!(resource.api_version));
        data.insert("kind".to_owned(), json!(self.name));
        data.insert(
            "metadata".to_owned(),
            json!({
                "name": metadata.name,
                "namespace": metadata.namespace,
                "labels": metadata.labels,
                "generation": metadata.generation,
                "creationTimestamp": metadata.creation_timestamp,
            }),
        );
        let object = (self.decode)(Value::Object(data));
        let object = object.and_then(|object| object.validate().map(|()| object));
        Read {
            reference,
            generation: metadata.generation.unwrap_or_default(),
            object,
            present,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_one(kind: &str, object: Value) -> Read {
        let kind = KINDS.iter().find(|each| each.name == kind).unwrap();
        let object = serde_json::from_value(object).unwrap();
        kind.read(&Arc::new(kind.resource(kind.versions[0])), object)
    }

    #[test]
    fn an_object_is_read_as_the_directory_would_and_its_status_apart() {
        let read = read_one(
            "PeerAuthentication",
            json!({
                "metadata": {"name": "p", "namespace": "shop", "generation": 3, "uid": "u",
                    "managedFields": [{"manager": "m"}], "resourceVersion": "7"},
                "spec": {"mtls": {"mode": "STRICT"}, "later": 1},
                "status": {"rejectedBy": 2},
            }),
        );
        assert_eq!(read.reference.to_string(), "PeerAuthentication shop/p");
        assert_eq!(read.object.unwrap().metadata().generation, 3);
        let present = read.present.unwrap();
        assert_eq!(
            (present.generation, present.resource_version.as_str()),
            (3, "7")
        );
        assert_eq!(present.status, json!({"rejectedBy": 2}));
    }

    #[test]
    fn routes_are_read_in_every_version_that_servers_have() {
        for name in ["TCPRoute", "TLSRoute"] {
            let kind = KINDS.iter().find(|each| each.name == name).unwrap();
            assert!(kind.versions.len() > 1 && kind.versions[0] == "v1");
            for version in kind.versions {
                let resource = Arc::new(kind.resource(version));
                let object = json!({
                    "apiVersion": resource.api_version, "kind": name,
                    "metadata": {"name": "r", "namespace": "n"},
                    "spec": {
                        "hostnames": ["a.example"],
                        "parentRefs": [{"group": "", "kind": "Service", "name": "s", "port": 1}],
                        "rules": [{"backendRefs": [{"name": "s", "port": 1}]}],
                    },
                });
                let read = kind.read(&resource, serde_json::from_value(object).unwrap());
                assert!(read.object.is_ok(), "{version}: {:?}", read.object);
                // Its status goes to the version that it came by.
                assert_eq!(&read.present.unwrap().resource.version, version);
            }
        }
    }

    #[test]
    fn a_wrong_object_is_named_with_its_field() {
        let metadata = json!({"name": "p", "namespace": "shop"});
        for (spec, expected) in [
            (json!({"mtls": {"mode": "no"}}), "spec.mtls.mode: "),
            (json!({}), "spec.mtls: must be set"),
        ] {
            let read = read_one(
                "PeerAuthentication",
                json!({"metadata": metadata, "spec": spec}),
            );
            let error = read.object.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn host_names_and_external_names_harm_nothing() {
        let labels = json!({"kubernetes.io/service-name": "s"});
        let slice = json!({"metadata": {"name": "s-1", "namespace": "n", "labels": labels},
            "addressType": "FQDN", "endpoints": [{"addresses": ["a.example"]}], "ports": null});
        let read = read_one("EndpointSlice", slice).object.unwrap();
        assert_eq!(read.limits()[0].path, "addressType");
        let service = json!({"metadata": {"name": "s", "namespace": "n"},
            "spec": {"type": "ExternalName", "externalName": "a.example", "sessionAffinity": "None"}});
        assert!(read_one("Service", service).object.is_ok());
    }
}
