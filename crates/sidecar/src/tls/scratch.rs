//! Large buffers that all connections of a worker share.
//!
//! A worker runs one connection at a time, and most of what it reads is passed on before it turns
//! to the next one. So the big buffers that make bulk data cheap belong to the thread; a connection
//! owns memory only for what it could not pass on. An idle connection owns none.

use std::cell::RefCell;
use std::thread::LocalKey;

use super::record::{MAX_OVERHEAD, MAX_PLAINTEXT, MAX_SEALED};

/// What is read and written at once at most. A few records cost more per byte than many; between
/// 128 KiB and 1 MiB no difference was measured through a pair of sidecars.
pub const SIZE: usize = 512 << 10;
/// The same sealed, behind a record that still waits to be sent.
const SEALED_SIZE: usize = SIZE + SIZE / MAX_PLAINTEXT * MAX_OVERHEAD + MAX_SEALED;

/// One of the thread's buffers. Pages that were never used cost no memory.
pub type Scratch = LocalKey<RefCell<Vec<u8>>>;

thread_local! {
    /// Ciphertext as it was received.
    pub static RECEIVED: RefCell<Vec<u8>> = RefCell::new(vec![0; SIZE]);
    /// Ciphertext to be sent.
    pub static SEALED: RefCell<Vec<u8>> = RefCell::new(vec![0; SEALED_SIZE]);
    /// Plaintext on its way from one connection to another.
    pub static RELAYED: RefCell<Vec<u8>> = RefCell::new(vec![0; SIZE]);
}
