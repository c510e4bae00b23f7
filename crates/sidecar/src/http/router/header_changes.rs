//! Header changes that routes, virtual hosts and route tables ask for.

use smallvec::SmallVec;

use crate::config::http_filter::HeaderMutation;
use crate::config::route::{AppendAction, HeaderChange, HeaderChanges};
use crate::http::headers::{Headers, Name};
use crate::telemetry::access_log::format::Format;

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

/// What one level adds, decided and rendered before it changes anything: as in Envoy the additions
/// of a level do not see each other.
#[derive(Default)]
pub struct Additions<'a> {
    text: Vec<u8>,
    fields: SmallVec<[(&'a [u8], AppendAction, usize); 8]>,
}

/// Removes what one level removes.
pub fn remove(headers: &mut Headers, change: &HeaderChange) {
    for name in &change.remove {
        headers.remove_named(name);
    }
}

impl<'a> Additions<'a> {
    /// What `change` adds to `headers`; `render` writes a value.
    pub fn of(
        change: &'a HeaderChange,
        headers: &Headers,
        mut render: impl FnMut(&Format, &mut Vec<u8>),
    ) -> Self {
        let mut additions = Additions::default();
        for addition in &change.add {
            let start = additions.text.len();
            render(&addition.value, &mut additions.text);
            let wanted = (additions.text.len() > start || addition.keep_empty)
                && match addition.action {
                    AppendAction::AddIfAbsent => !has(headers, &addition.name),
                    AppendAction::OverwriteIfExists => has(headers, &addition.name),
                    AppendAction::Append | AppendAction::AppendToList | AppendAction::Overwrite => {
                        true
                    }
                };
            if wanted {
                let end = additions.text.len();
                let field = (&*addition.name, addition.action, end - start);
                additions.fields.push(field);
            } else {
                additions.text.truncate(start);
            }
        }
        additions
    }

    /// Applies them: first what overwrites, then what adds.
    pub fn apply(&self, headers: &mut Headers) {
        for overwrites in [true, false] {
            let mut rest = &self.text[..];
            for (name, action, length) in &self.fields {
                let (value, behind) = rest.split_at(*length);
                rest = behind;
                let is_overwrite = matches!(
                    action,
                    AppendAction::Overwrite | AppendAction::OverwriteIfExists
                );
                if is_overwrite != overwrites {
                    continue;
                }
                match action {
                    _ if overwrites => headers.set_named(name, value),
                    AppendAction::AppendToList => match Name::recognise(name) {
                        Name::Other => headers.push(name, value),
                        known => headers.append_to_list(known, value),
                    },
                    _ => headers.push(name, value),
                }
            }
        }
    }
}

/// Applies what one level removes and adds.
pub fn apply_changes(
    headers: &mut Headers,
    change: &HeaderChange,
    render: impl FnMut(&Format, &mut Vec<u8>),
) {
    remove(headers, change);
    let additions = Additions::of(change, headers, render);
    additions.apply(headers);
}

/// Applies one mutation; `value` is what it adds, rendered.
pub fn mutate(headers: &mut Headers, mutation: &HeaderMutation, value: &[u8]) {
    match mutation {
        HeaderMutation::Remove(name) => {
            headers.remove_named(name);
        }
        HeaderMutation::RemoveMatching(matcher) => {
            headers.retain(|_, name, _| {
                let mut lower: SmallVec<[u8; 64]> = SmallVec::from_slice(name);
                lower.make_ascii_lowercase();
                !matcher.matches(&lower)
            });
        }
        HeaderMutation::Add(addition) => {
            if value.is_empty() && !addition.keep_empty {
                return;
            }
            let name = &*addition.name;
            match addition.action {
                AppendAction::Append => headers.push(name, value),
                AppendAction::AppendToList => match Name::recognise(name) {
                    Name::Other => headers.push(name, value),
                    known => headers.append_to_list(known, value),
                },
                AppendAction::AddIfAbsent if has(headers, name) => {}
                AppendAction::AddIfAbsent => headers.push(name, value),
                AppendAction::OverwriteIfExists if !has(headers, name) => {}
                AppendAction::Overwrite | AppendAction::OverwriteIfExists => {
                    headers.set_named(name, value);
                }
            }
        }
    }
}

fn has(headers: &Headers, name: &[u8]) -> bool {
    headers.named(name).next().is_some()
}
