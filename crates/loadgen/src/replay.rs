//! Sends a recorded night through the public API, as its sources would have sent it.
//!
//! Every request has a key that follows from the feed alone. So a replay that was cut off, or whose server was
//! killed, is simply run again: what was recorded before answers with the receipt it had, and the night goes on.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};

use canvass_election::definition::Contest;
use canvass_election::event::{Cell, Counts};
use canvass_election::ids::{RecordId, Timestamp};
use canvass_protocol::api::{Accepted, ClockRequest, CorrectionRequest, CountsRequest, ReturnRequest};
use canvass_protocol::definition::from_value;
use canvass_protocol::interchange::nc::{Change, Feed, Snapshot};
use canvass_protocol::time;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::batch;
use crate::client::{Client, Error, Request};
use crate::pace::Pace;

/// A wait between two snapshots is cut to this, so that quiet days pass quickly.
pub const LONGEST_WAIT: Duration = Duration::from_secs(20);
/// What the public log says of a correction.
const REASON: &str = "The state's feed states a lower number than before.";

/// What a replay has sent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Snapshots sent whole.
    pub snapshots: usize,
    /// Returns sent, those that wait for the desk among them.
    pub returns: usize,
    /// Corrections sent.
    pub corrections: usize,
    /// Returns that wait for the desk.
    pub held: usize,
    /// How long it took, in milliseconds.
    pub elapsed_ms: u64,
}

/// A snapshot that the server has recorded whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Done {
    /// The snapshot's number, from 1.
    pub snapshot: usize,
    /// How many there are.
    pub of: usize,
    /// Its time, RFC 3339.
    pub time: String,
    /// What has been sent so far.
    #[serde(flatten)]
    pub summary: Summary,
}

/// A replay in progress. The caller takes it from snapshot to snapshot and may look at the server in between.
#[derive(Debug)]
pub struct Replay<'a> {
    client: &'a Client,
    feed: &'a Feed,
    contest: &'a Contest,
    pace: Pace,
    /// For each cell, the record whose counts stand, and those counts.
    standing: BTreeMap<Cell, (RecordId, Counts)>,
    now: Timestamp,
    started: Instant,
    summary: Summary,
}

impl<'a> Replay<'a> {
    /// Prepares a replay, after a check that the server counts the feed's election.
    pub async fn start(client: &'a Client, feed: &'a Feed, pace: Pace) -> Result<Self, Error> {
        let served = client.get("/api/v1/election").await?;
        let expected = &feed.definition;
        match from_value(&served) {
            Ok(served) if served == *expected => {}
            Ok(served) => {
                let message = format!(
                    "the server counts `{}`, which is not the feed's election `{}` as it is defined now; write the \
                     definition with --define and start a server with it in an empty folder",
                    served.id, expected.id
                );
                return Err(Error::Mismatch(message));
            }
            Err(faults) => {
                let fault = faults.first().map(ToString::to_string).unwrap_or_default();
                return Err(Error::Answer { what: "GET /api/v1/election".to_owned(), fault });
            }
        }
        let contest = expected.contests.first();
        let contest = contest.ok_or_else(|| Error::Mismatch("the feed has no contest".to_owned()))?;
        let now = feed.snapshots.first().map_or(Timestamp(0), |s| s.time);
        let (standing, started, summary) = (BTreeMap::new(), Instant::now(), Summary::default());
        Ok(Replay { client, feed, contest, pace, standing, now, started, summary })
    }

    /// Sends the next snapshot; none after the last.
    pub async fn step(&mut self) -> Result<Option<Done>, Error> {
        let Some(snapshot) = self.feed.snapshots.get(self.summary.snapshots) else { return Ok(None) };
        self.pass_time(snapshot.time).await?;
        let (mut returns, mut falls) = (Vec::new(), Vec::new());
        for change in &snapshot.changes {
            match self.standing.get(&change.cell) {
                Some((record, counts)) if change.now.falls_below(counts) => falls.push((change, *record)),
                _ => returns.push(change),
            }
        }
        self.send_returns(snapshot, &returns).await?;
        for (change, record) in falls {
            self.correct(snapshot, change, record).await?;
        }
        self.summary.snapshots += 1;
        self.summary.elapsed_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(Some(Done {
            snapshot: self.summary.snapshots,
            of: self.feed.snapshots.len(),
            time: time::format(snapshot.time),
            summary: self.summary.clone(),
        }))
    }

    /// Moves the server's clock on to the snapshot's time, as fast as the pace says.
    async fn pass_time(&mut self, until: Timestamp) -> Result<(), Error> {
        let times = u128::from(self.pace.times());
        let longest = u64::try_from(LONGEST_WAIT.as_millis() * times).unwrap_or(u64::MAX);
        self.now = self.now.max(Timestamp(until.0.saturating_sub(longest)));
        loop {
            self.now = self.pace.tick(self.now, until).await;
            set_clock(self.client, self.now).await?;
            if self.now >= until {
                return Ok(());
            }
        }
    }

    async fn send_returns(&mut self, snapshot: &Snapshot, changes: &[&Change]) -> Result<(), Error> {
        let requests: Vec<ReturnRequest> = changes
            .iter()
            .map(|change| ReturnRequest {
                contest: self.contest.id.clone(),
                unit: self.unit(change).to_owned(),
                count_type: change.cell.count_type.as_str().to_owned(),
                counts: CountsRequest::from_counts(self.contest, &change.now),
                total: Some(change.now.total()),
                key: Some(self.key(snapshot, change)),
            })
            .collect();
        let answers = batch::send(self.client, "/api/v1/returns", &batch::lines(&requests)).await?;
        for (change, answer) in changes.iter().zip(answers) {
            let accepted = answer.accepted(|| format!("return {}", self.key(snapshot, change)))?;
            self.summary.returns += 1;
            if accepted.outcome == "held" {
                // It waits for the desk; what stood before still stands.
                self.summary.held += 1;
            } else {
                self.standing.insert(change.cell, (accepted.receipt.record, change.now.clone()));
            }
        }
        Ok(())
    }

    async fn correct(&mut self, snapshot: &Snapshot, change: &Change, record: RecordId) -> Result<(), Error> {
        let counts = CountsRequest::from_counts(self.contest, &change.now);
        let correction = CorrectionRequest { reason: REASON.to_owned(), counts };
        let path = format!("/api/v1/returns/{record}/corrections");
        let key = self.key(snapshot, change);
        let accepted: Accepted = self.client.post(&path, &key, &correction).await?;
        self.standing.insert(change.cell, (accepted.receipt.record, change.now.clone()));
        self.summary.corrections += 1;
        Ok(())
    }

    fn unit(&self, change: &Change) -> &'a str {
        self.feed.definition.unit(change.cell.unit).map_or("", |unit| unit.id.as_str())
    }

    fn key(&self, snapshot: &Snapshot, change: &Change) -> String {
        let (time, count_type) = (time::format(snapshot.time), change.cell.count_type.as_str());
        format!("nc/{time}/{}/{count_type}", self.unit(change))
    }
}

/// Sets the clock of a rehearsal; an earlier time than it has is ignored there.
pub async fn set_clock(client: &Client, now: Timestamp) -> Result<(), Error> {
    client.send(&Request::put("/api/v1/clock", &ClockRequest { now })).await?.good()?;
    Ok(())
}

/// Where a replay tells how far it is.
pub enum Progress {
    /// A bar on the terminal.
    Bar,
    /// A line of JSON for each snapshot.
    Lines(Box<dyn Write + Send>),
    /// Nowhere.
    Silent,
}

/// Sends the whole feed, and tells how far it is.
pub async fn run(client: &Client, feed: &Feed, pace: Pace, mut progress: Progress) -> Result<Summary, Error> {
    let mut replay = Replay::start(client, feed, pace).await?;
    let bar = match progress {
        Progress::Bar => bar(feed.snapshots.len()),
        _ => ProgressBar::hidden(),
    };
    while let Some(done) = replay.step().await? {
        bar.inc(1);
        let Summary { returns, corrections, .. } = done.summary;
        bar.set_message(format!("{}  {returns} returns, {corrections} corrections", done.time));
        if let Progress::Lines(out) = &mut progress {
            let line = serde_json::to_string(&done).unwrap_or_default();
            // Whoever reads the progress may go away; the night goes on.
            let _ = writeln!(out, "{line}").and_then(|()| out.flush());
        }
    }
    bar.finish();
    Ok(replay.summary)
}

fn bar(snapshots: usize) -> ProgressBar {
    let bar = ProgressBar::new(u64::try_from(snapshots).unwrap_or(u64::MAX));
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len}  {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
