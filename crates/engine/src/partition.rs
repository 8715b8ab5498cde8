//! One partition's worker: reads the log, folds it, answers those who wait, and keeps the history.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use canvass_election::event::Cell;
use canvass_election::ids::{ContestId, Offset, PartitionId, Timestamp, UnitId};
use canvass_election::tally::{CellValue, ContestState, Partial};
use canvass_election::{Record, Tally};
use canvass_log::{Entry, Log};
use canvass_protocol::record::BatchReader;
use futures_util::StreamExt;
use tokio::sync::watch;

use crate::history::{PartitionHistory, STEP_MS, changes_of};
use crate::ingest::{Verdict, Waiting};
use crate::snapshot::{self, Snapshot};

/// Records after which a partition writes a new snapshot while it runs.
pub(crate) const SNAPSHOT_RECORDS: u64 = 5_000_000;

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

/// The state of one partition, shared by its worker, the board and readers.
pub(crate) struct Partition {
    pub(crate) id: PartitionId,
    tally: Mutex<Tally>,
    history: RwLock<PartitionHistory>,
    /// What has changed since the board last looked.
    pending: Mutex<Pending>,
    /// Offsets at which a publication stood, still ahead: the history keeps a value there.
    marks: Mutex<Vec<Offset>>,
    records: AtomicU64,
    /// The offset after the last batch folded.
    end: watch::Sender<Offset>,
}

#[derive(Default)]
struct Pending {
    end: Offset,
    time: Timestamp,
    cells: BTreeMap<Cell, CellValue>,
    contests: BTreeMap<ContestId, ContestState>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Partition {
    /// Starts where the snapshot ends, or at the first record. `marks` are ascending.
    pub(crate) fn new(id: PartitionId, snapshot: Option<Snapshot>, mut marks: Vec<Offset>) -> Self {
        let (tally, history) = match snapshot {
            Some(Snapshot { tally, history, .. }) => (tally, history),
            None => (Tally::new(id), PartitionHistory::default()),
        };
        marks.retain(|mark| *mark > tally.end());
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
            history: RwLock::new(history),
            pending: Mutex::new(pending),
            marks: Mutex::new(marks),
            records: AtomicU64::new(0),
        }
    }

    pub(crate) fn tally(&self) -> MutexGuard<'_, Tally> {
        lock(&self.tally)
    }

    pub(crate) fn history(&self) -> RwLockReadGuard<'_, PartitionHistory> {
        self.history.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn progress(&self) -> Progress {
        let tally = self.tally();
        let (end, voters, held) = (tally.end(), tally.voters(), tally.held().count());
        Progress { end, records: self.records.load(Ordering::Relaxed), voters, held }
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
            self.history.write().unwrap_or_else(PoisonError::into_inner).keep(&partial);
        }
        let mut pending = lock(&self.pending);
        pending.end = partial.end;
        pending.time = partial.time;
        pending.cells.extend(partial.cells);
        pending.contests.extend(partial.contests);
    }

    /// Folds one batch. Verdicts are worked out only for a batch that somebody waits for.
    fn fold(&self, entry: &Entry, waiting: &Waiting) -> Result<(), String> {
        let reader = BatchReader::new(&entry.batch.bytes);
        let reader = reader.map_err(|e| format!("{}, batch {}: {e}", entry.partition, entry.offset))?;
        let tag = reader.tag;
        let waited_for = waiting.waits(tag);
        let mut verdicts = Vec::new();
        let mut tally = self.tally();
        for record in reader.records(entry.partition, entry.offset) {
            let record = record.map_err(|e| format!("{}, batch {}: {e}", entry.partition, entry.offset))?;
            if record.time.0 / STEP_MS > tally.time().0 / STEP_MS && record.id.position == 0 {
                self.keep(&mut tally);
            }
            let outcome = tally.apply(&record);
            self.note_changes(&tally, &record, &outcome);
            if waited_for {
                verdicts.push(Verdict { record: record.id, time: record.time, outcome });
            }
        }
        let mut marks = lock(&self.marks);
        if marks.last().is_some_and(|mark| *mark <= tally.end()) {
            while marks.pop_if(|mark| *mark <= tally.end()).is_some() {}
            self.keep(&mut tally);
        }
        drop((marks, tally));
        self.records.fetch_add(u64::from(entry.batch.count), Ordering::Relaxed);
        self.end.send_replace(entry.offset.next());
        if waited_for {
            waiting.answer(tag, verdicts);
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
        if !changes.is_empty() {
            self.history.write().unwrap_or_else(PoisonError::into_inner).changes.extend(changes);
        }
    }

    /// Reads and folds until told to stop; a log that cannot be read or decoded is an error for good.
    pub(crate) async fn run<L: Log>(
        self: Arc<Self>,
        log: Arc<L>,
        waiting: Arc<Waiting>,
        snapshots: Option<PathBuf>,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), String> {
        let from = self.tally().end();
        let mut entries = std::pin::pin!(log.read(self.id, from));
        let mut next_snapshot = SNAPSHOT_RECORDS;
        loop {
            let entry = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => break,
                entry = entries.next() => entry,
            };
            let Some(entry) = entry else { break };
            self.fold(&entry.map_err(|e| e.to_string())?, &waiting)?;
            if self.records.load(Ordering::Relaxed) >= next_snapshot {
                next_snapshot += SNAPSHOT_RECORDS;
                self.save(snapshots.as_ref());
            }
        }
        self.save(snapshots.as_ref());
        Ok(())
    }

    /// Writes a snapshot. One that cannot be written costs time at the next start, and nothing else.
    fn save(&self, folder: Option<&PathBuf>) {
        let Some(folder) = folder else { return };
        let mut tally = self.tally();
        self.keep(&mut tally);
        let history = self.history();
        if let Err(error) = snapshot::save(folder, &tally, &history) {
            tracing::warn!(partition = %self.id, %error, "no snapshot was written; the next start replays more");
        }
    }
}
