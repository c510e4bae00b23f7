//! What has come, in lines.

use std::io;

use crate::conform::bytes as text;
use crate::conform::http1::Message;

/// `response` for the first, `response 2` for the second.
pub(super) fn numbered(name: &str, index: usize) -> String {
    if index == 0 {
        name.to_owned()
    } else {
        format!("{name} {}", index + 1)
    }
}

/// A message in lines.
pub(in crate::conform) fn told(name: &str, message: &Message) -> Vec<String> {
    let mut lines = vec![format!("{name}: {}", message.start)];
    lines.extend(fields(&format!("{name} header"), &message.headers));
    if !message.body.is_empty() {
        lines.push(format!("{name} body: {}", text::shown(&message.body)));
    }
    lines.extend(fields(&format!("{name} trailer"), &message.trailers));
    lines
}

/// Header fields in lines, sorted by name.
pub(in crate::conform) fn fields(name: &str, fields: &[(String, String)]) -> Vec<String> {
    let mut fields: Vec<&(String, String)> = fields.iter().collect();
    // Stable: values of one name keep their order.
    fields.sort_by_key(|(name, _)| name.to_ascii_lowercase());
    fields
        .into_iter()
        .map(|(key, value)| format!("{name} {key}: {value}"))
        .collect()
}

/// The alert that a peer sent, or what happened instead.
pub(super) fn alert(error: &io::Error) -> String {
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::AlertReceived(alert)) => format!("alert {alert:?}"),
        Some(other) => format!("failed: {other}"),
        None if error.kind() == io::ErrorKind::ConnectionReset => "reset".to_owned(),
        None => "closed".to_owned(),
    }
}
