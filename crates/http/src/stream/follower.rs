//! One client: its socket, what is still to be sent to it, and nothing else.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};

use bytes::{Buf, Bytes};
use mio::net::TcpStream;
use tungstenite::protocol::frame::coding::CloseCode;

use super::Encoded;
use super::input::{Ask, Input, close_frame};
use crate::metrics::Present;
use crate::server::Slot;

/// Answers to a client's control frames that may wait to be sent; who asks for more without reading is gone.
const MAX_ANSWERS: usize = 32;
/// Reads for one client before the others have their turn.
const READS: usize = 16;

/// How a client follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    WebSocket,
    /// Server-sent events in the chunks of HTTP/1.1.
    Chunks,
    /// The same for HTTP/1.0: they end with their connection.
    Events,
}

impl Form {
    pub(super) fn of(self, encoded: &Encoded) -> &Bytes {
        match self {
            Form::WebSocket => &encoded.frame,
            Form::Chunks => &encoded.chunk,
            Form::Events => &encoded.event,
        }
    }

    /// The word for it in metrics.
    pub(super) fn carrier(self) -> &'static str {
        match self {
            Form::WebSocket => "websocket",
            Form::Chunks | Form::Events => "sse",
        }
    }

    /// What tells a client that nothing has happened, and us whether it is there.
    fn ping(self) -> Bytes {
        Bytes::from_static(match self {
            Form::WebSocket => b"\x89\x00",
            Form::Chunks => b"e\r\n: still here\n\n\r\n",
            Form::Events => b": still here\n\n",
        })
    }
}

/// The connection has ended, or must.
#[derive(Debug)]
pub(super) struct Gone;

impl From<io::Error> for Gone {
    fn from(_: io::Error) -> Self {
        Gone
    }
}

/// A client. There are many: it should stay small.
pub(super) struct Follower {
    pub(super) socket: TcpStream,
    form: Form,
    /// The number of the document that it has once everything in `out` was sent.
    pub(super) at: u64,
    /// What the socket did not take yet; what follows it is taken from the feed when this is empty.
    out: VecDeque<Bytes>,
    input: Input,
    /// Whether the socket took nothing since somebody last looked.
    stuck: bool,
    /// Whether the connection ends when `out` is empty.
    closing: bool,
    _slot: Slot,
    _counted: Present,
}

impl Follower {
    pub(super) fn new(socket: std::net::TcpStream, form: Form, slot: Slot, counted: Present) -> Self {
        Follower {
            socket: TcpStream::from_std(socket),
            form,
            at: 0,
            out: VecDeque::new(),
            input: Input::default(),
            stuck: false,
            closing: false,
            _slot: slot,
            _counted: counted,
        }
    }

    /// Sets what goes out first, which leads to the document `at`.
    pub(super) fn begin(&mut self, head: Bytes, frames: &[Encoded], at: u64) {
        let first: usize = frames.iter().map(|frame| self.form.of(frame).len()).sum();
        // One packet instead of three.
        let mut all = Vec::with_capacity(head.len() + first);
        all.extend_from_slice(&head);
        frames.iter().for_each(|frame| all.extend_from_slice(self.form.of(frame)));
        self.out.push_back(all.into());
        self.at = at;
    }

    /// Whether everything so far was sent, and more may be.
    pub(super) fn is_free(&self) -> bool {
        self.out.is_empty() && !self.closing
    }

    /// Sends a frame that leads to the document `at`. Nothing else may wait.
    pub(super) fn send(&mut self, encoded: &Encoded, at: u64) -> Result<(), Gone> {
        self.at = at;
        let bytes = self.form.of(encoded);
        let sent = self.write(bytes)?;
        if sent < bytes.len() {
            self.out.push_back(bytes.slice(sent..));
        }
        Ok(())
    }

    /// Sends frames in order that lead to the document `at`.
    pub(super) fn send_all(
        &mut self,
        frames: impl IntoIterator<Item = Encoded>,
        at: u64,
    ) -> Result<(), Gone> {
        self.at = at;
        self.out.extend(frames.into_iter().map(|frame| self.form.of(&frame).clone()));
        self.flush()
    }

    /// Sends what waits, as far as the socket takes it.
    pub(super) fn flush(&mut self) -> Result<(), Gone> {
        while let Some(mut bytes) = self.out.pop_front() {
            let sent = self.write(&bytes)?;
            if sent < bytes.len() {
                bytes.advance(sent);
                self.out.push_front(bytes);
                return Ok(());
            }
        }
        // Most never wait again.
        self.out = VecDeque::new();
        if self.closing { Err(Gone) } else { Ok(()) }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<usize, Gone> {
        loop {
            match self.socket.write(bytes) {
                Ok(sent) => {
                    self.stuck = false;
                    return Ok(sent);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Reads what has come, into `scratch`; false where there may be more.
    pub(super) fn hear(&mut self, scratch: &mut [u8]) -> Result<bool, Gone> {
        for _ in 0..READS {
            let length = match self.socket.read(scratch) {
                Ok(0) => return Err(Gone),
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            // What comes after a close, or where no frames are expected, is of no interest.
            if self.form == Form::WebSocket && !self.closing {
                self.answer(&scratch[..length])?;
            }
        }
        Ok(false)
    }

    fn answer(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        let Follower { input, out, closing, .. } = self;
        input.take(bytes, |ask| match ask {
            Ask::Answer(bytes) => out.push_back(bytes),
            Ask::Close(bytes) => {
                out.push_back(bytes);
                *closing = true;
            }
        });
        if self.out.len() > MAX_ANSWERS {
            return Err(Gone);
        }
        if self.out.is_empty() { Ok(()) } else { self.flush() }
    }

    /// Asks for a sign of life. A client that took nothing since the last time is gone, or as good as gone.
    pub(super) fn ping(&mut self) -> Result<(), Gone> {
        if self.out.is_empty() {
            self.out.push_back(self.form.ping());
            return self.flush();
        }
        if std::mem::replace(&mut self.stuck, true) { Err(Gone) } else { Ok(()) }
    }

    /// Says that the server stops, where that can be said at once.
    pub(super) fn farewell(&mut self) {
        if self.is_free() {
            let _ = match self.form {
                Form::WebSocket => self.write(&close_frame(CloseCode::Away)),
                Form::Chunks => self.write(b"0\r\n\r\n"),
                Form::Events => Ok(0),
            };
        }
    }
}
