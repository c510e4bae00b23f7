//! What can become of a pod.

use json_patch::PatchOperation;

use crate::patch::annotations::PREFIX;

/// What is done with a pod.
#[derive(Debug)]
pub enum Outcome {
    /// It gets a sidecar, or one that it has is told of new containers.
    Patch {
        /// What to do to the pod, in this order (RFC 6902).
        operations: Vec<PatchOperation>,
        /// What its author should know.
        warnings: Vec<String>,
    },
    /// It stays as it is.
    Left(Left),
    /// It may not run: it would not be what its author thinks it is.
    Refused(Refusal),
}

/// Why a pod stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Left {
    /// Its author says so.
    #[error("it has the label {PREFIX}inject: disabled")]
    Disabled,
    /// Another injector is asked for.
    #[error("its label {PREFIX}rev asks for revision `{0}`, which another injector serves")]
    OtherRevision(String),
    /// There is nothing to add.
    #[error("it has its sidecar")]
    AlreadyInjected,
    /// Somebody else put one there.
    #[error(
        "it has a container named outrider-sidecar that was not injected: remove the container, \
         or label the pod {PREFIX}inject: disabled to say that this is meant"
    )]
    HasSidecar,
    /// Redirects would be those of the node.
    #[error(
        "it has hostNetwork: its traffic is the node's own and cannot be captured for it alone; \
         remove hostNetwork, or label the pod {PREFIX}inject: disabled to say that this is meant"
    )]
    HostNetwork,
    /// There is no sidecar for it.
    #[error("it runs on Windows, for which there is no sidecar")]
    Windows,
    /// The kubelet runs it from a file, whatever the API server has.
    #[error("it is the mirror of a static pod, which the kubelet runs from a file of its node")]
    StaticPod,
}

impl Left {
    /// Whether its author may have expected something else, and should be told.
    pub fn is_notable(&self) -> bool {
        match self {
            Self::Disabled | Self::OtherRevision(_) | Self::AlreadyInjected => false,
            Self::HasSidecar | Self::HostNetwork | Self::Windows | Self::StaticPod => true,
        }
    }
}

/// Why a pod may not run.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It is not a pod.
    #[error("not a pod: {0}")]
    NotAPod(#[source] serde_json::Error),
    /// It has no containers.
    #[error("not a pod: it has no spec")]
    NoSpec,
    /// A label has a value that means nothing.
    #[error("label {PREFIX}{name}: `{value}` is none of its values: write {wanted}")]
    Label {
        /// Without the prefix.
        name: &'static str,
        /// What it is.
        value: String,
        /// What it may be.
        wanted: &'static str,
    },
    /// An annotation has a value that cannot be used.
    #[error("annotation {PREFIX}{name}: {problem}")]
    Annotation {
        /// Without the prefix.
        name: String,
        /// What is wrong, and what to write.
        problem: String,
    },
    /// The redirects let everything of this user through: the container would bypass the mesh.
    #[error(
        "container `{container}` runs as {kind} {id}, which is the sidecar's own: its traffic \
         would bypass the mesh. Set another securityContext.{field}"
    )]
    ReservedUser {
        /// Which.
        container: String,
        /// user or group
        kind: &'static str,
        /// 1337
        id: i64,
        /// runAsUser or runAsGroup
        field: &'static str,
    },
    /// Two programs cannot listen on one port.
    #[error(
        "container `{container}` has port {port}, on which the sidecar listens ({user}): let the \
         app listen on another"
    )]
    ReservedPort {
        /// Which.
        container: String,
        /// Which.
        port: i32,
        /// What the sidecar has it for.
        user: &'static str,
    },
    /// What would be added has the name of something that is there.
    #[error("it has a {kind} named `{name}`, as the injector's own is called: rename it")]
    NameTaken {
        /// container or volume
        kind: &'static str,
        /// Which.
        name: String,
    },
    /// A change does not fit the document.
    #[error("the pod cannot be changed: {0}")]
    Edit(#[from] json_patch::PatchError),
    /// What is to be added cannot be written.
    #[error("the pod cannot be changed: {0}")]
    Write(#[from] serde_json::Error),
}

impl Refusal {
    /// Whether the document is not even a pod, so that the fault is the caller's.
    pub fn is_malformed(&self) -> bool {
        matches!(self, Self::NotAPod(_) | Self::NoSpec)
    }
}
