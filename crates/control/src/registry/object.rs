//! The objects of the registry and how they are named.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::FieldError;
use super::kinds::{
    EndpointSlice, GrpcRoute, HttpRoute, Namespace, ObjectMeta, PeerAuthentication, Pod, Service,
    ServiceAccount, TcpRoute, TlsRoute, WorkloadEntry,
};

/// A name within a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NamespacedName {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl NamespacedName {
    /// Puts the two together.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for NamespacedName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

/// Names one object of the mesh.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectRef {
    /// Its kind, such as `Service`.
    pub kind: &'static str,
    /// Its namespace and name; the namespace is empty for kinds that have none.
    pub name: NamespacedName,
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.namespace.is_empty() {
            return write!(formatter, "{} {}", self.kind, self.name.name);
        }
        write!(formatter, "{} {}", self.kind, self.name)
    }
}

/// Where an object was declared.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// In a file.
    File {
        /// Which.
        file: Arc<PathBuf>,
        /// The document in it, counted from 1.
        document: usize,
    },
    /// In the cluster's API server.
    Cluster,
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, document } => {
                write!(formatter, "{}, document {document}", file.display())
            }
            Self::Cluster => formatter.write_str("the cluster"),
        }
    }
}

/// One document, read and checked.
#[derive(Debug, Clone, PartialEq)]
pub enum Object {
    /// `v1` Service.
    Service(Service),
    /// `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlice(EndpointSlice),
    /// `v1` Pod, which only a cluster has.
    Pod(Pod),
    /// `outrider.dev/v1alpha1` WorkloadEntry.
    WorkloadEntry(WorkloadEntry),
    /// `v1` ServiceAccount.
    ServiceAccount(ServiceAccount),
    /// `v1` Namespace.
    Namespace(Namespace),
    /// `outrider.dev/v1alpha1` PeerAuthentication.
    PeerAuthentication(PeerAuthentication),
    /// `gateway.networking.k8s.io/v1` HTTPRoute.
    HttpRoute(HttpRoute),
    /// `gateway.networking.k8s.io/v1` GRPCRoute.
    GrpcRoute(GrpcRoute),
    /// `gateway.networking.k8s.io/v1` TLSRoute.
    TlsRoute(TlsRoute),
    /// `gateway.networking.k8s.io/v1` TCPRoute.
    TcpRoute(TcpRoute),
}

impl Object {
    /// Its name and labels.
    pub fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::Service(object) => &object.metadata,
            Self::EndpointSlice(object) => &object.metadata,
            Self::Pod(object) => &object.metadata,
            Self::WorkloadEntry(object) => &object.metadata,
            Self::ServiceAccount(object) => &object.metadata,
            Self::Namespace(object) => &object.metadata,
            Self::PeerAuthentication(object) => &object.metadata,
            Self::HttpRoute(object) => &object.metadata,
            Self::GrpcRoute(object) => &object.metadata,
            Self::TlsRoute(object) => &object.metadata,
            Self::TcpRoute(object) => &object.metadata,
        }
    }

    /// What names it.
    pub fn reference(&self) -> ObjectRef {
        let metadata = self.metadata();
        let (kind, namespace) = match self {
            Self::Service(_) => ("Service", metadata.namespace()),
            Self::EndpointSlice(_) => ("EndpointSlice", metadata.namespace()),
            Self::Pod(_) => ("Pod", metadata.namespace()),
            Self::WorkloadEntry(_) => ("WorkloadEntry", metadata.namespace()),
            Self::ServiceAccount(_) => ("ServiceAccount", metadata.namespace()),
            Self::Namespace(_) => ("Namespace", ""),
            Self::PeerAuthentication(_) => ("PeerAuthentication", metadata.namespace()),
            Self::HttpRoute(_) => ("HTTPRoute", metadata.namespace()),
            Self::GrpcRoute(_) => ("GRPCRoute", metadata.namespace()),
            Self::TlsRoute(_) => ("TLSRoute", metadata.namespace()),
            Self::TcpRoute(_) => ("TCPRoute", metadata.namespace()),
        };
        ObjectRef {
            kind,
            name: NamespacedName::new(namespace, &metadata.name),
        }
    }

    /// Checks what the shape alone does not.
    ///
    /// # Errors
    /// The first field at fault; the object cannot be used.
    pub fn validate(&self) -> Result<(), FieldError> {
        self.metadata().validate()?;
        match self {
            Self::Service(object) => object.validate(),
            Self::EndpointSlice(object) => object.validate(),
            Self::WorkloadEntry(object) => object.validate(),
            Self::Pod(object) => object.validate(),
            Self::ServiceAccount(_) | Self::Namespace(_) => Ok(()),
            Self::PeerAuthentication(object) => object.validate(),
            // Each of their rules is judged by itself, where the mesh is put together.
            Self::HttpRoute(_) | Self::GrpcRoute(_) | Self::TlsRoute(_) | Self::TcpRoute(_) => {
                Ok(())
            }
        }
    }

    /// What the object asks for that is right and that the mesh does not do. In a directory that
    /// is an error, for nobody else does it either; in a cluster the rest of the object holds.
    pub fn limits(&self) -> Vec<FieldError> {
        let mut limits: Vec<_> = self.metadata().limits().into_iter().collect();
        match self {
            Self::Service(object) => limits.extend(object.limits()),
            Self::EndpointSlice(object) => limits.extend(object.limits()),
            Self::HttpRoute(object) => limits.extend(object.limits()),
            Self::GrpcRoute(object) => limits.extend(object.limits()),
            Self::TlsRoute(object) => limits.extend(object.limits()),
            Self::TcpRoute(object) => limits.extend(object.limits()),
            _ => {}
        }
        limits
    }
}
