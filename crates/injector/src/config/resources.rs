//! What the containers ask for, and their bounds.

use serde::{Deserialize, Serialize};

use crate::values::Quantity;

/// `resources` of both containers, as Kubernetes writes them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Resources {
    /// Of `outrider-sidecar`.
    pub sidecar: ResourceRequirements,
    /// Of `outrider-init`, which runs for a moment.
    pub init: ResourceRequirements,
}

/// `resources` of one container.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ResourceRequirements {
    /// What the scheduler sets aside.
    #[serde(skip_serializing_if = "ResourceAmounts::is_empty")]
    pub requests: ResourceAmounts,
    /// What it is held to.
    #[serde(skip_serializing_if = "ResourceAmounts::is_empty")]
    pub limits: ResourceAmounts,
}

/// Amounts of the two resources that matter here.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResourceAmounts {
    /// Cores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Quantity>,
    /// Bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Quantity>,
}

impl ResourceAmounts {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.cpu.is_none() && self.memory.is_none()
    }
}

impl ResourceRequirements {
    /// The first resource of which more is asked for than allowed, if there is one.
    pub fn contradiction(&self) -> Option<(&'static str, &Quantity, &Quantity)> {
        let pairs = [
            ("cpu", &self.requests.cpu, &self.limits.cpu),
            ("memory", &self.requests.memory, &self.limits.memory),
        ];
        pairs.into_iter().find_map(|(name, request, limit)| {
            let (request, limit) = (request.as_ref()?, limit.as_ref()?);
            request.exceeds(limit).then_some((name, request, limit))
        })
    }
}

impl Default for Resources {
    fn default() -> Self {
        let requests = |cpu: &str, memory: &str| ResourceRequirements {
            requests: ResourceAmounts {
                cpu: cpu.parse().ok(),
                memory: memory.parse().ok(),
            },
            limits: ResourceAmounts::default(),
        };
        Self {
            sidecar: requests("50m", "64Mi"),
            init: requests("10m", "16Mi"),
        }
    }
}
