//! `/config_dump` and `/init_dump`

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::answer::{json as page_of, respond};
use super::query::Query;
use crate::discovery::dump::Dump;
use crate::runtime::http_server::Page;

/// What a list's entries have their resource in, which has the name.
const RESOURCES: &[&str] = &[
    "cluster",
    "endpoint_config",
    "listener",
    "route_config",
    "secret",
    "active_state",
    "warming_state",
];

/// The sections that were asked for, or the list of one of them.
pub fn page(dump: &Dump, query: &Query<'_>) -> Page {
    let pattern = query
        .get("name_regex")
        .filter(|pattern| !pattern.is_empty());
    let names = match pattern.map(|text| {
        (
            regex::RegexBuilder::new(&format!("^(?:{text})$"))
                .size_limit(1 << 20)
                .build(),
            text,
        )
    }) {
        None => None,
        Some((Ok(names), _)) => Some(names),
        Some((Err(error), text)) => {
            let reason =
                format!("INVALID_ARGUMENT: Error while parsing name_regex from {text}: {error}");
            return respond(StatusCode::BAD_REQUEST, "text/plain", reason);
        }
    };
    let Value::Object(mut page) = dump.render() else {
        return page_of(&Value::Null);
    };
    let mut configs = match page.remove("configs") {
        Some(Value::Array(configs)) => configs,
        _ => Vec::new(),
    };
    if !query.has("include_eds") {
        configs.retain(|section| !is_section(section, "Endpoints"));
    }
    if let Some(names) = &names {
        for section in &mut configs {
            keep_named(section, names);
        }
    }
    let mask = query.get("mask").filter(|mask| !mask.is_empty());
    if let Some(resource) = query.get("resource").filter(|name| !name.is_empty()) {
        let Some(list) = list_of(&configs, &resource) else {
            let reason = format!("{resource} not found in config dump");
            return respond(StatusCode::NOT_FOUND, "text/plain", reason);
        };
        configs = list;
    }
    if let Some(mask) = mask {
        let mut some = false;
        configs = configs
            .iter()
            .map(|config| {
                let masked = masked(config, &mask);
                some = some || masked.len() > 1;
                Value::Object(masked)
            })
            .collect();
        configs.retain(|config| config.as_object().is_some_and(|fields| fields.len() > 1));
        if !some {
            let reason =
                format!("FieldMask {mask} could not be successfully applied to any configs.");
            return respond(StatusCode::BAD_REQUEST, "text/plain", reason);
        }
    }
    // An empty list is left out, as of any message.
    page_of(&match configs.as_slice() {
        [] => json!({}),
        _ => json!({ "configs": configs }),
    })
}

fn is_section(section: &Value, kind: &str) -> bool {
    let suffix = format!(".{kind}ConfigDump");
    section["@type"]
        .as_str()
        .is_some_and(|url| url.ends_with(&suffix))
}

/// Keeps the entries of a section's lists whose resources have such names.
fn keep_named(section: &mut Value, names: &regex::Regex) {
    let Value::Object(fields) = section else {
        return;
    };
    for list in fields.values_mut() {
        if let Value::Array(entries) = list {
            entries.retain(|entry| {
                let of_resource = RESOURCES.iter().find_map(|key| {
                    let resource = entry.get(key)?;
                    resource["name"]
                        .as_str()
                        .or_else(|| resource["cluster_name"].as_str())
                });
                let name = entry["name"].as_str().or(of_resource);
                names.is_match(name.unwrap_or_default())
            });
        }
    }
}

/// The entries of the list of that name, each with its type as Envoy writes them.
fn list_of(configs: &[Value], name: &str) -> Option<Vec<Value>> {
    configs.iter().find_map(|section| {
        let kind = section["@type"].as_str()?;
        match section.get(name)? {
            Value::Array(entries) => Some(
                entries
                    .iter()
                    .map(|entry| typed(entry, kind, name))
                    .collect(),
            ),
            one @ Value::Object(_) => Some(vec![one.clone()]),
            _ => None,
        }
    })
}

/// An entry with the type of its message, which is nested in that of its section.
fn typed(entry: &Value, section: &str, list: &str) -> Value {
    let Value::Object(fields) = entry else {
        return entry.clone();
    };
    let kind = [
        "cluster",
        "endpoint_config",
        "listener",
        "route_config",
        "secret",
    ]
    .into_iter()
    .find(|kind| list.ends_with(&format!("{kind}s")));
    let kind: String = kind
        .unwrap_or_default()
        .split('_')
        .map(|word| format!("{}{}", word[..1].to_ascii_uppercase(), &word[1..]))
        .collect();
    let prefix = if list.starts_with("static") {
        "Static"
    } else {
        "Dynamic"
    };
    let mut typed = Map::new();
    typed.insert("@type".into(), format!("{section}.{prefix}{kind}").into());
    typed.extend(fields.clone());
    typed.into()
}

/// The fields that a mask names, such as `a.b,c`; types stay. Lists are gone through.
fn masked(value: &Value, mask: &str) -> Map<String, Value> {
    let mut kept = Map::new();
    let Value::Object(fields) = value else {
        return kept;
    };
    if let Some(kind) = fields.get("@type") {
        kept.insert("@type".into(), kind.clone());
    }
    for path in mask.split(',') {
        let (name, rest) = path.split_once('.').unwrap_or((path, ""));
        let Some(inner) = fields.get(name) else {
            continue;
        };
        let part = match (rest, inner) {
            ("", inner) => inner.clone(),
            (rest, Value::Object(_)) => Value::Object(masked(inner, rest)),
            _ => continue,
        };
        match (kept.get_mut(name), part) {
            (Some(Value::Object(present)), Value::Object(more)) => present.extend(more),
            (_, part) => {
                kept.insert(name.to_owned(), part);
            }
        }
    }
    kept
}

/// `/init_dump`: what warms, by the names of Envoy's targets.
pub fn waiting(clusters: &[String], listeners: &[String], mask: Option<&str>) -> Value {
    let of = |kind: &str, names: &[String]| -> Vec<Value> {
        let wanted = mask.is_none_or(|mask| mask == kind);
        let names = names.iter().filter(|_| wanted);
        names
            .map(|name| json!({"name": format!("{kind} {name}"), "target_names": ["resources that it refers to"]}))
            .collect()
    };
    let targets = [of("listener", listeners), of("cluster", clusters)].concat();
    if targets.is_empty() {
        return json!({});
    }
    json!({ "unready_targets_dumps": targets })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_keep_what_they_name() {
        let value = json!({"@type": "t", "a": {"b": 1, "c": 2, "d": 3}, "e": [4]});
        let expected = json!({"@type": "t", "a": {"b": 1, "c": 2}, "e": [4]});
        assert_eq!(Value::Object(masked(&value, "a.b,a.c,e,z")), expected);
        assert_eq!(masked(&value, "z").len(), 1);
    }

    #[test]
    fn lists_are_found_by_name() {
        let configs = [json!({
            "@type": "type.googleapis.com/envoy.admin.v3.RoutesConfigDump",
            "static_route_configs": [{"route_config": {"name": "r"}}],
        })];
        let list = list_of(&configs, "static_route_configs").unwrap();
        let kind = "type.googleapis.com/envoy.admin.v3.RoutesConfigDump.StaticRouteConfig";
        assert_eq!(list[0]["@type"], kind);
        assert!(list_of(&configs, "nope").is_none());
        let mut section = configs[0].clone();
        keep_named(&mut section, &regex::Regex::new("^x$").unwrap());
        assert_eq!(section["static_route_configs"], json!([]));
    }
}
