//! Bytes on their way in or out, in memory that is only held while there are some.
//!
//! A worker has many connections and few of them move bytes at any moment. So a buffer takes its
//! memory from a small stock of its thread when the first byte comes and gives it back when the
//! last one has gone. The memory is kept initialised: reading into it needs no clearing.

use std::cell::RefCell;
use std::fmt;

/// What a buffer starts with (a TLS record, or far more than the usual head), and what it grows to
/// for a body that flows. A head that needs more gets more: its limit decides.
const SIZES: [usize; 3] = [16 * 1024, 64 * 1024, 256 * 1024];
/// How many of each size a thread keeps in stock: at most 4 MiB together.
const STOCK: [usize; 3] = [64, 16, 8];

thread_local! {
    static SPARE: RefCell<[Vec<Vec<u8>>; 3]> = const { RefCell::new([const { Vec::new() }; 3]) };
}

/// Initialised memory of at least `least` bytes.
fn take(least: usize) -> Vec<u8> {
    match SIZES.iter().position(|&size| size >= least) {
        Some(class) => SPARE
            .with_borrow_mut(|spare| spare[class].pop())
            .unwrap_or_else(|| vec![0; SIZES[class]]),
        None => vec![0; least.next_power_of_two()],
    }
}

fn give_back(bytes: Vec<u8>) {
    if let Some(class) = SIZES.iter().position(|&size| size == bytes.len()) {
        // The stock is gone while a thread ends; then the memory is freed instead.
        let _ = SPARE.try_with(|spare| {
            if let Ok(mut spare) = spare.try_borrow_mut()
                && spare[class].len() < STOCK[class]
            {
                spare[class].push(bytes);
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
    /// Index in `SIZES` of what it takes when it takes memory.
    class: usize,
}

impl Buffer {
    /// An empty buffer without memory.
    pub const fn new() -> Self {
        Buffer {
            bytes: Vec::new(),
            start: 0,
            end: 0,
            class: 0,
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

    /// Room behind the bytes, at least one byte of it (for an empty buffer, as much as it adapted to). Say with [`fill`](Self::fill) how much of it
    /// was used.
    pub fn spare(&mut self) -> &mut [u8] {
        if self.end == self.bytes.len() || (self.is_empty() && self.bytes.len() < SIZES[self.class])
        {
            self.make_room(1);
        }
        &mut self.bytes[self.end..]
    }

    /// Adds the first `n` bytes of [`spare`](Self::spare).
    pub fn fill(&mut self, n: usize) {
        self.end += n;
        debug_assert!(self.end <= self.bytes.len());
    }

    /// Adapts to a body that flows, after a read of `n` bytes: a read that filled the buffer asks
    /// for a bigger one, which saves system calls, and one that hardly used it for a smaller one.
    pub fn adapt(&mut self, n: usize) {
        if self.end == self.bytes.len() {
            self.class = (self.class + 1).min(SIZES.len() - 1);
        } else if n < SIZES[self.class] / 8 {
            self.class = self.class.saturating_sub(1);
        }
    }

    /// Goes back to the size that a head needs.
    pub fn settle(&mut self) {
        self.class = 0;
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
    #[cfg(test)]
    pub fn holds_memory(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// The bytes, for whoever goes on with them.
    pub fn into_vec(self) -> Vec<u8> {
        self.filled().to_vec()
    }

    #[cold]
    fn make_room(&mut self, least: usize) {
        let len = self.len();
        // Moving is cheap while it moves less than it gains.
        if self.bytes.len() >= SIZES[self.class]
            && self.start >= len
            && self.bytes.len() - len >= least
        {
            self.bytes.copy_within(self.start..self.end, 0);
        } else {
            let least = (len + least).max(self.bytes.len() + 1);
            let mut bytes = take(least.max(SIZES[self.class]));
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
        assert_eq!(buffer.bytes.len(), SIZES[0]);
        buffer.consume(1);
        buffer.release();
        assert_eq!(buffer.bytes.capacity(), 0);
    }

    #[test]
    fn the_size_follows_the_flow() {
        let mut buffer = Buffer::new();
        let read = |buffer: &mut Buffer, most: usize| {
            let n = buffer.spare().len().min(most);
            buffer.fill(n);
            buffer.adapt(n);
            buffer.consume(n);
            n
        };
        let sizes: Vec<usize> = (0..4).map(|_| read(&mut buffer, usize::MAX)).collect();
        assert_eq!(sizes, [SIZES[0], SIZES[1], SIZES[2], SIZES[2]]);
        for _ in 0..2 {
            read(&mut buffer, 100);
        }
        buffer.release();
        assert_eq!(buffer.spare().len(), SIZES[0]);
    }
}
