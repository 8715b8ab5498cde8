//! One connection of a lane: what came in and is no whole request yet, the answers in the order of their requests,
//! and what the socket has not taken yet.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::Instant;

use mio::net::TcpStream;

use super::answer::{Pen, Ready};
use crate::server::Slot;

/// Most requests of a connection that wait for their answers; more are read when some have them.
const MAX_PENDING: usize = 128;
/// Bytes of answers above which a client that does not read them is not read either.
const MAX_OUTPUT: usize = 64 << 10;
/// An output buffer above this size goes to the connection that needs one next.
const KEPT_OUTPUT: usize = 4 << 10;

pub(super) struct Connection {
    /// No other connection of the lane ever has the same.
    pub(super) id: u64,
    pub(super) socket: TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) slot: Slot,
    /// The beginning of a request, or requests that come too fast.
    pub(super) input: Vec<u8>,
    output: Vec<u8>,
    /// Answers that are awaited, in order; those that are there wait for the ones before.
    pending: VecDeque<Option<Ready>>,
    /// The number of the first of them.
    first: u64,
    /// When a request or an answer last got on.
    pub(super) moved: Instant,
    /// The socket may have more than was read.
    pub(super) unread: bool,
    /// Nothing more will come in.
    pub(super) ended: bool,
    /// The next request is a read, whose answer is being prepared.
    pub(super) waiting: bool,
    /// The next request is none for a lane.
    pub(super) leaving: bool,
    /// The lane is going to look at it before it sleeps.
    pub(super) dirty: bool,
}

impl Connection {
    pub(super) fn new(id: u64, socket: TcpStream, peer: SocketAddr, slot: Slot, now: Instant) -> Self {
        Connection {
            id,
            socket,
            peer,
            slot,
            input: Vec::new(),
            output: Vec::new(),
            pending: VecDeque::new(),
            first: 0,
            moved: now,
            unread: false,
            ended: false,
            waiting: false,
            leaving: false,
            dirty: false,
        }
    }

    /// Whether another request may be begun.
    pub(super) fn takes_more(&self) -> bool {
        !self.leaving && !self.waiting && self.pending.len() < MAX_PENDING && self.output.len() < MAX_OUTPUT
    }

    /// Whether nothing is owed to the client.
    pub(super) fn is_settled(&self) -> bool {
        self.pending.is_empty() && self.output.is_empty() && !self.waiting
    }

    /// Whether the client is awaited, to send or to read; else it waits for us.
    pub(super) fn is_idle(&self) -> bool {
        self.pending.is_empty() && !self.waiting || !self.output.is_empty()
    }

    /// Notes that a request awaits its answer, and gives it its number.
    pub(super) fn expect(&mut self) -> u64 {
        self.pending.push_back(None);
        self.first + self.pending.len() as u64 - 1
    }

    /// Takes the answer to a request, and writes all whose turn it is.
    pub(super) fn answer(&mut self, number: u64, ready: Ready, pen: &mut Pen) {
        if number != self.first {
            let place = number.checked_sub(self.first).and_then(|i| usize::try_from(i).ok());
            if let Some(place) = place.and_then(|i| self.pending.get_mut(i)) {
                *place = Some(ready);
            }
            return;
        }
        if self.output.capacity() == 0 {
            self.output = pen.paper();
        }
        pen.write(&ready, &mut self.output);
        self.pending.pop_front();
        self.first += 1;
        while let Some(ready) = self.pending.pop_front_if(|next| next.is_some()).flatten() {
            pen.write(&ready, &mut self.output);
            self.first += 1;
        }
    }

    /// Reads some bytes; none where there are none at present.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        retry(|| self.socket.read(buffer))
    }

    /// Writes what the socket takes. Its event says when it takes more.
    pub(super) fn flush(&mut self, now: Instant, pen: &mut Pen) -> io::Result<()> {
        let mut written = 0;
        while written < self.output.len() {
            match retry(|| self.socket.write(&self.output[written..]))? {
                Some(0) => return Err(io::ErrorKind::WriteZero.into()),
                Some(n) => written += n,
                None => break,
            }
            self.moved = now;
        }
        self.output.drain(..written);
        if self.output.is_empty() && self.output.capacity() > KEPT_OUTPUT {
            pen.take_back(std::mem::take(&mut self.output));
        }
        Ok(())
    }
}

fn retry(mut io: impl FnMut() -> io::Result<usize>) -> io::Result<Option<usize>> {
    loop {
        match io() {
            Ok(n) => return Ok(Some(n)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
