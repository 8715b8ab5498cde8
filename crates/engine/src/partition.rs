//! One partition's worker: reads the log, folds it, answers those who wait, and keeps the history.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use canvass_election::event::Cell;
use canvass_election::ids::{ContestId, Offset, PartitionId, Timestamp, UnitId};
use canvass_election::tally::{CellValue, ContestState, Partial};
use canvass_election::{Record, Tally};
use canvass_log::{Entry, Log, ReadError};
use canvass_protocol::record::{BatchReader, DecodeError};
use futures_util::StreamExt;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use crate::audit::Promises;
use crate::cluster::{Audience, Flush};
use crate::history::{self, Change, PartitionHistory, SharedHistory, changes_of, step_of};
use crate::ingest::Verdict;
use crate::snapshot::{self, Snapshot};

/// Records after which a partition writes a new snapshot while it runs; few enough in tests that some do.
const SNAPSHOT_RECORDS: u64 = if cfg!(test) { 12 } else { 5_000_000 };
/// Snapshots that are written at a time: each takes a copy of its partition, and a core.
const SNAPSHOT_TURNS: usize = 2;
/// How often in a row a read that fails is tried again; what it may lack, such as a free descriptor, comes back.
const READ_RETRIES: u32 = 20;
/// Ends of the log that are remembered while the fold is behind.
const LOOKS: usize = 1_024;
/// The time between two such tries.
const READ_PAUSE: Duration = Duration::from_millis(250);

/// How far a partition's fold is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The offset after the last batch folded.
    pub end: Offset,
    /// Records folded since the start.
    pub records: u64,
    /// Voters who have voted in this partition.
    pub voters: usize,
    /// Returns that wait for the desk.
    pub held: usize,
}

/// Where snapshots go, one for each partition.
pub(crate) struct Snapshots {
    pub(crate) folder: PathBuf,
    turns: Semaphore,
}

impl Snapshots {
    pub(crate) fn new(folder: PathBuf) -> Arc<Self> {
        Arc::new(Snapshots { folder, turns: Semaphore::new(SNAPSHOT_TURNS) })
    }
}

/// The state of one partition, shared by its worker, the board and readers.
pub(crate) struct Partition {
    pub(crate) id: PartitionId,
    tally: Mutex<Tally>,
    /// The checksum of the last batch in the tally.
    last: AtomicU32,
    /// The tally holds half of a batch, which cannot be decoded.
    broken: AtomicBool,
    history: SharedHistory,
    /// What has changed since the board last looked.
    pending: Mutex<Pending>,
    /// What goes to the board of another process, where there is one.
    outgoing: Option<Mutex<Outgoing>>,
    /// Offsets at which a publication stood, still ahead: the history keeps a value there.
    marks: Mutex<Vec<Offset>>,
    records: AtomicU64,
    /// Where its snapshots are written, since it runs.
    snapshots: OnceLock<Arc<Snapshots>>,
    /// The offset after the last batch folded.
    end: watch::Sender<Offset>,
    /// Ends that the log was seen to have and the fold has not reached, with the moment each was first seen.
    ahead: Mutex<VecDeque<(Instant, Offset)>>,
}

/// How far a fold is behind its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lag {
    /// The log's end as it was last seen.
    pub(crate) end: Offset,
    /// Batches that are not folded.
    pub(crate) batches: u64,
    /// For how long the first of them is known.
    pub(crate) age: Duration,
}

#[derive(Default)]
struct Pending {
    end: Offset,
    time: Timestamp,
    cells: BTreeMap<Cell, CellValue>,
    contests: BTreeMap<ContestId, ContestState>,
}

/// What has been kept since the last flush: every value in its order.
struct Outgoing {
    /// What stands before this offset was published by somebody else.
    since: Offset,
    partials: Vec<Partial>,
    changes: Vec<Change>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Partition {
    /// Starts where the snapshot ends, or at the first record. `marks` are ascending.
    pub(crate) fn new(id: PartitionId, snapshot: Option<Snapshot>, mut marks: Vec<Offset>) -> Self {
        let (last, tally, history) = match snapshot {
            Some(Snapshot { last, tally, history, .. }) => (last, tally, history),
            None => (0, Tally::new(id), PartitionHistory::default()),
        };
        marks.retain(|mark| *mark >= tally.end());
        marks.reverse();
        let partial = tally.partial();
        let pending = Pending {
            end: partial.end,
            time: partial.time,
            cells: partial.cells.into_iter().collect(),
            contests: partial.contests.into_iter().collect(),
        };
        Partition {
            id,
            end: watch::Sender::new(tally.end()),
            tally: Mutex::new(tally),
            last: AtomicU32::new(last),
            broken: AtomicBool::new(false),
            history: Arc::new(RwLock::new(history)),
            outgoing: None,
            pending: Mutex::new(pending),
            marks: Mutex::new(marks),
            records: AtomicU64::new(0),
            snapshots: OnceLock::new(),
            ahead: Mutex::default(),
        }
    }

    /// A partition that is folded for the board of another process, which knows it up to an offset already.
    pub(crate) fn outgoing(id: PartitionId, snapshot: Option<Snapshot>, since: Offset) -> Self {
        let partition = Partition::new(id, snapshot, Vec::new());
        let (partials, changes) = {
            let history = partition.history();
            let changes = history.changes.iter().filter(|change| change.record.offset >= since);
            (history.since(id, since), changes.cloned().collect())
        };
        let outgoing = Outgoing { since, partials, changes };
        Partition { outgoing: Some(Mutex::new(outgoing)), ..partition }
    }

    /// What has come since the last flush, for the board of another process.
    pub(crate) fn take_flush(&self) -> Flush {
        let mut tally = self.tally();
        self.keep(&mut tally);
        let (partials, changes) = match &self.outgoing {
            Some(outgoing) => {
                let mut outgoing = lock(outgoing);
                (std::mem::take(&mut outgoing.partials), std::mem::take(&mut outgoing.changes))
            }
            None => (Vec::new(), Vec::new()),
        };
        Flush { partition: self.id, end: tally.end(), time: tally.time(), partials, changes }
    }

    pub(crate) fn shared_history(&self) -> SharedHistory {
        Arc::clone(&self.history)
    }

    pub(crate) fn tally(&self) -> MutexGuard<'_, Tally> {
        lock(&self.tally)
    }

    pub(crate) fn history(&self) -> RwLockReadGuard<'_, PartitionHistory> {
        history::read(&self.history)
    }

    /// Whether the tally is no prefix of the log: a fold ended in the middle of a batch.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed) || self.tally.is_poisoned()
    }

    pub(crate) fn progress(&self) -> Progress {
        let tally = self.tally();
        let (end, voters, held) = (tally.end(), tally.voters(), tally.held().count());
        Progress { end, records: self.records.load(Ordering::Relaxed), voters, held }
    }

    /// Notes where the log ends now.
    pub(crate) fn saw_end(&self, end: Offset) {
        let at = *self.end.borrow();
        let mut ahead = lock(&self.ahead);
        while ahead.pop_front_if(|(_, end)| *end <= at).is_some() {}
        if end > at && ahead.back().is_none_or(|(_, last)| *last < end) {
            if ahead.len() == LOOKS {
                // The first says since when, the last says how far.
                ahead.pop_back();
            }
            ahead.push_back((Instant::now(), end));
        }
    }

    /// When its last snapshot was written.
    pub(crate) fn saved(&self) -> Option<Timestamp> {
        snapshot::written(&self.snapshots.get()?.folder, self.id)
    }

    /// How far the fold is behind the log's end as it was last seen.
    pub(crate) fn lag(&self) -> Lag {
        let at = *self.end.borrow();
        let ahead = lock(&self.ahead);
        let first = ahead.iter().find(|(_, end)| *end > at);
        let end = ahead.back().map_or(at, |(_, end)| at.max(*end));
        Lag { end, batches: end.0 - at.0, age: first.map_or(Duration::ZERO, |(seen, _)| seen.elapsed()) }
    }

    /// Waits until the fold has reached `end`.
    pub(crate) async fn reached(&self, end: Offset) {
        // The sender lives as long as the partition, so waiting cannot fail.
        let _ = self.end.subscribe().wait_for(|at| *at >= end).await;
    }

    /// What has changed since the last call.
    pub(crate) fn take_partial(&self) -> Partial {
        self.keep(&mut self.tally());
        let mut pending = lock(&self.pending);
        Partial {
            partition: self.id,
            end: pending.end,
            time: pending.time,
            cells: std::mem::take(&mut pending.cells).into_iter().collect(),
            contests: std::mem::take(&mut pending.contests).into_iter().collect(),
        }
    }

    /// Puts the tally's present values into the history, and in line for the board.
    fn keep(&self, tally: &mut Tally) {
        let partial = tally.take_partial();
        if !partial.cells.is_empty() || !partial.contests.is_empty() {
            history::write(&self.history).keep(&partial);
            if let Some(mut outgoing) = self.outgoing.as_ref().map(lock)
                && partial.end > outgoing.since
            {
                outgoing.partials.push(partial.clone());
            }
        }
        let mut pending = lock(&self.pending);
        pending.end = partial.end;
        pending.time = partial.time;
        pending.cells.extend(partial.cells);
        pending.contests.extend(partial.contests);
    }

    /// Folds one batch. Verdicts are worked out only for a batch that somebody waits for.
    fn fold(&self, entry: &Entry, audience: &Audience, promises: Option<&Promises>) -> Result<(), String> {
        let undecodable = |e| format!("{}, batch {}: {e}", entry.partition, entry.offset);
        let reader = BatchReader::new(&entry.batch.bytes).map_err(undecodable)?;
        let tag = reader.tag;
        let count = usize::try_from(entry.batch.count).unwrap_or(0);
        let mut verdicts = audience.waits(entry, tag).then(|| Vec::with_capacity(count));
        let mut tally = self.tally();
        let mut marks = lock(&self.marks);
        // Before the batch, not after the last one: a snapshot may stand at a mark and not have kept it.
        if marks.last().is_some_and(|mark| *mark <= tally.end()) {
            while marks.pop_if(|mark| *mark <= tally.end()).is_some() {}
            self.keep(&mut tally);
        }
        drop(marks);
        let folded = self.apply(&mut tally, entry, reader, verdicts.as_mut());
        // Said before the lock is free, so that nobody takes half a batch for a whole one.
        self.broken.store(folded.is_err(), Ordering::Relaxed);
        folded.map_err(undecodable)?;
        // A batch of nothing leaves the tally where it is, before it.
        if entry.batch.count > 0 {
            self.last.store(crc32c::crc32c(&entry.batch.bytes), Ordering::Relaxed);
        }
        drop(tally);
        self.records.fetch_add(u64::from(entry.batch.count), Ordering::Relaxed);
        self.end.send_replace(entry.offset.next());
        if let Some(verdicts) = verdicts {
            let receipts = promises.map(|promises| promises.of(entry));
            audience.answer(entry, tag, verdicts, receipts.as_ref());
        }
        Ok(())
    }

    fn apply(
        &self,
        tally: &mut Tally,
        entry: &Entry,
        reader: BatchReader<'_>,
        mut verdicts: Option<&mut Vec<Verdict>>,
    ) -> Result<(), DecodeError> {
        for record in reader.records(entry.partition, entry.offset) {
            let record = record?;
            let topic = self.id.topic;
            if record.id.position == 0 && step_of(topic, record.time) > step_of(topic, tally.time()) {
                self.keep(tally);
            }
            let outcome = tally.apply(&record);
            self.note_changes(tally, &record, &outcome);
            if let Some(verdicts) = verdicts.as_mut() {
                let outcome = Some(outcome);
                verdicts.push(Verdict { record: record.id, time: record.time, outcome });
            }
        }
        Ok(())
    }

    fn note_changes(&self, tally: &Tally, record: &Record, outcome: &canvass_election::Outcome) {
        if self.id.topic == canvass_election::ids::Topic::Votes {
            return;
        }
        let contest_unit = |contest: ContestId| {
            let contest = tally.definition().and_then(|d| d.contest(contest));
            contest.map_or(UnitId(0), |c| c.unit)
        };
        let changes = changes_of(contest_unit, record, outcome);
        if changes.is_empty() {
            return;
        }
        if let Some(mut outgoing) = self.outgoing.as_ref().map(lock)
            && record.id.offset >= outgoing.since
        {
            outgoing.changes.extend(changes.iter().cloned());
        }
        history::write(&self.history).changes.extend(changes);
    }

    /// Reads and folds; `promises` makes receipts. Told to stop, it folds what the log holds by then and writes a
    /// snapshot; a `stop` that is gone ends it at once. A log that cannot be read or decoded is an error for good.
    pub(crate) async fn run<L: Log>(
        self: Arc<Self>,
        log: Arc<L>,
        audience: Audience,
        snapshots: Option<Arc<Snapshots>>,
        promises: Option<Promises>,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), String> {
        if let Some(snapshots) = &snapshots {
            // It runs once.
            let _ = self.snapshots.set(Arc::clone(snapshots));
        }
        let mut entries = pin!(log.read(self.id, *self.end.borrow()));
        let mut last = None;
        let mut failures = 0;
        let mut next_snapshot = SNAPSHOT_RECORDS;
        let mut saving: Option<JoinHandle<()>> = None;
        while last.is_none_or(|last| *self.end.borrow() < last) {
            let entry = tokio::select! {
                biased;
                told = async { stop.wait_for(|stop| *stop).await.is_ok() }, if last.is_none() => {
                    if !told {
                        return Ok(());
                    }
                    last = Some(log.end(self.id).await.map_err(|e| e.to_string())?);
                    continue;
                }
                entry = entries.next() => entry,
            };
            match entry {
                Some(Ok(entry)) => self.fold(&entry, &audience, promises.as_ref())?,
                Some(Err(ReadError::Io(error))) if failures < READ_RETRIES => {
                    tracing::warn!(partition = %self.id, %error, "the log cannot be read; trying again");
                    failures += 1;
                    tokio::time::sleep(READ_PAUSE).await;
                    entries.set(log.read(self.id, *self.end.borrow()));
                    continue;
                }
                Some(Err(error)) => return Err(error.to_string()),
                None => return Err(format!("{}: the log was closed", self.id)),
            }
            failures = 0;
            let due = self.records.load(Ordering::Relaxed) >= next_snapshot;
            if due && saving.as_ref().is_none_or(JoinHandle::is_finished) {
                next_snapshot = self.records.load(Ordering::Relaxed) + SNAPSHOT_RECORDS;
                saving = snapshots.clone().map(|s| tokio::spawn(Arc::clone(&self).save(s)));
            }
        }
        if let Some(saving) = saving {
            // One that panicked has said so, and is written again now.
            let _ = saving.await;
        }
        if let Some(snapshots) = snapshots {
            self.save(snapshots).await;
        }
        Ok(())
    }

    /// Writes a snapshot. One that cannot be written costs time at the next start, and nothing else.
    async fn save(self: Arc<Self>, snapshots: Arc<Snapshots>) {
        let Ok(_turn) = snapshots.turns.acquire().await else { return };
        let folder = snapshots.folder.clone();
        let id = self.id;
        let saved = tokio::task::spawn_blocking(move || {
            // A copy takes a fraction of the time that writing does, and the count goes on meanwhile.
            let tally = self.tally();
            let copies = (self.last.load(Ordering::Relaxed), tally.clone(), self.history().clone());
            drop(tally);
            let (last, tally, history) = copies;
            snapshot::save(&folder, last, &tally, &history)
        });
        let saved = saved.await.unwrap_or_else(|panicked| Err(std::io::Error::other(panicked)));
        if let Err(error) = saved {
            tracing::warn!(partition = %id, %error, "no snapshot was written; the next start replays more");
        }
    }
}
