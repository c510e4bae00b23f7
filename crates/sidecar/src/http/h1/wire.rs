//! The bytes of one connection: what was read and not yet understood, what is to be written.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Limits;
use super::buffer::Buffer;
use super::decoder::{Decoder, Step};
use crate::http::error::StreamError;

/// Above so many queued bytes a body has to wait: 64 KiB.
pub const HIGH_WATERMARK: usize = 64 * 1024;

/// A stream with its two buffers.
#[derive(Debug)]
pub struct Wire<IO> {
    pub io: IO,
    pub input: Buffer,
    pub output: Buffer,
    /// Bytes handed to the stream below since the present message began.
    pub written: u64,
    /// Bytes read since the present message began.
    pub received: u64,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Wire<IO> {
    pub fn new(io: IO) -> Self {
        Wire {
            io,
            input: Buffer::new(),
            output: Buffer::new(),
            written: 0,
            received: 0,
        }
    }

    /// Reads once, into what room there is. 0 is the end. Holds no memory while it waits with
    /// nothing read.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut spare = ReadBuf::new(self.input.spare());
        let result = Pin::new(&mut self.io).poll_read(cx, &mut spare);
        let n = spare.filled().len();
        match result {
            Poll::Ready(Ok(())) => {
                self.input.fill(n);
                self.received += n as u64;
                if n == 0 {
                    self.input.release();
                }
                Poll::Ready(Ok(n))
            }
            Poll::Ready(Err(error)) => {
                self.input.release();
                Poll::Ready(Err(error))
            }
            Poll::Pending => {
                self.input.release();
                Poll::Pending
            }
        }
    }

    /// The length of the body's bytes at the start of the input, at least 1, or 0 at the body's
    /// end. Reads no further than it must.
    pub fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        decoder: &mut Decoder,
        limits: &Limits,
    ) -> Poll<Result<usize, StreamError>> {
        loop {
            match decoder.step(self.input.filled(), limits)? {
                Step::Data(n) => return Poll::Ready(Ok(n)),
                Step::Skip(n) => self.input.consume(n),
                Step::End => {
                    self.input.settle();
                    self.input.release();
                    return Poll::Ready(Ok(0));
                }
                Step::More => {
                    let n = ready!(self.poll_fill(cx)).map_err(StreamError::from_io)?;
                    self.input.adapt(n);
                    if n == 0 && !decoder.end_of_input() {
                        return Poll::Ready(Err(StreamError::Closed));
                    }
                }
            }
        }
    }

    /// Writes until at most `keep` bytes are queued; with 0 it also flushes the stream below.
    pub fn poll_drain(&mut self, cx: &mut Context<'_>, keep: usize) -> Poll<io::Result<()>> {
        while self.output.len() > keep {
            let written = Pin::new(&mut self.io).poll_write(cx, self.output.filled());
            let n = ready!(written)?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.output.consume(n);
            self.written += n as u64;
        }
        if keep == 0 {
            self.output.release();
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Begins the counts of a new message.
    pub fn reset_counts(&mut self) {
        self.written = 0;
        self.received = 0;
    }
}
