//! Reading what `iptables-save` prints.

use thiserror::Error;

/// All that one family of one backend holds now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Saved {
    pub(crate) tables: Vec<SavedTable>,
}

/// One table of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct SavedTable {
    pub(crate) name: String,
    pub(crate) chains: Vec<SavedChain>,
    pub(crate) rules: Vec<SavedRule>,
}

/// A chain: the kernel's own ones have a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SavedChain {
    pub(crate) name: String,
    pub(crate) policy: Option<String>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SavedRule {
    pub(crate) chain: String,
    /// What follows `-A CHAIN`, as it was printed.
    pub(crate) spec: String,
    /// Where it jumps or goes to, if anywhere.
    pub(crate) target: Option<String>,
    /// The packets that it has matched; 0 if counters were not asked for.
    pub(crate) packets: u64,
}

/// Why it could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum SavedError {
    /// Rules that iptables did not make are in a table of iptables.
    #[error(
        "\"{0}\". Rules that iptables did not make are in a table of its own, so it can neither list \
         them nor place ours among them: move them to a table of another name with the `nft` program"
    )]
    Foreign(String),
    /// Not what `iptables-save` prints.
    #[error("line {number} cannot be understood: `{line}`")]
    Line { number: usize, line: String },
}

impl Saved {
    /// # Errors
    /// Text that `iptables-save` does not print, and tables that it cannot print.
    pub(crate) fn parse(text: &str) -> Result<Self, SavedError> {
        let mut saved = Self::default();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim_end();
            // (One that "contains incompatible base-chains" is listed all the same, but for these.)
            if line.starts_with('#') && line.contains("is incompatible") {
                let table = line.trim_start_matches(['#', ' ']);
                return Err(SavedError::Foreign(table.to_owned()));
            }
            if line.is_empty() || line.starts_with('#') || line == "COMMIT" {
                continue;
            }
            let wrong = || SavedError::Line {
                number: index + 1,
                line: line.to_owned(),
            };
            if let Some(name) = line.strip_prefix('*') {
                saved.tables.push(SavedTable {
                    name: name.to_owned(),
                    ..SavedTable::default()
                });
                continue;
            }
            let table = saved.tables.last_mut().ok_or_else(wrong)?;
            if let Some(chain) = line.strip_prefix(':') {
                let mut words = chain.split(' ');
                let name = words.next().ok_or_else(wrong)?.to_owned();
                let policy = words.next().filter(|policy| *policy != "-");
                table.chains.push(SavedChain {
                    name,
                    policy: policy.map(str::to_owned),
                });
            } else {
                table.rules.push(rule(line).ok_or_else(wrong)?);
            }
        }
        Ok(saved)
    }

    pub(crate) fn table(&self, name: &str) -> Option<&SavedTable> {
        self.tables.iter().find(|table| table.name == name)
    }

    /// The number of rules and chains that somebody made.
    pub(crate) fn size(&self) -> usize {
        let made = |table: &SavedTable| {
            table.rules.len()
                + table
                    .chains
                    .iter()
                    .filter(|chain| chain.policy.is_none())
                    .count()
        };
        self.tables.iter().map(made).sum()
    }
}

/// Reads `[packets:bytes] -A CHAIN SPEC`, the counters being optional.
fn rule(line: &str) -> Option<SavedRule> {
    let (packets, rest) = match line.strip_prefix('[') {
        Some(counted) => {
            let (counters, rest) = counted.split_once("] ")?;
            let (packets, _bytes) = counters.split_once(':')?;
            (packets.parse().ok()?, rest)
        }
        None => (0, line),
    };
    let rest = rest.strip_prefix("-A ")?;
    let (chain, spec) = rest.split_once(' ').unwrap_or((rest, ""));
    Some(SavedRule {
        chain: chain.to_owned(),
        spec: spec.to_owned(),
        target: target(spec),
        packets,
    })
}

/// The word behind `-j` or `-g`, where these are words of their own and not part of a quoted one.
fn target(spec: &str) -> Option<String> {
    let mut words = words(spec).into_iter();
    while let Some(word) = words.next() {
        if word == "-j" || word == "-g" {
            return words.next();
        }
    }
    None
}

/// Splits as `iptables-restore` does: at spaces, but not within double quotes, where a backslash
/// takes the meaning of the next character away.
fn words(spec: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    let mut characters = spec.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => {
                quoted = !quoted;
                // A quoted word is one even if it is empty, and is never an option.
                word.get_or_insert_default().push('\0');
            }
            '\\' if quoted => word.get_or_insert_default().extend(characters.next()),
            ' ' if !quoted => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_tables_policies_counters_and_targets() {
        let text = "# Generated by iptables-save v1.8.9 on Tue Nov 24 05:30:25 2026\n\
             *nat\n:PREROUTING ACCEPT [3:180]\n:OTHER - [0:0]\n\
             [7:420] -A PREROUTING -p tcp -j OTHER\n\
             -A OTHER -m comment --comment \"look: -j \\\" OUTRIDER_X\" -g SOMEWHERE\n\
             -A OTHER -m mark --mark 0x1\nCOMMIT\n# Completed on Tue\n*filter\nCOMMIT\n";
        let saved = Saved::parse(text).unwrap();
        assert_eq!(saved.tables.len(), 2);
        assert_eq!(saved.size(), 4);
        let nat = saved.table("nat").unwrap();
        assert_eq!(nat.chains[0].policy.as_deref(), Some("ACCEPT"));
        assert_eq!(nat.chains[1].policy, None);
        let read: Vec<_> = nat
            .rules
            .iter()
            .map(|rule| (rule.chain.as_str(), rule.packets, rule.target.as_deref()))
            .collect();
        assert_eq!(
            read,
            [
                ("PREROUTING", 7, Some("OTHER")),
                ("OTHER", 0, Some("SOMEWHERE")),
                ("OTHER", 0, None)
            ]
        );
        assert_eq!(nat.rules[0].spec, "-p tcp -j OTHER");
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        let foreign = "# Table `nat' is incompatible, use 'nft' tool.\n";
        assert!(
            matches!(Saved::parse(foreign), Err(SavedError::Foreign(name)) if name.contains("nat"))
        );
        for text in [
            "-A X -j Y\n",
            "*nat\nhello\n",
            "*nat\n[x:1] -A X\n",
            "*nat\n[1:1 -A X\n",
        ] {
            assert!(
                matches!(Saved::parse(text), Err(SavedError::Line { .. })),
                "{text}"
            );
        }
    }
}
