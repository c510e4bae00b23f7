//! The differences that are meant: the headings of tests/conform/differences.md.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::file::Step;
use super::oddities::oddities;

/// How a meant difference is known among generated cases.
struct Rule {
    /// The heading.
    key: &'static str,
    fits: fn(&Step, &[String]) -> bool,
}

const RULES: [Rule; 10] = [
    Rule {
        key: "one byte tells that it is not TLS",
        fits: |step, found| {
            let raw = step.raw.as_deref().unwrap_or("\u{16}");
            raw.len() < 5 && !raw.starts_with('\u{16}') && of(found, "Envoy: ").is_empty()
        },
    },
    Rule {
        key: "An answer of the proxy's own knows its status",
        fits: |_, found| {
            // The header that has %RESPONSE_CODE%.
            only(found, |envoy, ours| {
                let name = |line: &str| line.split(": ").next().unwrap_or_default().to_owned();
                envoy.ends_with(": 0") && name(envoy) == name(ours)
            })
        },
    },
    Rule {
        key: "a-redirect-stays-on-its-host",
        fits: |_, found| {
            only(found, |envoy, ours| {
                let same = |line: &str| {
                    let (_, location) = line.split_once("location: ")?;
                    Some(location.trim_start_matches('/').to_owned())
                };
                envoy.contains("location: //") && same(envoy) == same(ours)
            })
        },
    },
    Rule {
        key: "a-bad-head-is-refused",
        fits: |step, found| {
            let (envoy, ours) = (of(found, "Envoy: "), of(found, "ours:  "));
            let judged = |line: &&str| refuses(&[line]) || line.starts_with("response");
            // Both may have refused it, and told so in other words.
            (refuses(&ours) || refuses(&envoy) && ours.iter().all(judged))
                && !accepts(&ours)
                && step
                    .raw
                    .as_deref()
                    .is_some_and(|raw| !oddities(raw).is_empty())
        },
    },
    Rule {
        key: "what a rewrite makes begins with a slash",
        fits: |_, found| {
            let rewritten = |line: &&str| {
                let start = line.split_once("body: ").map_or(*line, |(_, body)| body);
                start
                    .split(' ')
                    .nth(2)
                    .is_some_and(|path| path.starts_with('/'))
            };
            let [envoy, ours] = [of(found, "Envoy: "), of(found, "ours:  ")];
            let bodies = |lines: &[&str]| -> Vec<bool> {
                let bodies = lines
                    .iter()
                    .filter(|line| line.starts_with("response body: "));
                bodies.map(&rewritten).collect()
            };
            // The echoed head has the path: the length and what is logged of it differ, too.
            let same = |(envoy, ours): (&&str, &&str)| {
                let shorter = ours.replacen(" /", " ", 1);
                envoy.starts_with("response header content-length: ")
                    || envoy.starts_with("log: ")
                    || envoy.starts_with("upstream ") && *envoy == shorter
                    || envoy.starts_with("response body: ") && *envoy == shorter
            };
            bodies(&envoy) == [false]
                && bodies(&ours) == [true]
                && envoy.len() == ours.len()
                && envoy.iter().zip(&ours).all(same)
        },
    },
    Rule {
        key: "what a rewrite makes is a host or a path",
        fits: |_, found| {
            let mut ours = of(found, "ours:  ").into_iter();
            ours.any(|line| line.starts_with("log: ") && line.contains(" 400 - invalid_rewrite "))
        },
    },
    Rule {
        key: "hints are passed on",
        fits: |step, found| {
            let hint = |line: &&str| {
                line.contains(": 103") || line.contains(" 103 ") || line.ends_with(" link: x")
            };
            let request = step.request.as_deref().unwrap_or_default();
            let lines = [of(found, "Envoy: "), of(found, "ours:  ")];
            request.contains("/hint?") && lines.iter().flatten().all(hint)
        },
    },
    Rule {
        key: "too large a head is told so",
        fits: |_, found| {
            let [envoy, ours] = [of(found, "Envoy: "), of(found, "ours:  ")];
            envoy.contains(&"response: reset INTERNAL_ERROR") && ours.contains(&"response: 431")
        },
    },
    Rule {
        key: "what came before a bad chunk is counted",
        fits: |_, found| {
            only(found, |envoy, ours| {
                let without = |line: &str| {
                    let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
                    let received = words.len().checked_sub(2)?;
                    words.remove(received);
                    Some(words)
                };
                envoy.contains(" 400 DPE http1.codec_error ") && without(envoy) == without(ours)
            })
        },
    },
    Rule {
        key: "a length is told as it is meant",
        fits: |step, found| {
            let lines = [of(found, "Envoy: "), of(found, "ours:  ")];
            let rest = |lines: &[&str]| {
                let told = lines
                    .iter()
                    .filter(|line| line.contains(" content-length: 0"));
                (told.count(), lines.len())
            };
            let raw = step.raw.as_deref().unwrap_or_default();
            // The echoed head is longer by a zero: so are its length, and what is logged of that.
            raw.contains("content-length: 03\r\n")
                && rest(&lines[0]) == (1, 3)
                && rest(&lines[1]) == (0, 3)
                && lines[0][1].replace("content-length: 03", "content-length: 3") == lines[1][1]
        },
    },
];

/// What only one of them showed.
fn of<'a>(found: &'a [String], who: &str) -> Vec<&'a str> {
    let lines = found.iter();
    lines
        .filter_map(|line| line.trim_start().strip_prefix(who))
        .collect()
}

/// Whether a head was refused, by a response or, where both have the same, in the log.
fn refuses(lines: &[&str]) -> bool {
    const STATUSES: [&str; 5] = ["400 ", "426 ", "431 ", "501 ", "505 "];
    lines.iter().any(|line| {
        let status = line
            .split_once("HTTP/1.1 ")
            .or_else(|| line.split_once("HTTP/1.0 "))
            .map_or("", |(_, status)| status);
        let response = line.starts_with("response");
        (response && STATUSES.iter().any(|code| status.starts_with(code)))
            || line.starts_with("log: ")
                && (line.contains(" DPE ") || STATUSES.iter().any(|code| logs(line, code)))
    })
}

/// Whether a line of the log has this status.
fn logs(line: &str, status: &str) -> bool {
    // The key of a case may hold a folded line.
    let mut words = line.split(' ').skip(2).take(3);
    words.any(|word| word == status.trim_end())
}

/// Whether a request went upstream.
fn accepts(lines: &[&str]) -> bool {
    lines
        .iter()
        .any(|line| line.starts_with("upstream ") || line.contains(" via_upstream "))
}

/// Whether Envoy and ours differ in one line alone, and in this way.
fn only(found: &[String], fits: fn(&str, &str) -> bool) -> bool {
    match (
        of(found, "Envoy: ").as_slice(),
        of(found, "ours:  ").as_slice(),
    ) {
        ([envoy], [ours]) => fits(envoy, ours),
        _ => false,
    }
}

pub(super) struct Differences(BTreeSet<String>);

impl Differences {
    /// Reads the page. A heading is `## key`; what follows is the reason.
    ///
    /// # Errors
    /// When a heading has no reason.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let mut keys = BTreeSet::new();
        for section in text.split("\n## ").skip(1) {
            let (key, reason) = section.split_once('\n').unwrap_or((section, ""));
            ensure!(
                !reason.trim().is_empty(),
                "{}: {key}: say why ours is better",
                path.display()
            );
            keys.insert(key.trim().to_owned());
        }
        Ok(Self(keys))
    }

    /// Which of the meant differences a generated case's is, if any.
    pub(super) fn explains(&self, step: &Step, found: &[String]) -> Option<&'static str> {
        if found.is_empty() {
            // Not done by itself yet.
            return None;
        }
        let mut rules = RULES.iter();
        let rule = rules.find(|rule| self.has(rule.key) && (rule.fits)(step, found));
        rule.map(|rule| rule.key)
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.0.contains(key)
    }
}
