//! The API server: its version, and its clock.

use std::time::{Duration, SystemTime};

use http::Request;
use http_body_util::BodyExt as _;
use k8s_openapi::apimachinery::pkg::version::Info;
use kube::client::Body;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use super::finding::Finding;
use crate::cluster::{Cluster, describe};

const REACHED: &str = "API server";
const CLOCK: &str = "clock";
/// The oldest that the chart installs on. From here on init containers with `restartPolicy: Always`
/// are on by default (KEP-753), and so are CEL rules in CRDs.
const OLDEST: (u32, u32) = (1, 29);
/// Certificates are valid from two minutes before they are made; half of that is worth a word.
const NOTABLE: Duration = Duration::from_secs(60);
/// From here on fresh certificates and tokens are refused.
const FATAL: Duration = Duration::from_secs(120);

/// Asks it; the result is whether it answered.
pub(super) async fn check(cluster: &Cluster, findings: &mut Vec<Finding>) -> bool {
    let before = SystemTime::now();
    let (info, date) = match ask(cluster).await {
        Ok(answer) => answer,
        Err(error) => {
            findings.push(Finding::failure(
                REACHED,
                format!("{} does not answer: {error}", cluster.server()),
                "check the address and the credentials in the kubeconfig (kubectl version), and \
                 that this machine reaches it",
            ));
            return false;
        }
    };
    findings.push(version(&info, cluster.server()));
    let middle = before + before.elapsed().unwrap_or_default() / 2;
    findings.push(clock(date.as_deref(), middle));
    true
}

async fn ask(cluster: &Cluster) -> Result<(Info, Option<String>), String> {
    let request = Request::get("/version").body(Body::empty());
    let request = request.map_err(|error| error.to_string())?;
    let response = cluster.client().send(request).await;
    let response = response.map_err(|error| describe(&error))?;
    let date = response.headers().get(http::header::DATE);
    let date = date.and_then(|date| date.to_str().ok()).map(str::to_owned);
    let status = response.status();
    let page = response.into_body().collect().await;
    let page = page.map_err(|error| error.to_string())?.to_bytes();
    if !status.is_success() {
        return Err(format!("/version gives {status}"));
    }
    let info = serde_json::from_slice(&page);
    let info = info.map_err(|error| format!("/version gives something else: {error}"))?;
    Ok((info, date))
}

fn version(info: &Info, server: &str) -> Finding {
    // Providers append signs to the minor version, such as 27+.
    let number = |text: &str| {
        let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u32>().ok()
    };
    let (Some(major), Some(minor)) = (number(&info.major), number(&info.minor)) else {
        return Finding::failure(
            REACHED,
            format!("its version is not one: {:?}.{:?}", info.major, info.minor),
            "is this address a Kubernetes API server?",
        );
    };
    let told = format!("Kubernetes {} at {server}", info.git_version);
    if (major, minor) < OLDEST {
        let (major, minor) = OLDEST;
        return Finding::failure(
            REACHED,
            format!("{told} is too old: it has no native sidecars"),
            format!("upgrade the cluster to {major}.{minor} or newer"),
        );
    }
    Finding::pass(REACHED, format!("{told}, with native sidecars"))
}

fn clock(date: Option<&str>, here: SystemTime) -> Finding {
    let there = date.and_then(|date| OffsetDateTime::parse(date, &Rfc2822).ok());
    let Some(there) = there.map(SystemTime::from) else {
        return Finding::warning(
            CLOCK,
            "the API server does not tell its time",
            "compare it by hand: certificates are refused where clocks differ by two minutes",
        );
    };
    let (skew, direction) = match there.duration_since(here) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(behind) => (behind.duration(), "behind"),
    };
    // The header has whole seconds.
    if skew < Duration::from_secs(2) {
        return Finding::pass(CLOCK, "the API server's and this machine's agree");
    }
    let message = format!(
        "the API server is {} s {direction} this machine",
        skew.as_secs()
    );
    let fix = "let every node and this machine take their time from NTP: certificates and tokens \
               are refused where clocks differ by two minutes";
    match skew {
        skew if skew >= FATAL => Finding::failure(CLOCK, message, fix),
        skew if skew >= NOTABLE => Finding::warning(CLOCK, message, fix),
        _ => Finding::pass(CLOCK, message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::finding::Outcome;

    #[test]
    fn versions_are_judged() {
        use Outcome::{Failure, Pass};
        for (major, minor, expected) in [
            ("1", "34", Pass),
            ("1", "29+", Pass),
            ("1", "28", Failure),
            ("2", "0", Pass),
            ("", "x", Failure),
        ] {
            let info = Info {
                major: major.to_owned(),
                minor: minor.to_owned(),
                ..Info::default()
            };
            assert_eq!(version(&info, "s").outcome, expected, "{major}.{minor}");
        }
    }

    #[test]
    fn clocks_are_judged() {
        let date = "Tue, 24 Nov 2026 08:36:38 GMT";
        let there = SystemTime::from(OffsetDateTime::parse(date, &Rfc2822).unwrap());
        let at = |seconds: i64| {
            let offset = Duration::from_secs(seconds.unsigned_abs());
            let here = if seconds < 0 {
                there - offset
            } else {
                there + offset
            };
            clock(Some(date), here)
        };
        assert_eq!(at(1).outcome, Outcome::Pass);
        assert!(at(-30).message.contains("30 s ahead of"));
        assert_eq!(at(-30).outcome, Outcome::Pass);
        assert_eq!(at(90).outcome, Outcome::Warning);
        assert_eq!(at(-500).outcome, Outcome::Failure);
        assert_eq!(clock(Some("x"), there).outcome, Outcome::Warning);
    }
}
