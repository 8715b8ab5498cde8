//! Many clients that follow one document: one thread, one epoll loop, no tasks.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};

use super::Fault;

const EVENTS: usize = 1_024;
/// More than the longest frame.
const BUFFER: usize = 1 << 20;
/// What was published must have reached everybody within this.
const PATIENCE: Duration = Duration::from_secs(30);

/// How clients follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    WebSocket,
    /// Server-sent events.
    Events,
}

impl Form {
    fn request(self, path: &str) -> String {
        let head = format!("GET {path} HTTP/1.1\r\nhost: results.example.org\r\n");
        match self {
            Form::WebSocket => format!(
                "{head}connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                 sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            ),
            Form::Events => format!("{head}accept: text/event-stream\r\n\r\n"),
        }
    }

    /// The length of the first frame or event, once it is whole, and its text where it has one.
    fn first(self, bytes: &[u8]) -> Option<(usize, Option<&[u8]>)> {
        match self {
            Form::WebSocket => frame(bytes),
            Form::Events => event(bytes),
        }
    }
}

/// The first frame of a server, which never masks.
fn frame(bytes: &[u8]) -> Option<(usize, Option<&[u8]>)> {
    let (head, length) = match bytes {
        [_, 126, a, b, ..] => (4, usize::from(u16::from_be_bytes([*a, *b]))),
        [_, 127, a @ .., _] if a.len() >= 8 => {
            let length = u64::from_be_bytes(a.first_chunk().copied()?);
            (10, usize::try_from(length).ok()?)
        }
        [_, length @ ..=125, ..] => (2, usize::from(*length)),
        _ => return None,
    };
    let text = bytes.get(head..head + length)?;
    Some((head + length, (bytes[0] == 0x81).then_some(text)))
}

/// The first event. The lengths of chunks around it never look like its end.
fn event(bytes: &[u8]) -> Option<(usize, Option<&[u8]>)> {
    let end = bytes.windows(2).position(|two| two == b"\n\n")?;
    let mut lines = bytes[..end].split(|byte| *byte == b'\n');
    Some((end + 2, lines.find_map(|line| line.strip_prefix(b"data: "))))
}

struct Client {
    socket: mio::net::TcpStream,
    partial: Vec<u8>,
    /// Texts so far.
    texts: u64,
}

/// Clients of one server.
pub(crate) struct Crowd {
    form: Form,
    poll: Poll,
    clients: Vec<Client>,
    buffer: Vec<u8>,
    /// The last text that any of them got.
    pub(crate) last: Vec<u8>,
}

impl Crowd {
    /// Connects so many clients, each of which gets `greetings` texts before anything happens.
    pub(crate) fn connect(
        address: SocketAddr,
        (form, path): (Form, &str),
        count: usize,
        greetings: u64,
    ) -> Result<Self, Fault> {
        let poll = Poll::new()?;
        let request = form.request(path);
        let mut crowd = Crowd { form, poll, clients: Vec::new(), buffer: vec![0; BUFFER], last: Vec::new() };
        for i in 0..count {
            let mut socket = TcpStream::connect(address)?;
            socket.write_all(request.as_bytes())?;
            let partial = read_head(&mut socket)?;
            socket.set_nonblocking(true)?;
            let mut socket = mio::net::TcpStream::from_std(socket);
            crowd.poll.registry().register(&mut socket, Token(i), Interest::READABLE)?;
            crowd.clients.push(Client { socket, partial, texts: 0 });
            // What came with the head is no event of the socket.
            crowd.receive(i)?;
        }
        crowd.reach(greetings)?;
        crowd.clients.iter_mut().for_each(|client| client.texts = 0);
        Ok(crowd)
    }

    /// Waits until every client has got so many texts, and tells when the first and the last of them did.
    pub(crate) fn reach(&mut self, texts: u64) -> Result<(Instant, Instant), Fault> {
        let mut events = Events::with_capacity(EVENTS);
        let mut behind = self.clients.iter().filter(|client| client.texts < texts).count();
        let since = Instant::now();
        let (mut first, mut last) = (None, since);
        while behind > 0 {
            self.poll.poll(&mut events, Some(Duration::ZERO))?;
            for event in &events {
                let Token(i) = event.token();
                let before = self.clients[i].texts;
                self.receive(i)?;
                if before < texts && self.clients[i].texts >= texts {
                    behind -= 1;
                    last = Instant::now();
                    first.get_or_insert(last);
                }
            }
            if since.elapsed() > PATIENCE {
                return Err(Fault(format!("{behind} clients did not get what was published")));
            }
        }
        match self.clients.iter().find(|client| client.texts != texts) {
            Some(client) => Err(Fault(format!("{} texts came to a client, not {texts}", client.texts))),
            None => Ok((first.unwrap_or(last), last)),
        }
    }

    fn receive(&mut self, i: usize) -> Result<(), Fault> {
        let Crowd { form, clients, buffer, last, .. } = self;
        let client = &mut clients[i];
        loop {
            let kept = client.partial.len();
            buffer[..kept].copy_from_slice(&client.partial);
            client.partial.clear();
            let space = buffer.get_mut(kept..).filter(|space| !space.is_empty());
            let space = space.ok_or_else(|| Fault("a frame is longer than any can be".to_owned()))?;
            let room = space.len();
            let read = match client.socket.read(space) {
                Ok(0) => return Err(Fault("the server closed a connection".to_owned())),
                Ok(read) => read,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => 0,
                Err(error) => return Err(Fault(format!("a connection broke: {error}"))),
            };
            let mut rest = &buffer[..kept + read];
            while let Some((length, text)) = form.first(rest) {
                if let Some(text) = text {
                    client.texts += 1;
                    last.clear();
                    last.extend_from_slice(text);
                }
                rest = &rest[length..];
            }
            client.partial.extend_from_slice(rest);
            if read < room {
                return Ok(());
            }
        }
    }
}

/// Reads the head of an answer, which must be a good one, and returns what came behind it.
fn read_head(socket: &mut TcpStream) -> Result<Vec<u8>, Fault> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 16 << 10]);
    loop {
        let read = socket.read(&mut buffer)?;
        bytes.extend_from_slice(&buffer[..read]);
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            if bytes.starts_with(b"HTTP/1.1 101 ") || bytes.starts_with(b"HTTP/1.1 200 ") {
                return Ok(bytes.split_off(end + 4));
            }
            return Err(Fault(format!("no stream: {}", String::from_utf8_lossy(&bytes))));
        }
        if read == 0 {
            return Err(Fault("the server closed a connection".to_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(form: Form, bytes: &[u8]) -> (Vec<String>, usize) {
        let (mut texts, mut rest) = (Vec::new(), bytes);
        while let Some((length, text)) = form.first(rest) {
            texts.extend(text.map(|text| String::from_utf8_lossy(text).into_owned()));
            rest = &rest[length..];
        }
        (texts, rest.len())
    }

    #[test]
    fn frames_of_all_lengths_are_taken_and_only_whole() {
        let (short, long, longest) = ("a".repeat(125), "b".repeat(126), "c".repeat(65_536));
        let mut bytes = vec![0x81, 125];
        bytes.extend(short.as_bytes());
        bytes.extend([0x89, 0, 0x81, 126, 0, 126]);
        bytes.extend(long.as_bytes());
        bytes.extend([0x81, 127]);
        bytes.extend(65_536u64.to_be_bytes());
        bytes.extend(longest.as_bytes());
        assert_eq!(all(Form::WebSocket, &bytes), (vec![short, long, longest], 0));
        let last = bytes.len() - 65_546;
        for cut in [1, 2, 3, 9, 10, 65_545] {
            assert_eq!(all(Form::WebSocket, &bytes[..last + cut]).1, cut);
        }
    }

    #[test]
    fn events_are_taken_from_their_chunks() {
        let bytes =
            b"17\r\nid: 1:2\ndata: {\"a\":1}\n\n\r\ne\r\n: still here\n\n\r\n9\r\ndata: x\n\n\r\n5\r\ndata";
        let (texts, rest) = all(Form::Events, bytes);
        assert_eq!(texts, ["{\"a\":1}", "x"]);
        assert_eq!(rest, b"\r\n5\r\ndata".len());
    }
}
