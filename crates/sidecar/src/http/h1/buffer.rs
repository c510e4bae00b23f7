//! Bytes on their way in or out, in memory that is only held while there are some.
//!
//! A worker has many connections and few of them move bytes at any moment. So a buffer takes its
//! memory from a small stock of its thread when the first byte comes and gives it back when the
//! last one has gone. The memory is kept initialised: reading into it needs no clearing.

use std::cell::RefCell;
use std::fmt;

/// What a buffer starts with: a TLS record, or far more than the usual head.
pub const SMALL: usize = 16 * 1024;
/// How far a buffer grows for a body that flows; a head may need more (its limit decides).
const LARGE: usize = 256 * 1024;
/// How many small buffers a thread keeps in stock: 1 MiB of them.
const STOCK: usize = 64;

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

fn take_small() -> Vec<u8> {
    SPARE
        .with_borrow_mut(Vec::pop)
        .unwrap_or_else(|| vec![0; SMALL])
}

fn give_back(bytes: Vec<u8>) {
    if bytes.len() == SMALL {
        // The stock is gone while a thread ends; then the memory is freed instead.
        let _ = SPARE.try_with(|spare| {
            if let Ok(mut spare) = spare.try_borrow_mut()
                && spare.len() < STOCK
            {
                spare.push(bytes);
            }
        });
    }
}

/// A queue of bytes: filled at its end, consumed from its start, always one slice.
#[derive(Default)]
pub struct Buffer {
    /// Initialised to its full length.
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    /// An empty buffer without memory.
    pub const fn new() -> Self {
        Buffer {
            bytes: Vec::new(),
            start: 0,
            end: 0,
        }
    }

    /// The bytes that are in it.
    pub fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// How many bytes are in it.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Drops `n` bytes from the start.
    pub fn consume(&mut self, n: usize) {
        debug_assert!(n <= self.len());
        self.start += n;
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Room behind the bytes, at least one byte of it. Say with [`fill`](Self::fill) how much of it
    /// was used.
    pub fn spare(&mut self) -> &mut [u8] {
        if self.end == self.bytes.len() {
            self.make_room(1);
        }
        &mut self.bytes[self.end..]
    }

    /// Adds the first `n` bytes of [`spare`](Self::spare).
    pub fn fill(&mut self, n: usize) {
        self.end += n;
        debug_assert!(self.end <= self.bytes.len());
    }

    /// Whether the last read used all the room there was: more is waiting, so a bigger buffer saves
    /// system calls.
    pub fn is_full(&self) -> bool {
        self.end == self.bytes.len() && !self.bytes.is_empty()
    }

    /// Doubles an empty buffer twice, as long as a body that flows makes use of it.
    pub fn grow_for_flow(&mut self) {
        if self.is_empty() && !self.bytes.is_empty() && self.bytes.len() < LARGE {
            let size = self.bytes.len() * 4;
            self.replace(vec![0; size]);
        }
    }

    /// Appends bytes.
    pub fn put(&mut self, data: &[u8]) {
        if self.bytes.len() - self.end < data.len() {
            self.make_room(data.len());
        }
        self.bytes[self.end..self.end + data.len()].copy_from_slice(data);
        self.end += data.len();
    }

    /// Gives the memory back if there is no byte in it.
    pub fn release(&mut self) {
        if self.is_empty() && !self.bytes.is_empty() {
            self.replace(Vec::new());
        }
    }

    /// Whether there is memory behind it.
    pub fn holds_memory(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// The bytes, for whoever goes on with them.
    pub fn into_vec(self) -> Vec<u8> {
        self.filled().to_vec()
    }

    #[cold]
    fn make_room(&mut self, least: usize) {
        if self.bytes.is_empty() && least <= SMALL {
            self.bytes = take_small();
            return;
        }
        let len = self.len();
        // Moving is cheap while it moves less than it gains.
        if self.start >= len && self.bytes.len() - len >= least {
            self.bytes.copy_within(self.start..self.end, 0);
        } else {
            let size = (self.bytes.len() * 2)
                .max(len + least)
                .max(SMALL)
                .next_power_of_two();
            let mut bytes = vec![0; size];
            bytes[..len].copy_from_slice(self.filled());
            self.replace(bytes);
        }
        self.start = 0;
        self.end = len;
    }

    fn replace(&mut self, bytes: Vec<u8>) {
        give_back(std::mem::replace(&mut self.bytes, bytes));
        self.start = 0;
        self.end = 0;
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        give_back(std::mem::take(&mut self.bytes));
    }
}

/// The length only: the bytes may be secret.
impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} of {} bytes)", self.len(), self.bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_as_they_went_in_whatever_the_steps() {
        let source: Vec<u8> = (0..200_000u32).map(|i| (i % 251) as u8).collect();
        for step in [1usize, 7, 1000, 16 * 1024, 70_000] {
            let mut buffer = Buffer::new();
            let mut out = Vec::new();
            for piece in source.chunks(step) {
                buffer.put(piece);
                let take = buffer.len() * 2 / 3;
                out.extend_from_slice(&buffer.filled()[..take]);
                buffer.consume(take);
            }
            out.extend_from_slice(buffer.filled());
            assert!(out == source, "step {step}");
        }
    }

    #[test]
    fn memory_is_held_only_while_there_are_bytes() {
        let mut buffer = Buffer::new();
        buffer.put(b"x");
        buffer.release();
        assert_eq!(buffer.bytes.len(), SMALL);
        buffer.consume(1);
        buffer.release();
        assert_eq!(buffer.bytes.capacity(), 0);
    }
}
