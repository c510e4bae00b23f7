//! Gathers what a connection writes while its task runs, and sends it all at once when it is done.
//!
//! The `h2` crate writes and flushes for every DATA frame of some size. What many streams have to
//! say at the same moment would go out in as many system calls, TLS records and segments, each of
//! which wakes the peer.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that are gathered before they are sent although the task has more to say: 64 KiB.
pub const FULL: usize = 64 * 1024;
/// A buffer that is larger than this, for a frame that came on top, is not kept.
const LARGEST_KEPT: usize = 2 * FULL;

thread_local! {
    /// The buffer that the last connection gave back. One is enough: it is in use only while a task
    /// runs, unless a peer is slow.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// What the `h2` crate reads from and writes to.
pub struct Corked<IO> {
    shared: Rc<RefCell<Shared<IO>>>,
}

/// The other handle, for whoever polls the connection: [`Cork::finish`] after each time.
pub struct Cork<IO> {
    shared: Rc<RefCell<Shared<IO>>>,
}

struct Shared<IO> {
    io: IO,
    full: usize,
    gathered: Vec<u8>,
    /// How much of it was sent.
    start: usize,
    /// Whether a flush waits for [`Cork::finish`].
    corked: bool,
    /// Something was written that `io` was not told to flush.
    dirty: bool,
    /// A write has found no room.
    blocked: bool,
    /// Sending has failed, with this.
    failed: Option<ErrorKind>,
}

/// Wraps `io`, which is waited for when `full` bytes are gathered. Until it is corked, a flush is a
/// flush.
pub fn cork<IO>(io: IO, full: usize) -> (Corked<IO>, Cork<IO>) {
    let shared = Rc::new(RefCell::new(Shared {
        io,
        full,
        gathered: Vec::new(),
        start: 0,
        corked: false,
        dirty: false,
        blocked: false,
        failed: None,
    }));
    (
        Corked {
            shared: Rc::clone(&shared),
        },
        Cork { shared },
    )
}

impl<IO: AsyncWrite + Unpin> Shared<IO> {
    fn waiting(&self) -> usize {
        self.gathered.len() - self.start
    }

    /// Hands what was gathered to `io`, and gives the buffer back when it is empty.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.waiting() > 0 {
            let bytes = &self.gathered[self.start..];
            match ready!(Pin::new(&mut self.io).poll_write(cx, bytes))? {
                0 => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                sent => self.start += sent,
            }
        }
        self.start = 0;
        let mut buffer = std::mem::take(&mut self.gathered);
        buffer.clear();
        if (1..=LARGEST_KEPT).contains(&buffer.capacity()) {
            // Not while the thread ends, when there is no next connection either.
            let _ = SPARE.try_with(|spare| spare.set(buffer));
        }
        Poll::Ready(Ok(()))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.dirty {
            return Poll::Ready(Ok(()));
        }
        let flushed = match self.poll_send(cx) {
            Poll::Ready(Ok(())) => Pin::new(&mut self.io).poll_flush(cx),
            other => other,
        };
        match &flushed {
            Poll::Ready(Ok(())) => self.dirty = false,
            Poll::Ready(Err(error)) => self.failed = Some(error.kind()),
            Poll::Pending => {}
        }
        flushed
    }

    fn check(&self) -> io::Result<()> {
        self.failed.map_or(Ok(()), |kind| Err(kind.into()))
    }

    /// Makes room for `length` bytes more.
    fn poll_room(&mut self, cx: &mut Context<'_>, length: usize) -> Poll<io::Result<()>> {
        self.check()?;
        if self.waiting() > 0 && self.waiting() + length > self.full {
            match self.poll_send(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    self.failed = Some(error.kind());
                    return Poll::Ready(Err(error));
                }
                Poll::Pending => {
                    self.blocked = true;
                    return Poll::Pending;
                }
            }
        }
        if self.gathered.capacity() == 0 {
            self.gathered = SPARE.try_with(Cell::take).unwrap_or_default();
        }
        self.dirty = true;
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> Cork<IO> {
    /// From now on a flush waits for [`finish`](Self::finish).
    pub fn close(&self) {
        self.shared.borrow_mut().corked = true;
    }

    /// Sends what a poll of the connection has gathered. True: the connection is to be polled once
    /// more, since it had found no room, or since it has to learn that sending failed.
    pub fn finish(&self, cx: &mut Context<'_>) -> bool {
        let mut shared = self.shared.borrow_mut();
        if shared.failed.is_some() {
            return false;
        }
        match shared.poll_flush(cx) {
            Poll::Pending => false,
            Poll::Ready(Ok(())) => std::mem::take(&mut shared.blocked),
            Poll::Ready(Err(_)) => true,
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Cork<IO> {
    /// Closes for writing, and throws away what the peer still sends until it closes too, for at most
    /// `patience`: a socket that is closed over unread bytes is reset, and the reset overtakes what
    /// was sent last, such as the GOAWAY that says why.
    pub async fn linger(self, patience: Duration) {
        // On the heap, for this is rare and the future of each connection has room for it.
        let mut waste = vec![0; 4096];
        let closed = poll_fn(|cx| {
            let shared = &mut *self.shared.borrow_mut();
            ready!(shared.poll_flush(cx))?;
            ready!(Pin::new(&mut shared.io).poll_shutdown(cx))?;
            loop {
                let mut buffer = ReadBuf::new(&mut waste);
                ready!(Pin::new(&mut shared.io).poll_read(cx, &mut buffer))?;
                if buffer.filled().is_empty() {
                    return Poll::Ready(io::Result::Ok(()));
                }
            }
        });
        // The peer is gone, or it is not worth more patience.
        let _ = tokio::time::timeout(patience, closed).await;
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for Corked<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let shared = &mut *self.shared.borrow_mut();
        let before = buffer.filled().len();
        let polled = Pin::new(&mut shared.io).poll_read(cx, buffer);
        let nothing = match &polled {
            Poll::Pending => true,
            Poll::Ready(Ok(())) => buffer.filled().len() == before,
            Poll::Ready(Err(_)) => false,
        };
        // What the peer said before it took no more is of use still.
        if nothing {
            shared.check()?;
        }
        polled
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Corked<IO> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let shared = &mut *self.shared.borrow_mut();
        let length = slices.iter().map(|slice| slice.len()).sum();
        ready!(shared.poll_room(cx, length))?;
        for slice in slices {
            shared.gathered.extend_from_slice(slice);
        }
        Poll::Ready(Ok(length))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shared = &mut *self.shared.borrow_mut();
        shared.check()?;
        if shared.corked {
            return Poll::Ready(Ok(()));
        }
        shared.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shared = &mut *self.shared.borrow_mut();
        shared.check()?;
        ready!(shared.poll_flush(cx))?;
        Pin::new(&mut shared.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
#[path = "corked_tests.rs"]
mod tests;
