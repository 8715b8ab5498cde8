//! The load: one thread, one epoll loop, requests that were made before.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::Fault;
use super::timed::{Pace, Timed};
use super::votes::Requests;

/// A server that answers nothing for so long has failed.
const STALLED: Duration = Duration::from_secs(30);
/// Room for what was read and not looked at yet: more than the longest answer.
const BUFFER: usize = 4 << 20;
const EVENTS: usize = 1_024;

/// Takes answers apart and counts them.
pub(crate) trait Answers {
    /// Takes the first answer that a connection got, and tells its length; nothing where it is not whole yet.
    fn take(&mut self, connection: usize, bytes: &[u8]) -> Result<Option<usize>, Fault>;
}

struct Connection {
    socket: TcpStream,
    /// Requests without an answer.
    waiting: usize,
    /// What the socket had no room for.
    unsent: VecDeque<Range<usize>>,
    /// The beginning of an answer.
    partial: Vec<u8>,
}

/// Connections to one server, and the requests that go there one after another.
pub(crate) struct Driver<'a, A> {
    poll: Poll,
    connections: Vec<Connection>,
    buffer: Vec<u8>,
    requests: &'a Requests,
    pub(crate) answers: A,
    /// The request that is sent next.
    next: usize,
    answered: usize,
    /// When something came last.
    progress: Instant,
}

impl<'a, A: Answers> Driver<'a, A> {
    pub(crate) fn connect(
        address: SocketAddr,
        connections: usize,
        requests: &'a Requests,
        answers: A,
    ) -> Result<Self, Fault> {
        let poll = Poll::new()?;
        let connections = (0..connections).map(|i| {
            let socket = std::net::TcpStream::connect(address)?;
            socket.set_nodelay(true)?;
            socket.set_nonblocking(true)?;
            let mut socket = TcpStream::from_std(socket);
            poll.registry().register(&mut socket, Token(i), Interest::READABLE | Interest::WRITABLE)?;
            Ok(Connection { socket, waiting: 0, unsent: VecDeque::new(), partial: Vec::new() })
        });
        let connections = connections.collect::<Result<Vec<_>, Fault>>()?;
        Ok(Driver {
            poll,
            connections,
            buffer: vec![0; BUFFER],
            requests,
            answers,
            next: 0,
            answered: 0,
            progress: Instant::now(),
        })
    }

    /// Keeps `depth` requests under way on each connection until all are answered, and tells how long that took.
    pub(crate) fn closed(&mut self, depth: usize) -> Result<Duration, Fault> {
        let mut events = Events::with_capacity(EVENTS);
        let started = Instant::now();
        (0..self.connections.len()).try_for_each(|i| self.give(i, depth))?;
        while self.answered < self.requests.len() {
            self.turn(&mut events, true)?;
        }
        Ok(started.elapsed())
    }

    /// Takes what has come, and puts as many new requests in the place of those that were answered, or none.
    fn turn(&mut self, events: &mut Events, again: bool) -> Result<(), Fault> {
        // It never sleeps: waking it would be a cost of the server that no distant client causes.
        self.poll.poll(events, Some(Duration::ZERO))?;
        for event in &*events {
            let Token(i) = event.token();
            let answered = self.receive(i)?;
            self.give(i, if again { answered } else { 0 })?;
        }
        let open = self.next - self.answered;
        if open == 0 || !events.is_empty() {
            self.progress = Instant::now();
        } else if self.progress.elapsed() > STALLED {
            return Err(Fault(format!("{open} requests got no answer for {} s", STALLED.as_secs())));
        }
        Ok(())
    }

    /// Puts the next requests, at most `count`, on this connection.
    pub(crate) fn give(&mut self, i: usize, count: usize) -> Result<(), Fault> {
        let count = count.min(self.requests.len() - self.next);
        if count > 0 {
            self.connections[i].unsent.push_back(self.requests.range(self.next, count));
            self.connections[i].waiting += count;
            self.next += count;
        }
        self.send(i)
    }

    fn send(&mut self, i: usize) -> Result<(), Fault> {
        let connection = &mut self.connections[i];
        while let Some(range) = connection.unsent.front_mut() {
            match connection.socket.write(self.requests.bytes(range.clone())) {
                Ok(written) => {
                    range.start += written;
                    if range.start == range.end {
                        connection.unsent.pop_front();
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Fault(format!("a connection broke: {error}"))),
            }
        }
        Ok(())
    }

    /// Reads what a connection has, and tells how many answers were in it.
    fn receive(&mut self, i: usize) -> Result<usize, Fault> {
        let connection = &mut self.connections[i];
        let mut answered = 0;
        loop {
            let kept = connection.partial.len();
            self.buffer[..kept].copy_from_slice(&connection.partial);
            connection.partial.clear();
            let space = &mut self.buffer[kept..];
            let room = space.len();
            let read = match connection.socket.read(space) {
                Ok(0) => return Err(Fault("the server closed a connection".to_owned())),
                Ok(read) => read,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => 0,
                Err(error) => return Err(Fault(format!("a connection broke: {error}"))),
            };
            let mut rest = &self.buffer[..kept + read];
            while !rest.is_empty() {
                let Some(length) = self.answers.take(i, rest)? else { break };
                rest = rest.get(length..).unwrap_or_default();
                answered += 1;
            }
            connection.partial.extend_from_slice(rest);
            // A socket that gave less than there was room for is empty: the next bytes bring the next event.
            if read < room {
                break;
            }
            if connection.partial.len() == self.buffer.len() {
                return Err(Fault("an answer is longer than any can be".to_owned()));
            }
        }
        connection.waiting = connection
            .waiting
            .checked_sub(answered)
            .ok_or_else(|| Fault("the server answered more than it was asked".to_owned()))?;
        self.answered += answered;
        Ok(answered)
    }
}

impl Driver<'_, Timed> {
    /// Sends all requests at their times, whatever the server does, and waits for all answers. `each_second` is
    /// called about once a second.
    pub(crate) fn open(
        &mut self,
        pace: Pace,
        mut each_second: impl FnMut() -> Result<(), Fault>,
    ) -> Result<Duration, Fault> {
        let mut events = Events::with_capacity(EVENTS);
        let started = Instant::now();
        let (mut second, mut turn) = (started, 0);
        while self.answered < self.requests.len() {
            let due = pace.by(started.elapsed()).min(self.requests.len());
            while self.next + pace.at_a_time <= due || self.next < due && due == self.requests.len() {
                let count = pace.at_a_time.min(due - self.next);
                for place in self.next..self.next + count {
                    let number = u64::try_from(place).unwrap_or(u64::MAX);
                    self.answers.sent(turn, number, started + pace.due(place));
                }
                self.give(turn, count)?;
                turn = (turn + 1) % self.connections.len();
            }
            self.turn(&mut events, false)?;
            if second.elapsed() >= Duration::from_secs(1) {
                second = Instant::now();
                each_second()?;
            }
        }
        Ok(started.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::super::http::Statuses;
    use super::*;

    const ANSWER: &[u8] = b"HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\nok";

    /// A server that answers each line with 201, in pieces that fit no answer.
    fn server() -> SocketAddr {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let serve = |mut socket: std::net::TcpStream| {
            let mut buffer = [0; 1_000];
            while let Ok(read @ 1..) = socket.read(&mut buffer) {
                let lines = buffer[..read].iter().filter(|b| **b == b'\n').count();
                for piece in ANSWER.repeat(lines).chunks(61) {
                    socket.write_all(piece).unwrap();
                }
            }
        };
        std::thread::spawn(move || {
            listener.incoming().for_each(|socket| drop(std::thread::spawn(move || serve(socket.unwrap()))));
        });
        address
    }

    fn lines(count: usize) -> Requests {
        let mut requests = Requests::default();
        (0..count).for_each(|i| requests.push(format!("request {i}\n").as_bytes()));
        requests
    }

    #[test]
    fn a_closed_loop_gets_every_answer_once() {
        let requests = lines(1_003);
        let mut driver = Driver::connect(server(), 7, &requests, Statuses::default()).unwrap();
        driver.closed(5).unwrap();
        driver.answers.check(&[(201, 1_003)]).unwrap();
        assert!(driver.connections.iter().all(|c| c.waiting == 0 && c.partial.is_empty()));
    }

    #[test]
    fn an_open_loop_keeps_its_times() {
        let requests = lines(503);
        let mut driver = Driver::connect(server(), 7, &requests, Timed::new(7)).unwrap();
        let pace = Pace { votes_per_second: 5_000, at_a_time: 4 };
        let elapsed = driver.open(pace, || Ok(())).unwrap();
        assert_eq!((driver.answers.acknowledged(), driver.answers.turned_away), (503, 0));
        assert!(elapsed >= pace.due(502), "nothing is sent before its time");
    }

    #[test]
    fn a_connection_that_is_cut_is_a_fault() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || drop(listener.accept()));
        let requests = lines(3);
        let driver = Driver::connect(address, 1, &requests, Statuses::default());
        assert!(driver.unwrap().closed(1).is_err());
    }
}
