//! What a route asks of a request, in words.

use serde_json::Value;

use super::dump::{list, number, text};

/// `envoy.config.route.v3.RouteMatch`: `/api/*`, `= /login POST`, `~ ^/v[0-9]+ x-user=ann ?beta=1`.
pub(super) fn route(value: &Value) -> String {
    let mut words = vec![path(value)];
    for header in list(value, "/headers") {
        words.push(self::header(header));
    }
    for parameter in list(value, "/query_parameters") {
        let name = text(parameter, "/name");
        words.push(match parameter.get("string_match") {
            Some(matcher) => format!("?{name}{}", relation(matcher)),
            None => format!("?{name}"),
        });
    }
    if value.get("grpc").is_some() {
        words.push("gRPC".to_owned());
    }
    if let Some(share) = number(value, "/runtime_fraction/default_value/numerator") {
        let of = match text(value, "/runtime_fraction/default_value/denominator") {
            "TEN_THOUSAND" => "10000",
            "MILLION" => "1000000",
            _ => "100",
        };
        words.push(format!("{share} of {of}"));
    }
    words.join(" ")
}

fn path(value: &Value) -> String {
    let any_case = value["case_sensitive"] == false;
    let text = |pointer| Some(text(value, pointer)).filter(|text| !text.is_empty());
    let path = if let Some(prefix) = text("/prefix") {
        if prefix == "/" {
            return "any path".to_owned();
        }
        format!("{prefix}*")
    } else if let Some(path) = text("/path") {
        format!("= {path}")
    } else if let Some(prefix) = text("/path_separated_prefix") {
        format!("{prefix}[/*]")
    } else if let Some(regex) = text("/safe_regex/regex") {
        format!("~ {regex}")
    } else if value.get("connect_matcher").is_some() {
        "CONNECT".to_owned()
    } else if let Some(template) = text("/path_match_policy/typed_config/path_template") {
        template.to_owned()
    } else {
        "any path".to_owned()
    };
    if any_case {
        format!("{path} (any case)")
    } else {
        path
    }
}

/// `envoy.config.route.v3.HeaderMatcher`
fn header(matcher: &Value) -> String {
    let name = text(matcher, "/name");
    let not = if matcher["invert_match"] == true {
        "not "
    } else {
        ""
    };
    if name == ":method" && not.is_empty() {
        let exact = text(matcher, "/string_match/exact");
        if !exact.is_empty() {
            return exact.to_owned();
        }
    }
    if let Some(string) = matcher.get("string_match") {
        return format!("{not}{name}{}", relation(string));
    }
    for (field, sign) in [
        ("/exact_match", "="),
        ("/safe_regex_match/regex", "~"),
        ("/prefix_match", "=prefix "),
        ("/suffix_match", "=suffix "),
        ("/contains_match", "=containing "),
    ] {
        let value = text(matcher, field);
        if !value.is_empty() {
            return format!("{not}{name}{sign}{value}");
        }
    }
    if let (Some(start), Some(end)) = (
        number(matcher, "/range_match/start"),
        number(matcher, "/range_match/end"),
    ) {
        return format!("{not}{name}={start}..{end}");
    }
    if matcher["present_match"] == false {
        return format!("no {name}");
    }
    format!("{not}{name}")
}

/// `envoy.type.matcher.v3.StringMatcher` after the name of what it is asked of.
fn relation(matcher: &Value) -> String {
    let regex = text(matcher, "/safe_regex/regex");
    if regex.is_empty() {
        format!("={}", string(matcher))
    } else {
        format!("~{regex}")
    }
}

/// `envoy.type.matcher.v3.StringMatcher`
pub(super) fn string(matcher: &Value) -> String {
    let forms = [
        ("/exact", "", ""),
        ("/prefix", "", "*"),
        ("/suffix", "*", ""),
        ("/contains", "*", "*"),
        ("/safe_regex/regex", "~", ""),
    ];
    for (field, before, after) in forms {
        let value = text(matcher, field);
        if !value.is_empty() {
            return format!("{before}{value}{after}");
        }
    }
    // An exact match of nothing.
    "\"\"".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn matches_are_told_in_words() {
        for (matcher, words) in [
            (json!({"prefix": "/"}), "any path"),
            (json!({"prefix": "/api"}), "/api*"),
            (
                json!({"path": "/login", "case_sensitive": false}),
                "= /login (any case)",
            ),
            (json!({"path_separated_prefix": "/shop"}), "/shop[/*]"),
            (json!({"safe_regex": {"regex": "^/v.$"}}), "~ ^/v.$"),
            (
                json!({"prefix": "/", "headers": [
                    {"name": ":method", "string_match": {"exact": "GET"}},
                    {"name": "x-a", "string_match": {"safe_regex": {"regex": "b+"}}},
                    {"name": "x-b", "exact_match": "c", "invert_match": true},
                    {"name": "x-c", "present_match": false},
                    {"name": "x-d", "range_match": {"start": "1", "end": 5}},
                ], "query_parameters": [{"name": "q", "string_match": {"prefix": "v"}}]}),
                "any path GET x-a~b+ not x-b=c no x-c x-d=1..5 ?q=v*",
            ),
            (
                json!({"prefix": "/", "grpc": {}, "runtime_fraction":
                    {"default_value": {"numerator": 5, "denominator": "TEN_THOUSAND"}}}),
                "any path gRPC 5 of 10000",
            ),
        ] {
            assert_eq!(route(&matcher), words);
        }
    }
}
