//! From what iptables says when it fails to what is missing and who is in the way.

use std::fmt;
use std::os::unix::fs::MetadataExt as _;
use std::process::Output;
use std::time::Duration;

use crate::backend::Backend;
use crate::config::Family;
use crate::error::Error;

/// Bits of the capability sets (capabilities(7)).
const CAPABILITIES: [(&str, u32); 2] = [("CAP_NET_ADMIN", 12), ("CAP_NET_RAW", 13)];

/// # Errors
/// When this process lacks one of the capabilities that all changes need, named.
pub(crate) fn require_capabilities() -> Result<(), Error> {
    let path = "/proc/self/status";
    let status = std::fs::read_to_string(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })?;
    let missing = missing_capabilities(&status);
    if missing.is_empty() {
        Ok(())
    } else {
        Err(Error::Capabilities(missing))
    }
}

fn missing_capabilities(status: &str) -> Vec<&'static str> {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    let missing = CAPABILITIES
        .iter()
        .filter(|(_, bit)| effective & (1 << bit) == 0);
    missing.map(|(name, _)| *name).collect()
}

/// Who holds a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Holder {
    Process {
        pid: i32,
        name: String,
    },
    /// The kernel shows no process of another PID namespace.
    Unseen,
}

impl Holder {
    pub(crate) fn of_pid(pid: i32) -> Self {
        if pid <= 0 {
            return Self::Unseen;
        }
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        Self::Process {
            pid,
            name: name.trim().to_owned(),
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { pid, name } if name.is_empty() => write!(formatter, "process {pid}"),
            Self::Process { pid, name } => write!(formatter, "process {pid} ({name})"),
            Self::Unseen => formatter.write_str(
                "a process that cannot be seen from here (one of the node, or of another container)",
            ),
        }
    }
}

/// The lock file that the legacy programs use (iptables(8)).
fn lock_file() -> String {
    std::env::var("XTABLES_LOCKFILE").unwrap_or_else(|_| "/run/xtables.lock".to_owned())
}

fn lock_holder(path: &str) -> Holder {
    let (Ok(file), Ok(locks)) = (
        std::fs::metadata(path),
        std::fs::read_to_string("/proc/locks"),
    ) else {
        return Holder::Unseen;
    };
    pid_of_lock(&locks, file.ino()).map_or(Holder::Unseen, Holder::of_pid)
}

/// Finds who holds an flock in `/proc/locks` (proc(5)), whose lines are like
/// `1: FLOCK ADVISORY WRITE 42 fe:00:77 0 EOF`.
/// The device is not compared, for some file systems show another one to stat(2); who waits has an
/// arrow before the kind and is not the one.
fn pid_of_lock(locks: &str, inode: u64) -> Option<i32> {
    locks.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (kind, _, _) = (fields.next()?, fields.next()?, fields.next()?);
        let (pid, file) = (fields.next()?, fields.next()?);
        let is_it = kind == "FLOCK" && file.rsplit(':').next()?.parse() == Ok(inode);
        if is_it { pid.parse().ok() } else { None }
    })
}

fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let lines = text.lines().map(str::trim_end).filter(|line| {
        // Where to find help is not what went wrong, and the backends' notes of one another are no
        // errors.
        !line.is_empty() && !line.starts_with("Try `") && !line.starts_with("# Warning:")
    });
    lines
        .map(|line| format!("  {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

fn is_permission(said: &str) -> bool {
    said.contains("Permission denied") || said.contains("you must be root")
}

/// What a failed `iptables-save` is about.
pub(crate) fn save_error(
    family: Family,
    backend: Backend,
    program: &str,
    output: &Output,
) -> Error {
    let said = said(output);
    let program = program.to_owned();
    if is_permission(&said) {
        return Error::Permission { program };
    }
    if let Some(module) = core_module(family, backend, &said) {
        return Error::Modules {
            program,
            modules: vec![module],
            hint: module_hint(family),
            said,
        };
    }
    let code = output
        .status
        .code()
        .map_or("none: killed by a signal".to_owned(), |code| {
            code.to_string()
        });
    Error::Save {
        program,
        code,
        said,
    }
}

/// What a failed `iptables-restore` is about. `is_accepted` tries a text.
pub(crate) fn restore_error(
    family: Family,
    backend: Backend,
    program: &str,
    text: &str,
    wait: Duration,
    output: &Output,
    is_accepted: &dyn Fn(&str) -> Result<bool, Error>,
) -> Error {
    let said = said(output);
    let owned = program.to_owned();
    if said.contains("holding the xtables lock") {
        let path = lock_file();
        let holder = lock_holder(&path);
        return Error::LockHeld {
            path,
            holder,
            waited: wait,
        };
    }
    if said.contains("can't open lock file") {
        return Error::LockFile {
            path: lock_file(),
            said: said.trim().to_owned(),
        };
    }
    if is_permission(&said) {
        return Error::Permission { program: owned };
    }
    let modules = match core_module(family, backend, &said) {
        Some(module) => vec![module],
        None => match missing_modules(family, backend, text, is_accepted) {
            Ok(modules) => modules,
            Err(error) => return error,
        },
    };
    if !modules.is_empty() {
        return Error::Modules {
            program: owned,
            modules,
            hint: module_hint(family),
            said,
        };
    }
    Error::Restore {
        program: owned,
        family,
        place: place(text, &said),
        said,
    }
}

fn module_hint(family: Family) -> &'static str {
    match family {
        Family::V4 => "",
        Family::V6 => ". Where the pod needs no IPv6, --ipv6 off needs only ip6table_filter",
    }
}

/// The module without which the backend as a whole does not work.
fn core_module(family: Family, backend: Backend, said: &str) -> Option<&'static str> {
    let is_unsupported = [
        "Protocol not supported",
        "Protocol wrong type",
        "Address family not supported",
    ]
    .iter()
    .any(|text| said.contains(text));
    match (backend, family) {
        (Backend::Nft, _) if is_unsupported => Some("nf_tables"),
        (Backend::Legacy, Family::V4) if said.contains("Protocol not available") => {
            Some("ip_tables")
        }
        (Backend::Legacy, Family::V6) if said.contains("Protocol not available") => {
            Some("ip6_tables")
        }
        _ => None,
    }
}

/// One feature of the kernel that our rules use: how to see that they use it, the table and rule
/// to try it with, and the modules that hold it for IPv4 and for IPv6.
struct Feature {
    used: &'static str,
    table: &'static str,
    rule: &'static str,
    v4: &'static str,
    v6: &'static str,
}

/// In the order in which one needs the other: tables, then matches and targets.
const FEATURES: [Feature; 9] = [
    feature("*raw", "raw", "", "iptable_raw", "ip6table_raw"),
    feature("*nat", "nat", "", "iptable_nat", "ip6table_nat"),
    feature("*filter", "filter", "", "iptable_filter", "ip6table_filter"),
    feature(
        "--dport",
        "",
        "-p tcp -m tcp --dport 1 -j RETURN",
        "xt_tcpudp",
        "xt_tcpudp",
    ),
    feature(
        "-m owner",
        "",
        "-m owner --uid-owner 1 -j RETURN",
        "xt_owner",
        "xt_owner",
    ),
    feature(
        "-m conntrack",
        "",
        "-m conntrack --ctstate INVALID -j RETURN",
        "xt_conntrack",
        "xt_conntrack",
    ),
    feature(
        "-j REDIRECT",
        "nat",
        "-p tcp -j REDIRECT --to-ports 1",
        "xt_REDIRECT",
        "xt_REDIRECT",
    ),
    feature("-j CT", "raw", "-p udp -j CT --zone 1", "xt_CT", "xt_CT"),
    feature(
        "-j REJECT",
        "filter",
        "-p tcp -j REJECT --reject-with tcp-reset",
        "ipt_REJECT",
        "ip6t_REJECT",
    ),
];

const fn feature(
    used: &'static str,
    table: &'static str,
    rule: &'static str,
    v4: &'static str,
    v6: &'static str,
) -> Feature {
    Feature {
        used,
        table,
        rule,
        v4,
        v6,
    }
}

/// Tries every feature that the text uses by itself, in a chain that nothing leads into and that is
/// gone again in the same text.
fn missing_modules(
    family: Family,
    backend: Backend,
    text: &str,
    is_accepted: &dyn Fn(&str) -> Result<bool, Error>,
) -> Result<Vec<&'static str>, Error> {
    // A table that is there, for the matches that work in any.
    let any_table = text
        .lines()
        .find_map(|line| line.strip_prefix('*'))
        .unwrap_or("filter");
    let mut missing = Vec::new();
    for feature in FEATURES
        .iter()
        .filter(|feature| text.contains(feature.used))
    {
        let table = if feature.table.is_empty() {
            any_table
        } else {
            feature.table
        };
        let chain = "OUTRIDER_PROBE";
        let append = match feature.rule {
            "" => String::new(),
            rule => format!("-A {chain} {rule}\n"),
        };
        let made = format!("*{table}\n:{chain} - [0:0]\n{append}COMMIT\n");
        let removed = format!("*{table}\n:{chain} - [0:0]\n-X {chain}\nCOMMIT\n");
        let works = is_accepted(&made)?;
        if works {
            is_accepted(&removed)?;
            continue;
        }
        let is_table = feature.rule.is_empty();
        missing.push(match (backend, family, is_table) {
            // The tables of nft are chain types of the one module.
            (Backend::Nft, _, true) if feature.used == "*nat" => "nft_chain_nat",
            (Backend::Nft, _, true) => "nf_tables",
            (_, Family::V4, _) => feature.v4,
            (_, Family::V6, _) => feature.v6,
        });
        if is_table {
            // Whatever needs the table would fail as well, and say nothing new.
            break;
        }
    }
    // Where every match and target is missing, it is what lets nft use them at all.
    if backend == Backend::Nft && missing.len() > 2 {
        return Ok(vec!["nft_compat"]);
    }
    Ok(missing)
}

/// Names the line at fault by its rule and comment.
fn place(text: &str, said: &str) -> String {
    let number = said.split("line").skip(1).find_map(|rest| {
        let rest = rest.trim_start_matches([':', ' ']);
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<usize>().ok().filter(|number| *number > 0)
    });
    let lines: Vec<&str> = text.lines().collect();
    let Some(line) = number.and_then(|number| lines.get(number - 1)) else {
        return String::new();
    };
    format!(" at line {}: `{line}`", number.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::ExitStatus;

    use super::*;

    fn failed(stderr: &str) -> Output {
        Output {
            status: ExitStatus::from_raw(4 << 8),
            stdout: Vec::new(),
            stderr: stderr.as_bytes().to_vec(),
        }
    }

    #[test]
    fn names_missing_capabilities() {
        let status = |bits: u64| format!("Name:\tx\nCapEff:\t{bits:016x}\n");
        assert_eq!(missing_capabilities(&status(u64::MAX)), [""; 0]);
        assert_eq!(missing_capabilities(&status(1 << 12)), ["CAP_NET_RAW"]);
        assert_eq!(
            missing_capabilities(&status(0)),
            ["CAP_NET_ADMIN", "CAP_NET_RAW"]
        );
        assert_eq!(missing_capabilities(""), ["CAP_NET_ADMIN", "CAP_NET_RAW"]);
    }

    #[test]
    fn finds_who_holds_the_lock_and_not_who_waits() {
        let locks = "1: POSIX  ADVISORY  WRITE 11 fe:00:77 0 EOF\n\
            2: FLOCK  ADVISORY  WRITE 42 fe:00:77 0 EOF\n\
            2: -> FLOCK  ADVISORY  WRITE 43 fe:00:78 0 EOF\n";
        assert_eq!(pid_of_lock(locks, 77), Some(42));
        assert_eq!(pid_of_lock(locks, 78), None);
    }

    /// Each line: what the text uses, what the kernel refuses, the modules that are named.
    #[test]
    fn names_the_module_that_is_missing() {
        let text = "*nat\n:X - [0:0]\n-A X -m owner --uid-owner 7 -p tcp -m tcp --dport 2 -j REDIRECT\nCOMMIT\n";
        for (backend, family, refused, named) in [
            (
                Backend::Legacy,
                Family::V4,
                &["*nat"][..],
                &["iptable_nat"][..],
            ),
            (Backend::Legacy, Family::V6, &["*nat"], &["ip6table_nat"]),
            (Backend::Nft, Family::V6, &["*nat"], &["nft_chain_nat"]),
            (Backend::Nft, Family::V4, &["owner"], &["xt_owner"]),
            (
                Backend::Nft,
                Family::V4,
                &["owner", "--dport", "REDIRECT"],
                &["nft_compat"],
            ),
            (
                Backend::Legacy,
                Family::V4,
                &["owner", "REDIRECT"],
                &["xt_owner", "xt_REDIRECT"],
            ),
        ] {
            let is_accepted = |text: &str| Ok(!refused.iter().any(|word| text.contains(word)));
            let error = restore_error(
                family,
                backend,
                "x",
                text,
                Duration::from_secs(1),
                &failed("line 4 failed"),
                &is_accepted,
            );
            assert!(
                matches!(&error, Error::Modules { modules, .. } if modules == named),
                "{error:?}"
            );
        }
    }

    #[test]
    fn tells_the_other_causes_apart() {
        let text = "*nat\n-A X -j Y\nCOMMIT\n";
        let accepted = |_: &str| Ok(true);
        let error = |said: &str| {
            let wait = Duration::from_secs(3);
            restore_error(
                Family::V4,
                Backend::Nft,
                "r",
                text,
                wait,
                &failed(said),
                &accepted,
            )
        };
        let held =
            error("Another app is currently holding the xtables lock. Stopped waiting after 3s.");
        assert!(matches!(held, Error::LockHeld { .. }) && held.exit_code() == 4);
        let read_only =
            error("Fatal: can't open lock file /run/xtables.lock: Read-only file system");
        assert!(matches!(read_only, Error::LockFile { .. }));
        let denied =
            error("Could not fetch rule set generation id: Permission denied (you must be root)");
        assert!(matches!(denied, Error::Permission { .. }));
        let module = error("Failed to initialize nft: Protocol not supported");
        assert!(matches!(module, Error::Modules { modules, .. } if modules == ["nf_tables"]));
        let other =
            error("line 2: RULE_APPEND failed (Invalid argument): rule in chain X").to_string();
        assert!(other.contains("at line 2: `-A X -j Y`"), "{other}");
    }
}
