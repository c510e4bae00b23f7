//! Names and numbers that a pod's parts share.

/// The container that is the sidecar.
pub const SIDECAR: &str = "outrider-sidecar";
/// The init container that sets the redirects.
pub(super) const INIT: &str = "outrider-init";
/// The user and the group of the sidecar, whose own traffic the redirects let through.
pub(super) const SIDECAR_ID: i64 = 1337;
/// Where the sidecar answers the kubelet for the app, and scrapes for both.
pub(super) const HEALTH_PORT: u16 = 15020;
/// Where the sidecar says whether it is ready.
pub(super) const READY_PORT: u16 = 15021;
/// Where the sidecar's own metrics are.
pub(super) const METRICS_PORT: u16 = 15090;
/// Where both metrics and merged metrics are, on their ports.
pub(super) const METRICS_PATH: &str = "/stats/prometheus";
/// The variable that tells the sidecar of the app's probes.
pub(super) const PROBES_VARIABLE: &str = "OUTRIDER_PROBES";
/// What a pod gets as its `terminationGracePeriodSeconds` when it does not say (Kubernetes' default).
pub(super) const GRACE_SECONDS: i64 = 30;

/// Every port on which the sidecar listens, and for what.
pub(super) const PORTS: [(u16, &str); 6] = [
    (15000, "administration"),
    (15001, "outbound connections"),
    (15006, "inbound connections"),
    (HEALTH_PORT, "probes and merged metrics"),
    (READY_PORT, "readiness"),
    (METRICS_PORT, "its own metrics"),
];
