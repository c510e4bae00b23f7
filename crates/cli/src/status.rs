//! `outrider status`

use std::time::SystemTime;

use outrider_control::push::report::KindReport;

use crate::cluster::{Cluster, ClusterError};
use crate::flags::Global;
use crate::output::{self, OutputError, Table, lifetime, parse_rfc3339};
use crate::survey::{Proxy, Survey, survey};

/// Show every proxy: whom it is connected to, and whether it took what it was sent
///
/// Every replica of the control plane is asked who is connected to it, and every pod with a sidecar
/// for its certificate. -n limits the list to one namespace.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "The columns of the kinds of resources say:
  accepted    the proxy has what the control plane means it to have
  waiting     sent, and not answered yet
  REFUSED     the proxy keeps its last good version; why is said below the table
  -           not asked for

A pod that is NOT CONNECTED goes on with the last configuration that it got.
  kubectl logs -n shop web-0 -c outrider-sidecar        says why it cannot connect")]
pub(crate) struct Arguments {}

/// Why the status cannot be shown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StatusError {
    /// The cluster cannot be asked.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// There is no control plane to ask.
    #[error(
        "no control plane runs in namespace {0}; if Outrider is installed elsewhere, name that \
         with --system-namespace, and if it should be here, see: outrider check --installed"
    )]
    NoControlPlane(String),
    /// The result cannot be printed.
    #[error(transparent)]
    Output(#[from] OutputError),
}

/// Runs the verb.
///
/// # Errors
/// The cluster cannot be asked, or has no control plane.
pub(crate) async fn run(_: &Arguments, flags: &Global) -> Result<(), StatusError> {
    let cluster = Cluster::of(flags).await?;
    let system = &flags.system_namespace;
    let mut survey = survey(&cluster, system, flags.namespace.as_deref()).await?;
    if survey.control_plane.is_empty() {
        return Err(StatusError::NoControlPlane(system.clone()));
    }
    if !flags.revision.is_empty() {
        let revision = &flags.revision;
        survey.proxies.retain(|proxy| proxy.revision == *revision);
        survey
            .control_plane
            .retain(|replica| replica.revision == *revision);
    }
    let now = output::now();
    Ok(output::print(flags.output, &survey, |survey| {
        render(survey, now)
    })?)
}

/// The kinds with a column of their own; secrets come from the authority and show as certificates.
const COLUMNS: [&str; 4] = ["clusters", "endpoints", "listeners", "routes"];

/// For people: the proxies, then what is wrong.
pub(crate) fn render(survey: &Survey, now: SystemTime) -> String {
    let mut table = Table::new(&[
        "NAME",
        "NAMESPACE",
        "VERSION",
        "REVISION",
        "CONTROL PLANE",
        "CLUSTERS",
        "ENDPOINTS",
        "LISTENERS",
        "ROUTES",
        "CERTIFICATE",
    ]);
    for proxy in &survey.proxies {
        let [clusters, endpoints, listeners, routes] = COLUMNS.map(|name| {
            let kind = proxy.kinds.iter().find(|kind| kind.kind == name);
            kind.map_or("", state).to_owned()
        });
        table.row([
            proxy.name.clone(),
            proxy.namespace.clone(),
            proxy.version.clone().unwrap_or_default(),
            revision(&proxy.revision).to_owned(),
            match &proxy.control_plane {
                Some(replica) => replica.clone(),
                None if proxy.is_starting() => "not yet".to_owned(),
                None => "NOT CONNECTED".to_owned(),
            },
            clusters,
            endpoints,
            listeners,
            routes,
            certificate(proxy, now),
        ]);
    }
    let mut text = table.render(
        "No proxies. Label a namespace (kubectl label namespace NAME outrider.dev/inject=enabled) \
         and restart its pods.",
    );
    text += &problems(survey);
    text
}

/// The name of a revision for people.
pub(crate) fn revision(name: &str) -> &str {
    if name.is_empty() { "default" } else { name }
}

fn state(kind: &KindReport) -> &'static str {
    match (&kind.refusal, &kind.sent, &kind.accepted) {
        (Some(_), ..) => "REFUSED",
        (None, Some(sent), Some(accepted)) if sent == accepted => "accepted",
        (None, Some(_), _) => "waiting",
        (None, None, _) => "",
    }
}

fn certificate(proxy: &Proxy, now: SystemTime) -> String {
    let certificate = proxy.certificate.as_ref();
    let end = certificate.and_then(|certificate| parse_rfc3339(&certificate.expires));
    match (end, &proxy.certificate_error) {
        (Some(end), _) => lifetime(end, now),
        (None, Some(_)) => "unknown".to_owned(),
        (None, None) => String::new(),
    }
}

fn problems(survey: &Survey) -> String {
    let mut text = String::new();
    for proxy in &survey.proxies {
        let name = format!("{}.{}", proxy.name, proxy.namespace);
        for kind in &proxy.kinds {
            let Some(refusal) = &kind.refusal else {
                continue;
            };
            text += &format!(
                "\n{name} refused {} (version {}) and keeps what it had:\n  {}\n",
                kind.kind,
                refusal.version,
                refusal.reason.replace('\n', "\n  ")
            );
            if !refusal.objects.is_empty() {
                text += &format!("  made from: {}\n", refusal.objects.join("; "));
            }
        }
        if let Some(reason) = &proxy.not_connected {
            text += &format!("\n{name} is not connected: {reason}\n");
        }
        if let Some(error) = &proxy.certificate_error {
            text += &format!("\n{name} did not show its certificate: {error}\n");
        }
    }
    for replica in &survey.control_plane {
        if let Some(error) = &replica.error {
            text += &format!("\n{} did not answer: {error}\n", replica.name);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::ForwardError;
    use crate::proxy::Certificate;
    use crate::survey::{SidecarPod, Stage, merge};
    use outrider_control::push::report::ReplicaReport;

    #[test]
    fn the_table_and_what_is_wrong_are_golden() {
        let reports = include_str!("../tests/recorded/proxies.json");
        let reports: Vec<ReplicaReport> = serde_json::from_str(reports).unwrap();
        let mut answers: Vec<_> = reports
            .into_iter()
            .map(|report| (report.replica.clone(), Ok(report)))
            .collect();
        let pod = "outrider-system/outrider-control-7c9-fghij".to_owned();
        let late = ForwardError::Deadline { pod, port: 15014 };
        answers.push(("outrider-control-7c9-fghij".to_owned(), Err(Box::new(late))));
        let pod = |name: &str, stage| SidecarPod {
            name: name.to_owned(),
            namespace: "shop".to_owned(),
            version: Some("0.0.9".to_owned()),
            revision: "canary".to_owned(),
            stage,
        };
        let pulling = "its sidecar: ImagePullBackOff".to_owned();
        let pods = [
            pod("web-0", Stage::Running),
            pod("lost", Stage::Running),
            pod("young", Stage::Starting(pulling)),
        ];
        let mut survey = merge(&answers, &pods, None);
        for proxy in &mut survey.proxies {
            match proxy.name.as_str() {
                "web-0" => {
                    proxy.certificate = Some(Certificate {
                        identity: "spiffe://cluster.local/ns/shop/sa/web".to_owned(),
                        expires: "2026-11-25T09:00:00Z".to_owned(),
                    });
                }
                "lost" => proxy.certificate_error = Some("port 15000 did not answer".to_owned()),
                _ => {}
            }
        }
        let now = parse_rfc3339("2026-11-24T09:30:00Z").unwrap();
        let text = render(&survey, now);
        let path = format!("{}/tests/golden/status.txt", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        assert_eq!(text, std::fs::read_to_string(path).unwrap());
    }
}
