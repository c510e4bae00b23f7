//! From an AdmissionReview to its answer (admission.k8s.io/v1): pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::core::DynamicObject;
use kube::core::admission::{
    AdmissionRequest, AdmissionResponse, AdmissionReview, META_API_VERSION_V1, META_KIND, Operation,
};
use kube::core::response::StatusSummary;
use serde_json::Value;

use crate::config::{Config, ServerVersion};
use crate::patch::{HookSecret, Outcome, Surroundings, inject};

/// Why a request is not answered with a review.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Malformed {
    /// It is not JSON, or lacks what a review has.
    #[error("not an AdmissionReview: {0}")]
    Parse(#[source] serde_json::Error),
    /// It is of another kind or version.
    #[error(
        "not an AdmissionReview: it is {kind} of {version}, not {META_KIND} of {META_API_VERSION_V1}"
    )]
    Kind {
        /// Its kind.
        kind: String,
        /// Its apiVersion.
        version: String,
    },
    /// There is nothing to answer.
    #[error("the AdmissionReview has no {0}")]
    Missing(&'static str),
    /// What is to be created is no pod, though it says so.
    #[error("request.object: {0}")]
    Object(String),
    /// The answer cannot be written.
    #[error("the answer cannot be written: {0}")]
    Answer(#[source] serde_json::Error),
}

/// What became of the pod, for the count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Became {
    Patched,
    Left,
    Refused,
    /// It is not the creation of a pod.
    Other,
}

/// Something that the pod's owner should read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Report {
    /// One word.
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    /// The pod's controller, else its namespace: the pod itself has no name yet, or never will.
    pub(crate) about: ObjectReference,
}

/// An answer, and what else to do.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) body: Vec<u8>,
    pub(crate) became: Became,
    /// None for a dry run, which must not leave traces.
    pub(crate) reports: Vec<Report>,
}

/// What a review does not say.
pub(crate) struct Context<'a> {
    pub(crate) config: &'a Config,
    pub(crate) server: Option<ServerVersion>,
    /// The level of Pod Security that a namespace enforces.
    pub(crate) pod_security: &'a dyn Fn(&str) -> Option<String>,
    /// A new one for each review.
    pub(crate) hook_secret: HookSecret,
}

/// Answers a review.
///
/// # Errors
/// It is none.
pub(crate) fn answer(body: &[u8], context: &Context<'_>) -> Result<Answer, Malformed> {
    let review: AdmissionReview<DynamicObject> =
        serde_json::from_slice(body).map_err(Malformed::Parse)?;
    let types = &review.types;
    if types.kind != META_KIND || types.api_version != META_API_VERSION_V1 {
        return Err(Malformed::Kind {
            kind: types.kind.clone(),
            version: types.api_version.clone(),
        });
    }
    let types = review.types;
    let mut request = review.request.ok_or(Malformed::Missing("request"))?;
    if request.uid.is_empty() {
        return Err(Malformed::Missing("request.uid"));
    }
    request.types = types;
    let mut response = AdmissionResponse::from(&request);
    if !is_new_pod(&request) {
        return finish(response, Became::Other, None, Vec::new());
    }
    let object = request.object.take();
    let object = object.ok_or(Malformed::Missing("request.object"))?;
    let namespace = request.namespace.as_deref().unwrap_or_default();
    let about = about(&object, namespace);
    let pod = serde_json::to_value(object).map_err(Malformed::Parse)?;
    let decision = decide(&pod, namespace, context, &mut response)?;
    let mut reports = Vec::new();
    if !request.dry_run {
        let report = |(reason, message)| Report {
            reason,
            message,
            about: about.clone(),
        };
        reports.extend(decision.notes.into_iter().map(report));
    }
    finish(response, decision.became, decision.patch, reports)
}

type Notes = Vec<(&'static str, String)>;

struct Decision {
    became: Became,
    /// JSON Patch.
    patch: Option<Vec<u8>>,
    notes: Notes,
}

fn decide(
    pod: &Value,
    namespace: &str,
    context: &Context<'_>,
    response: &mut AdmissionResponse,
) -> Result<Decision, Malformed> {
    let pod_security = (context.pod_security)(namespace);
    let surroundings = Surroundings {
        server: context.server,
        pod_security: pod_security.as_deref(),
        hook_secret: context.hook_secret,
    };
    match inject(pod, surroundings, context.config) {
        Outcome::Patch {
            operations,
            warnings,
        } => {
            let notes = warnings.iter().map(|text| ("Injection", text.clone()));
            let notes = notes.collect();
            warn(response, warnings);
            let patch = serde_json::to_vec(&operations).map_err(Malformed::Answer)?;
            Ok(Decision {
                became: Became::Patched,
                patch: Some(patch),
                notes,
            })
        }
        Outcome::Left(left) => {
            let mut notes = Notes::new();
            if left.is_notable() {
                let message = format!("no sidecar was injected: {left}");
                warn(response, vec![message.clone()]);
                notes.push(("NotInjected", message));
            }
            Ok(Decision {
                became: Became::Left,
                patch: None,
                notes,
            })
        }
        Outcome::Refused(refusal) if refusal.is_malformed() => {
            Err(Malformed::Object(refusal.to_string()))
        }
        Outcome::Refused(refusal) => {
            let message = refusal.to_string();
            response.allowed = false;
            response.result.status = Some(StatusSummary::Failure);
            response.result.code = 403;
            response.result.reason = "Forbidden".to_owned();
            response.result.message.clone_from(&message);
            Ok(Decision {
                became: Became::Refused,
                patch: None,
                notes: vec![("InjectionRefused", message)],
            })
        }
    }
}

fn warn(response: &mut AdmissionResponse, warnings: Vec<String>) {
    if !warnings.is_empty() {
        response.warnings = Some(warnings);
    }
}

fn finish(
    response: AdmissionResponse,
    became: Became,
    patch: Option<Vec<u8>>,
    reports: Vec<Report>,
) -> Result<Answer, Malformed> {
    let mut review = serde_json::to_value(response.into_review()).map_err(Malformed::Answer)?;
    if let Some(patch) = patch {
        // kube would write every byte of it as a number; the documented form is base64.
        review["response"]["patch"] = Value::from(STANDARD.encode(patch));
        review["response"]["patchType"] = Value::from("JSONPatch");
    }
    let body = serde_json::to_vec(&review).map_err(Malformed::Answer)?;
    Ok(Answer {
        body,
        became,
        reports,
    })
}

/// Whether it is what the webhook is registered for; everything else passes untouched.
fn is_new_pod(request: &AdmissionRequest<DynamicObject>) -> bool {
    let sub_resource = request.sub_resource.as_deref().unwrap_or_default();
    request.operation == Operation::Create
        && sub_resource.is_empty()
        && request.kind.group.is_empty()
        && request.kind.version == "v1"
        && request.kind.kind == "Pod"
}

fn about(object: &DynamicObject, namespace: &str) -> ObjectReference {
    let owners = object.metadata.owner_references.iter().flatten();
    let mut controllers = owners.filter(|owner| owner.controller == Some(true));
    let reference = match controllers.next() {
        Some(owner) => ObjectReference {
            api_version: Some(owner.api_version.clone()),
            kind: Some(owner.kind.clone()),
            name: Some(owner.name.clone()),
            uid: Some(owner.uid.clone()),
            ..ObjectReference::default()
        },
        None => ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Namespace".to_owned()),
            name: Some(namespace.to_owned()),
            ..ObjectReference::default()
        },
    };
    ObjectReference {
        // Also of a namespace: its events are looked for in it.
        namespace: Some(namespace.to_owned()),
        ..reference
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;

    fn review(change: impl FnOnce(&mut Value)) -> Vec<u8> {
        let mut review = json!({
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": {
                "uid": "u-1",
                "kind": {"group": "", "version": "v1", "kind": "Pod"},
                "resource": {"group": "", "version": "v1", "resource": "pods"},
                "namespace": "shop",
                "operation": "CREATE",
                "userInfo": {"username": "somebody"},
                "dryRun": false,
                "object": {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "metadata": {"generateName": "web-", "ownerReferences": [
                        {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-1",
                         "uid": "r", "controller": true},
                    ]},
                    "spec": {"containers": [{"name": "app"}]},
                },
                "oldObject": null,
            },
        });
        change(&mut review);
        serde_json::to_vec(&review).unwrap()
    }

    fn answered(body: &[u8]) -> Result<Answer, Malformed> {
        let text = "images: {sidecar: s, init: i}\ncontrolAddress: c.m.svc:15012\n";
        let config = Config::from_yaml(text, Path::new("c")).unwrap();
        answer(
            body,
            &Context {
                config: &config,
                server: None,
                pod_security: &|namespace| (namespace == "tight").then(|| "restricted".to_owned()),
                hook_secret: HookSecret::from(1),
            },
        )
    }

    fn response(answer: &Answer) -> Value {
        let review: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(review["apiVersion"], "admission.k8s.io/v1");
        assert_eq!(review["kind"], "AdmissionReview");
        assert_eq!(review["response"]["uid"], "u-1");
        review["response"].clone()
    }

    #[test]
    fn a_pod_is_patched() {
        let answer = answered(&review(|_| {})).unwrap();
        assert_eq!(answer.became, Became::Patched);
        assert_eq!(answer.reports, []);
        let response = response(&answer);
        assert_eq!(response["allowed"], true);
        assert_eq!(response["patchType"], "JSONPatch");
        assert!(response["patch"].as_str().unwrap().len() > 1000);
    }

    #[test]
    fn what_is_not_the_creation_of_a_pod_passes() {
        for (pointer, value) in [
            ("/request/operation", json!("UPDATE")),
            ("/request/operation", json!("DELETE")),
            ("/request/kind/kind", json!("ConfigMap")),
            ("/request/kind/group", json!("example")),
        ] {
            let body = review(|review| *review.pointer_mut(pointer).unwrap() = value);
            let answer = answered(&body).unwrap();
            assert_eq!(answer.became, Became::Other, "{pointer}");
            let response = response(&answer);
            assert_eq!(response["allowed"], true);
            assert_eq!(response.get("patch"), None);
        }
        let body = review(|review| review["request"]["subResource"] = json!("ephemeralcontainers"));
        assert_eq!(answered(&body).unwrap().became, Became::Other);
    }

    #[test]
    fn reasons_are_told_to_who_asks_and_to_the_controller_but_not_of_a_dry_run() {
        let refused = |review: &mut Value| {
            review["request"]["object"]["metadata"]["annotations"] =
                json!({"outrider.dev/concurrency": "y"});
        };
        let answer = answered(&review(refused)).unwrap();
        assert_eq!(answer.became, Became::Refused);
        let told = response(&answer);
        assert_eq!(told["allowed"], false);
        assert_eq!(told["status"]["code"], 403);
        let message = told["status"]["message"].as_str().unwrap();
        assert!(
            message.contains("annotation outrider.dev/concurrency"),
            "{message}"
        );
        let [report] = &answer.reports[..] else {
            panic!("{answer:?}")
        };
        assert_eq!(report.message, message);
        assert_eq!(report.about.name.as_deref(), Some("web-1"));
        assert_eq!(report.about.namespace.as_deref(), Some("shop"));
        let dry = review(|review| {
            refused(review);
            review["request"]["dryRun"] = json!(true);
        });
        assert_eq!(answered(&dry).unwrap().reports, []);

        let odd = answered(&review(|review| {
            review["request"]["object"]["metadata"]["annotations"] =
                json!({"outrider.dev/drain-second": "5"});
        }));
        let odd = odd.unwrap();
        assert_eq!(odd.became, Became::Patched);
        let warnings = response(&odd)["warnings"].clone();
        let warning = warnings[0].as_str().unwrap();
        assert!(warning.contains("outrider.dev/drain-seconds?"), "{warning}");
        assert_eq!(odd.reports[0].message, warning);

        let left = answered(&review(|review| {
            review["request"]["object"]["spec"]["hostNetwork"] = json!(true);
            review["request"]["object"]["metadata"] = json!({"name": "x"});
        }));
        let left = left.unwrap();
        assert_eq!(left.became, Became::Left);
        assert_eq!(left.reports[0].reason, "NotInjected");
        assert_eq!(left.reports[0].about.kind.as_deref(), Some("Namespace"));
        let warnings = response(&left)["warnings"].clone();
        assert!(warnings[0].as_str().unwrap().contains("hostNetwork"));

        let tight = review(|review| review["request"]["namespace"] = json!("tight"));
        let warnings = response(&answered(&tight).unwrap())["warnings"].clone();
        assert!(warnings[0].as_str().unwrap().contains("restricted"));
    }

    #[test]
    fn what_is_no_review_is_named() {
        for (body, named) in [
            (b"".to_vec(), "not an AdmissionReview: EOF"),
            (b"[1, 2]".to_vec(), "not an AdmissionReview"),
            (b"{\"kind\": \"\xff\"}".to_vec(), "not an AdmissionReview"),
            ("[".repeat(100_000).into_bytes(), "not an AdmissionReview"),
            (
                review(|review| review["apiVersion"] = json!("admission.k8s.io/v1beta1")),
                "admission.k8s.io/v1beta1",
            ),
            (review(|review| review["kind"] = json!("Pod")), "it is Pod"),
            (
                review(|review| review["request"] = Value::Null),
                "has no request",
            ),
            (
                review(|review| review["request"]["uid"] = json!("")),
                "has no request.uid",
            ),
            (
                review(|review| review["request"]["operation"] = json!("EXPLODE")),
                "EXPLODE",
            ),
            (
                review(|review| review["request"]["object"] = Value::Null),
                "has no request.object",
            ),
            (
                review(|review| review["request"]["object"]["spec"] = json!({"containers": 1})),
                "request.object: not a pod",
            ),
        ] {
            let error = answered(&body).unwrap_err().to_string();
            assert!(error.contains(named), "{named}: {error}");
        }
    }
}
