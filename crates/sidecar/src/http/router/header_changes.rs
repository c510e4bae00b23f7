//! Header changes that routes, virtual hosts and route tables ask for.

use crate::config::route::{AppendAction, HeaderAddition, HeaderChanges};
use crate::http::headers::Headers;

/// The levels that apply to one request: weighted cluster, then route, virtual host, route table, or
/// these three in reverse. What is applied last wins.
#[derive(Clone, Copy, Default)]
pub struct Levels<'a>([Option<&'a HeaderChanges>; 4]);

impl<'a> Levels<'a> {
    /// The levels in the order in which they are applied; those that change nothing are left out.
    pub fn new(levels: [&'a HeaderChanges; 3]) -> Self {
        let [first, second, third] =
            levels.map(|level| Some(level).filter(|changes| !changes.is_empty()));
        Levels([None, first, second, third])
    }

    /// With the changes of the weighted cluster, which come first in either order.
    pub fn with_cluster(mut self, changes: &'a HeaderChanges) -> Self {
        self.0[0] = Some(changes).filter(|changes| !changes.is_empty());
        self
    }

    /// The levels that change something.
    pub fn iter(&self) -> impl Iterator<Item = &'a HeaderChanges> {
        self.0.into_iter().flatten()
    }
}

/// Applies one addition whose value has been rendered.
pub fn add(headers: &mut Headers, addition: &HeaderAddition, value: &[u8]) {
    if value.is_empty() && !addition.keep_empty {
        return;
    }
    let exists = headers.named(&addition.name).next().is_some();
    match addition.action {
        AppendAction::Append => headers.push(&addition.name, value),
        AppendAction::AddIfAbsent if !exists => headers.push(&addition.name, value),
        AppendAction::Overwrite => headers.set_named(&addition.name, value),
        AppendAction::OverwriteIfExists if exists => headers.set_named(&addition.name, value),
        AppendAction::AddIfAbsent | AppendAction::OverwriteIfExists => {}
    }
}

/// Removes names.
pub fn remove(headers: &mut Headers, names: &[Box<[u8]>]) {
    for name in names {
        headers.remove_named(name);
    }
}
