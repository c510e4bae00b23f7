//! The application's metrics and ours on one page.

use std::collections::BTreeSet;
use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};
use http_body_util::{BodyExt as _, Limited};

use super::application::{HttpGet, Metrics};
use super::dial::Dialer;
use super::http_get::{self, GetError};

/// The format in which both are.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4";
/// What Prometheus says of its patience, in seconds.
const SCRAPE_TIMEOUT: &str = "x-prometheus-scrape-timeout-seconds";
/// How long a scrape may take where it says nothing, and at most.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_TIMEOUT: Duration = Duration::from_secs(60);
/// How much of it the application may take, so that ours are there in time.
const SHARE: f64 = 0.9;
/// The longest page in bytes.
const MAX_PAGE: usize = 64 << 20;

/// Why the application's metrics are missing.
#[derive(Debug, thiserror::Error)]
pub enum ScrapeError {
    /// There was no answer.
    #[error(transparent)]
    Get(#[from] GetError),
    /// The answer was none.
    #[error("the application answered {0}")]
    Status(u16),
    /// It is no text.
    #[error("the application answered in the format {0:?}")]
    Format(String),
    /// The body did not come, or was too long.
    #[error("the body: {0}")]
    Body(String),
    /// It took too long.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

/// Gets the application's page. `headers` are those of the request that we got ourselves.
///
/// # Errors
/// [`ScrapeError`]
pub async fn scrape(
    dialer: &Dialer,
    Metrics(get): &Metrics,
    headers: &HeaderMap,
) -> Result<String, ScrapeError> {
    let timeout = patience(headers);
    let scraped = tokio::time::timeout(timeout, page(dialer, get, headers)).await;
    scraped.unwrap_or(Err(ScrapeError::Timeout(timeout)))
}

fn patience(headers: &HeaderMap) -> Duration {
    let said = headers.get(SCRAPE_TIMEOUT);
    let said = said.and_then(|value| value.to_str().ok()?.trim().parse::<f64>().ok());
    let said = said.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    said.unwrap_or(DEFAULT_TIMEOUT)
        .min(MAX_TIMEOUT)
        .mul_f64(SHARE)
}

async fn page(dialer: &Dialer, get: &HttpGet, headers: &HeaderMap) -> Result<String, ScrapeError> {
    let mut wanted = get.headers.clone();
    wanted.push((ACCEPT, HeaderValue::from_static(TEXT_FORMAT)));
    let get = HttpGet {
        target: get.target.clone(),
        tls: get.tls,
        path: get.path.clone(),
        headers: wanted,
    };
    let user_agent = headers.get(http::header::USER_AGENT);
    let answer = http_get::get(dialer, &get, user_agent).await?;
    let status = answer.response.status();
    if status != http::StatusCode::OK {
        return Err(ScrapeError::Status(status.as_u16()));
    }
    let format = answer.response.headers().get(CONTENT_TYPE);
    let format = String::from_utf8_lossy(format.map_or(b"", HeaderValue::as_bytes)).into_owned();
    // OpenMetrics is a text too, which differs only at its end.
    let is_text = ["", "text/plain", "application/openmetrics-text"]
        .contains(&format.split(';').next().unwrap_or_default().trim());
    if !is_text {
        return Err(ScrapeError::Format(format));
    }
    let body = Limited::new(answer.response.into_body(), MAX_PAGE)
        .collect()
        .await;
    let body = body.map_err(|error| ScrapeError::Body(error.to_string()))?;
    let text = String::from_utf8(body.to_bytes().into());
    text.map_err(|_| ScrapeError::Body("it is not UTF-8".to_owned()))
}

/// The page of both. A family that both have is the application's: two of one name would spoil the
/// whole page, and ours is on our own page too.
pub fn merge(application: &str, ours: &str) -> String {
    let mut page = String::with_capacity(application.len() + ours.len() + 1);
    let mut families = BTreeSet::new();
    for line in application.lines() {
        // OpenMetrics' end; ours follows.
        if line.trim_end() == "# EOF" {
            continue;
        }
        families.extend(family(line));
        page.push_str(line);
        page.push('\n');
    }
    let mut skipping = false;
    for line in ours.lines() {
        if let Some(family) = family(line) {
            skipping = families.contains(family);
        }
        if !skipping {
            page.push_str(line);
            page.push('\n');
        }
    }
    page
}

/// The family that a line begins.
fn family(line: &str) -> Option<&str> {
    line.strip_prefix("# TYPE ")?.split_whitespace().next()
}

/// Ours alone, with the reason.
pub fn without_application(error: &ScrapeError, ours: &str) -> String {
    let reason = error.to_string().replace(['\n', '\r'], " ");
    format!("# The application's metrics are missing: {reason}\n{ours}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_merged_family_by_family() {
        let ours = "# TYPE envoy_a counter\nenvoy_a 1\n# TYPE envoy_b gauge\nenvoy_b{x=\"1\"} 2\n";
        for (application, expected) in [
            ("", ours.to_owned()),
            ("up 1", format!("up 1\n{ours}")),
            (
                "# HELP c C\n# TYPE c counter\nc_total 5\n# EOF\n",
                format!("# HELP c C\n# TYPE c counter\nc_total 5\n{ours}"),
            ),
            (
                "# TYPE envoy_a counter\nenvoy_a 9\n",
                "# TYPE envoy_a counter\nenvoy_a 9\n# TYPE envoy_b gauge\nenvoy_b{x=\"1\"} 2\n"
                    .to_owned(),
            ),
        ] {
            assert_eq!(merge(application, ours), expected, "{application}");
        }
        let error = ScrapeError::Body("a\nb".to_owned());
        let page = without_application(&error, ours);
        assert_eq!(page.lines().count(), ours.lines().count() + 1);
    }

    #[test]
    fn the_application_gets_most_of_prometheus_patience() {
        for (said, expected) in [
            ("", 9.0),
            ("5", 4.5),
            ("1e9", 54.0),
            ("-1", 9.0),
            ("nan", 9.0),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(SCRAPE_TIMEOUT, said.parse().unwrap());
            assert_eq!(patience(&headers).as_secs_f64(), expected, "{said}");
        }
    }
}
