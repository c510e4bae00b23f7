//! Trees, against whoever knows.

use super::input::{Input, Inputs, Known};
use super::*;
use crate::config::matcher::Case;

/// Knows the port and the server name.
struct Knows(Option<&'static str>, &'static str);

impl Inputs for Knows {
    fn with<R>(&self, input: &Input, look: impl FnOnce(Option<Known<'_>>) -> R) -> R {
        match input {
            Input::ServerName => look(self.0.map(|name| Known::Text(name.as_bytes()))),
            Input::DestinationPort => look(Some(Known::Text(self.1.as_bytes()))),
            _ => look(None),
        }
    }
}

fn is(input: Input, text: &str) -> Predicate {
    let matcher = StringMatcher::Exact(text.as_bytes().into(), Case::Sensitive);
    Predicate::Single(input, Condition::Text(matcher))
}

#[test]
fn the_first_that_leads_to_an_action_decides() {
    let by_port = Tree {
        kind: Kind::Exact(
            Input::DestinationPort,
            [(b"1"[..].into(), OnMatch::Action("a:1"))].into(),
        ),
        otherwise: None,
    };
    let tree = Tree {
        kind: Kind::List(vec![
            (is(Input::ServerName, "a"), OnMatch::Tree(Box::new(by_port))),
            (
                Predicate::All(vec![
                    is(Input::DestinationPort, "2"),
                    Predicate::Not(Box::new(is(Input::ServerName, "b"))),
                ]),
                OnMatch::Action("2, not b"),
            ),
            (
                is(Input::SourceType, "local"),
                OnMatch::Action("never known"),
            ),
        ]),
        otherwise: Some(Box::new(OnMatch::Action("none"))),
    };
    for (name, port, expected) in [
        (Some("a"), "1", "a:1"),
        (Some("a"), "2", "2, not b"),
        (Some("b"), "2", "none"),
        (None, "2", "2, not b"),
        (None, "1", "none"),
    ] {
        assert_eq!(
            tree.find(&Knows(name, port)),
            Some(&expected),
            "{name:?} {port}"
        );
    }
}

#[test]
fn the_longest_prefix_decides() {
    let action = |text: &'static str| (text.as_bytes().into(), OnMatch::Action(text));
    let tree = Tree {
        kind: Kind::Prefix(Input::ServerName, vec![action("abc"), action("a")]),
        otherwise: None,
    };
    for (name, expected) in [
        (Some("abcd"), Some("abc")),
        (Some("ab"), Some("a")),
        (Some("b"), None),
        (None, None),
    ] {
        assert_eq!(tree.find(&Knows(name, "")).copied(), expected, "{name:?}");
    }
}
