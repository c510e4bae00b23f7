//! The differences that are meant: the headings of tests/conform/differences.md.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::file::Step;

/// How a meant difference is known among generated cases.
struct Rule {
    /// The heading.
    key: &'static str,
    fits: fn(&Step, &[String]) -> bool,
}

const RULES: [Rule; 1] = [Rule {
    key: "a-redirect-stays-on-its-host",
    fits: |_, found| {
        only(found, |envoy, ours| {
            let same = |line: &str| {
                Some(
                    line.split_once("location: ")?
                        .1
                        .trim_start_matches('/')
                        .to_owned(),
                )
            };
            envoy.contains("location: //") && same(envoy) == same(ours)
        })
    },
}];

/// Whether Envoy and ours differ in one line alone, and in this way.
fn only(found: &[String], fits: fn(&str, &str) -> bool) -> bool {
    let of = |who: &str| -> Vec<&str> {
        found
            .iter()
            .filter_map(|line| line.trim_start().strip_prefix(who))
            .collect()
    };
    match (of("Envoy: ").as_slice(), of("ours:  ").as_slice()) {
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

    /// Whether a generated case's difference is one of those that are meant.
    pub(super) fn explains(&self, step: &Step, found: &[String]) -> bool {
        RULES
            .iter()
            .any(|rule| self.has(rule.key) && (rule.fits)(step, found))
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.0.contains(key)
    }
}
