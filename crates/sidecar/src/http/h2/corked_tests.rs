//! A scripted stream below, and what reaches it.

use std::collections::VecDeque;
use std::task::Waker;

use super::*;

/// Takes what the script allows for each write: `None` is Pending, and so is a script at its end.
#[derive(Default)]
struct Slow {
    allows: VecDeque<Option<io::Result<usize>>>,
    writes: Vec<usize>,
    flushes: usize,
}

impl AsyncWrite for Slow {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.allows.pop_front().flatten() {
            None => Poll::Pending,
            Some(Err(error)) => Poll::Ready(Err(error)),
            Some(Ok(most)) => {
                let n = bytes.len().min(most);
                self.writes.push(n);
                Poll::Ready(Ok(n))
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.flushes += 1;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The peer says nothing.
impl AsyncRead for Slow {
    fn poll_read(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        _buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

fn slow(allows: impl IntoIterator<Item = Option<io::Result<usize>>>) -> (Corked<Slow>, Cork<Slow>) {
    let (corked, cork) = cork(
        Slow {
            allows: allows.into_iter().collect(),
            ..Slow::default()
        },
        FULL,
    );
    cork.close();
    (corked, cork)
}

fn write(corked: &mut Corked<Slow>, bytes: &[u8]) -> Poll<io::Result<usize>> {
    let cx = &mut Context::from_waker(Waker::noop());
    let head = IoSlice::new(&bytes[..1]);
    Pin::new(corked).poll_write_vectored(cx, &[head, IoSlice::new(&bytes[1..])])
}

fn flush(corked: &mut Corked<Slow>) -> Poll<io::Result<()>> {
    Pin::new(corked).poll_flush(&mut Context::from_waker(Waker::noop()))
}

fn finish(cork: &Cork<Slow>) -> bool {
    cork.finish(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn one_write_for_all_flushes() {
    let (mut corked, cork) = slow([Some(Ok(usize::MAX))]);
    for _ in 0..3 {
        assert!(matches!(
            write(&mut corked, &[7; 1000]),
            Poll::Ready(Ok(1000))
        ));
        assert!(flush(&mut corked).is_ready());
    }
    assert!(cork.shared.borrow().io.writes.is_empty());
    assert!(!finish(&cork), "nobody was kept waiting");
    assert!(!finish(&cork));
    let shared = cork.shared.borrow();
    assert_eq!(shared.io.writes, [3000]);
    assert_eq!(shared.io.flushes, 1, "only after a write");
    assert_eq!(
        shared.gathered.capacity(),
        0,
        "an idle connection owns none"
    );
}

#[test]
fn a_slow_peer_bounds_what_is_gathered() {
    let (mut corked, cork) = slow([None, Some(Ok(10)), None, Some(Ok(usize::MAX))]);
    let mut taken = 0;
    while let Poll::Ready(written) = write(&mut corked, &[7; 16_393]) {
        taken += written.unwrap();
    }
    assert!((FULL - 16_393..=FULL).contains(&taken), "{taken}");
    assert!(!finish(&cork), "10 bytes went, the rest waits");
    assert!(finish(&cork), "there is room again");
    assert!(!finish(&cork), "which is told once");
    assert_eq!(cork.shared.borrow().io.writes, [10, taken - 10]);
    assert!(matches!(write(&mut corked, &[7; 9]), Poll::Ready(Ok(9))));
}

#[test]
fn the_connection_learns_of_a_failure() {
    let (mut corked, cork) = slow([Some(Err(ErrorKind::ConnectionReset.into()))]);
    assert!(write(&mut corked, b"lost").is_ready());
    assert!(finish(&cork), "to be polled once more");
    assert!(!finish(&cork), "and not for ever");
    let reset = |kind| kind == ErrorKind::ConnectionReset;
    assert!(matches!(flush(&mut corked), Poll::Ready(Err(error)) if reset(error.kind())));
    let mut bytes = [0; 8];
    let cx = &mut Context::from_waker(Waker::noop());
    let read = Pin::new(&mut corked).poll_read(cx, &mut ReadBuf::new(&mut bytes));
    assert!(matches!(read, Poll::Ready(Err(error)) if reset(error.kind())));
}
