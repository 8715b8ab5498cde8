//! Streams on the wire: what a client sends, sees and may not do.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use serde_json::json;
use support::{Server, post};

/// Nothing in these tests takes longer.
const PATIENCE: Duration = Duration::from_secs(20);
const KEY: &str = "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13";

struct Wire {
    socket: TcpStream,
    read: Vec<u8>,
}

impl Wire {
    fn connect(server: &Server) -> Self {
        let socket = TcpStream::connect(&server.address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Wire { socket, read: Vec::new() }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    fn upgrade(server: &Server, query: &str) -> Self {
        let mut wire = Wire::connect(server);
        let head = format!("GET /api/v1/stream?{query} HTTP/1.1\r\nhost: x\r\nconnection: upgrade");
        wire.send(format!("{head}\r\nupgrade: websocket\r\n{KEY}\r\n\r\n").as_bytes());
        let head = wire.take_until(b"\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(head.to_lowercase().contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
        wire
    }

    fn take_until(&mut self, end: &[u8]) -> String {
        loop {
            if let Some(at) = self.read.windows(end.len()).position(|bytes| bytes == end) {
                return String::from_utf8(self.read.drain(..at + end.len()).collect()).unwrap();
            }
            assert!(self.more(), "the connection ended: {}", String::from_utf8_lossy(&self.read));
        }
    }

    fn more(&mut self) -> bool {
        let mut bytes = [0; 4_096];
        match self.socket.read(&mut bytes) {
            Ok(length) => {
                self.read.extend_from_slice(&bytes[..length]);
                length > 0
            }
            // What the server did not read makes a reset of the end.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!("{error}"),
        }
    }

    /// The next frame from the server: its first byte, and its payload.
    fn frame(&mut self) -> (u8, Vec<u8>) {
        loop {
            if let [first, second, rest @ ..] = self.read.as_slice() {
                let (length, start) = match (second, rest) {
                    (126, [high, low, ..]) => (usize::from(u16::from_be_bytes([*high, *low])), 4),
                    (126, _) => (usize::MAX - 4, 4),
                    (short, _) => (usize::from(*short), 2),
                };
                if self.read.len() >= start + length {
                    let frame = (*first, self.read[start..start + length].to_vec());
                    self.read.drain(..start + length);
                    return frame;
                }
            }
            assert!(self.more(), "the connection ended");
        }
    }

    fn text(&mut self) -> serde_json::Value {
        let (first, payload) = self.frame();
        assert_eq!(first, 0x81);
        serde_json::from_slice(&payload).unwrap()
    }

    /// What a stream begins with.
    fn opening(&mut self) {
        assert_eq!(self.text()["type"], "hello");
        assert_eq!(self.text()["type"], "snapshot");
    }

    fn ends(&mut self) {
        while self.more() {}
        assert_eq!(self.read, b"");
    }
}

/// A frame as clients send it: with a mask, here one that changes nothing.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap();
    let mut frame = match u8::try_from(payload.len()) {
        Ok(short) if short < 126 => vec![first, 0x80 | short],
        _ => [&[first, 0x80 | 126][..], &length.to_be_bytes()].concat(),
    };
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

fn server() -> (Server, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let election = folder.path().join("election.toml");
    std::fs::write(&election, support::POLL).unwrap();
    let server = Server::start(&folder.path().join("data"), &["--election", election.to_str().unwrap()]);
    (server, folder)
}

fn vote(server: &Server, voter: &str) {
    let body = json!({"contest": "song", "selections": ["x"], "voter": voter});
    assert_eq!(post(&server.address, "/api/v1/vote", None, Some("k"), &body).status, 201);
}

#[test]
fn control_frames_are_answered_and_others_are_not() {
    let (server, _folder) = server();
    let mut wire = Wire::upgrade(&server, "contest=song");
    wire.opening();
    let ping = masked(0x89, b"there?");
    wire.send(&[masked(0x81, b"words"), ping[..3].to_vec()].concat());
    wire.send(&ping[3..]);
    assert_eq!(wire.frame(), (0x8a, b"there?".to_vec()));
    vote(&server, "ann");
    assert_eq!(wire.text()["type"], "delta");
    wire.send(&masked(0x88, &1000u16.to_be_bytes()));
    assert_eq!(wire.frame(), (0x88, 1000u16.to_be_bytes().to_vec()));
    wire.ends();
}

#[test]
fn a_message_that_is_too_long_ends_the_stream() {
    let (server, _folder) = server();
    let mut wire = Wire::upgrade(&server, "contest=song");
    wire.opening();
    wire.send(&masked(0x82, &[0; 4_096]));
    wire.send(&masked(0x89, b""));
    assert_eq!(wire.frame(), (0x8a, Vec::new()), "one that is just not too long does not");
    wire.send(&masked(0x82, &[0; 4_097]));
    assert_eq!(wire.frame(), (0x88, 1009u16.to_be_bytes().to_vec()));
    wire.ends();
}

#[test]
fn a_stream_may_follow_other_requests_on_its_connection_and_ends_with_the_server() {
    let (server, _folder) = server();
    let mut socket = Wire::upgrade(&server, "contest=song");
    socket.opening();
    let mut events = Wire::connect(&server);
    events.send(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n");
    events.take_until(b"ok\n");
    events.send(b"HEAD /api/v1/events?contest=song HTTP/1.1\r\nhost: x\r\n\r\n");
    let head = events.take_until(b"\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("text/event-stream"), "{head}");
    let mut events = Wire::connect(&server);
    events.send(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n");
    events.take_until(b"ok\n");
    events.send(b"GET /api/v1/events?contest=song HTTP/1.1\r\nhost: x\r\n\r\n");
    let head = events.take_until(b"\r\n\r\n").to_lowercase();
    for header in [
        "content-type: text/event-stream",
        "cache-control: no-store",
        "transfer-encoding: chunked",
        "access-control-allow-origin: *",
    ] {
        assert!(head.contains(header), "{head}");
    }
    assert!(events.take_until(b"\n\n").contains("event: hello\n"));
    assert!(events.take_until(b"\n\n").contains("event: snapshot\n"));
    vote(&server, "ann");
    assert!(events.take_until(b"\n\n").contains("event: delta\n"));
    assert_eq!(socket.text()["type"], "delta");
    server.stop();
    assert_eq!(socket.frame(), (0x88, 1001u16.to_be_bytes().to_vec()));
    socket.ends();
    events.take_until(b"\r\n0\r\n\r\n");
    events.ends();
}

#[test]
fn clients_of_http_1_0_get_events_without_chunks() {
    let (server, _folder) = server();
    let mut events = Wire::connect(&server);
    events.send(b"GET /api/v1/events?contest=song HTTP/1.0\r\n\r\n");
    let head = events.take_until(b"\r\n\r\n").to_lowercase();
    assert!(head.contains("connection: close") && !head.contains("transfer-encoding"), "{head}");
    assert!(events.take_until(b"\n\n").starts_with("id: 0:0\nevent: hello\ndata: {"));
}

#[test]
fn a_client_that_hangs_up_gives_its_place_back() {
    let folder = tempfile::tempdir().unwrap();
    let election = folder.path().join("election.toml");
    std::fs::write(&election, support::POLL).unwrap();
    let options = ["--election", election.to_str().unwrap(), "--connections", "2"];
    let server = Server::start(&folder.path().join("data"), &options);
    for _ in 0..5 {
        let mut wire = support::eventually("a place", || {
            let mut wire = Wire::connect(&server);
            let head = "GET /api/v1/events?contest=song HTTP/1.1\r\nhost: x\r\n\r\n";
            wire.socket.write_all(head.as_bytes()).ok()?;
            while !wire.read.windows(4).any(|bytes| bytes == b"\r\n\r\n") && wire.more() {}
            wire.read.starts_with(b"HTTP/1.1 200 ").then_some(wire)
        });
        wire.take_until(b"event: snapshot\n");
        wire.socket.shutdown(Shutdown::Both).unwrap();
    }
}
