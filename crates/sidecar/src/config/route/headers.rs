//! Changes to headers.

use std::sync::Arc;

use crate::telemetry::access_log::format::Format;

/// Headers to add and remove at one level, towards upstream and towards the client.
#[derive(Debug, Default)]
pub struct HeaderChanges(Option<Box<Lists>>);

#[derive(Debug)]
struct Lists {
    request: HeaderChange,
    response: HeaderChange,
}

/// The changes of one direction.
#[derive(Debug, Default)]
pub struct HeaderChange {
    /// `*_headers_to_remove`, in lower case; they come first.
    pub remove: Vec<Box<[u8]>>,
    /// `*_headers_to_add`
    pub add: Vec<HeaderAddition>,
}

impl HeaderChange {
    fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.add.is_empty()
    }
}

impl HeaderChanges {
    /// The changes of both directions.
    pub fn new(request: HeaderChange, response: HeaderChange) -> Self {
        let some = !request.is_empty() || !response.is_empty();
        HeaderChanges(some.then(|| Box::new(Lists { request, response })))
    }

    /// Whether nothing is changed, which is the usual case.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// What is changed of requests.
    pub fn request(&self) -> Option<&HeaderChange> {
        self.0.as_ref().map(|lists| &lists.request)
    }

    /// What is changed of responses.
    pub fn response(&self) -> Option<&HeaderChange> {
        self.0.as_ref().map(|lists| &lists.response)
    }
}

/// `HeaderValueOption`.
#[derive(Debug)]
pub struct HeaderAddition {
    /// In lower case.
    pub name: Box<[u8]>,
    /// Text with `%OPERATORS%`, parsed once; most are plain text.
    pub value: Arc<Format>,
    /// `append_action`
    pub action: AppendAction,
    /// `keep_empty_value`
    pub keep_empty: bool,
}

/// `append_action`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendAction {
    /// APPEND_IF_EXISTS_OR_ADD: one more field
    Append,
    /// The same for a header that Envoy keeps in one field: its values are joined by commas.
    AppendToList,
    /// ADD_IF_ABSENT
    AddIfAbsent,
    /// OVERWRITE_IF_EXISTS_OR_ADD
    Overwrite,
    /// OVERWRITE_IF_EXISTS
    OverwriteIfExists,
}
