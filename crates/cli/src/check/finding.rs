//! What a check found.

use serde::Serialize;

use crate::cluster::ClusterError;
use crate::output::Table;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    /// As it should be.
    Pass,
    /// It works, but not as somebody may expect.
    Warning,
    /// It does not work.
    Failure,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// What.
    pub(crate) check: &'static str,
    /// How it is.
    pub(crate) outcome: Outcome,
    /// What was seen.
    pub(crate) message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fix: Option<String>,
}

impl Finding {
    /// It is well.
    pub(crate) fn pass(check: &'static str, message: impl Into<String>) -> Self {
        Self {
            check,
            outcome: Outcome::Pass,
            message: message.into(),
            fix: None,
        }
    }

    /// Somebody may be surprised.
    pub(crate) fn warning(
        check: &'static str,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            check,
            outcome: Outcome::Warning,
            message: message.into(),
            fix: Some(fix.into()),
        }
    }

    /// It does not work.
    pub(crate) fn failure(
        check: &'static str,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            outcome: Outcome::Failure,
            ..Self::warning(check, message, fix)
        }
    }

    /// It could not be looked at. That the caller may not is no fault of what it is about.
    pub(crate) fn unknown(check: &'static str, error: &ClusterError) -> Self {
        let message = format!("not looked at: {error}");
        let fix = "run this as somebody who may read that, such as a cluster administrator";
        if error.is_forbidden() {
            Self::warning(check, message, fix)
        } else {
            Self::failure(
                check,
                message,
                "see whether the API server is well, and try again",
            )
        }
    }
}

/// Everything that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Report {
    /// Whether nothing failed.
    pub(crate) ok: bool,
    /// In the order in which it was looked at.
    pub(crate) findings: Vec<Finding>,
}

impl Report {
    /// Of these findings.
    pub(crate) fn new(findings: Vec<Finding>) -> Self {
        let ok = findings
            .iter()
            .all(|finding| finding.outcome < Outcome::Failure);
        Self { ok, findings }
    }

    /// For people: what was seen, then what to do.
    pub(crate) fn render(&self, ready: &str) -> String {
        let mut table = Table::new(&["", "CHECK", "RESULT"]);
        let mut fixes = String::new();
        let mut count = [0; 3];
        for finding in &self.findings {
            let mark = match finding.outcome {
                Outcome::Pass => "ok",
                Outcome::Warning => "warn",
                Outcome::Failure => "FAIL",
            };
            count[finding.outcome as usize] += 1;
            let message = finding.message.clone();
            table.row([mark.to_owned(), finding.check.to_owned(), message]);
            if let Some(fix) = &finding.fix {
                fixes += &format!("\n{mark}  {}: {}\n", finding.check, finding.message);
                fixes += &format!("      {}\n", fix.replace('\n', "\n      "));
            }
        }
        let [_, warnings, failures] = count;
        let warnings = match warnings {
            0 => String::new(),
            1 => " There is 1 warning.".to_owned(),
            many => format!(" There are {many} warnings."),
        };
        let verdict = match failures {
            0 => format!("{ready}{warnings}"),
            1 => format!("1 check failed.{warnings}"),
            many => format!("{many} checks failed.{warnings}"),
        };
        let fixes = if fixes.is_empty() {
            fixes
        } else {
            format!("\nWhat to do:\n{fixes}")
        };
        format!("{}{fixes}\n{verdict}\n", table.render(""))
    }
}

/// The first few of many names.
pub(crate) fn some(names: &[String]) -> String {
    const SHOWN: usize = 5;
    if names.len() <= SHOWN {
        return names.join(", ");
    }
    let more = names.len() - SHOWN;
    format!("{} and {more} more", names[..SHOWN].join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_what_to_do_and_fails_only_for_failures() {
        let pass = Finding::pass("clock", "in step");
        let warning = Finding::warning("mesh", "another one", "remove it");
        let report = Report::new(vec![pass.clone(), warning.clone()]);
        assert!(report.ok);
        let expected = "      CHECK  RESULT
ok    clock  in step
warn  mesh   another one

What to do:

warn  mesh: another one
      remove it

Fit. There is 1 warning.
";
        assert_eq!(report.render("Fit."), expected);
        let failed = Report::new(vec![Finding::failure("api", "old", "upgrade"), pass]);
        assert!(!failed.ok);
        assert!(failed.render("Fit.").ends_with("\n1 check failed.\n"));
        let names: Vec<String> = (0..7).map(|n| n.to_string()).collect();
        assert_eq!(some(&names), "0, 1, 2, 3, 4 and 2 more");
    }
}
