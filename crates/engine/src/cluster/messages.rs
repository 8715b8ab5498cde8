//! What the processes of a cluster tell each other, in postcard's form behind a byte for the version.

use canvass_election::event::Cell;
use canvass_election::ids::{ContestId, Nullifier, Offset, PartitionId, RecordId, Timestamp};
use canvass_election::tally::{Cast, CellValue, ContestState, Outcome, Partial};
use canvass_log::kafka::{Heard, Said};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::history::Change;
use crate::ingest::Verdict;

const VERSION: u8 = 1;

/// What a partition's tally has kept since it last told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Flush {
    pub(crate) partition: PartitionId,
    /// The offset it stands on: everything before it is told.
    pub(crate) end: Offset,
    /// The time of the last record folded.
    pub(crate) time: Timestamp,
    /// Values, as they were kept one after the other.
    pub(crate) partials: Vec<Partial>,
    pub(crate) changes: Vec<Change>,
}

/// What a message of the partials is about; compaction keeps the last of each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum About {
    /// How far the partition is told: the end of a flush.
    Mark,
    Cell(Cell),
    Contest(ContestId),
    Change(RecordId, u32),
}

/// A message of the partials.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Told {
    pub(super) end: Offset,
    pub(super) time: Timestamp,
    pub(super) value: Value,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Value {
    Mark,
    Cell(Cell, CellValue),
    Contest(ContestId, Box<ContestState>),
    Change(Box<Change>),
}

/// A message of the results.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum News {
    /// A board begins. The epoch is that of the first.
    Board { number: u64, epoch: u64, published: Timestamp },
    /// What is new of some partitions.
    Update { published: Timestamp, flushes: Vec<Flush> },
}

/// What a gateway asks the owner of a partition: what a voter has cast there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Question {
    pub(super) number: u64,
    pub(super) nullifier: Nullifier,
}

/// A message of the verdicts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Answer {
    Verdicts(Verdicts),
    /// To the question of this number.
    Cast {
        number: u64,
        cast: Option<Cast>,
    },
}

/// What the records of a batch did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Verdicts {
    /// The batch's tag, by which its gateway knows it.
    pub(super) tag: u64,
    pub(super) partition: PartitionId,
    pub(super) offset: Offset,
    pub(super) time: Timestamp,
    /// One for each record.
    pub(super) outcomes: Vec<Outcome>,
}

impl Verdicts {
    pub(super) fn verdicts(self) -> Vec<Verdict> {
        let Verdicts { partition, offset, time, outcomes, .. } = self;
        let record = |position| RecordId { partition, offset, position };
        let verdict =
            |(position, outcome)| Verdict { record: record(position), time, outcome: Some(outcome) };
        (0..).zip(outcomes).map(verdict).collect()
    }
}

pub(super) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, String> {
    postcard::to_extend(value, vec![VERSION]).map_err(|e| e.to_string())
}

pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => postcard::from_bytes(rest).map_err(|e| e.to_string()),
        _ => Err("it has a version that is not known here; a newer Canvass may have written it".to_owned()),
    }
}

/// What was said, unless all that is heard is that there is no more yet.
pub(super) fn heard<T: DeserializeOwned>(heard: &Heard) -> Result<Option<T>, String> {
    match heard {
        Heard::Said { value, .. } => {
            decode(value).map(Some).map_err(|e| format!("a message of the cluster cannot be read: {e}"))
        }
        Heard::All => Ok(None),
    }
}

impl Flush {
    pub(crate) fn is_empty(&self) -> bool {
        self.partials.is_empty() && self.changes.is_empty()
    }

    /// What of it is new to somebody who knows the partition up to an offset.
    pub(super) fn beyond(&self, known: Offset) -> Option<Flush> {
        if self.end <= known {
            return None;
        }
        let partials = self.partials.iter().filter(|partial| partial.end > known).cloned().collect();
        let changes = self.changes.iter().filter(|change| change.record.offset >= known).cloned().collect();
        Some(Flush { partials, changes, ..*self })
    }

    /// The messages that tell it: each value under its own key, and the mark at the end.
    pub(super) fn messages(&self) -> Result<Vec<Said>, String> {
        let mut said = Vec::new();
        let mut say = |about: &About, end, time, value| {
            let told = Told { end, time, value };
            said.push(Said { key: encode(about)?, value: encode(&told)? });
            Ok::<_, String>(())
        };
        for Partial { end, time, cells, contests, .. } in &self.partials {
            for (cell, value) in cells {
                say(&About::Cell(*cell), *end, *time, Value::Cell(*cell, value.clone()))?;
            }
            for (contest, state) in contests {
                say(
                    &About::Contest(*contest),
                    *end,
                    *time,
                    Value::Contest(*contest, Box::new(state.clone())),
                )?;
            }
        }
        for (number, change) in (0u32..).zip(&self.changes) {
            let about = About::Change(change.record, number);
            say(&about, self.end, self.time, Value::Change(Box::new(change.clone())))?;
        }
        say(&About::Mark, self.end, self.time, Value::Mark)?;
        Ok(said)
    }
}

/// Puts flushes together again from their messages.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    partials: Vec<Partial>,
    changes: Vec<Change>,
}

impl Gathering {
    /// Takes a message in; with a mark, a flush is whole.
    pub(super) fn take(&mut self, partition: PartitionId, told: Told) -> Option<Flush> {
        let Told { end, time, value } = told;
        match value {
            Value::Change(change) => self.changes.push(*change),
            Value::Cell(cell, value) => self.at(partition, end, time).cells.push((cell, value)),
            Value::Contest(contest, state) => self.at(partition, end, time).contests.push((contest, *state)),
            Value::Mark => {
                let Gathering { partials, changes } = std::mem::take(self);
                return Some(Flush { partition, end, time, partials, changes });
            }
        }
        None
    }

    /// The partial that is being put together, or a new one where another offset is told of.
    fn at(&mut self, partition: PartitionId, end: Offset, time: Timestamp) -> &mut Partial {
        let same = self.partials.last().is_some_and(|last| last.end == end && last.time == time);
        if !same {
            self.partials.push(Partial { partition, end, time, cells: Vec::new(), contests: Vec::new() });
        }
        let last = self.partials.len() - 1;
        &mut self.partials[last]
    }
}
