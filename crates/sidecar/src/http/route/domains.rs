//! Which virtual host serves an authority: however many there are, a few lookups tell.

use std::collections::HashMap;

use smallvec::SmallVec;

use super::split_port;

/// The domains of all virtual hosts of a table, in lower case.
#[derive(Debug, Default)]
pub struct Domains {
    exact: HashMap<Box<[u8]>, u32>,
    /// `*.example.com` as `.example.com`
    suffixes: Wildcards,
    /// `example.*` as `example.`
    prefixes: Wildcards,
    /// `*`
    any: Option<u32>,
}

/// Wildcards of one kind: one lookup for each length that occurs.
#[derive(Debug, Default)]
struct Wildcards {
    by_text: HashMap<Box<[u8]>, u32>,
    /// Longest first.
    lengths: Vec<usize>,
}

impl Wildcards {
    fn insert(&mut self, text: &[u8], host: u32) -> Option<u32> {
        if let Err(at) = self
            .lengths
            .binary_search_by(|length| text.len().cmp(length))
        {
            self.lengths.insert(at, text.len());
        }
        self.by_text.insert(text.into(), host)
    }

    fn find<'a>(&self, length: usize, part: impl Fn(usize) -> &'a [u8]) -> Option<u32> {
        // A wildcard stands for at least one character.
        let fitting = self.lengths.iter().filter(|wanted| **wanted < length);
        fitting
            .filter_map(|length| self.by_text.get(part(*length)))
            .next()
            .copied()
    }
}

/// Why a domain cannot be filed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DomainError {
    /// A star in the middle, or several.
    #[error("a * can only be the first or the last character")]
    Star,
    /// It is the domain of this virtual host already.
    #[error("is the domain of another virtual host too")]
    Taken(usize),
}

impl Domains {
    /// Files a domain of the virtual host with this index.
    ///
    /// # Errors
    ///
    /// It is malformed, or filed already.
    pub fn insert(&mut self, domain: &[u8], host: usize) -> Result<(), DomainError> {
        let text = domain.to_ascii_lowercase();
        let host = host as u32;
        let stars = text.iter().filter(|byte| **byte == b'*').count();
        let other = match &*text {
            b"*" => self.any.replace(host),
            [b'*', suffix @ ..] if stars == 1 => self.suffixes.insert(suffix, host),
            [prefix @ .., b'*'] if stars == 1 => self.prefixes.insert(prefix, host),
            _ if stars > 0 => return Err(DomainError::Star),
            _ => self.exact.insert(text.into(), host),
        };
        match other {
            Some(other) => Err(DomainError::Taken(other as usize)),
            None => Ok(()),
        }
    }

    /// The index of the virtual host of an authority: exact, then the longest suffix wildcard, then
    /// the longest prefix wildcard, then `*`.
    pub fn find(&self, authority: &[u8], ignore_port: bool) -> Option<usize> {
        let host = if ignore_port {
            split_port(authority).0
        } else {
            authority
        };
        let found = if host.iter().any(u8::is_ascii_uppercase) {
            let mut lower: SmallVec<[u8; 128]> = SmallVec::from_slice(host);
            lower.make_ascii_lowercase();
            self.lookup(&lower)
        } else {
            self.lookup(host)
        };
        found.map(|host| host as usize)
    }

    fn lookup(&self, host: &[u8]) -> Option<u32> {
        if !self.exact.is_empty()
            && let Some(found) = self.exact.get(host)
        {
            return Some(*found);
        }
        let length = host.len();
        self.suffixes
            .find(length, |suffix| &host[length - suffix..])
            .or_else(|| self.prefixes.find(length, |prefix| &host[..prefix]))
            .or(self.any)
    }
}
