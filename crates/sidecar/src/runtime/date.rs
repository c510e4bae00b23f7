//! The `date` header, formatted once a second.

use std::cell::{Cell, RefCell};
use std::time::{SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::macros::format_description;

/// A worker's clock for `date` headers (RFC 9110, section 5.6.7).
#[derive(Default)]
pub struct DateCache {
    second: Cell<u64>,
    text: RefCell<Vec<u8>>,
}

impl DateCache {
    /// Calls `use_text` with the present date, such as `Sun, 06 Nov 1994 08:49:37 GMT`.
    pub fn with<R>(&self, use_text: impl FnOnce(&[u8]) -> R) -> R {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        if self.second.replace(now) != now {
            *self.text.borrow_mut() = format(now);
        }
        use_text(&self.text.borrow())
    }
}

fn format(unix_seconds: u64) -> Vec<u8> {
    let format = format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    OffsetDateTime::from_unix_timestamp(unix_seconds as i64)
        .ok()
        .and_then(|date| date.format(format).ok())
        .unwrap_or_default()
        .into_bytes()
}

#[cfg(test)]
mod tests {
    #[test]
    fn is_the_fixed_format_of_http() {
        assert_eq!(super::format(784_111_777), b"Sun, 06 Nov 1994 08:49:37 GMT");
    }
}
