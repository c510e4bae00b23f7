use time::macros::datetime;

use super::*;
use crate::mesh::Finding;

const NOW: OffsetDateTime = datetime!(2026-03-04 05:06:07.8 UTC);
const LATER: OffsetDateTime = datetime!(2026-03-05 00:00:00 UTC);

fn parent(text: &str) -> ParentRef {
    serde_norway::from_str(text).unwrap()
}

fn route(generation: i64, parents: &[(&str, Finding)]) -> Verdict {
    let findings = parents.iter().map(|(text, accepted)| ParentFindings {
        parent: parent(text),
        accepted: accepted.clone(),
        resolved_refs: Finding::holds("ResolvedRefs", "every backend exists"),
        partially_invalid: None,
    });
    Verdict {
        generation,
        findings: Findings::Route(findings.collect()),
    }
}

const WEB: &str = "{group: '', kind: Service, name: web, port: 80}";
const API: &str = "{group: '', kind: Service, name: api}";

fn accepted() -> Finding {
    Finding::holds("Accepted", "in force")
}

fn condition<'a>(entry: &'a Value, kind: &str) -> &'a Value {
    let mut conditions = list(entry.get("conditions")).iter();
    conditions
        .find(|condition| condition["type"] == kind)
        .unwrap()
}

#[test]
fn a_new_route_gets_an_entry_per_parent() {
    let verdict = route(3, &[(WEB, accepted())]);
    let status = wanted(None, &verdict, 0, NOW).unwrap();
    let entry = &status["parents"][0];
    assert_eq!(
        entry["parentRef"],
        json!({"group": "", "kind": "Service", "name": "web", "port": 80})
    );
    assert_eq!(entry["controllerName"], "outrider.dev/mesh");
    assert_eq!(
        *condition(entry, "Accepted"),
        json!({"type": "Accepted", "status": "True", "observedGeneration": 3,
            "lastTransitionTime": "2026-03-04T05:06:07Z", "reason": "Accepted",
            "message": "in force"})
    );
    assert_eq!(condition(entry, "Programmed")["status"], "True");
    assert_eq!(
        wanted(Some(&status), &verdict, 0, LATER),
        None,
        "nothing to write"
    );
}

#[test]
fn the_time_of_a_condition_changes_with_its_status_alone() {
    let before = wanted(None, &route(1, &[(WEB, accepted())]), 0, NOW).unwrap();
    let refused = Finding::fails("NoMatchingParent", "spec.parentRefs[0]: no");
    let after = wanted(Some(&before), &route(2, &[(WEB, refused)]), 0, LATER).unwrap();
    let entry = &after["parents"][0];
    let times = ["Accepted", "ResolvedRefs"].map(|kind| condition(entry, kind));
    assert_eq!(times[0]["lastTransitionTime"], "2026-03-05T00:00:00Z");
    assert_eq!(times[1]["lastTransitionTime"], "2026-03-04T05:06:07Z");
    assert_eq!(times[1]["observedGeneration"], 2);
}

#[test]
fn entries_of_others_stay_and_stale_ones_of_ours_go() {
    let other = json!({"parentRef": {"name": "gate"}, "controllerName": "example.com/gate",
        "conditions": [{"type": "Accepted", "status": "True"}]});
    let both = route(1, &[(WEB, accepted()), (API, accepted())]);
    let present = json!({"parents": [other], "extra": 1});
    let first = wanted(Some(&present), &both, 0, NOW).unwrap();
    assert_eq!(list(first.get("parents")).len(), 3);
    assert_eq!(first["extra"], 1);
    let one = route(1, &[(API, accepted())]);
    let second = wanted(Some(&first), &one, 0, LATER).unwrap();
    let parents = list(second.get("parents"));
    assert_eq!(parents.len(), 2);
    assert_eq!(parents[0], other);
    assert_eq!(parents[1], first["parents"][2]);
    // A route that is attached to nothing of ours any more.
    let none = wanted(Some(&second), &route(2, &[]), 0, LATER).unwrap();
    assert_eq!(none["parents"], json!([other]));
    // And one that never was: nothing is added.
    assert_eq!(wanted(None, &route(1, &[]), 0, NOW), None);
    assert_eq!(
        wanted(Some(&json!({"parents": [other]})), &route(1, &[]), 0, NOW),
        None
    );
}

#[test]
fn proxies_that_refuse_are_counted() {
    let object = |accepted: Finding| Verdict {
        generation: 1,
        findings: Findings::Object(accepted),
    };
    for (verdict, rejecting, status, message) in [
        (object(accepted()), 0, "True", "no proxy refused it"),
        (object(accepted()), 1, "False", "1 proxy refused it"),
        (object(accepted()), 12, "False", "12 proxies refused it"),
        (
            object(Finding::fails("Invalid", "spec.x: no")),
            0,
            "False",
            "nothing of it was sent to a proxy",
        ),
    ] {
        let written = wanted(None, &verdict, rejecting, NOW).unwrap();
        let programmed = condition(&written, "Programmed");
        assert_eq!(
            (&programmed["status"], &programmed["message"]),
            (&json!(status), &json!(message))
        );
        assert_eq!(written["rejectedBy"], rejecting);
    }
}
