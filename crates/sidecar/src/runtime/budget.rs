//! Memory that many share: whoever comes once it is spent goes without.

use std::cell::Cell;
use std::rc::Rc;

/// So many bytes of one worker.
#[derive(Debug)]
pub struct Budget {
    left: Cell<usize>,
}

impl Budget {
    /// A budget of so many bytes.
    pub fn new(bytes: usize) -> Rc<Self> {
        let left = Cell::new(bytes);
        Rc::new(Budget { left })
    }
}

/// What one holder has of a budget; it goes back when this is dropped.
#[derive(Debug)]
pub struct Held {
    budget: Rc<Budget>,
    bytes: usize,
}

impl Held {
    /// Nothing yet.
    pub fn none(budget: &Rc<Budget>) -> Self {
        Held {
            budget: Rc::clone(budget),
            bytes: 0,
        }
    }

    /// Makes it at least so many bytes in all. `false`, and nothing is taken: there are not so many.
    #[must_use]
    pub fn grow(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let Some(left) = self.budget.left.get().checked_sub(more) else {
            return false;
        };
        self.budget.left.set(left);
        self.bytes += more;
        true
    }

    /// Gives all of it back.
    pub fn release(&mut self) {
        let left = self.budget.left.get() + std::mem::take(&mut self.bytes);
        self.budget.left.set(left);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_gone_until_it_is_given_back() {
        let budget = Budget::new(10);
        let (mut one, mut other) = (Held::none(&budget), Held::none(&budget));
        assert!(one.grow(4) && one.grow(6) && one.grow(2));
        assert!(!other.grow(5) && other.grow(4) && !one.grow(7));
        one.release();
        assert!(other.grow(10) && !one.grow(1));
        drop(other);
        assert!(one.grow(10));
        assert_eq!(budget.left.get(), 0);
    }
}
