//! `/logging`

use std::fmt::Write as _;

use http::StatusCode;

use super::answer::text;
use super::query::Query;
use crate::runtime::http_server::Page;
use crate::telemetry::program_log;

const USAGE: &str = "usage: /logging?<name>=<level> (change single level)
usage: /logging?paths=name1:level1,name2:level2,... (change multiple levels)
usage: /logging?level=<level> (change all levels)
usage: /logging?group=<group_name>:<level> (change group of loggers)
levels: trace debug info warning error critical off \n";

pub fn page(query: &Query<'_>) -> Page {
    let given: Vec<_> = query
        .decoded()
        .filter(|(_, value)| !value.is_empty())
        .collect();
    let (outcome, levels) = match given.as_slice() {
        [] => program_log::change_levels(|_| Ok(())),
        [(name, list)] if name == "paths" => program_log::change_levels(|l| l.set_list(list)),
        [(name, level)] if name == "level" => program_log::change_levels(|l| l.set_all(level)),
        // A group is one of source files, each of which would have a level of its own.
        [(name, _)] if name == "group" => {
            let (_, levels) = program_log::change_levels(|_| Ok(()));
            let reason = "group parameter requires fine-grain logging to be enabled";
            return refused(reason, &levels);
        }
        [(name, level)] => program_log::change_levels(|l| l.set(name, level)),
        _ => {
            let (_, levels) = program_log::change_levels(|_| Ok(()));
            return refused("invalid number of parameters", &levels);
        }
    };
    match outcome {
        Ok(()) => text(StatusCode::OK, listed(&levels)),
        Err(error) => refused(&error.to_string(), &levels),
    }
}

fn refused(error: &str, levels: &[(&str, &str)]) -> Page {
    let page = format!("error: {error}\n\n{USAGE}{}", listed(levels));
    text(StatusCode::BAD_REQUEST, page)
}

fn listed(levels: &[(&str, &str)]) -> String {
    let mut page = "active loggers:\n".to_owned();
    for (name, level) in levels {
        let _ = writeln!(page, "  {name}: {level}");
    }
    page.push('\n');
    page
}
