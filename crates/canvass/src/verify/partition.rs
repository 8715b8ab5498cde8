//! Checks one partition: its tree, then its records one after another through the fold.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use canvass_election::event::{Cell, Event};
use canvass_election::ids::{ContestId, Offset, PartitionId, RecordId, Timestamp, Topic, UnitId};
use canvass_election::tally::{CellValue, ContestState, Partial};
use canvass_election::{Definition, Outcome, Record, Tally};
use canvass_engine::{Change, changes_of, votes_partition};
use canvass_protocol::record::decode;
use canvass_tlog::{BATCH_ENDS, Entry};
use serde::Serialize;

use super::difference::{Difference, Halt};
use super::source::Source;
use super::tree::{self, Claim, Entries, Log};

/// At which offset which contest is to be looked at.
pub(crate) type Mark = (Offset, ContestId);

/// What became of the records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Outcomes {
    pub(crate) counted: u64,
    pub(crate) duplicates: u64,
    pub(crate) held: u64,
    pub(crate) rejected: u64,
}

impl Outcomes {
    pub(crate) fn add(&mut self, other: Self) {
        self.counted += other.counted;
        self.duplicates += other.duplicates;
        self.held += other.held;
        self.rejected += other.rejected;
    }
}

/// What a partition's records come to.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    /// What stood at each mark, of the mark's contest.
    pub(crate) partials: BTreeMap<Mark, Partial>,
    /// What happened to the returns.
    pub(crate) changes: Vec<Change>,
    pub(crate) outcomes: Outcomes,
    pub(crate) definition: Option<Arc<Definition>>,
    /// The offset after the last batch.
    pub(crate) end: Offset,
    pub(crate) voters: u64,
    /// Every record was folded.
    pub(crate) whole: bool,
    pub(crate) differences: Vec<Difference>,
}

/// Checks a partition up to the last of the claims about it, which are in ascending order.
pub(crate) fn check(
    source: &Source,
    partition: PartitionId,
    claims: &[Claim],
    marks: Vec<Mark>,
    done: &AtomicU64,
) -> Result<Counted, Halt> {
    let name = partition.to_string();
    let prefix = format!("/log/{partition}");
    let size = claims.last().map_or(0, |claim| claim.size);
    let log = Log { name: &name, prefix: &prefix, size };
    let mut replay = Replay::new(source, partition, size, marks);
    let differences = tree::check(source, &log, claims, done, &mut replay)?;
    Ok(replay.finish(differences))
}

/// The batches of a partition: where each ends. A leaf does not say which batch it came in.
struct Batches<'a> {
    source: &'a Source,
    partition: PartitionId,
    /// The slice to read next.
    slice: u64,
    ends: std::vec::IntoIter<u64>,
    /// The first leaf of the present batch, and the leaf behind its last.
    begin: u64,
    end: u64,
    /// The offset behind the present batch.
    next: Offset,
    /// So many leaves all batches have together.
    size: u64,
}

impl<'a> Batches<'a> {
    fn new(source: &'a Source, partition: PartitionId, size: u64) -> Self {
        let ends = Vec::new().into_iter();
        Batches { source, partition, slice: 0, ends, begin: 0, end: 0, next: Offset(0), size }
    }

    fn wrong(&self, what: &str) -> Halt {
        Difference::new(path(self.partition, self.slice.saturating_sub(1)), what).into()
    }

    /// Goes on to the batch that has a leaf.
    fn seek(&mut self, leaf: u64) -> Result<RecordId, Halt> {
        while leaf >= self.end {
            let end = self.read_end()?;
            if end < self.end || end > self.size {
                return Err(self.wrong("its numbers do not ascend to the size of the checkpoint"));
            }
            (self.begin, self.end, self.next) = (self.end, end, self.next.next());
        }
        let position = u32::try_from(leaf - self.begin).map_err(|_| self.wrong("a batch is too long"))?;
        Ok(RecordId { partition: self.partition, offset: Offset(self.next.0 - 1), position })
    }

    fn read_end(&mut self) -> Result<u64, Halt> {
        if self.ends.len() == 0 {
            let ends = slice(self.source, self.partition, self.slice)?.unwrap_or_default();
            self.ends = ends.into_iter();
            self.slice += 1;
        }
        self.ends.next().ok_or_else(|| self.wrong("it ends before the checkpoint does"))
    }
}

fn path(partition: PartitionId, slice: u64) -> String {
    format!("/log/{partition}/batches/{slice}")
}

fn slice(source: &Source, partition: PartitionId, slice: u64) -> Result<Option<Vec<u64>>, String> {
    let bytes = source.get(&path(partition, slice))?;
    Ok(bytes.map(|bytes| bytes.as_chunks::<8>().0.iter().map(|end| u64::from_le_bytes(*end)).collect()))
}

/// How many leaves a partition has up to an offset, if its own checkpoint covers so much.
pub(crate) fn leaves_up_to(
    source: &Source,
    partition: PartitionId,
    offset: Offset,
) -> Result<Option<u64>, String> {
    let Some(last) = offset.0.checked_sub(1) else { return Ok(Some(0)) };
    let ends = slice(source, partition, last / BATCH_ENDS)?.unwrap_or_default();
    Ok(usize::try_from(last % BATCH_ENDS).ok().and_then(|index| ends.get(index).copied()))
}

/// The bytes of a record that is too long for a bundle, where its entry is a stand-in.
pub(crate) fn long_record(
    source: &Source,
    id: RecordId,
    entry: &[u8],
    sha256: [u8; 32],
) -> Result<Bytes, Halt> {
    let hex: String = sha256.iter().map(|byte| format!("{byte:02x}")).collect();
    let path = format!("/log/{}/record/{hex}", id.partition);
    let is_of = |bytes: &Bytes| Entry::read(entry).is_some_and(|entry| entry.is_of(bytes));
    let what = "it is missing, or not the record that its stand-in is for";
    Ok(source.get(&path)?.filter(is_of).ok_or_else(|| Difference::new(&path, what).at(Some(id)))?)
}

struct Replay<'a> {
    source: &'a Source,
    batches: Batches<'a>,
    /// The record before, and its time.
    last: Option<(RecordId, Timestamp)>,
    tally: Tally,
    /// Those still ahead, the nearest last.
    marks: Vec<Mark>,
    cells: BTreeMap<Cell, CellValue>,
    states: BTreeMap<ContestId, ContestState>,
    counted: Counted,
    /// Why no record is folded any more. The tree is checked to its end all the same.
    broken: Option<Difference>,
}

impl<'a> Replay<'a> {
    fn new(source: &'a Source, partition: PartitionId, size: u64, mut marks: Vec<Mark>) -> Self {
        marks.sort_unstable();
        marks.dedup();
        marks.reverse();
        Replay {
            source,
            batches: Batches::new(source, partition, size),
            last: None,
            tally: Tally::new(partition),
            marks,
            cells: BTreeMap::new(),
            states: BTreeMap::new(),
            counted: Counted::default(),
            broken: None,
        }
    }

    fn wrong(&self, record: RecordId, what: impl Into<String>) -> Difference {
        Difference::new(record.partition.to_string(), what).at(Some(record))
    }

    /// Keeps what stands at the marks up to an offset, before the batch there is folded.
    fn pass_marks(&mut self, offset: Offset) {
        while let Some((at, contest)) = self.marks.pop_if(|(at, _)| *at <= offset) {
            let new = self.tally.take_partial();
            self.cells.extend(new.cells);
            self.states.extend(new.contests);
            let cells = self.cells.iter().filter(|(cell, _)| cell.contest == contest);
            let state = self.states.get(&contest).map(|state| (contest, state.clone()));
            let partial = Partial {
                partition: self.tally.partition(),
                end: at,
                time: self.tally.time(),
                cells: cells.map(|(cell, value)| (*cell, value.clone())).collect(),
                contests: state.into_iter().collect(),
            };
            self.counted.partials.insert((at, contest), partial);
        }
    }

    /// A record must be in the partition where its voter's or unit's other records are, and of its batch's time.
    fn place(&self, record: &Record) -> Result<(), Difference> {
        if let Some((last, time)) = self.last
            && last.offset == record.id.offset
            && time != record.time
        {
            let what = format!("it is said to be of one batch with {last}, and carries another time");
            return Err(self.wrong(record.id, what));
        }
        let Some(definition) = self.tally.definition() else { return Ok(()) };
        let own = match &record.event {
            Event::VoteCast(vote) => votes_partition(&vote.nullifier, definition.partitions.votes),
            Event::ReturnReported(reported) => definition.returns_partition(reported.cell.unit),
            Event::RecountReported(counted) => definition.returns_partition(counted.reported.cell.unit),
            _ => return Ok(()),
        };
        if own == record.id.partition {
            return Ok(());
        }
        Err(self.wrong(
            record.id,
            format!(
                "it belongs into {own}, with all else of its voter or unit; here a second one would go unseen"
            ),
        ))
    }

    /// Reads an entry and folds its record.
    fn read(&mut self, leaf: u64, bytes: &[u8]) -> Result<(), Halt> {
        let id = self.batches.seek(leaf)?;
        if id.position == 0 {
            self.pass_marks(id.offset);
        }
        let long;
        let bytes = match Entry::read(bytes) {
            Some(Entry::Record(bytes)) => bytes,
            Some(Entry::Long { sha256, .. }) => {
                long = long_record(self.source, id, bytes, sha256)?;
                &long[..]
            }
            None => return Err(self.wrong(id, "the entry is no record").into()),
        };
        let record = decode(id, bytes).map_err(|e| self.wrong(id, e.to_string()))?;
        // It is counted all the same: so it was by whoever published the results.
        if self.counted.differences.is_empty() {
            self.counted.differences.extend(self.place(&record).err());
        }
        self.fold(&record);
        self.last = Some((id, record.time));
        Ok(())
    }

    fn fold(&mut self, record: &Record) {
        let outcome = self.tally.apply(record);
        let outcomes = &mut self.counted.outcomes;
        *match outcome {
            Outcome::Counted(_) => &mut outcomes.counted,
            Outcome::Duplicate { .. } => &mut outcomes.duplicates,
            Outcome::Held(_) => &mut outcomes.held,
            Outcome::Rejected(_) => &mut outcomes.rejected,
        } += 1;
        if record.id.partition.topic == Topic::Returns {
            let contests = self.tally.definition().map(|definition| &definition.contests);
            let unit = |id: ContestId| contests.and_then(|c| c.get(id.index())).map_or(UnitId(0), |c| c.unit);
            self.counted.changes.extend(changes_of(unit, record, &outcome));
        }
    }

    fn finish(mut self, differences: Vec<Difference>) -> Counted {
        let end = self.batches.next;
        self.counted.whole = self.broken.is_none();
        self.counted.differences.extend(self.broken.take());
        self.pass_marks(end);
        // What is wrong with the tree comes first: the rest may follow from it.
        self.counted.differences.splice(..0, differences);
        if let Some((at, _)) = self.marks.first().filter(|_| self.counted.whole) {
            let what = format!("results were published of batch {at}, which the log does not have");
            self.counted.differences.push(Difference::new(self.tally.partition().to_string(), what));
        }
        self.counted.definition = self.tally.definition().cloned();
        self.counted.voters = self.tally.voters() as u64;
        self.counted.end = end;
        self.counted
    }
}

impl Entries for Replay<'_> {
    fn take(&mut self, leaf: u64, entry: &[u8]) -> Result<(), Halt> {
        if self.broken.is_some() {
            return Ok(());
        }
        match self.read(leaf, entry) {
            Err(Halt::Wrong(difference)) => self.broken = Some(difference),
            other => return other,
        }
        Ok(())
    }

    fn record(&self, leaf: u64) -> Option<RecordId> {
        Batches::new(self.source, self.batches.partition, self.batches.size).seek(leaf).ok()
    }
}
