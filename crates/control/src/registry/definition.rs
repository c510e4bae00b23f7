//! The definitions of our own kinds for a cluster, made from their types.
//!
//! An API server wants structural schemas (KEP-1259): one type per value, no references, no
//! `patternProperties`, no `additionalProperties: false`. Unknown fields are pruned, or refused where
//! the client asks for that. What a schema cannot say is said in CEL (KEP-2876), beside the types.

use schemars::generate::SchemaSettings;
use schemars::transform::{Transform, transform_subschemas};
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

use super::kinds::{ObjectStatus, PeerAuthenticationSpec, WorkloadEntrySpec};

const GROUP: &str = "outrider.dev";

struct Definition {
    kind: &'static str,
    plural: &'static str,
    short: &'static str,
    description: &'static str,
    /// Name, type and JSON path.
    columns: &'static [(&'static str, &'static str, &'static str)],
    spec: fn() -> Value,
}

const DEFINITIONS: &[Definition] = &[
    Definition {
        kind: "PeerAuthentication",
        plural: "peerauthentications",
        short: "peerauth",
        description: "Sets who must speak mutual TLS: in the whole mesh (in the root namespace, \
                      without a selector), in a namespace, or in the workloads that a selector \
                      matches. Among policies of the same reach the strictest holds.",
        columns: &[("Mode", "string", ".spec.mtls.mode")],
        spec: structural::<PeerAuthenticationSpec>,
    },
    Definition {
        kind: "WorkloadEntry",
        plural: "workloadentries",
        short: "wentry",
        description: "A workload that no Kubernetes runs. It stands behind every service of its \
                      namespace whose selector matches its labels, as a pod does.",
        columns: &[
            ("Addresses", "string", ".spec.addresses"),
            ("Account", "string", ".spec.serviceAccount"),
        ],
        spec: structural::<WorkloadEntrySpec>,
    },
];

/// The CustomResourceDefinitions, each with its name.
pub fn definitions() -> Vec<(String, Value)> {
    let named = |each: &Definition| (format!("{}.{GROUP}", each.plural), each.render());
    DEFINITIONS.iter().map(named).collect()
}

impl Definition {
    fn render(&self) -> Value {
        let condition = |name: &str| format!(".status.conditions[?(@.type==\"{name}\")].status");
        let mut columns: Vec<Value> = self
            .columns
            .iter()
            .map(|(name, kind, path)| json!({"name": name, "type": kind, "jsonPath": path}))
            .collect();
        columns.extend([
            json!({"name": "Accepted", "type": "string", "jsonPath": condition("Accepted")}),
            json!({"name": "Programmed", "type": "string", "jsonPath": condition("Programmed")}),
            json!({
                "name": "Rejected by",
                "type": "integer",
                "jsonPath": ".status.rejectedBy",
                "priority": 1,
            }),
            json!({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}),
        ]);
        let schema = json!({
            "type": "object",
            "description": self.description,
            "required": ["spec"],
            "properties": {
                "apiVersion": {"type": "string"},
                "kind": {"type": "string"},
                "metadata": {"type": "object"},
                "spec": (self.spec)(),
                "status": structural::<ObjectStatus>(),
            },
        });
        json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{}.{GROUP}", self.plural)},
            "spec": {
                "group": GROUP,
                "scope": "Namespaced",
                "names": {
                    "kind": self.kind,
                    "listKind": format!("{}List", self.kind),
                    "plural": self.plural,
                    "singular": self.kind.to_lowercase(),
                    "shortNames": [self.short],
                    "categories": ["outrider"],
                },
                "versions": [{
                    "name": "v1alpha1",
                    "served": true,
                    "storage": true,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": columns,
                    "schema": {"openAPIV3Schema": schema},
                }],
            },
        })
    }
}

/// The structural schema of a type.
fn structural<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::openapi3().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<T>();
    Structural.transform(&mut schema);
    schema.to_value()
}

struct Structural;

impl Transform for Structural {
    fn transform(&mut self, schema: &mut Schema) {
        if let Some(object) = schema.as_object_mut() {
            unwrap_option(object);
            unite_variants(object);
            // A map whose keys are numbers; CEL checks the keys.
            let pattern = object.remove("patternProperties");
            let values = pattern
                .as_ref()
                .and_then(Value::as_object)
                .and_then(|patterns| patterns.values().next());
            if let Some(values) = values {
                object.insert("additionalProperties".to_owned(), values.clone());
            }
            if object.get("additionalProperties") == Some(&Value::Bool(false)) {
                object.remove("additionalProperties");
            }
            if let Some(Value::String(description)) = object.get_mut("description") {
                *description = description.replace('\n', " ");
            }
            // Of the formats Rust knows, an API server knows the time's only.
            if object
                .get("format")
                .is_some_and(|format| format != "date-time")
            {
                object.remove("format");
            }
            for key in ["title", "nullable"] {
                object.remove(key);
            }
            if object.get("default").is_some_and(|value| {
                value.is_null() || *value == json!({}) || *value == json!([]) || *value == json!(0)
            }) {
                object.remove("default");
            }
        }
        transform_subschemas(self, schema);
    }
}

/// `anyOf: [X, null]` is X: what is optional may be left out.
fn unwrap_option(object: &mut Map<String, Value>) {
    let Some(Value::Array(choices)) = object.get("anyOf") else {
        return;
    };
    let is_null = |choice: &&Value| {
        choice.get("type") == Some(&json!("null")) || choice.get("enum") == Some(&json!([null]))
    };
    let [inner] = choices
        .iter()
        .filter(|choice| !is_null(choice))
        .collect::<Vec<_>>()[..]
    else {
        return;
    };
    let inner = inner.as_object().cloned().unwrap_or_default();
    object.remove("anyOf");
    for (key, value) in inner {
        object.entry(key).or_insert(value);
    }
}

/// Texts, each with a description of its own, are one enumeration with one description.
fn unite_variants(object: &mut Map<String, Value>) {
    let Some(Value::Array(variants)) = object.get("oneOf") else {
        return;
    };
    let (mut values, mut told) = (Vec::new(), Vec::new());
    for variant in variants {
        let only = variant.get("enum").and_then(Value::as_array);
        let value = variant.get("const").or_else(|| only?.first());
        let Some(value) = value.cloned() else { return };
        if let (Some(name), Some(text)) = (
            value.as_str(),
            variant.get("description").and_then(Value::as_str),
        ) {
            told.push(format!("{name}: {text}"));
        }
        values.push(value);
    }
    object.remove("oneOf");
    let described = object.get("description").and_then(Value::as_str);
    let description: Vec<_> = described
        .map(str::to_owned)
        .into_iter()
        .chain(told)
        .collect();
    object.insert("type".to_owned(), json!("string"));
    object.insert("description".to_owned(), json!(description.join(" ")));
    object.insert("enum".to_owned(), Value::Array(values));
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

    fn check(schema: &Value, path: &str) {
        let Some(object) = schema.as_object() else {
            panic!("{path} is no schema: {schema}");
        };
        for forbidden in [
            "$ref",
            "patternProperties",
            "anyOf",
            "oneOf",
            "const",
            "$defs",
        ] {
            assert!(!object.contains_key(forbidden), "{path}: {forbidden}");
        }
        assert!(object["type"].is_string(), "{path}: {schema}");
        for (name, inner) in object
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            check(inner, &format!("{path}.{name}"));
        }
        for inner in ["items", "additionalProperties"] {
            if let Some(inner_schema) = object.get(inner) {
                check(inner_schema, &format!("{path}.{inner}"));
            }
        }
    }

    #[test]
    fn schemas_are_structural_and_say_what_the_types_say() {
        for (name, definition) in definitions() {
            check(
                &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"],
                &name,
            );
            let parsed: CustomResourceDefinition = serde_json::from_value(definition).unwrap();
            assert_eq!(parsed.metadata.name, Some(name));
        }
        let (_, policy) = definitions().swap_remove(0);
        let spec =
            &policy["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        let modes = json!(["DISABLED", "PERMISSIVE", "STRICT"]);
        assert_eq!(
            spec["properties"]["mtls"]["properties"]["mode"]["enum"],
            modes
        );
        let ports = &spec["properties"]["portLevelMtls"]["additionalProperties"];
        assert_eq!(ports["properties"]["mode"]["enum"], modes);
        assert_eq!(
            spec["x-kubernetes-validations"].as_array().map(Vec::len),
            Some(2)
        );
    }
}
