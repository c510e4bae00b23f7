//! Which ports must speak mutual TLS.

use std::collections::BTreeMap;

use crate::registry::kinds::{MutualTlsMode, PeerAuthentication};

use super::workload::matches;

/// The policies by reach.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerPolicies {
    /// What holds where no policy does.
    default: MutualTlsMode,
    mesh: Option<MutualTlsMode>,
    namespaces: BTreeMap<String, MutualTlsMode>,
    workloads: BTreeMap<String, Vec<PeerAuthentication>>,
}

impl PeerPolicies {
    /// No policy yet: `default` holds for all.
    pub(super) fn new(default: MutualTlsMode) -> Self {
        Self {
            default,
            mesh: None,
            namespaces: BTreeMap::new(),
            workloads: BTreeMap::new(),
        }
    }

    pub(super) fn add(&mut self, policy: &PeerAuthentication, root_namespace: &str) {
        let namespace = policy.metadata.namespace();
        if policy.spec.selector.is_some() {
            self.workloads
                .entry(namespace.to_owned())
                .or_default()
                .push(policy.clone());
            return;
        }
        let mode = policy.spec.mtls.map(|mtls| mtls.mode);
        if namespace == root_namespace {
            self.mesh = self.mesh.max(mode);
        } else if let Some(mode) = mode {
            let present = self.namespaces.entry(namespace.to_owned()).or_insert(mode);
            *present = mode.max(*present);
        }
    }

    /// The mode of one port of a workload: a policy for the port, else one for the workload, its
    /// namespace, the mesh; else the default. Of several of the same reach the strictest.
    pub fn mode(
        &self,
        namespace: &str,
        labels: &BTreeMap<String, String>,
        port: u16,
    ) -> MutualTlsMode {
        let for_port = self
            .selecting(namespace, labels)
            .flat_map(|policy| &policy.spec.port_level_mtls)
            .filter(|(number, _)| number.get() == port)
            .map(|(_, mtls)| mtls.mode)
            .max();
        for_port.unwrap_or_else(|| self.default_mode(namespace, labels))
    }

    /// The mode of the ports of a workload that no policy names.
    pub fn default_mode(
        &self,
        namespace: &str,
        labels: &BTreeMap<String, String>,
    ) -> MutualTlsMode {
        let for_workload = self
            .selecting(namespace, labels)
            .filter_map(|policy| policy.spec.mtls)
            .map(|mtls| mtls.mode);
        for_workload
            .max()
            .or_else(|| self.namespaces.get(namespace).copied())
            .or(self.mesh)
            .unwrap_or(self.default)
    }

    /// The ports that policies name for a workload, each with its mode.
    pub fn named_ports(
        &self,
        namespace: &str,
        labels: &BTreeMap<String, String>,
    ) -> BTreeMap<u16, MutualTlsMode> {
        let mut ports = BTreeMap::new();
        for policy in self.selecting(namespace, labels) {
            for port in policy.spec.port_level_mtls.keys() {
                ports.insert(port.get(), self.mode(namespace, labels, port.get()));
            }
        }
        ports
    }

    fn selecting<'a>(
        &'a self,
        namespace: &str,
        labels: &'a BTreeMap<String, String>,
    ) -> impl Iterator<Item = &'a PeerAuthentication> {
        self.workloads
            .get(namespace)
            .into_iter()
            .flatten()
            .filter(move |policy| {
                policy
                    .spec
                    .selector
                    .as_ref()
                    .is_some_and(|selector| matches(&selector.match_labels, labels))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use MutualTlsMode::{Disabled, Permissive, Strict};

    fn policies(specs: &[(&str, &str)]) -> PeerPolicies {
        let mut policies = PeerPolicies::new(Permissive);
        for (namespace, spec) in specs {
            let text = format!(
                "apiVersion: a\nkind: k\nmetadata: {{name: p, namespace: {namespace}}}\nspec: {spec}"
            );
            policies.add(&serde_norway::from_str(&text).unwrap(), "root");
        }
        policies
    }

    #[test]
    fn what_no_policy_names_has_the_default() {
        let none = BTreeMap::new();
        let mut policies = PeerPolicies::new(Strict);
        assert_eq!(policies.mode("n", &none, 80), Strict);
        let text = "apiVersion: a\nkind: k\nmetadata: {name: p, namespace: n}\nspec: {mtls: {mode: PERMISSIVE}}";
        policies.add(&serde_norway::from_str(text).unwrap(), "root");
        assert_eq!(policies.mode("n", &none, 80), Permissive);
        assert_eq!(policies.mode("other", &none, 80), Strict);
    }

    #[test]
    fn the_narrowest_then_the_strictest_policy_holds() {
        let app = r#"selector: {matchLabels: {app: a}}"#;
        let strict = "{mtls: {mode: STRICT}}";
        let port = format!("{{{app}, portLevelMtls: {{80: {{mode: DISABLED}}}}}}");
        let workload = format!("{{{app}, mtls: {{mode: PERMISSIVE}}}}");
        let both =
            format!("{{{app}, mtls: {{mode: DISABLED}}, portLevelMtls: {{80: {{mode: STRICT}}}}}}");
        type Case<'a> = (&'a [(&'a str, &'a str)], [MutualTlsMode; 2]);
        // The modes of port 80 and of any other.
        let cases: &[Case<'_>] = &[
            (&[], [Permissive, Permissive]),
            (&[("root", strict)], [Strict, Strict]),
            (&[("other", strict)], [Permissive, Permissive]),
            (
                &[("root", strict), ("n", "{mtls: {mode: DISABLED}}")],
                [Disabled, Disabled],
            ),
            (&[("n", strict), ("n", &workload)], [Permissive, Permissive]),
            (&[("n", strict), ("n", &port)], [Disabled, Strict]),
            (&[("n", &port), ("n", &both)], [Strict, Disabled]),
            (
                &[("n", "{mtls: {mode: DISABLED}}"), ("n", strict)],
                [Strict, Strict],
            ),
            (&[("root", &workload), ("root", strict)], [Strict, Strict]),
        ];
        let labels = BTreeMap::from([("app".to_owned(), "a".to_owned())]);
        for (index, (specs, expected)) in cases.iter().enumerate() {
            let policies = policies(specs);
            let modes = [80, 81].map(|port| policies.mode("n", &labels, port));
            assert_eq!(modes, *expected, "case {index}");
        }
    }
}
