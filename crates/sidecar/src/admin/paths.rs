//! What there is: `/help`, and the home page.

use std::fmt::Write as _;

/// A parameter of a path.
struct Parameter {
    name: &'static str,
    what: &'static str,
    /// What it can be; empty: any text, or nothing.
    choices: &'static [&'static str],
}

/// A path.
pub struct Known {
    /// It.
    pub path: &'static str,
    what: &'static str,
    /// Whether it changes something, and so takes only POST.
    pub changes: bool,
    parameters: &'static [Parameter],
}

const fn page(path: &'static str, what: &'static str) -> Known {
    Known {
        path,
        what,
        changes: false,
        parameters: &[],
    }
}

const fn command(path: &'static str, what: &'static str) -> Known {
    Known {
        changes: true,
        ..page(path, what)
    }
}

impl Known {
    const fn with(self, parameters: &'static [Parameter]) -> Self {
        Known { parameters, ..self }
    }
}

const fn text(name: &'static str, what: &'static str) -> Parameter {
    one_of(name, what, &[])
}

const fn one_of(
    name: &'static str,
    what: &'static str,
    choices: &'static [&'static str],
) -> Parameter {
    Parameter {
        name,
        what,
        choices,
    }
}

const ENABLE: &[Parameter] = &[one_of("enable", "begin or end it", &["y", "n"])];
const USED_ONLY: Parameter = text("usedonly", "only what was ever changed");
const FILTER: Parameter = text(
    "filter",
    "regular expression (RE2's syntax) that names match",
);
const INVERT: Parameter = text("invert_filter", "those that the filter does not match");

/// All paths, in the order of their names.
pub const PATHS: &[Known] = &[
    page("/", "the home page"),
    command(
        "/allocprofiler",
        "profiling of allocations, which this build cannot do",
    )
    .with(ENABLE),
    page("/certs", "certificates in use and how long they last"),
    page(
        "/clusters",
        "endpoints of every cluster, with their counters",
    )
    .with(&[
        text(
            "filter",
            "regular expression (RE2's syntax) that names of clusters match",
        ),
        one_of("format", "form of the page", &["text", "json"]),
    ]),
    page(
        "/config_dump",
        "every resource as it came, secrets redacted",
    )
    .with(&[
        text(
            "resource",
            "only the resources of this list, such as dynamic_active_clusters",
        ),
        text(
            "mask",
            "only these fields, of each resource if `resource` is given",
        ),
        text("name_regex", "only resources whose names match"),
        text("include_eds", "endpoints too"),
    ]),
    page("/contention", "contention of mutexes, which is not traced"),
    command(
        "/cpuprofiler",
        "profiling of the CPU, which this build cannot do",
    )
    .with(ENABLE),
    command(
        "/drain_listeners",
        "end connections in order, and stop listeners",
    )
    .with(&[
        text("graceful", "listeners accept for the drain time still"),
        text("skip_exit", "listeners are not stopped at all"),
        text(
            "inboundonly",
            "only listeners of inbound or unspecified traffic_direction",
        ),
    ]),
    command(
        "/healthcheck/fail",
        "answer /ready with 503, so that no new traffic is sent here",
    ),
    command("/healthcheck/ok", "undo /healthcheck/fail"),
    page("/heap_dump", "the heap, which this build cannot dump"),
    command(
        "/heapprofiler",
        "profiling of the heap, which this build cannot do",
    )
    .with(ENABLE),
    page("/help", "this page"),
    page(
        "/hot_restart_version",
        "the version of hot restarts, which there are none of",
    ),
    page("/init_dump", "what is waited for before traffic is served")
        .with(&[text("mask", "of this part only: listener or cluster")]),
    page("/listeners", "listeners and their addresses").with(&[one_of(
        "format",
        "form of the page",
        &["text", "json"],
    )]),
    command(
        "/logging",
        "show or change the levels of the program's own log",
    )
    .with(&[
        text(
            "paths",
            "levels by name, such as upstream:debug,config:trace",
        ),
        one_of(
            "level",
            "one level for all",
            &[
                "", "trace", "debug", "info", "warning", "error", "critical", "off",
            ],
        ),
    ]),
    page("/memory", "memory that is allocated and held"),
    page(
        "/memory/tcmalloc",
        "statistics of tcmalloc, which is not the allocator here",
    ),
    page(
        "/peak_heap_dump",
        "the heap at its peak, which this build cannot dump",
    ),
    command("/quitquitquit", "drain and end the process"),
    page(
        "/ready",
        "200 LIVE once configuration is in force, else 503",
    ),
    command(
        "/reopen_logs",
        "open the files of logs anew, after they were moved",
    ),
    command("/reset_counters", "set all counters to 0"),
    page("/runtime", "values of the runtime, by layer"),
    command(
        "/runtime_modify",
        "set values of the runtime's admin layer: ?key=value&...; an empty value takes one away",
    ),
    page("/server_info", "version, state, node and flags"),
    page("/stats", "all statistics").with(&[
        USED_ONLY,
        FILTER,
        INVERT,
        one_of(
            "format",
            "form of the page",
            &["text", "html", "active-html", "json", "prometheus"],
        ),
        one_of(
            "type",
            "only this type",
            &["All", "Counters", "Gauges", "Histograms", "TextReadouts"],
        ),
        one_of(
            "histogram_buckets",
            "how histograms are shown",
            &["summary", "cumulative", "disjoint", "detailed"],
        ),
    ]),
    page("/stats/prometheus", "all statistics for Prometheus").with(&[
        USED_ONLY,
        text("text_readouts", "texts too, as labels of gauges that are 0"),
        FILTER,
        INVERT,
        one_of(
            "histogram_buckets",
            "how histograms are shown",
            &["cumulative", "summary"],
        ),
    ]),
    page(
        "/stats/recentlookups",
        "lookups of names: none happen while requests are served",
    ),
    command("/stats/recentlookups/clear", "forget them"),
    command("/stats/recentlookups/disable", "record them no longer"),
    command(
        "/stats/recentlookups/enable",
        "record them, which cannot be done",
    ),
];

/// The path, if there is one.
pub fn find(path: &str) -> Option<&'static Known> {
    PATHS.iter().find(|known| known.path == path)
}

/// `/help`
pub fn help() -> String {
    let mut page = String::from("admin commands are:\n");
    for known in PATHS {
        let post = if known.changes { " (POST)" } else { "" };
        let _ = writeln!(page, "  {}{post}: {}", known.path, known.what);
        for Parameter {
            name,
            what,
            choices,
        } in known.parameters
        {
            let choices = match choices {
                [] => String::new(),
                _ => format!("; One of ({})", choices.join(", ")),
            };
            let _ = writeln!(page, "      {name}: {what}{choices}");
        }
    }
    page
}

const STYLE: &str = "body{font-family:sans-serif;margin:2em}td{padding:.3em .8em;vertical-align:top}\
tr:nth-child(odd){background:#f2f2f2}form{display:inline}label{display:block;color:#555;font-size:small}";

/// The home page: links to pages, buttons for commands.
pub fn home() -> String {
    let mut rows = String::new();
    for known in PATHS.iter().filter(|known| known.path != "/") {
        let name = &known.path[1..];
        let method = if known.changes { "post" } else { "get" };
        let mut inputs = String::new();
        for Parameter {
            name,
            what,
            choices,
        } in known.parameters
        {
            let options: String = choices
                .iter()
                .map(|choice| format!("<option>{choice}</option>"))
                .collect();
            let input = if choices.is_empty() {
                // Without a value it would be sent as empty, which counts as given.
                format!("<input name='{name}' onchange='this.disabled=!this.value'>")
            } else {
                format!("<select name='{name}'>{options}</select>")
            };
            let _ = write!(inputs, "<label>{input} {name}: {}</label>", escaped(what));
        }
        let action = if known.changes || !known.parameters.is_empty() {
            format!(
                "<form method='{method}' action='{name}' id='{name}'><button>{name}</button>{inputs}</form>"
            )
        } else {
            format!("<a href='{name}'>{name}</a>")
        };
        let _ = writeln!(
            rows,
            "<tr><td>{action}</td><td>{}</td></tr>",
            escaped(known.what)
        );
    }
    html(
        "Outrider admin",
        &format!("<h1>Outrider admin</h1><table>{rows}</table>"),
    )
}

/// A page around a body.
pub fn html(title: &str, body: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'><title>{title}</title>\
         <style>{STYLE}</style></head><body>{body}</body></html>\n"
    )
}

/// Text in a page.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
