//! `/stats` and `/stats/prometheus`

use http::StatusCode;

use super::answer::{html, json, text};
use super::paths::{escaped, html as page_of_html};
use super::pattern;
use super::query::Query;
use crate::runtime::http_server::Page;
use crate::telemetry::metrics::pages::{self, Kind, Selection};
use crate::telemetry::metrics::{Form, Registry};

/// What was asked for, or why it cannot be shown.
pub fn page(registry: &Registry, path: &str, query: &Query<'_>) -> Page {
    match selection(query) {
        Ok(selection) => shown(registry, path, query, &selection),
        Err(refusal) => *refusal,
    }
}

fn shown(registry: &Registry, path: &str, query: &Query<'_>, selection: &Selection) -> Page {
    let format = query.get("format").unwrap_or_default();
    match format.as_str() {
        _ if path == "/stats/prometheus" => prometheus(registry, selection),
        "prometheus" => prometheus(registry, selection),
        "json" => json(&pages::json(registry, selection)),
        "" | "text" => text(StatusCode::OK, pages::text(registry, selection)),
        "html" | "active-html" => {
            // The active form is one that a browser loads again by itself.
            let again = match format.as_str() {
                "active-html" => "<meta http-equiv='refresh' content='5'>",
                _ => "",
            };
            let stats = escaped(&pages::text(registry, selection));
            let body = format!("{again}<h1>Statistics</h1><pre>{stats}</pre>");
            html(page_of_html("Statistics", &body))
        }
        _ => {
            let reason = "usage: /stats?format=(html|active-html|json|prometheus|text)\n\n";
            text(StatusCode::BAD_REQUEST, reason)
        }
    }
}

fn prometheus(registry: &Registry, selection: &Selection) -> Page {
    let page = pages::prometheus_text(registry, selection);
    text(StatusCode::OK, page)
}

fn selection(query: &Query<'_>) -> Result<Selection, Box<Page>> {
    let refused = |reason: &str| Box::new(text(StatusCode::BAD_REQUEST, reason));
    let kind = match query.get("type").unwrap_or_default().as_str() {
        "" | "All" => None,
        "Counters" => Some(Kind::Counter),
        "Gauges" => Some(Kind::Gauge),
        "Histograms" => Some(Kind::Histogram),
        "TextReadouts" => Some(Kind::Text),
        _ => return Err(refused("invalid &type= param")),
    };
    let form = match query.get("histogram_buckets").unwrap_or_default().as_str() {
        "" | "none" => None,
        "summary" => Some(Form::Summary),
        "cumulative" => Some(Form::Cumulative),
        "disjoint" => Some(Form::Disjoint),
        "detailed" => Some(Form::Detailed),
        _ => {
            let reason =
                "usage: /stats?histogram_buckets=(cumulative|disjoint|detailed|summary)\n\n";
            return Err(refused(reason));
        }
    };
    Ok(Selection {
        filter: pattern(query, "filter")?,
        invert: query.has("invert_filter"),
        used_only: query.has("usedonly"),
        kind,
        form,
        texts: query.has("text_readouts"),
    })
}
