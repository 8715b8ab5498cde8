//! Follows a contest with many clients, each by WebSocket, SSE or polling, and checks that all of them end with
//! the bytes that the server itself has for where they are.

mod follow;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use canvass_protocol::stream::Seq;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::watch;

use super::{Differences, Latency, Meter, millis, per_second, write_differences};
use crate::client::{Client, Error, Request};
pub use follow::Kind;
use follow::{Follower, seq_of};

/// When the time is over, every client must reach the present within this.
const SETTLE: Duration = Duration::from_secs(20);

/// Whom to let follow what.
#[derive(Debug, Clone)]
pub struct Options {
    /// Text id of the contest.
    pub contest: String,
    /// Text id of the unit; the contest's district when none.
    pub unit: Option<String>,
    /// Which units are listed: `total`, `unit` or `leaf`.
    pub by: String,
    /// Clients that follow by WebSocket.
    pub websocket: usize,
    /// Clients that follow by SSE.
    pub sse: usize,
    /// Clients that poll.
    pub polling: usize,
    /// For how long.
    pub duration: Duration,
    /// Cuts every client at random moments; it resumes where it was.
    pub reconnect: bool,
    /// Chooses the moments.
    pub seed: u64,
}

impl Options {
    fn query(&self) -> String {
        let unit = self.unit.as_ref().map(|unit| format!("&unit={unit}")).unwrap_or_default();
        format!("contest={}&by={}{unit}", self.contest, self.by)
    }
}

/// What came out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Clients.
    pub clients: usize,
    /// Documents and changes that reached a client.
    pub deliveries: u64,
    /// How long it took.
    pub elapsed_ms: u64,
    /// Deliveries in a second.
    pub deliveries_per_second: u64,
    /// Connections that were cut or lost and made again.
    pub reconnects: u64,
    /// Times a client was told to forget what it had.
    pub resets: u64,
    /// How much later than the first client each client had a publication.
    pub behind_first: Latency,
    /// What differs from what was expected.
    pub differences: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "clients      {} for {} ms", self.clients, self.elapsed_ms)?;
        writeln!(f, "deliveries   {} ({}/s)", self.deliveries, self.deliveries_per_second)?;
        writeln!(f, "reconnects   {}, resets {}", self.reconnects, self.resets)?;
        writeln!(f, "behind first {}", self.behind_first)?;
        write_differences(f, &self.differences)
    }
}

/// What all followers share.
struct Shared {
    client: Client,
    query: String,
    reconnect: bool,
    /// Where every client must get; none while the time is not over.
    target: watch::Receiver<Option<Seq>>,
    first_seen: Mutex<HashMap<Seq, Instant>>,
    meter: Meter,
}

impl Shared {
    /// Notes that a client has this publication now.
    fn arrived(&self, seq: Seq) {
        let now = Instant::now();
        let first = *self.first_seen.lock().unwrap_or_else(PoisonError::into_inner).entry(seq).or_insert(now);
        self.meter.record(now.duration_since(first), 1);
    }
}

/// Lets the clients follow, and compares each with the server's own document.
pub async fn run(client: &Client, options: &Options) -> Result<Report, Error> {
    let query = options.query();
    let path = format!("/api/v1/results?{query}");
    client.get::<Value>(&path).await?;
    let (set_target, target) = watch::channel(None);
    let shared = Arc::new(Shared {
        client: client.clone(),
        query,
        reconnect: options.reconnect,
        target,
        first_seen: Mutex::default(),
        meter: Meter::new(),
    });
    let kinds = std::iter::repeat_n(Kind::WebSocket, options.websocket)
        .chain(std::iter::repeat_n(Kind::Sse, options.sse))
        .chain(std::iter::repeat_n(Kind::Polling, options.polling));
    let started = Instant::now();
    let tasks: Vec<_> = (0u64..)
        .zip(kinds)
        .map(|(i, kind)| tokio::spawn(Follower::new(Arc::clone(&shared), kind, options.seed ^ i).run()))
        .collect();
    tokio::time::sleep(options.duration).await;
    let present = seq_of(&client.get::<Value>(&path).await?)
        .ok_or_else(|| Error::Answer { what: format!("GET {path}"), fault: "it has no number".to_owned() })?;
    set_target.send_replace(Some(present));
    let elapsed = started.elapsed();
    let deadline = tokio::time::Instant::now() + SETTLE;
    let mut outcome =
        Outcome { present, path: &path, client, known: HashMap::new(), report: empty(tasks.len()) };
    let differences = Differences::default();
    for (i, task) in tasks.into_iter().enumerate() {
        let abort = task.abort_handle();
        match tokio::time::timeout_at(deadline, task).await {
            Ok(Ok(follower)) => outcome.check(i, follower?, &differences).await?,
            Ok(Err(ended)) => differences.add(|| format!("client {i} ended: {ended}")),
            Err(_) => {
                abort.abort();
                differences.add(|| format!("client {i} did not reach {present} in {} s", SETTLE.as_secs()));
            }
        }
    }
    let report = outcome.report;
    Ok(Report {
        elapsed_ms: millis(elapsed),
        deliveries_per_second: per_second(report.deliveries, elapsed),
        behind_first: shared.meter.latency(),
        differences: differences.list(),
        ..report
    })
}

fn empty(clients: usize) -> Report {
    Report {
        clients,
        deliveries: 0,
        elapsed_ms: 0,
        deliveries_per_second: 0,
        reconnects: 0,
        resets: 0,
        behind_first: Latency::default(),
        differences: Vec::new(),
    }
}

struct Outcome<'a> {
    present: Seq,
    path: &'a str,
    client: &'a Client,
    /// The server's bytes of each document that a client ended with.
    known: HashMap<Seq, Vec<u8>>,
    report: Report,
}

impl Outcome<'_> {
    async fn check(&mut self, i: usize, follower: Follower, differences: &Differences) -> Result<(), Error> {
        self.report.deliveries += follower.deliveries;
        self.report.reconnects += follower.reconnects;
        self.report.resets += follower.resets;
        let kind = follower.kind;
        follower.faults.iter().for_each(|fault| differences.add(|| format!("client {i} ({kind}): {fault}")));
        let Some((seq, document)) = follower.state else {
            differences
                .add(|| format!("client {i} ({kind}) has no document; the server is at {}", self.present));
            return Ok(());
        };
        let own = serde_json::to_vec(&document).unwrap_or_default();
        if !self.known.contains_key(&seq) {
            let answer = self.client.send(&Request::get(format!("{}&at={seq}", self.path))).await?;
            self.known.insert(seq, answer.good()?.body.to_vec());
        }
        if self.known.get(&seq) != Some(&own) {
            differences.add(|| format!("client {i} ({kind}) at {seq} has other bytes than the server"));
        }
        Ok(())
    }
}
