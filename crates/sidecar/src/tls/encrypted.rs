//! A connection whose bytes are sealed by TLS.

use std::cell::RefCell;
use std::io::{self, ErrorKind, IoSlice};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use smallvec::SmallVec;
use tokio::io::ReadBuf;

use super::messages::{Keys, Messages};
use super::record::{
    ContentType, Gathered, MAX_OVERHEAD, MAX_PLAINTEXT, MAX_SEALED, Opener, RecordError, Sealer,
    record_length,
};
use super::scratch;
use super::socket::Socket;
use super::stream::{Handshake, Traffic};

/// Up to so much that is still to be sent, a write adds its own to it and sends both at once.
const COALESCE: usize = MAX_SEALED;
/// Plaintext that one write takes at first; it grows while the socket takes everything.
const FIRST_WRITE: usize = 4 * MAX_PLAINTEXT;

/// An established TLS connection. Idle, it owns no buffer.
pub struct TlsStream {
    socket: Socket,
    /// Where its bytes are counted, if anywhere.
    pub(super) traffic: Option<Rc<Traffic>>,
    handshake: Rc<Handshake>,
    opener: Opener,
    sealer: Sealer,
    messages: Messages,
    /// Ciphertext that was received and not opened: an incomplete record, or what the reader had
    /// no room for.
    incoming: Vec<u8>,
    /// The rest of a record that the reader had no room for.
    opened: Vec<u8>,
    opened_start: usize,
    /// Ciphertext that the socket has not taken yet.
    outgoing: Vec<u8>,
    outgoing_start: usize,
    /// `outgoing` has something in it that no writer will flush: the end of the handshake, the
    /// answer to a KeyUpdate, an alert.
    unsolicited: bool,
    write_size: usize,
    close_sent: bool,
    /// What was wrong with the peer's records; told once the data before it was read.
    misread: Option<RecordError>,
    /// What was met when sending. Reading goes on: the peer may have said why it takes no more.
    send_failed: Option<ErrorKind>,
}

impl TlsStream {
    /// Takes over after a handshake. `incoming` was received behind it; `outgoing` is its end,
    /// which goes out with the first data, or when somebody reads.
    pub(super) fn new(
        socket: Socket,
        handshake: Handshake,
        (opener, sealer): (Opener, Sealer),
        keys: Keys,
        incoming: Vec<u8>,
        outgoing: Vec<u8>,
    ) -> Self {
        TlsStream {
            socket,
            traffic: None,
            messages: Messages::new(handshake.version, keys),
            handshake: Rc::new(handshake),
            opener,
            sealer,
            incoming,
            opened: Vec::new(),
            opened_start: 0,
            unsolicited: !outgoing.is_empty(),
            outgoing,
            outgoing_start: 0,
            write_size: FIRST_WRITE,
            close_sent: false,
            misread: None,
            send_failed: None,
        }
    }

    /// What the handshake agreed on.
    pub fn handshake(&self) -> &Rc<Handshake> {
        &self.handshake
    }

    /// The socket under it.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Makes the key due for replacement after so many records.
    #[cfg(test)]
    pub fn limit_key(&mut self, records: u64) {
        self.sealer.set_limit(records);
    }

    /// Gives up the connection for its socket, for [`Socket::abort`].
    pub fn into_socket(self) -> Socket {
        self.socket
    }

    /// Gives back bytes that were read: they are read again first.
    pub(super) fn unread(&mut self, bytes: &[u8]) {
        self.opened
            .splice(..self.opened_start, bytes.iter().copied());
        self.opened_start = 0;
    }

    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if out.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            let before = out.filled().len();
            self.take_opened(out);
            if !self.incoming.is_empty() {
                let mut incoming = std::mem::take(&mut self.incoming);
                let used = self.open_records(&mut incoming, out);
                if used < incoming.len() {
                    incoming.drain(..used);
                    self.incoming = incoming;
                }
            }
            self.answer(cx);
            if out.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
            if let Some(error) = self.misread {
                return Poll::Ready(Err(io::Error::new(ErrorKind::InvalidData, error)));
            }
            if self.messages.closed() {
                return Poll::Ready(Ok(()));
            }
            if ready!(self.receive(cx, out))? && out.filled().len() > before {
                self.answer(cx);
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Receives once and opens what is complete. The answer is true; an end without close_notify
    /// is an error.
    fn receive(&mut self, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        with(&scratch::RECEIVED, |scratch| {
            let kept = self.incoming.len();
            // As much as the reader has room for, sealed; at least one record.
            let want = out.remaining().max(MAX_PLAINTEXT);
            let want = want + want / 512 + 2 * MAX_OVERHEAD;
            let end = (kept + want).min(scratch.len());
            let mut target = ReadBuf::new(&mut scratch[kept..end]);
            ready!(self.socket.poll_read(cx, &mut target))?;
            let received = target.filled().len();
            if received == 0 {
                return Poll::Ready(Err(io::Error::new(
                    ErrorKind::UnexpectedEof,
                    "the peer closed the connection without close_notify",
                )));
            }
            scratch[..kept].copy_from_slice(&self.incoming);
            let used = self.open_records(&mut scratch[..kept + received], out);
            let rest = &scratch[used..kept + received];
            if rest.is_empty() {
                self.incoming = Vec::new();
            } else {
                self.incoming.clear();
                self.incoming.extend_from_slice(rest);
            }
            Poll::Ready(Ok(true))
        })
    }

    /// Opens the records that are complete in `input` while there is room; answers how many bytes
    /// were used up. What goes wrong is kept for when the data before it has been read.
    fn open_records(&mut self, input: &mut [u8], out: &mut ReadBuf<'_>) -> usize {
        let mut used = 0;
        while out.remaining() > 0 && self.misread.is_none() && !self.messages.closed() {
            match self.open_record(&mut input[used..], out) {
                Ok(Some(length)) => used += length,
                Ok(None) => break,
                Err(error) => {
                    if let Some(alert) = error.alert() {
                        self.queue(ContentType::ALERT, &[2, alert]);
                    }
                    self.misread = Some(error);
                }
            }
        }
        used
    }

    fn open_record(
        &mut self,
        input: &mut [u8],
        out: &mut ReadBuf<'_>,
    ) -> Result<Option<usize>, RecordError> {
        let length = match record_length(input)? {
            Some(length) if length <= input.len() => length,
            _ => return Ok(None),
        };
        let record = &mut input[..length];
        let room = self.opener.room(length);
        let (kind, content) = if room <= out.remaining() {
            let into = out.initialize_unfilled_to(room);
            let (kind, content) = self.opener.open_into(record, into)?;
            if kind == ContentType::APPLICATION_DATA {
                out.advance(content);
                self.messages.data(content)?;
                return Ok(Some(length));
            }
            (kind, &into[..content])
        } else {
            let (kind, content) = self.opener.open_in_place(record)?;
            if kind == ContentType::APPLICATION_DATA {
                let (now, later) = content.split_at(content.len().min(out.remaining()));
                out.put_slice(now);
                self.opened.extend_from_slice(later);
                self.messages.data(content.len())?;
                return Ok(Some(length));
            }
            (kind, content)
        };
        if let Some(opener) = self.messages.message(kind, content)? {
            self.opener = opener;
        }
        Ok(Some(length))
    }

    fn take_opened(&mut self, out: &mut ReadBuf<'_>) {
        if self.opened.is_empty() {
            return;
        }
        let rest = &self.opened[self.opened_start..];
        let length = rest.len().min(out.remaining());
        out.put_slice(&rest[..length]);
        self.opened_start += length;
        if self.opened_start == self.opened.len() {
            self.opened = Vec::new();
            self.opened_start = 0;
        }
    }

    /// Sends what the protocol owes the peer and no writer will send. Errors are met by the next
    /// write; what can be read is read first.
    fn answer(&mut self, cx: &mut Context<'_>) {
        // After our close_notify nothing may follow.
        if self
            .messages
            .take_key_update_owed(self.outgoing.is_empty() && !self.close_sent)
            && let Err(error) = self.update_sealer()
        {
            self.misread = Some(error);
        }
        if self.unsolicited {
            let _ = self.poll_send(cx);
        }
    }

    /// Tells the peer that our key changes, and changes it (RFC 8446 section 4.6.3).
    fn update_sealer(&mut self) -> Result<(), RecordError> {
        self.queue(ContentType::HANDSHAKE, &Messages::KEY_UPDATE);
        self.sealer = self.messages.next_sealer()?;
        Ok(())
    }

    /// Seals a short message behind what waits to be sent.
    fn queue(&mut self, kind: ContentType, message: &[u8]) {
        let end = self.outgoing.len();
        self.outgoing.resize(end + message.len() + MAX_OVERHEAD, 0);
        let sealed = self
            .sealer
            .seal(kind, Gathered::new(&[message]), &mut self.outgoing[end..])
            // A cipher that fails has been reported by the caller's next step already.
            .unwrap_or(0);
        self.outgoing.truncate(end + sealed);
        self.unsolicited = true;
    }

    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check_writable()?;
        if self.outgoing.len() - self.outgoing_start > COALESCE {
            ready!(self.poll_send(cx))?;
        }
        if self.sealer.exhausted() {
            let update = if self.messages.may_update_keys() {
                self.update_sealer()
            } else {
                Err(RecordError::KeyExhausted)
            };
            update.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        }
        with(&scratch::SEALED, |scratch| {
            let waiting = &self.outgoing[self.outgoing_start..];
            let mut filled = waiting.len();
            scratch[..filled].copy_from_slice(waiting);
            let mut taken = 0;
            let mut rest = Remaining::new(slices, self.write_size);
            while let Some(part) = rest.next_record() {
                let payload = Gathered::new(&part);
                filled += self
                    .sealer
                    .seal(
                        ContentType::APPLICATION_DATA,
                        payload,
                        &mut scratch[filled..],
                    )
                    .map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
                taken += part.iter().map(|slice| slice.len()).sum::<usize>();
                if self.sealer.exhausted() {
                    break;
                }
            }
            if filled == 0 {
                return Poll::Ready(Ok(0));
            }
            let sent = match self.socket.poll_write(cx, &scratch[..filled]) {
                Poll::Ready(Ok(sent)) => sent,
                Poll::Ready(Err(error)) => {
                    self.send_failed = Some(error.kind());
                    return Poll::Ready(Err(error));
                }
                Poll::Pending => 0,
            };
            self.outgoing_start = 0;
            if sent == filled {
                self.outgoing = Vec::new();
                self.unsolicited = false;
                if taken == self.write_size {
                    self.write_size = (2 * self.write_size).min(scratch::SIZE);
                }
            } else {
                self.outgoing.clear();
                self.outgoing.extend_from_slice(&scratch[sent..filled]);
                self.write_size = (self.write_size / 2).max(MAX_PLAINTEXT);
            }
            Poll::Ready(Ok(taken))
        })
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(kind) = self.send_failed {
            return Poll::Ready(Err(kind.into()));
        }
        self.poll_send(cx)
    }

    /// Sends close_notify, then FIN. Reading goes on until the peer does the same.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.close_sent {
            self.check_writable()?;
            self.queue(ContentType::ALERT, &Messages::CLOSE_NOTIFY);
            self.close_sent = true;
        }
        ready!(self.poll_flush(cx))?;
        self.socket.poll_shutdown(cx)
    }

    fn check_writable(&self) -> io::Result<()> {
        if let Some(kind) = self.send_failed {
            return Err(kind.into());
        }
        if let Some(error) = self.misread {
            return Err(io::Error::new(ErrorKind::InvalidData, error));
        }
        if self.close_sent {
            return Err(ErrorKind::BrokenPipe.into());
        }
        Ok(())
    }

    /// Sends what waits.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.outgoing_start < self.outgoing.len() {
            let rest = &self.outgoing[self.outgoing_start..];
            match ready!(self.socket.poll_write(cx, rest)) {
                Ok(0) => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                Ok(sent) => self.outgoing_start += sent,
                Err(error) => {
                    self.send_failed = Some(error.kind());
                    // It will never be sent.
                    self.outgoing = Vec::new();
                    self.outgoing_start = 0;
                    self.unsolicited = false;
                    return Poll::Ready(Err(error));
                }
            }
        }
        self.outgoing = Vec::new();
        self.outgoing_start = 0;
        self.unsolicited = false;
        Poll::Ready(Ok(()))
    }
}

impl std::fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsStream")
            .field("socket", &self.socket)
            .field("handshake", &self.handshake)
            .finish_non_exhaustive()
    }
}

fn with<R>(scratch: &'static scratch::Scratch, work: impl FnOnce(&mut [u8]) -> R) -> R {
    scratch.with(|scratch: &RefCell<Vec<u8>>| work(&mut scratch.borrow_mut()))
}

/// Cuts what is to be written into records.
struct Remaining<'a> {
    slices: &'a [IoSlice<'a>],
    /// Bytes of the first slice that were taken.
    offset: usize,
    /// Bytes that may still be taken.
    allowed: usize,
}

impl<'a> Remaining<'a> {
    fn new(slices: &'a [IoSlice<'a>], allowed: usize) -> Self {
        Remaining {
            slices,
            offset: 0,
            allowed,
        }
    }

    /// The pieces of the next record; `None` when nothing is left.
    fn next_record(&mut self) -> Option<SmallVec<[&'a [u8]; 8]>> {
        let mut record = SmallVec::new();
        let mut room = self.allowed.min(MAX_PLAINTEXT);
        while room > 0
            && let Some((first, rest)) = self.slices.split_first()
        {
            let first: &'a [u8] = &first[self.offset..];
            if first.len() > room {
                record.push(&first[..room]);
                self.offset += room;
                self.allowed -= room;
                break;
            }
            if !first.is_empty() {
                record.push(first);
            }
            room -= first.len();
            self.allowed -= first.len();
            self.slices = rest;
            self.offset = 0;
        }
        (!record.is_empty()).then_some(record)
    }
}
