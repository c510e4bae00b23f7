//! What a route does with a request, in words.

use serde_json::Value;

use super::dump::{list, number, text};

/// `envoy.config.route.v3.Route`, all but its match.
pub(super) fn route(route: &Value) -> String {
    if let Some(action) = route.get("route") {
        return forward(action);
    }
    if let Some(redirect) = route.get("redirect") {
        return self::redirect(redirect);
    }
    if let Some(response) = route.get("direct_response") {
        let status = number(response, "/status").unwrap_or_default();
        return format!("answer {status}");
    }
    "nothing".to_owned()
}

fn forward(action: &Value) -> String {
    let clusters = list(action, "/weighted_clusters/clusters");
    let to = if clusters.is_empty() {
        match text(action, "/cluster") {
            "" => match text(action, "/cluster_header") {
                "" => "by a plugin".to_owned(),
                header => format!("the cluster that {header} names"),
            },
            cluster => cluster.to_owned(),
        }
    } else {
        let weight = |cluster: &Value| number(cluster, "/weight").unwrap_or_else(|| "0".to_owned());
        let shares: Vec<String> = clusters
            .iter()
            .map(|cluster| format!("{} to {}", weight(cluster), text(cluster, "/name")))
            .collect();
        shares.join(", ")
    };
    let mut notes = Vec::new();
    for (field, words) in [
        ("/host_rewrite_literal", "host"),
        ("/prefix_rewrite", "prefix"),
        ("/regex_rewrite/substitution", "path"),
        (
            "/path_rewrite_policy/typed_config/path_template_rewrite",
            "path",
        ),
    ] {
        let value = text(action, field);
        if !value.is_empty() {
            notes.push(format!("{words} becomes {value}"));
        }
    }
    match text(action, "/timeout") {
        "" => notes.push("timeout 15s".to_owned()),
        "0s" => {}
        timeout => notes.push(format!("timeout {timeout}")),
    }
    let retries = &action["retry_policy"];
    let retry_on = text(retries, "/retry_on");
    if !retry_on.is_empty() {
        let times = number(retries, "/num_retries").unwrap_or_else(|| "1".to_owned());
        notes.push(format!("{times} retries on {retry_on}"));
    }
    for mirror in list(action, "/request_mirror_policies") {
        notes.push(format!("copied to {}", text(mirror, "/cluster")));
    }
    if notes.is_empty() {
        to
    } else {
        format!("{to} ({})", notes.join("; "))
    }
}

fn redirect(redirect: &Value) -> String {
    let field = |pointer| Some(text(redirect, pointer)).filter(|text| !text.is_empty());
    let scheme = field("/scheme_redirect")
        .or_else(|| (redirect["https_redirect"] == true).then_some("https"));
    let port = number(redirect, "/port_redirect");
    let authority = match (field("/host_redirect"), &port) {
        (Some(host), Some(port)) => Some(format!("{host}:{port}")),
        (Some(host), None) => Some(host.to_owned()),
        (None, Some(port)) => Some(format!("<host>:{port}")),
        (None, None) => scheme.map(|_| "<host>".to_owned()),
    };
    let mut location = String::new();
    if let Some(authority) = authority {
        location = format!(
            "{}//{authority}",
            scheme.map_or(String::new(), |scheme| format!("{scheme}:"))
        );
    }
    location += &match (field("/path_redirect"), field("/prefix_rewrite")) {
        (Some(path), _) => path.to_owned(),
        (None, Some(prefix)) => format!("{}[/...]", prefix.trim_end_matches('/')),
        (None, None) => match field("/regex_rewrite/substitution") {
            Some(path) => path.to_owned(),
            None => "<path>".to_owned(),
        },
    };
    let status = match text(redirect, "/response_code") {
        "FOUND" => "302",
        "SEE_OTHER" => "303",
        "TEMPORARY_REDIRECT" => "307",
        "PERMANENT_REDIRECT" => "308",
        _ => "301",
    };
    format!("redirect {status} to {location}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn actions_are_told_in_words() {
        for (action, words) in [
            (json!({"route": {"cluster": "c", "timeout": "0s"}}), "c"),
            (json!({"route": {"cluster": "c"}}), "c (timeout 15s)"),
            (
                json!({"route": {"weighted_clusters": {"clusters": [
                    {"name": "a", "weight": 90}, {"name": "b", "weight": "10"}]},
                    "timeout": "2s", "prefix_rewrite": "/x",
                    "retry_policy": {"retry_on": "5xx", "num_retries": 3},
                    "request_mirror_policies": [{"cluster": "m"}]}}),
                "90 to a, 10 to b (prefix becomes /x; timeout 2s; 3 retries on 5xx; copied to m)",
            ),
            (json!({"direct_response": {"status": 404}}), "answer 404"),
            (json!({"redirect": {}}), "redirect 301 to <path>"),
            (
                json!({"redirect": {"https_redirect": true, "port_redirect": 8443,
                    "response_code": "PERMANENT_REDIRECT"}}),
                "redirect 308 to https://<host>:8443<path>",
            ),
            (
                json!({"redirect": {"host_redirect": "h", "prefix_rewrite": "/new",
                    "response_code": "FOUND"}}),
                "redirect 302 to //h/new[/...]",
            ),
        ] {
            assert_eq!(route(&action), words);
        }
    }
}
