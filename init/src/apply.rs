//! `apply` and `clean`: taking a pod from what it has to what is wanted, or to nothing of ours; and
//! `print`, which only says what is wanted.

use std::time::Duration;

use crate::backend::{Backend, Tables, choose};
use crate::check;
use crate::config::{Config, Family, Ipv6};
use crate::error::Error;
use crate::ipv6::{self, Facts};
use crate::netlink;
use crate::options::{Ipv6Mode, RunOptions};
use crate::plan::{is_in_force, plan};
use crate::rules::{RuleSet, Table, TableName, rules};
use crate::saved::SavedError;

/// Installs the rules that `config` asks for. What was done is in the lines that are returned.
///
/// # Errors
/// Whatever keeps a family from being captured or refused as it is wanted.
pub(crate) fn apply(
    config: &Config,
    mode: Ipv6Mode,
    facts: Facts,
    run: &RunOptions,
) -> Result<Vec<String>, Error> {
    let backend = choose(run.backend)?;
    let wanted = rules(config);
    let mut report = vec![format!("using the {backend} backend of iptables")];
    ipv6::set_inbound_source(config.ipv6)?;
    for family in families(facts) {
        let captured = apply_family(backend, family, wanted.family(family), run.lock_timeout());
        match captured {
            Ok(()) => report.push(format!("{family}: {}", describe(config, family))),
            // What has no address anywhere and is disabled on loopback is closed as it is; a node
            // without the means to close it twice is not a reason to keep its pods from starting.
            Err(error)
                if error.is_absence()
                    && family == Family::V6
                    && mode == Ipv6Mode::Auto
                    && config.ipv6 == Ipv6::Reject
                    && !facts.has_address =>
            {
                report.push(
                    "IPv6: disabled in this pod, and ip6tables does not work: left so".to_owned(),
                );
            }
            Err(error) => return Err(error),
        }
    }
    for family in families(facts) {
        report.extend(clean_other(backend.other(), family, run.lock_timeout())?);
    }
    Ok(report)
}

fn families(facts: Facts) -> impl Iterator<Item = Family> {
    Family::BOTH
        .into_iter()
        .filter(move |family| *family == Family::V4 || facts.is_present)
}

fn describe(config: &Config, family: Family) -> String {
    if family == Family::V6 && config.ipv6 == Ipv6::Reject {
        return "TCP refused, but loopback's and the proxy's".to_owned();
    }
    let dns = config
        .dns_port
        .map_or(String::new(), |port| format!(", DNS to {port}"));
    format!(
        "inbound TCP to {}, outbound TCP to {}{dns}",
        config.inbound_port, config.outbound_port
    )
}

fn apply_family(
    backend: Backend,
    family: Family,
    wanted: &[Table],
    wait: Duration,
) -> Result<(), Error> {
    let tables = Tables::find(backend, family)?;
    change(&tables, wanted, wait)?;
    if is_in_force(&tables.saved()?, wanted) {
        Ok(())
    } else {
        Err(Error::NotInForce { backend, family })
    }
}

/// Brings one family of one backend to what is wanted; whether anything was to be done.
fn change(tables: &Tables, wanted: &[Table], wait: Duration) -> Result<bool, Error> {
    let plan = plan(&tables.saved()?, wanted);
    if plan.text.is_empty() {
        return Ok(false);
    }
    tables.restore(&plan.text, wait)?;
    if tables.backend == Backend::Nft && !plan.emptied.is_empty() {
        sweep(tables, &plan.emptied)?;
    }
    Ok(true)
}

/// Deletes the tables that iptables made in nftables for our rules and that are now empty. (The
/// legacy backend's tables are the kernel's own, and stay.)
fn sweep(tables: &Tables, emptied: &[TableName]) -> Result<(), Error> {
    let saved = tables.saved()?;
    let is_ipv6 = tables.family == Family::V6;
    for name in emptied {
        let name = name.as_str();
        let Some(table) = saved.table(name) else {
            continue;
        };
        // A policy other than ACCEPT is somebody's rule.
        let is_kept = |policy: &Option<String>| policy.as_deref() != Some("ACCEPT");
        if !table.rules.is_empty() || table.chains.iter().any(|chain| is_kept(&chain.policy)) {
            let used = |chain: &str| table.rules.iter().any(|rule| rule.chain == chain);
            for chain in table
                .chains
                .iter()
                .filter(|chain| !is_kept(&chain.policy) && !used(&chain.name))
            {
                delete(
                    netlink::delete_empty_nft_chain(is_ipv6, name, &chain.name),
                    name,
                )?;
            }
            continue;
        }
        for chain in &table.chains {
            delete(
                netlink::delete_empty_nft_chain(is_ipv6, name, &chain.name),
                name,
            )?;
        }
        delete(netlink::delete_empty_nft_table(is_ipv6, name), name)?;
    }
    Ok(())
}

fn delete(result: std::io::Result<bool>, table: &str) -> Result<(), Error> {
    result.map(drop).map_err(|source| Error::Netlink {
        action: format!("delete the empty chains of the nftables table `{table}`"),
        hint: "",
        source,
    })
}

/// Removes rules of ours from the backend that is not used; what there is to say of it.
fn clean_other(other: Backend, family: Family, wait: Duration) -> Result<Option<String>, Error> {
    let clean = || {
        let tables = Tables::find(other, family)?;
        change(&tables, RuleSet::default().family(family), wait)
    };
    match clean() {
        Ok(false) => Ok(None),
        Ok(true) => Ok(Some(format!(
            "{family}: removed rules of an earlier run from the {other} backend"
        ))),
        // What does not work here, or has no program here, cannot have been used from here.
        Err(error) if error.is_absence() => Ok(None),
        // Nor can ours have been placed in a table that iptables cannot read.
        Err(Error::Saved {
            source: SavedError::Foreign(table),
            ..
        }) => Ok(Some(format!(
            "{family}: not looked for rules of ours in the {other} backend: {table}"
        ))),
        Err(source) => Err(Error::OtherBackend {
            backend: other,
            family,
            source: Box::new(source),
        }),
    }
}

/// Removes everything of ours from both backends and families.
///
/// # Errors
/// Whatever is left, and why.
pub(crate) fn clean(facts: Facts, run: &RunOptions) -> Result<Vec<String>, Error> {
    let mut report = Vec::new();
    let mut failures = Vec::new();
    for family in families(facts) {
        for backend in Backend::BOTH {
            let tables = Tables::find(backend, family);
            let result = tables.and_then(|tables| {
                change(
                    &tables,
                    RuleSet::default().family(family),
                    run.lock_timeout(),
                )
            });
            match result {
                Ok(true) => report.push(format!(
                    "{family}: removed the rules from the {backend} backend"
                )),
                Ok(false) => {}
                Err(error) => failures.push((backend, error)),
            }
        }
    }
    if facts.is_present && ipv6::set_inbound_source(Ipv6::Reject)? {
        report.push("IPv6: removed ::6/128 from lo".to_owned());
    }
    check::remove_leftovers()?;
    // That one backend does not exist here is no failure, for nothing can be in it; that neither
    // does is one.
    let absent = |backend| {
        failures
            .iter()
            .any(|(failed, error): &(Backend, Error)| *failed == backend && error.is_absence())
    };
    let all_absent = absent(Backend::Nft) && absent(Backend::Legacy);
    match failures
        .into_iter()
        .find(|(_, error)| all_absent || !error.is_absence())
    {
        Some((_, error)) => Err(error),
        None => {
            if report.is_empty() {
                report.push("nothing of ours was there".to_owned());
            }
            Ok(report)
        }
    }
}

/// The rules as text, for a reader.
pub(crate) fn print(config: &Config) -> String {
    let wanted = rules(config);
    let mut text = String::new();
    for family in Family::BOTH {
        let plan = plan(&crate::saved::Saved::default(), wanted.family(family));
        let program = match family {
            Family::V4 => "iptables-restore",
            Family::V6 => "ip6tables-restore",
        };
        match (family, config.ipv6) {
            (Family::V6, Ipv6::Absent) => {
                text.push_str("# IPv6: the kernel has none, so there is nothing to install.\n");
                continue;
            }
            (Family::V6, Ipv6::Capture) => {
                text.push_str("# IPv6: the address ::6/128 is added to lo, and this is given to\n");
            }
            _ => text.push_str(&format!("# {family}: this is given to\n")),
        }
        text.push_str(&format!("# {program} --noflush -w\n{}", plan.text));
    }
    text
}
