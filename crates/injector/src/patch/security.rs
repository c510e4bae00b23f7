//! What a pod must not be for the capture to hold, and the rights of what is added to it.

use k8s_openapi::api::core::v1::{
    Capabilities, Container, PodSpec, SeccompProfile, SecurityContext,
};

use super::Refusal;
use super::names::{INIT, PORTS, SIDECAR, SIDECAR_ID};
use super::volumes;

/// Refuses a container that the redirects would let bypass the mesh, or that would keep the
/// sidecar from a port. What an image says of its user cannot be seen from here.
pub(super) fn check(spec: &PodSpec) -> Result<(), Refusal> {
    let pod = spec.security_context.as_ref();
    let of_pod = (
        pod.and_then(|context| context.run_as_user),
        pod.and_then(|context| context.run_as_group),
    );
    for container in others(spec) {
        let own = container.security_context.as_ref();
        let user = own.and_then(|context| context.run_as_user).or(of_pod.0);
        let group = own.and_then(|context| context.run_as_group).or(of_pod.1);
        for (id, kind, field) in [(user, "user", "runAsUser"), (group, "group", "runAsGroup")] {
            if id == Some(SIDECAR_ID) {
                return Err(Refusal::ReservedUser {
                    container: container.name.clone(),
                    kind,
                    id: SIDECAR_ID,
                    field,
                });
            }
        }
        for port in container.ports.iter().flatten() {
            let tcp = port.protocol.as_deref().is_none_or(|name| name == "TCP");
            let taken = PORTS
                .iter()
                .find(|(number, _)| i32::from(*number) == port.container_port);
            if let Some((_, user)) = taken.filter(|_| tcp) {
                return Err(Refusal::ReservedPort {
                    container: container.name.clone(),
                    port: port.container_port,
                    user,
                });
            }
        }
    }
    Ok(())
}

/// Refuses names that what is to be added has.
pub(super) fn check_names(spec: &PodSpec) -> Result<(), Refusal> {
    let taken = |kind, name: &str| Refusal::NameTaken {
        kind,
        name: name.to_owned(),
    };
    if all(spec).any(|container| container.name == INIT) {
        return Err(taken("container", INIT));
    }
    for volume in spec.volumes.iter().flatten() {
        if volumes::NAMES.contains(&volume.name.as_str()) {
            return Err(taken("volume", &volume.name));
        }
    }
    Ok(())
}

/// Every container that is in the pod for its whole life or its start.
pub(super) fn all(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.init_containers
        .iter()
        .flatten()
        .chain(&spec.containers)
}

fn others(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    all(spec).filter(|container| ![SIDECAR, INIT].contains(&container.name.as_str()))
}

/// Of the sidecar: a user without any right.
pub(super) fn of_sidecar() -> SecurityContext {
    SecurityContext {
        run_as_user: Some(SIDECAR_ID),
        run_as_group: Some(SIDECAR_ID),
        run_as_non_root: Some(true),
        ..confined(None)
    }
}

/// Of the init container: what iptables needs in the pod's own network namespace.
pub(super) fn of_init() -> SecurityContext {
    SecurityContext {
        run_as_user: Some(0),
        run_as_group: Some(0),
        // The pod may say the contrary for all its containers.
        run_as_non_root: Some(false),
        ..confined(Some(vec!["NET_ADMIN".to_owned(), "NET_RAW".to_owned()]))
    }
}

fn confined(add: Option<Vec<String>>) -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        privileged: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities {
            add,
            drop: Some(vec!["ALL".to_owned()]),
        }),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            localhost_profile: None,
        }),
        ..SecurityContext::default()
    }
}
