//! Where in a message we are, for error messages; built on the stack and written only if needed.

use std::fmt;

/// A path such as `filter_chains[2].filters[0].typed_config.stat_prefix`.
#[derive(Clone, Copy, Debug)]
pub(super) enum Path<'a> {
    Root,
    Field(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
    Key(&'a Path<'a>, &'a str),
}

impl<'a> Path<'a> {
    pub(super) fn field(&'a self, name: &'a str) -> Self {
        Path::Field(self, name)
    }

    pub(super) fn index(&'a self, at: usize) -> Self {
        Path::Index(self, at)
    }

    pub(super) fn key(&'a self, key: &'a str) -> Self {
        Path::Key(self, key)
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Field(Path::Root, name) => out.write_str(name),
            Path::Field(parent, name) => write!(out, "{parent}.{name}"),
            Path::Index(parent, at) => write!(out, "{parent}[{at}]"),
            Path::Key(parent, key) => write!(out, "{parent}[{key:?}]"),
        }
    }
}
