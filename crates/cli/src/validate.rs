//! `outrider validate`

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use outrider_control::mesh::{Findings, MeshSettings, MeshState, ParentFindings};
use outrider_control::registry::directory::files;
use outrider_control::registry::document::documents;
use outrider_control::registry::kinds::MutualTlsMode;
use outrider_control::registry::{Object, ObjectRef, RegistryError, Source};
use outrider_identity::TrustDomain;
use serde::Serialize;

use crate::flags::Global;
use crate::output::{self, OutputError};

/// Say what the control plane will say to these files, without a cluster
///
/// Every document is read as strictly as the control plane reads its own directory: a slip of the
/// pen in a field's name is an error here, where an API server would drop the field. Kinds that
/// are not the mesh's are left alone. Errors make the exit code 1, warnings do not.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  outrider validate -f mesh/
  outrider validate -f base/ -f overlays/test/route.yaml
  helm template charts/shop | outrider validate -f -

What the files refer to has to be among them: a route to a Service that only the cluster has is
reported with a warning.")]
pub(crate) struct Arguments {
    /// A file, a directory with .yaml, .yml and .json files at any depth, or - for standard input;
    /// repeat it for more.
    #[arg(long, short, required = true, value_name = "PATH")]
    filename: Vec<PathBuf>,
    /// The trust domain of the mesh.
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    trust_domain: TrustDomain,
    /// The DNS suffix of services.
    #[arg(long, value_name = "SUFFIX", default_value = "cluster.local")]
    cluster_domain: String,
}

/// Why nothing could be validated.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ValidateError {
    /// A path cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A directory cannot be read.
    #[error(transparent)]
    Directory(#[from] RegistryError),
    /// There is nothing to look at.
    #[error("{0} has no .yaml, .yml or .json file")]
    Empty(PathBuf),
    /// The result cannot be printed.
    #[error(transparent)]
    Output(#[from] OutputError),
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Severity {
    /// It is not taken.
    Error,
    /// It is taken, but does not do what it says.
    Warning,
}

/// What is wrong with one document.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Finding {
    severity: Severity,
    /// The file, and the document in it.
    at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<String>,
    message: String,
}

/// What was looked at, and what was found.
#[derive(Debug, Default, Serialize)]
struct Report {
    ok: bool,
    /// How many files were read.
    files: usize,
    /// How many objects of the mesh are in them.
    objects: usize,
    /// How many documents are of kinds that are not the mesh's.
    others: usize,
    findings: BTreeSet<Finding>,
}

/// Runs the verb; the result is whether there is no error.
///
/// # Errors
/// A path cannot be read.
pub(crate) fn run(arguments: &Arguments, flags: &Global) -> Result<bool, ValidateError> {
    let settings = MeshSettings {
        trust_domain: arguments.trust_domain.clone(),
        cluster_domain: arguments.cluster_domain.clone(),
        root_namespace: flags.system_namespace.clone(),
        mutual_tls: MutualTlsMode::Permissive,
        access_log: false,
    };
    let mut validation = Validation::default();
    for path in &arguments.filename {
        for file in expand(path)? {
            validation.read(&file)?;
        }
    }
    let report = validation.finish(settings);
    output::print(flags.output, &report, render)?;
    Ok(report.ok)
}

fn expand(path: &Path) -> Result<BTreeSet<PathBuf>, ValidateError> {
    if !path.is_dir() {
        return Ok(BTreeSet::from([path.to_owned()]));
    }
    let files = files(path)?;
    if files.is_empty() {
        return Err(ValidateError::Empty(path.to_owned()));
    }
    Ok(files)
}

#[derive(Default)]
struct Validation {
    report: Report,
    objects: Vec<(Source, Arc<Object>)>,
    seen: BTreeMap<ObjectRef, Source>,
    read: BTreeSet<PathBuf>,
}

impl Validation {
    fn read(&mut self, path: &Path) -> Result<(), ValidateError> {
        // One that two of the paths lead to is there once.
        if !self.read.insert(path.to_owned()) {
            return Ok(());
        }
        let read = |source| ValidateError::Read {
            path: path.to_owned(),
            source,
        };
        let mut text = String::new();
        let name = if path == Path::new("-") {
            std::io::stdin().read_to_string(&mut text).map_err(read)?;
            PathBuf::from("standard input")
        } else {
            text = std::fs::read_to_string(path).map_err(read)?;
            path.to_owned()
        };
        self.report.files += 1;
        for document in documents(&Arc::new(name), &text) {
            match document {
                Ok((at, object)) => self.add(at, object),
                Err(error) => self.refuse(&error),
            }
        }
        Ok(())
    }

    fn add(&mut self, at: Source, mut object: Object) {
        self.report.objects += 1;
        if let Object::Service(service) = &mut object {
            // Any will do that no other has; this block is for tests (RFC 2544).
            let count = u32::try_from(self.report.objects).unwrap_or(u32::MAX);
            let address = u32::from(Ipv4Addr::new(198, 18, 0, 0)).saturating_add(count);
            service.allot(Ipv4Addr::from(address).into());
        }
        let object_ref = object.reference();
        if let Some(other) = self.seen.get(&object_ref) {
            let other = other.clone();
            return self.refuse(&RegistryError::Duplicate {
                at,
                object: object_ref,
                other,
            });
        }
        self.seen.insert(object_ref, at.clone());
        self.objects.push((at, Arc::new(object)));
    }

    fn refuse(&mut self, error: &RegistryError) {
        let (at, object, message) = match error {
            RegistryError::UnknownKind {
                at,
                api_version,
                kind,
                known,
            } => {
                let group = api_version.split('/').next().unwrap_or_default();
                let ours = group.ends_with("outrider.dev") || group == "gateway.networking.k8s.io";
                if !ours && !kind.is_empty() && !api_version.is_empty() {
                    self.report.others += 1;
                    return;
                }
                let message = match (kind.as_str(), api_version.as_str()) {
                    ("", _) => "kind: is missing".to_owned(),
                    (_, "") => "apiVersion: is missing".to_owned(),
                    _ if group == "gateway.networking.k8s.io" => {
                        format!("{kind} of {api_version} means nothing to the mesh")
                    }
                    _ => format!("the mesh knows no {kind} of {api_version}; it knows {known}"),
                };
                // Gateways and their classes are not of the mesh, but of the same API.
                let severity = if group == "gateway.networking.k8s.io" {
                    Severity::Warning
                } else {
                    Severity::Error
                };
                return self.push(severity, at, None, message);
            }
            RegistryError::Shape { at, detail } => (at, None, detail.clone()),
            RegistryError::Field { at, object, error } => {
                (at, Some(object.to_string()), error.to_string())
            }
            RegistryError::Duplicate { at, object, other } => {
                let message = format!("is declared already in {other}; remove one of the two");
                (at, Some(object.to_string()), message)
            }
            // Of whole files, which are read here and not there.
            RegistryError::Read { .. } | RegistryError::Watch { .. } => return,
        };
        self.push(Severity::Error, at, object, message);
    }

    fn push(&mut self, severity: Severity, at: &Source, object: Option<String>, message: String) {
        self.report.findings.insert(Finding {
            severity,
            at: at.to_string(),
            object,
            message,
        });
    }

    fn finish(mut self, settings: MeshSettings) -> Report {
        let mesh = MeshState::build(Arc::new(settings), self.objects.iter());
        let mut judged = BTreeSet::new();
        for (object, verdict) in mesh.verdicts().iter() {
            let (Findings::Route(parents), Some(at)) = (&verdict.findings, self.seen.get(object))
            else {
                continue;
            };
            judged.insert(object.clone());
            let at = at.clone();
            for (severity, message) in parents.iter().flat_map(judgements) {
                self.push(severity, &at, Some(object.to_string()), message);
            }
        }
        // What is wrong with a route is told above, with how bad it is.
        let others = mesh.warnings.iter();
        for warning in others.filter(|warning| !judged.contains(&warning.object)) {
            let object = Some(warning.object.to_string());
            let message = warning.message.clone();
            self.push(Severity::Warning, &warning.source, object, message);
        }
        let findings = self.report.findings.iter();
        let errors = findings.filter(|finding| finding.severity == Severity::Error);
        self.report.ok = errors.count() == 0;
        self.report
    }
}

/// What the status of a route would say that is not good.
fn judgements(parent: &ParentFindings) -> Vec<(Severity, String)> {
    let mut found = Vec::new();
    let accepted = &parent.accepted;
    if !accepted.holds {
        // The Service may be one that only the cluster has.
        let severity = match accepted.reason {
            "NoMatchingParent" => Severity::Warning,
            _ => Severity::Error,
        };
        let (reason, message) = (accepted.reason, &accepted.message);
        found.push((severity, format!("not accepted ({reason}): {message}")));
    }
    if !parent.resolved_refs.holds {
        let refs = &parent.resolved_refs;
        found.push((
            Severity::Warning,
            format!("{}: {}", refs.reason, refs.message),
        ));
    }
    if let Some(partial) = &parent.partially_invalid {
        found.push((Severity::Error, partial.message.clone()));
    }
    found
}

fn render(report: &Report) -> String {
    let mut text = String::new();
    for finding in &report.findings {
        let severity = match finding.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let object = finding.object.as_ref();
        let object = object.map_or_else(String::new, |object| format!(" ({object})"));
        let message = finding.message.replace('\n', "\n    ");
        text += &format!("{severity}: {}{object}:\n    {message}\n", finding.at);
    }
    let of = |severity| {
        let findings = report.findings.iter();
        findings
            .filter(|finding| finding.severity == severity)
            .count()
    };
    if !text.is_empty() {
        text.push('\n');
    }
    text += &format!(
        "{}, {} of the mesh, {} of other kinds: {}, {}\n",
        count(report.files, "file"),
        count(report.objects, "object"),
        count(report.others, "document"),
        count(of(Severity::Error), "error"),
        count(of(Severity::Warning), "warning"),
    );
    text
}

fn count(number: usize, what: &str) -> String {
    if number == 1 {
        format!("1 {what}")
    } else {
        format!("{number} {what}s")
    }
}
