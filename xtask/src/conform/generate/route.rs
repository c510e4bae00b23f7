//! Random route tables, and requests that come near what they match.

use serde_json::{Map, Value, json};

use super::World;
use super::random::Random;

const HOSTS: [&str; 12] = [
    "a.example",
    "b.example",
    "www.a.example",
    "x.www.a.example",
    "A.Example",
    "a.example:8080",
    "a.test",
    "b.a.test",
    "example",
    "a-b.example",
    "127.0.0.1",
    "[::1]:80",
];
const DOMAINS: [&str; 16] = [
    "a.example",
    "b.example",
    "*.example",
    "*.a.example",
    "*a.example",
    "a.*",
    "www.*",
    "www.a.*",
    "*",
    "a.example:8080",
    "a.test",
    "*-b.example",
    "*.test",
    "example",
    "127.0.0.1",
    "b.example:8080",
];
const SEGMENTS: [&str; 14] = [
    "a", "b", "ab", "A", "a.b", "%61", "", ".", "..", "~", "a;v=1", "%2F", "a%20b", "12",
];
const HEADERS: [&str; 4] = ["x-a", "x-b", "x-c", "x-list"];
const VALUES: [&str; 10] = ["1", "2", "12", "-3", "abc", "ABC", "a,b", "", "a b", "0x1"];
const QUERIES: [&str; 12] = [
    "a=1", "a=2", "b=1", "a", "b", "a=", "A=1", "a=1&a=2", "b=2&a=1", "a=%31", "c=x&", "&a=1",
];
const REGEXES: [&str; 8] = [
    "/a.*",
    "/[ab]+/?",
    ".*",
    "/a/[0-9]+",
    "/(a|b)/.*",
    "/A",
    "/a|/b",
    "/\\w+/b",
];
const OPERATORS: [&str; 14] = [
    "plain",
    "%REQ(x-a)%",
    "%REQ(:path)%",
    "%REQ(x-none?x-b)%",
    "%REQ(:authority):3%",
    "%PROTOCOL%",
    "%RESPONSE_CODE%",
    "%ROUTE_NAME%",
    "%UPSTREAM_CLUSTER%",
    "100%%",
    "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "%REQ(:method)%-%REQ(x-a)%",
    "%RESP(x-up)%",
    "%BYTES_RECEIVED%",
];

/// A table and requests.
pub(super) fn world(random: &mut Random, count: usize) -> World {
    let mut hints = Hints::default();
    let table = table(random, &mut hints);
    let mut http = json!({ "route_config": table });
    super::add_log(&mut http);
    if random.chance(30) {
        http["normalize_path"] = json!(random.chance(70));
    }
    if random.chance(20) {
        http["merge_slashes"] = json!(true);
    }
    if random.chance(20) {
        let action = random.pick(&[
            "KEEP_UNCHANGED",
            "REJECT_REQUEST",
            "UNESCAPE_AND_REDIRECT",
            "UNESCAPE_AND_FORWARD",
        ]);
        http["path_with_escaped_slashes_action"] = json!(action);
    }
    if random.chance(15) {
        http["strip_any_host_port"] = json!(true);
    }
    if random.chance(15) {
        http["strip_trailing_host_dot"] = json!(true);
    }
    if random.chance(20) {
        http["via"] = json!("proxy");
    }
    if random.chance(30) {
        http["use_remote_address"] = json!(random.chance(50));
    }
    let probes = (0..count)
        .map(|index| request(random, &hints, index))
        .collect();
    World {
        area: "route",
        setup: json!({
            "upstreams": {
                "up": { "answers": [{ "echo": true, "headers": ["x-up: 1", "x-drop: 1"] }] },
                "other": { "answers": [{ "echo": true }] },
                "second": { "protocol": "http2", "answers": [{ "echo": true, "headers": ["x-up: 2"] }] },
            },
            "http": http,
        }),
        compare: json!({}),
        probes,
    }
}

/// What the table matches, so that requests come near it.
#[derive(Default)]
struct Hints {
    hosts: Vec<String>,
    paths: Vec<String>,
}

fn table(random: &mut Random, hints: &mut Hints) -> Value {
    let mut taken = Vec::new();
    let mut hosts = Vec::new();
    for index in 0..random.between(1, 5) {
        let mut domains = Vec::new();
        for _ in 0..random.between(1, 3) {
            let domain = random.pick(&DOMAINS).to_owned();
            if !taken.contains(&domain) {
                hints
                    .hosts
                    .push(domain.replace('*', random.pick(&["x", "a", "www", "1", "b.c"])));
                taken.push(domain.clone());
                domains.push(domain);
            }
        }
        if domains.is_empty() {
            continue;
        }
        let routes: Vec<Value> = (0..random.between(1, 8))
            .map(|number| route(random, hints, &format!("{index}-{number}")))
            .collect();
        let mut host =
            json!({ "name": format!("host {index}"), "domains": domains, "routes": routes });
        mutations(random, &mut host, 30);
        if random.chance(8) {
            host["require_tls"] = json!(random.pick(&["ALL", "EXTERNAL_ONLY"]));
        }
        if random.chance(20) {
            host["include_request_attempt_count"] = json!(true);
            host["include_attempt_count_in_response"] = json!(random.chance(50));
        }
        hosts.push(host);
    }
    let mut table = json!({ "name": "table", "validate_clusters": false, "virtual_hosts": hosts });
    mutations(random, &mut table, 30);
    if random.chance(25) {
        table["most_specific_header_mutations_wins"] = json!(true);
    }
    if random.chance(20) {
        table["ignore_port_in_host_matching"] = json!(true);
    }
    if random.chance(15) {
        table["ignore_path_parameters_in_path_matching"] = json!(true);
    }
    table
}

fn path(random: &mut Random) -> String {
    let mut path = String::new();
    for _ in 0..random.between(1, 3) {
        path.push('/');
        path.push_str(random.pick(&SEGMENTS));
    }
    path
}

fn route(random: &mut Random, hints: &mut Hints, name: &str) -> Value {
    let path = path(random);
    let mut hint = path.clone();
    let mut fits = match random.below(10) {
        0..4 => json!({ "prefix": path }),
        4..6 => json!({ "path": path }),
        6..8 if !path.ends_with('/') && path.len() > 1 && !path.contains(['?', '#']) => {
            json!({ "path_separated_prefix": path })
        }
        8 => {
            hint = random.pick(&["/a", "/b/", "/a/12", "/ab/b"]).to_owned();
            json!({ "safe_regex": { "regex": random.pick(&REGEXES) } })
        }
        _ => json!({ "prefix": "/" }),
    };
    hints.paths.push(hint);
    let regex = fits.get("safe_regex").is_some();
    if random.chance(15) && !regex {
        fits["case_sensitive"] = json!(false);
    }
    if random.chance(35) {
        let count = random.between(1, 2);
        let headers: Vec<Value> = (0..count).map(|_| header_matcher(random)).collect();
        fits["headers"] = json!(headers);
    }
    if random.chance(20) {
        fits["query_parameters"] = json!([query_matcher(random)]);
    }
    if random.chance(6) {
        fits["grpc"] = json!({});
    }
    if random.chance(8) {
        let numerator = random.pick(&[&0, &100]);
        fits["runtime_fraction"] = json!({ "default_value": { "numerator": numerator } });
    }
    let mut route = json!({ "name": name, "match": fits });
    match random.below(10) {
        0..6 => route["route"] = action(random, &fits),
        6..8 => route["redirect"] = redirect(random, &fits),
        _ => {
            let status = random.pick(&[&200, &204, &404, &503, &301]);
            route["direct_response"] = json!({ "status": status });
            if random.chance(70) && *status != 204 {
                route["direct_response"]["body"] =
                    json!({ "inline_string": format!("said {name}") });
            }
        }
    }
    mutations(random, &mut route, 40);
    route
}

fn header_matcher(random: &mut Random) -> Value {
    let name = match random.below(8) {
        0 => ":method",
        1 => ":authority",
        2 => ":path",
        _ => random.pick(&HEADERS),
    };
    let mut matcher = json!({ "name": name });
    match random.below(8) {
        0 => matcher["present_match"] = json!(random.chance(60)),
        1 => {
            let start = random.between(0, 6) as i64 - 3;
            let end = start + random.between(1, 12) as i64;
            matcher["range_match"] = json!({ "start": start, "end": end });
        }
        2 => {}
        _ => matcher["string_match"] = string_matcher(random),
    }
    if random.chance(25) {
        matcher["invert_match"] = json!(true);
    }
    if random.chance(15) {
        matcher["treat_missing_header_as_empty"] = json!(true);
    }
    matcher
}

fn string_matcher(random: &mut Random) -> Value {
    let value = random.pick(&["1", "2", "12", "abc", "a", "b", "GET", "/a", "a.example"]);
    let mut matcher = match random.below(5) {
        0 | 1 => json!({ "exact": value }),
        2 => json!({ "prefix": value }),
        3 => json!({ random.pick(&["suffix", "contains"]): value }),
        _ => {
            return json!({ "safe_regex": { "regex": random.pick(&["[0-9]+", ".*b.*", "a|b", "GET|POST"]) } });
        }
    };
    if random.chance(30) {
        matcher["ignore_case"] = json!(true);
    }
    matcher
}

fn query_matcher(random: &mut Random) -> Value {
    let mut matcher = json!({ "name": random.pick(&["a", "b", "c"]) });
    match random.below(3) {
        0 => matcher["present_match"] = json!(random.chance(70)),
        1 => matcher["string_match"] = string_matcher(random),
        _ => {}
    }
    matcher
}

fn action(random: &mut Random, fits: &Value) -> Value {
    let mut action = match random.below(12) {
        0 => json!({ "cluster_header": "x-a" }),
        1 => json!({ "cluster": "nowhere" }),
        2 => {
            // Weights of which all but one are 0: a choice without chance.
            let mut clusters = vec![
                json!({ "name": "up", "weight": 0 }),
                json!({ "name": "other", "weight": 7 }),
            ];
            mutations(random, &mut clusters[1], 60);
            if random.chance(30) {
                clusters[1]["host_rewrite_literal"] = json!("weighted.example");
            }
            json!({ "weighted_clusters": { "clusters": clusters } })
        }
        3 | 4 => json!({ "cluster": "second" }),
        5 | 6 => json!({ "cluster": "other" }),
        _ => json!({ "cluster": "up" }),
    };
    if action.get("cluster").is_some() && random.chance(20) {
        action["cluster_not_found_response_code"] =
            json!(random.pick(&["NOT_FOUND", "SERVICE_UNAVAILABLE", "INTERNAL_SERVER_ERROR"]));
    }
    let regex = fits.get("safe_regex").is_some();
    match random.below(6) {
        0 if !regex => action["prefix_rewrite"] = json!(random.pick(&["/", "/new", "/new/"])),
        1 => action["regex_rewrite"] = regex_rewrite(random),
        _ => {}
    }
    match random.below(8) {
        0 => action["host_rewrite_literal"] = json!("new.example"),
        1 => action["host_rewrite_header"] = json!("x-b"),
        _ => {}
    }
    if random.chance(15) {
        action["append_x_forwarded_host"] = json!(true);
    }
    if random.chance(15) {
        action["timeout"] = json!(random.pick(&["0s", "7s", "1.5s"]));
    }
    action
}

fn regex_rewrite(random: &mut Random) -> Value {
    let (pattern, substitution) = match random.below(5) {
        0 => ("^/([^/]+)(/.*)?$", "/x/\\1\\2"),
        1 => ("a+", "z"),
        2 => ("(/)(.)", "\\1-\\2"),
        3 => ("^/a", ""),
        _ => ("/b$", "/\\0/\\0"),
    };
    json!({ "pattern": { "regex": pattern }, "substitution": substitution })
}

fn redirect(random: &mut Random, fits: &Value) -> Value {
    let mut redirect = json!({});
    match random.below(4) {
        0 => redirect["https_redirect"] = json!(true),
        1 => redirect["scheme_redirect"] = json!(random.pick(&["https", "HTTP", "ftp"])),
        _ => {}
    }
    if random.chance(40) {
        redirect["host_redirect"] = json!("to.example");
    }
    if random.chance(30) {
        redirect["port_redirect"] = json!(random.pick(&[&80, &443, &8443]));
    }
    let regex = fits.get("safe_regex").is_some();
    match random.below(5) {
        0 => redirect["path_redirect"] = json!(random.pick(&["/to", "/to?x=y", "/%REQ(x-a)%"])),
        1 if !regex => redirect["prefix_rewrite"] = json!(random.pick(&["/", "/to", "/to/"])),
        2 => redirect["regex_rewrite"] = regex_rewrite(random),
        _ => {}
    }
    if random.chance(40) {
        let code = random.pick(&[
            "FOUND",
            "SEE_OTHER",
            "TEMPORARY_REDIRECT",
            "PERMANENT_REDIRECT",
        ]);
        redirect["response_code"] = json!(code);
    }
    if random.chance(30) {
        redirect["strip_query"] = json!(true);
    }
    redirect
}

/// Adds header changes to what can have them.
fn mutations(random: &mut Random, owner: &mut Value, percent: usize) {
    for (key, names) in [
        (
            "request_headers_to_add",
            ["x-a", "x-new", "x-level", "user-agent"],
        ),
        (
            "response_headers_to_add",
            ["x-up", "x-new", "x-level", "server"],
        ),
    ] {
        if !random.chance(percent) {
            continue;
        }
        let mut options = Vec::new();
        for _ in 0..random.between(1, 3) {
            let mut option = json!({ "header": {
                "key": random.pick(&names), "value": random.pick(&OPERATORS),
            }});
            if random.chance(60) {
                option["append_action"] = json!(random.pick(&[
                    "APPEND_IF_EXISTS_OR_ADD",
                    "ADD_IF_ABSENT",
                    "OVERWRITE_IF_EXISTS_OR_ADD",
                    "OVERWRITE_IF_EXISTS",
                ]));
            }
            if random.chance(20) {
                option["keep_empty_value"] = json!(true);
            }
            options.push(option);
        }
        owner[key] = json!(options);
    }
    if random.chance(percent / 3) {
        owner["request_headers_to_remove"] = json!([random.pick(&["x-b", "x-c", "user-agent"])]);
    }
    if random.chance(percent / 3) {
        owner["response_headers_to_remove"] = json!([random.pick(&["x-drop", "x-up"])]);
    }
}

fn request(random: &mut Random, hints: &Hints, index: usize) -> Value {
    let host = if random.chance(60) {
        random.pick_owned(&hints.hosts, "a.example")
    } else {
        random.pick(&HOSTS).to_owned()
    };
    let mut target = match random.below(10) {
        0..6 => random.pick_owned(&hints.paths, "/"),
        6 => format!("{}/", random.pick_owned(&hints.paths, "/a")),
        7 => format!(
            "{}{}",
            random.pick_owned(&hints.paths, "/a"),
            random.pick(&["x", "/x", "/../b", "//"])
        ),
        _ => path(random),
    };
    if random.chance(10) {
        target = target.to_uppercase();
    }
    if random.chance(40) {
        target = format!("{target}?{}", random.pick(&QUERIES));
    }
    let method = random.pick(&[
        "GET", "GET", "GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS",
    ]);
    let mut headers = vec![format!("host: {host}"), format!("x-case: {index}")];
    for _ in 0..random.below(4) {
        let name = random.pick(&HEADERS);
        let value = match random.below(8) {
            0 => random.pick(&["up", "other", "second", "nowhere"]),
            _ => random.pick(&VALUES),
        };
        headers.push(format!("{name}: {value}"));
    }
    if random.chance(15) {
        headers.push("user-agent: probe".to_owned());
    }
    if random.chance(8) {
        headers.push(format!(
            "x-forwarded-proto: {}",
            random.pick(&["https", "http", "ftp"])
        ));
    }
    if random.chance(8) {
        let chain = random.pick(&["1.2.3.4", "10.0.0.1, 1.2.3.4", "nonsense", "::1"]);
        headers.push(format!("x-forwarded-for: {chain}"));
    }
    if random.chance(6) {
        headers.push("content-type: application/grpc".to_owned());
    }
    let mut step = Map::new();
    step.insert("request".to_owned(), json!(format!("{method} {target}")));
    let second = random.chance(15);
    if second {
        step.insert("open".to_owned(), json!({ "http2": true }));
    } else {
        headers.push("connection: close".to_owned());
    }
    if matches!(method, "POST" | "PUT") {
        step.insert("body".to_owned(), json!(random.pick(&["", "x", "hello"])));
    }
    step.insert("headers".to_owned(), json!(headers));
    Value::Object(step)
}
