//! One client that follows a document.

use std::sync::Arc;
use std::time::Duration;

use canvass_protocol::patch;
use canvass_protocol::stream::Seq;
use futures_util::StreamExt;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::Shared;
use crate::client::{Error, Pauses, Request};

/// How often a polling client asks.
const POLL_EVERY: Duration = Duration::from_millis(250);
/// A client that is cut at random stays this long at most, in milliseconds.
const LONGEST_STAY_MS: u64 = 2_000;
/// Faults of one client that are kept.
const MAX_FAULTS: usize = 5;

/// How a client follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A WebSocket.
    WebSocket,
    /// Server-sent events.
    Sse,
    /// Asking again and again for what is newer.
    Polling,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Kind::WebSocket => "WebSocket",
            Kind::Sse => "SSE",
            Kind::Polling => "polling",
        })
    }
}

/// The sequence number that a document itself names.
pub(super) fn seq_of(document: &Value) -> Option<Seq> {
    Some(Seq { epoch: document["epoch"].as_u64()?, seq: document["seq"].as_u64()? })
}

/// A client and what it has.
pub(super) struct Follower {
    shared: Arc<Shared>,
    pub(super) kind: Kind,
    rng: StdRng,
    pub(super) state: Option<(Seq, Value)>,
    pub(super) deliveries: u64,
    pub(super) reconnects: u64,
    pub(super) resets: u64,
    pub(super) faults: Vec<String>,
}

/// An open connection.
enum Wire {
    WebSocket(Box<WebSocketStream<MaybeTlsStream<TcpStream>>>),
    Sse(Incoming, Vec<u8>),
}

impl Follower {
    pub(super) fn new(shared: Arc<Shared>, kind: Kind, seed: u64) -> Self {
        let rng = StdRng::seed_from_u64(seed);
        Follower {
            shared,
            kind,
            rng,
            state: None,
            deliveries: 0,
            reconnects: 0,
            resets: 0,
            faults: Vec::new(),
        }
    }

    /// Follows until it has reached the target that is set when the time is over.
    pub(super) async fn run(mut self) -> Result<Self, Error> {
        if self.kind == Kind::Polling {
            return self.poll().await;
        }
        let shared = Arc::clone(&self.shared);
        let mut pauses = Pauses::new(&shared.client);
        loop {
            match self.open().await {
                Ok(wire) => {
                    pauses = Pauses::new(&shared.client);
                    if self.stay(wire).await {
                        return Ok(self);
                    }
                }
                Err(failure) => pauses.wait(None, failure).await?,
            }
            self.reconnects += 1;
        }
    }

    async fn open(&self) -> Result<Wire, String> {
        let query = &self.shared.query;
        let at = self.state.as_ref().map(|(seq, _)| seq.to_string());
        if self.kind == Kind::Sse {
            let request = Request::get(format!("/api/v1/events?{query}"));
            return Ok(Wire::Sse(self.shared.client.open(&request, at.as_deref()).await?, Vec::new()));
        }
        let from = at.map(|at| format!("&from={at}")).unwrap_or_default();
        let address = format!("ws://{}/api/v1/stream?{query}{from}", self.shared.client.authority());
        let (socket, _) = tokio_tungstenite::connect_async(address).await.map_err(|e| e.to_string())?;
        Ok(Wire::WebSocket(Box::new(socket)))
    }

    /// Takes frames until the target is reached, and tells so, or the connection is cut or lost.
    async fn stay(&mut self, mut wire: Wire) -> bool {
        let mut target = self.shared.target.clone();
        let stay = Duration::from_millis(self.rng.random_range(1..=LONGEST_STAY_MS));
        let cut = tokio::time::sleep_until(Instant::now() + stay);
        tokio::pin!(cut);
        loop {
            if self.arrived(*target.borrow_and_update()) {
                return true;
            }
            tokio::select! {
                frame = wire.next() => match frame {
                    Some(frame) => {
                        if let Err(fault) = self.take(&frame) {
                            // It cannot go on from where it is: like a browser, it starts from nothing.
                            self.fault(fault);
                            self.state = None;
                            return false;
                        }
                    }
                    None => return false,
                },
                _ = target.changed() => {}
                // Once the time is over, nobody is cut any more.
                () = &mut cut, if self.shared.reconnect && target.borrow().is_none() => return false,
            }
        }
    }

    fn arrived(&self, target: Option<Seq>) -> bool {
        matches!((target, &self.state), (Some(target), Some((seq, _))) if *seq >= target)
    }

    fn fault(&mut self, fault: String) {
        if self.faults.len() < MAX_FAULTS {
            self.faults.push(fault);
        }
    }

    /// Applies a frame to the document.
    fn take(&mut self, frame: &str) -> Result<(), String> {
        let mut frame: Value =
            serde_json::from_str(frame).map_err(|e| format!("a frame is not JSON: {e}"))?;
        let number = |key: &str| frame[key].as_u64().ok_or_else(|| format!("a frame has no `{key}`"));
        let epoch = number("epoch")?;
        match frame["type"].as_str() {
            Some("hello") => return Ok(()),
            Some("reset") => {
                self.resets += 1;
                self.state = None;
                return Ok(());
            }
            Some("snapshot") => {
                let seq = Seq { epoch, seq: number("seq")? };
                self.state = Some((seq, frame["data"].take()));
            }
            Some("delta") => {
                let (from, to) = (Seq { epoch, seq: number("from")? }, Seq { epoch, seq: number("to")? });
                match &mut self.state {
                    Some((seq, document)) if *seq == from => {
                        patch::apply(document, frame["patch"].take());
                        *seq = to;
                    }
                    other => {
                        let has = other.as_ref().map(|(seq, _)| seq.to_string());
                        return Err(format!("a delta from {from}, but the client has {has:?}"));
                    }
                }
            }
            other => return Err(format!("a frame of type {other:?}")),
        }
        self.deliveries += 1;
        if let Some((seq, document)) = &self.state {
            if seq_of(document) != Some(*seq) {
                return Err(format!("the document at {seq} names {:?}", seq_of(document)));
            }
            self.shared.arrived(*seq);
        }
        Ok(())
    }

    async fn poll(mut self) -> Result<Self, Error> {
        let shared = Arc::clone(&self.shared);
        let path = format!("/api/v1/results?{}", shared.query);
        let mut etag = None;
        loop {
            if self.arrived(*shared.target.borrow()) {
                return Ok(self);
            }
            let answer = shared.client.send(&Request::get(&path).if_none_match(etag.clone())).await?;
            if answer.status != 304 {
                let document: Value = answer.json()?;
                if let Some(seq) = seq_of(&document) {
                    self.deliveries += 1;
                    shared.arrived(seq);
                    self.state = Some((seq, document));
                }
                etag = answer.etag;
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
    }
}

impl Wire {
    /// The next frame's JSON; none when the connection is over. Nothing is lost when it is cancelled.
    async fn next(&mut self) -> Option<String> {
        match self {
            Wire::WebSocket(socket) => loop {
                match socket.next().await?.ok()? {
                    Message::Text(text) => return Some(text.as_str().to_owned()),
                    Message::Close(_) => return None,
                    _ => {}
                }
            },
            Wire::Sse(body, buffer) => loop {
                if let Some(event) = take_event(buffer) {
                    if let Some(data) = data_of(&event) {
                        return Some(data);
                    }
                    continue;
                }
                if let Some(bytes) = body.frame().await?.ok()?.data_ref() {
                    buffer.extend_from_slice(bytes);
                }
            },
        }
    }
}

/// Takes the first whole event out of the buffer.
fn take_event(buffer: &mut Vec<u8>) -> Option<String> {
    let end = buffer.windows(2).position(|pair| pair == b"\n\n")?;
    let event: Vec<u8> = buffer.drain(..end + 2).collect();
    Some(String::from_utf8_lossy(&event).into_owned())
}

/// The data lines of an event; none for a comment.
fn data_of(event: &str) -> Option<String> {
    let lines: Vec<&str> = event.lines().filter_map(|line| line.strip_prefix("data:")).collect();
    let text = |line: &&str| line.strip_prefix(' ').unwrap_or(line).to_owned();
    (!lines.is_empty()).then(|| lines.iter().map(text).collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use serde_json::json;
    use tokio::sync::watch;

    use super::*;
    use crate::bench::Meter;
    use crate::client::Client;

    fn follower() -> Follower {
        let (_, target) = watch::channel(None);
        let client = Client::new("http://127.0.0.1:1").unwrap();
        let (first_seen, meter) = (Mutex::default(), Meter::new());
        let shared = Shared { client, query: String::new(), reconnect: false, target, first_seen, meter };
        Follower::new(Arc::new(shared), Kind::Sse, 1)
    }

    #[test]
    fn frames_lead_from_document_to_document_and_gaps_are_faults() {
        let mut follower = follower();
        let document = |seq: u64, n: u64| json!({"epoch": 7, "seq": seq, "n": n});
        let snapshot = json!({"type": "snapshot", "epoch": 7, "seq": 4, "data": document(4, 1)});
        let delta = |from: u64, to: u64| {
            json!({"type": "delta", "epoch": 7, "from": from, "to": to, "patch": {"seq": to, "n": 2}})
                .to_string()
        };
        follower.take(r#"{"type":"hello","epoch":7,"seq":4}"#).unwrap();
        assert!(follower.take(&delta(3, 4)).is_err(), "a delta without a document");
        follower.take(&snapshot.to_string()).unwrap();
        follower.take(&delta(4, 6)).unwrap();
        assert_eq!(follower.state, Some((Seq { epoch: 7, seq: 6 }, document(6, 2))));
        assert!(follower.take(&delta(5, 7)).is_err(), "a gap");
        follower.take(r#"{"type":"reset","epoch":8,"reason":"epoch"}"#).unwrap();
        assert_eq!((follower.state.is_none(), follower.resets, follower.deliveries), (true, 1, 2));
        assert!(!follower.arrived(Some(Seq::default())), "without a document it is nowhere");
        assert!(follower.take("{}").is_err() && follower.take("x").is_err());
    }

    #[test]
    fn events_are_cut_out_of_the_bytes_as_they_come() {
        let mut buffer = b": still here\n\nid: 7:4\nevent: delta\ndata: {\"a\":1}\n\nid: 7".to_vec();
        assert_eq!(take_event(&mut buffer).as_deref().and_then(data_of), None);
        assert_eq!(take_event(&mut buffer).as_deref().and_then(data_of).as_deref(), Some("{\"a\":1}"));
        assert_eq!(take_event(&mut buffer), None);
        assert_eq!(buffer, b"id: 7");
    }
}
