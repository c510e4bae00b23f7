//! From what is there and what is wanted to the text that takes the one to the other.
//!
//! With `--noflush`, a text that only says what is wanted would add its jumps again at every run,
//! and one that deletes what is not there is refused as a whole. So the text depends on what is
//! there, and whatever that is (nothing, the same rules, those of other options, the first half of
//! an interrupted run, jumps twice), the result is the same.

use crate::rules::{Chain, PREFIX, Table, TableName};
use crate::saved::{Saved, SavedRule, SavedTable};

/// A text for `iptables-restore --noflush`, and what to know about it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Plan {
    /// Empty if nothing of ours is wanted or there.
    pub(crate) text: String,
    /// The tables from which all that is ours is removed.
    pub(crate) emptied: Vec<TableName>,
}

/// Plans one family. `wanted` is empty to remove everything.
pub(crate) fn plan(saved: &Saved, wanted: &[Table]) -> Plan {
    let mut plan = Plan::default();
    for table in wanted {
        let present = saved.table(table.name.as_str());
        build(
            &mut plan.text,
            table,
            present.unwrap_or(&SavedTable::default()),
        );
    }
    // What is only removed comes last and backwards: a family's new protection stands before the
    // old one goes, and no query is redirected without its zone.
    for name in TableName::ALL.into_iter().rev() {
        let present = saved.table(name.as_str());
        if let Some(present) = present.filter(|_| !wanted.iter().any(|table| table.name == name))
            && has_ours(present)
        {
            let nothing = Table {
                name,
                chains: Vec::new(),
            };
            build(&mut plan.text, &nothing, present);
            plan.emptied.push(name);
        }
    }
    plan
}

/// Whether a table has anything of ours.
pub(crate) fn has_ours(table: &SavedTable) -> bool {
    table.chains.iter().any(|chain| is_ours(&chain.name))
        || table
            .rules
            .iter()
            .any(|rule| rule.target.as_deref().is_some_and(is_ours))
}

/// Whether what is there has exactly the chains and jumps that are wanted, each jump once and
/// before the rules of others, and as many rules.
pub(crate) fn is_in_force(saved: &Saved, wanted: &[Table]) -> bool {
    let none = SavedTable::default();
    TableName::ALL.into_iter().all(|name| {
        let chains = wanted.iter().find(|table| table.name == name);
        let chains = chains.map_or(&[][..], |table| &table.chains);
        let present = saved.table(name.as_str()).unwrap_or(&none);
        let ours = present
            .chains
            .iter()
            .filter(|chain| is_ours(&chain.name))
            .count();
        ours == chains.len()
            && chains.iter().all(|chain| {
                let rules = present
                    .rules
                    .iter()
                    .filter(|rule| rule.chain == chain.name)
                    .count();
                rules == chain.rules.len() && is_jumped_to_rightly(present, chain)
            })
    })
}

fn is_ours(chain: &str) -> bool {
    chain.starts_with(PREFIX)
}

/// The jump to a chain of ours as `iptables-save` prints it.
fn jump_spec(chain: &Chain) -> Option<(&'static str, String)> {
    let jump = chain.jump?;
    Some((jump.from, format!("{}-j {}", jump.matches, chain.name)))
}

/// The rules outside of our chains that lead into one of them.
fn jumps(present: &SavedTable) -> impl Iterator<Item = (&SavedRule, &str)> {
    present
        .rules
        .iter()
        .filter(|rule| !is_ours(&rule.chain))
        .filter_map(|rule| {
            let target = rule.target.as_deref().filter(|target| is_ours(target))?;
            Some((rule, target))
        })
}

/// Whether the jumps to this chain are those that are wanted: one, before the rules of others; or
/// none.
fn is_jumped_to_rightly(present: &SavedTable, chain: &Chain) -> bool {
    let mut jumps = jumps(present).filter(|(_, target)| *target == chain.name);
    let Some((from, spec)) = jump_spec(chain) else {
        return jumps.next().is_none();
    };
    let is_one = jumps.next().is_some() && jumps.next().is_none();
    let mut head = present
        .rules
        .iter()
        .filter(|rule| rule.chain == from)
        .take_while(|rule| rule.target.as_deref().is_some_and(is_ours));
    is_one && head.any(|rule| rule.spec == spec)
}

fn build(text: &mut String, table: &Table, present: &SavedTable) {
    let mut line = |content: std::fmt::Arguments<'_>| {
        text.push_str(&content.to_string());
        text.push('\n');
    };
    line(format_args!("*{}", table.name.as_str()));
    let is_wanted = |name: &str| table.chains.iter().any(|chain| chain.name == name);
    let stale: Vec<_> = present
        .chains
        .iter()
        .map(|chain| chain.name.as_str())
        .filter(|name| is_ours(name) && !is_wanted(name))
        .collect();
    // A chain that is declared is made if it is not there, and emptied if it is.
    for chain in &table.chains {
        line(format_args!(":{} - [0:0]", chain.name));
    }
    for name in &stale {
        line(format_args!(":{name} - [0:0]"));
    }
    // Deleting by text takes the first of several that are the same, which may be the good one. So
    // where anything is wrong, all of a chain's jumps go and the right one is made anew.
    let is_settled = |name: &str| {
        let chain = table.chains.iter().find(|chain| chain.name == name);
        chain.is_some_and(|chain| is_jumped_to_rightly(present, chain))
    };
    for (rule, target) in jumps(present) {
        if !is_settled(target) {
            line(format_args!("-D {} {}", rule.chain, rule.spec));
        }
    }
    for chain in &table.chains {
        line(format_args!("# {}", chain.comment));
        for rule in &chain.rules {
            line(format_args!("# - {}", rule.comment));
            line(format_args!("-A {} {}", chain.name, rule.spec));
        }
    }
    for chain in table.chains.iter().filter(|chain| !is_settled(chain.name)) {
        if let Some((from, spec)) = jump_spec(chain) {
            line(format_args!("# The way into {}", chain.name));
            line(format_args!("-I {from} 1 {spec}"));
        }
    }
    for name in stale {
        line(format_args!("-X {name}"));
    }
    line(format_args!("COMMIT"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Family, tests::standard};
    use crate::rules::{RuleSet, rules};

    /// What the kernel holds after a text: enough of `iptables-restore --noflush` to see that a
    /// second plan changes nothing. That the real one agrees is for the namespace tests.
    fn restored(mut saved: Saved, text: &str) -> Saved {
        let mut current = String::new();
        for line in text
            .lines()
            .filter(|line| !line.starts_with('#') && *line != "COMMIT")
        {
            if let Some(name) = line.strip_prefix('*') {
                current = name.to_owned();
                if saved.table(name).is_none() {
                    saved
                        .tables
                        .push(Saved::parse(line).unwrap().tables.remove(0));
                }
                continue;
            }
            let table = saved
                .tables
                .iter_mut()
                .find(|table| table.name == current)
                .unwrap();
            let (verb, rest) = line.split_at(if line.starts_with(':') { 1 } else { 3 });
            let (chain, spec) = rest.split_once(' ').unwrap_or((rest, ""));
            let parsed = |text: String| {
                Saved::parse(&format!("*t\n{text}"))
                    .unwrap()
                    .tables
                    .remove(0)
            };
            match verb {
                ":" => {
                    table.rules.retain(|rule| rule.chain != chain);
                    table.chains.retain(|present| present.name != chain);
                    table.chains.extend(parsed(line.to_owned()).chains);
                }
                "-A " => table.rules.extend(parsed(line.to_owned()).rules),
                "-I " => {
                    let spec = spec.strip_prefix("1 ").unwrap();
                    let rule = parsed(format!("-A {chain} {spec}")).rules.remove(0);
                    table.rules.insert(0, rule);
                }
                "-D " => {
                    let same = |rule: &SavedRule| rule.chain == chain && rule.spec == spec;
                    let index = table
                        .rules
                        .iter()
                        .position(same)
                        .expect("deletes what is there");
                    table.rules.remove(index);
                }
                "-X " => {
                    let used = |rule: &SavedRule| {
                        rule.chain == chain || rule.target.as_deref() == Some(chain)
                    };
                    assert!(!table.rules.iter().any(used), "{chain} is in use");
                    table.chains.retain(|present| present.name != chain);
                }
                other => panic!("{other}"),
            }
        }
        saved
    }

    fn settle(saved: &Saved, wanted: &RuleSet) -> Saved {
        let wanted = wanted.family(Family::V6);
        let after = restored(saved.clone(), &plan(saved, wanted).text);
        assert!(is_in_force(&after, wanted), "{after:#?}");
        after
    }

    /// The lines of `text`, which is the text of `settle` after each of its tables but the last.
    fn states() -> Vec<Saved> {
        let mut full = standard();
        full.dns_port = Some(15053);
        let mut off = standard();
        off.ipv6 = crate::config::Ipv6::Reject;
        let mut states = vec![Saved::default()];
        for set in [rules(&full), rules(&standard()), rules(&off)] {
            let text = plan(&Saved::default(), set.family(Family::V6)).text;
            // A run that was killed between two tables.
            for (end, _) in text.match_indices("COMMIT\n") {
                states.push(restored(Saved::default(), &text[..end]));
            }
            // A text that was applied twice, as it stands.
            states.push(restored(restored(Saved::default(), &text), &text));
        }
        let odd = "*nat\n:OUTPUT ACCEPT\n:OUTRIDER_OUTPUT -\n:OUTRIDER_OLD -\n:MINE -\n\
            -A OUTPUT -p tcp -j MINE\n-A OUTPUT -j OUTRIDER_OUTPUT\n-A MINE -j OUTRIDER_OLD\n\
            -A OUTPUT -d 2001:db8::/32 -j OUTRIDER_OUTPUT\n-A OUTPUT -j OUTRIDER_OUTPUT\n\
            -A MINE -m comment --comment \"-j OUTRIDER_OLD\" -j RETURN\n";
        states.push(Saved::parse(odd).unwrap());
        states
    }

    #[test]
    fn every_state_becomes_every_other_one_and_stays() {
        let mut wanted = vec![RuleSet::default(), rules(&standard())];
        let mut config = standard();
        config.dns_port = Some(15053);
        wanted.push(rules(&config));
        config.ipv6 = crate::config::Ipv6::Reject;
        wanted.push(rules(&config));
        for state in states() {
            for set in &wanted {
                let once = settle(&state, set);
                let again = plan(&once, set.family(Family::V6)).text;
                assert!(
                    !again.contains("\n-I ") && !again.contains("\n-D "),
                    "{again}"
                );
                assert_eq!(settle(&once, set), once);
                let foreign = |saved: &Saved| -> Vec<String> {
                    let rules = saved.tables.iter().flat_map(|table| &table.rules);
                    rules
                        .filter(|rule| rule.chain == "MINE" || rule.spec.ends_with("MINE"))
                        .filter(|rule| !rule.target.as_deref().is_some_and(is_ours))
                        .map(|rule| rule.spec.clone())
                        .collect()
                };
                assert_eq!(foreign(&once), foreign(&state));
            }
        }
    }

    #[test]
    fn tables_are_in_their_order_and_nothing_is_done_for_nothing() {
        let mut config = standard();
        config.dns_port = Some(15053);
        let order = |plan: &Plan| -> Vec<String> {
            let tables = plan.text.lines().filter_map(|line| line.strip_prefix('*'));
            tables.map(str::to_owned).collect()
        };
        let set = rules(&config);
        let made = plan(&Saved::default(), set.family(Family::V6));
        assert_eq!(order(&made), ["raw", "nat", "filter"]);
        let all = restored(Saved::default(), &made.text);
        let removed = plan(&all, &[]);
        assert_eq!(order(&removed), ["filter", "nat", "raw"]);
        assert_eq!(removed.emptied.len(), 3);
        config.ipv6 = crate::config::Ipv6::Reject;
        let off = plan(&all, rules(&config).family(Family::V6));
        assert_eq!(order(&off), ["filter", "nat", "raw"]);
        assert_eq!(plan(&Saved::default(), &[]), Plan::default());
    }
}
