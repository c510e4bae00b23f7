//! `StatsConfig`: which statistics are shown, and with what tags.

use regex::Regex;

use crate::config::matcher::StringMatcher;

/// `stats_matcher`, over dotted names.
#[derive(Debug, Default)]
pub enum Keep {
    /// Those of all names.
    #[default]
    All,
    /// `reject_all`
    None,
    /// `inclusion_list`
    Only(Vec<StringMatcher>),
    /// `exclusion_list`
    Without(Vec<StringMatcher>),
}

/// `TagSpecifier`.
#[derive(Debug)]
pub enum Tag {
    /// One of the tags that there are in any case.
    Default,
    /// `fixed_value`: on every statistic.
    Fixed(String, String),
    /// `regex`: the last group is the value; the first is not part of the name.
    Matched(String, Regex),
}

/// What holds for all statistics of the process.
#[derive(Debug, Default)]
pub struct StatsRules {
    keep: Keep,
    tags: Vec<Tag>,
}

impl StatsRules {
    /// From `StatsConfig`.
    pub fn new(keep: Keep, tags: Vec<Tag>) -> Self {
        StatsRules { keep, tags }
    }

    /// `--stats-tag`
    pub fn add_tags(&mut self, tags: Vec<(String, String)>) {
        let tags = tags
            .into_iter()
            .map(|(name, value)| Tag::Fixed(name, value));
        self.tags.extend(tags);
    }

    /// Whether a statistic of this dotted name is shown.
    pub fn keeps(&self, name: &str) -> bool {
        let found =
            |list: &[StringMatcher]| list.iter().any(|matcher| matcher.matches(name.as_bytes()));
        match &self.keep {
            Keep::All => true,
            Keep::None => false,
            Keep::Only(list) => found(list),
            Keep::Without(list) => !found(list),
        }
    }

    /// Adds what the tags say of a dotted name to the labels of Prometheus's form, and takes out of
    /// its name, `stem`, what has become a label.
    pub fn label(&self, dotted: &str, stem: &mut String, mut label: impl FnMut(&str, &str)) {
        for tag in &self.tags {
            match tag {
                Tag::Default => {}
                Tag::Fixed(name, value) => label(name, value),
                Tag::Matched(name, pattern) => {
                    let Some(groups) = pattern.captures(dotted) else {
                        continue;
                    };
                    if let (Some(cut), Some(value)) = (groups.get(1), groups.get(groups.len() - 1))
                    {
                        label(name, value.as_str());
                        let cut = cut.as_str().trim_matches('.').replace('.', "_");
                        if !cut.is_empty() {
                            *stem = stem.replacen(&format!("{cut}_"), "", 1);
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_taken_out_of_names() {
        let pattern = Regex::new(r"^cluster\.((.+?)\.)other").unwrap();
        let mut rules = StatsRules::new(Keep::All, vec![Tag::Matched("part".into(), pattern)]);
        rules.add_tags(vec![("zone".into(), "z".into())]);
        let mut stem = "envoy_cluster_a_b_other_total".to_owned();
        let mut labels = Vec::new();
        rules.label("cluster.a_b.other_total", &mut stem, |name, value| {
            labels.push(format!("{name}={value}"));
        });
        assert_eq!(stem, "envoy_cluster_other_total");
        assert_eq!(labels, ["part=a_b", "zone=z"]);
        assert!(rules.keeps("a"));
        assert!(!StatsRules::new(Keep::None, Vec::new()).keeps("a"));
        assert!(!StatsRules::new(Keep::Only(Vec::new()), Vec::new()).keeps("a"));
    }
}
