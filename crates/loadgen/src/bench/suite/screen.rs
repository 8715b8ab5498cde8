//! Somebody who votes now and then and looks at the count: from the vote to the number that includes it.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use canvass_protocol::api::Accepted;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::Message;

use super::super::{Latency, Meter};
use super::Fault;
use super::canvass::MARKER;
use crate::client::Client;

/// Between two votes, at moments that fall anywhere between two publications.
const PAUSES_MS: [u64; 5] = [31, 47, 59, 73, 89];
/// The last vote must be seen within this.
const PATIENCE: Duration = Duration::from_secs(20);

/// A thread that votes and watches until it is told to stop.
pub(crate) struct Screen {
    stop: watch::Sender<bool>,
    thread: JoinHandle<Result<Latency, Fault>>,
}

/// When each vote was sent, and how many of them a screen has shown.
#[derive(Default)]
struct Sent {
    at: Vec<Instant>,
    seen: usize,
}

impl Screen {
    /// Votes at the server of this `HOST:PORT`, which must know no marker yet.
    pub(crate) fn watch(authority: String) -> Self {
        let (stop, stopped) = watch::channel(false);
        Screen { stop, thread: std::thread::spawn(move || run(&authority, stopped)) }
    }

    /// How long it took from sending a vote to a frame whose total includes it.
    pub(crate) fn stop(self) -> Result<Latency, Fault> {
        self.stop.send_replace(true);
        self.thread.join().map_err(|_| Fault("the screen panicked".to_owned()))?
    }
}

fn run(authority: &str, stopped: watch::Receiver<bool>) -> Result<Latency, Fault> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let sent = Arc::new(Mutex::new(Sent::default()));
    let meter = Arc::new(Meter::new());
    runtime.block_on(async {
        let looking = tokio::spawn(look(authority.to_owned(), Arc::clone(&sent), Arc::clone(&meter)));
        vote(authority, &sent, stopped).await?;
        let since = Instant::now();
        loop {
            let (votes, seen) = {
                let sent = sent.lock().unwrap_or_else(PoisonError::into_inner);
                (sent.at.len(), sent.seen)
            };
            if seen == votes {
                return Ok(meter.latency());
            }
            if looking.is_finished() {
                return looking.await.map_err(|e| Fault(e.to_string()))?.map(|()| meter.latency());
            }
            if since.elapsed() > PATIENCE || seen > votes {
                return Err(Fault(format!("{votes} markers were sent, the screen shows {seen}")));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
}

/// Each vote is sent after the one before was confirmed, so a total of `n` includes the first `n`.
async fn vote(authority: &str, sent: &Mutex<Sent>, stopped: watch::Receiver<bool>) -> Result<(), Fault> {
    let client = Client::new(&format!("http://{authority}"))?;
    for (i, pause) in PAUSES_MS.iter().cycle().enumerate() {
        if *stopped.borrow() {
            break;
        }
        let name = format!("marker-{i}");
        let body = json!({ "contest": MARKER, "selections": ["x"], "voter": name });
        sent.lock().unwrap_or_else(PoisonError::into_inner).at.push(Instant::now());
        client.post::<Accepted>("/api/v1/vote", &name, &body).await?;
        tokio::time::sleep(Duration::from_millis(*pause)).await;
    }
    Ok(())
}

/// Follows the contest of the markers by WebSocket.
async fn look(authority: String, sent: Arc<Mutex<Sent>>, meter: Arc<Meter>) -> Result<(), Fault> {
    let fault = |e: tokio_tungstenite::tungstenite::Error| Fault(format!("the screen: {e}"));
    let address = format!("ws://{authority}/api/v1/stream?contest={MARKER}&by=total");
    let (mut stream, _) = tokio_tungstenite::connect_async(address).await.map_err(fault)?;
    while let Some(message) = stream.next().await {
        let Message::Text(text) = message.map_err(fault)? else { continue };
        let now = Instant::now();
        let frame: Value = serde_json::from_str(&text).map_err(|e| Fault(format!("a frame: {e}")))?;
        let part = if frame["type"] == "snapshot" { &frame["data"] } else { &frame["patch"] };
        let Some(total) = part["counts"]["total"].as_u64() else { continue };
        let mut sent = sent.lock().unwrap_or_else(PoisonError::into_inner);
        let total = usize::try_from(total).unwrap_or(usize::MAX);
        for at in sent.at.get(sent.seen..total.min(sent.at.len())).unwrap_or_default() {
            meter.record(now.duration_since(*at), 1);
        }
        sent.seen = total;
    }
    Err(Fault("the screen was cut off".to_owned()))
}
