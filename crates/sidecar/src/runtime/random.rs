//! Fast random numbers for choices that need not be secret: routes, endpoints, request ids.

use std::cell::Cell;

/// A worker's generator (xorshift128+, seeded by the system).
pub struct Random(Cell<(u64, u64)>);

impl Random {
    /// A generator that no other thread shares.
    pub fn new() -> Self {
        // A state of zeros would stay so.
        Random(Cell::new((rand::random::<u64>() | 1, rand::random())))
    }

    /// The next number.
    pub fn next(&self) -> u64 {
        let (mut a, b) = self.0.get();
        a ^= a << 23;
        let next = a ^ b ^ (a >> 18) ^ (b >> 5);
        self.0.set((b, next));
        next.wrapping_add(b)
    }
}

impl Default for Random {
    fn default() -> Self {
        Self::new()
    }
}
