//! What the sidecar reads and keeps.
//!
//! The pod's `fsGroup` is left as it is. The kubelet gives a projected token mode 0600 where the
//! pod has one, and then lets that group, which every process of the pod is in, read it; without
//! one it has mode 0644, for the containers run as different users (`projected.go` and
//! `FsUserFrom` of Kubernetes). Setting one here would change the ownership of the app's volumes.

use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, DownwardAPIVolumeFile, DownwardAPIVolumeSource, EmptyDirVolumeSource,
    ObjectFieldSelector, ProjectedVolumeSource, ServiceAccountTokenProjection, Volume, VolumeMount,
    VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::config::Config;

const TOKEN: &str = "outrider-token";
const ROOT: &str = "outrider-root";
const POD: &str = "outrider-pod";
const STATE: &str = "outrider-state";
/// The most that the sidecar may keep: the memory counts as its pod's. A configuration is at most
/// some MiB, and is written twice while it is replaced.
const STATE_SIZE: &str = "64Mi";
/// All volumes that are added.
pub(super) const NAMES: [&str; 4] = [TOKEN, ROOT, POD, STATE];

/// The file of the token that proves the pod's account.
pub(super) const TOKEN_FILE: &str = "/var/run/secrets/outrider/token";
/// The file of the roots that the mesh trusts.
pub(super) const ROOT_FILE: &str = "/var/run/outrider/root/root.pem";
/// The file of the pod's labels.
pub(super) const LABELS_FILE: &str = "/var/run/outrider/pod/labels";
/// Where the sidecar keeps its configuration, key and certificate over its own restarts.
pub(super) const STATE_DIRECTORY: &str = "/var/lib/outrider";

/// The ConfigMap that the control plane keeps in every namespace. Until it is there, the pod waits.
const ROOT_CONFIG_MAP: &str = "outrider-root";

pub(super) fn volumes(config: &Config) -> [Volume; 4] {
    let token = ServiceAccountTokenProjection {
        audience: Some(config.token_audience.clone()),
        expiration_seconds: Some(config.token_seconds.into()),
        path: "token".to_owned(),
    };
    let labels = DownwardAPIVolumeFile {
        path: "labels".to_owned(),
        field_ref: Some(ObjectFieldSelector {
            field_path: "metadata.labels".to_owned(),
            api_version: None,
        }),
        ..DownwardAPIVolumeFile::default()
    };
    [
        Volume {
            name: TOKEN.to_owned(),
            projected: Some(ProjectedVolumeSource {
                default_mode: None,
                sources: Some(vec![VolumeProjection {
                    service_account_token: Some(token),
                    ..VolumeProjection::default()
                }]),
            }),
            ..Volume::default()
        },
        Volume {
            name: ROOT.to_owned(),
            config_map: Some(ConfigMapVolumeSource {
                name: ROOT_CONFIG_MAP.to_owned(),
                ..ConfigMapVolumeSource::default()
            }),
            ..Volume::default()
        },
        Volume {
            name: POD.to_owned(),
            downward_api: Some(DownwardAPIVolumeSource {
                default_mode: None,
                items: Some(vec![labels]),
            }),
            ..Volume::default()
        },
        Volume {
            name: STATE.to_owned(),
            // A key does not belong on the node's disk.
            empty_dir: Some(EmptyDirVolumeSource {
                medium: Some("Memory".to_owned()),
                size_limit: Some(Quantity(STATE_SIZE.to_owned())),
            }),
            ..Volume::default()
        },
    ]
}

pub(super) fn mounts() -> Vec<VolumeMount> {
    let mount = |name: &str, path: &str, read_only: bool| VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    };
    let directory = |file: &'static str| file.rsplit_once('/').map_or(file, |(folder, _)| folder);
    vec![
        mount(TOKEN, directory(TOKEN_FILE), true),
        mount(ROOT, directory(ROOT_FILE), true),
        mount(POD, directory(LABELS_FILE), true),
        mount(STATE, STATE_DIRECTORY, false),
    ]
}
