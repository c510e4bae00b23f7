//! `outrider proxy stats`

use std::time::SystemTime;

use serde_json::Value;

use super::dump::{list, number, text};
use crate::output::Table;

/// One row a counter, gauge or text; a row a quantile of a histogram would hide the rest.
pub(super) fn table(page: &Value, _: SystemTime) -> Table {
    let mut table = Table::new(&["STAT", "VALUE"]);
    for stat in list(page, "/stats") {
        if let Some(value) = number(stat, "/value") {
            table.row([text(stat, "/name").to_owned(), value]);
        }
    }
    table
}
