//! Records as bytes. These bytes are what the log holds and what a proof is about, so they never change:
//! a new form gets a new version number, and old ones stay readable.
//!
//! | bytes | content |
//! |---|---|
//! | 1 | version, 1 |
//! | 1 | kind: 0 an event as JSON, 1 a vote |
//! | 8 | time, milliseconds since 1970, little-endian |
//! | 16 | request id |
//! | … | kind 0: the event as JSON |
//! | 2, 16, 2 each | kind 1: contest, nullifier, choices; numbers little-endian |
//!
//! A batch is an 8-byte tag, by which a gateway knows its own batches again, then each record behind its
//! length in 4 bytes, little-endian.

use bytes::{Buf, BufMut, Bytes};
use canvass_election::event::{Choices, Event, Record, Vote};
use canvass_election::ids::{
    ContestId, Nullifier, Offset, PartitionId, RecordId, RequestId, SelectionId, Timestamp,
};

const VERSION: u8 = 1;
const KIND_JSON: u8 = 0;
const KIND_VOTE: u8 = 1;
const HEADER: usize = 2 + 8 + 16;
const TIME: std::ops::Range<usize> = 2..10;
const REQUEST: usize = 10;
const LENGTH: usize = 4;

/// Bytes that are no record or no batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end too early, or a length points outside them.
    #[error("the bytes end in the middle of a record")]
    Short,
    /// A version or kind this program does not know.
    #[error("record version {version}, kind {kind} is not known; a newer Canvass may have written it")]
    Unknown {
        /// The first byte.
        version: u8,
        /// The second byte.
        kind: u8,
    },
    /// The JSON of an event is not an event.
    #[error("the event is not readable: {0}")]
    Event(String),
}

/// Records that have no place and no time yet, in bytes. Their time is set when they are put into a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drafts {
    /// As they are in a batch, each behind its length.
    bytes: Vec<u8>,
    count: u32,
}

impl Drafts {
    /// One event brought by a request.
    pub fn one(request: RequestId, event: &Event) -> Self {
        let mut drafts = Drafts::default();
        drafts.push(request, event);
        drafts
    }

    /// Adds an event brought by a request.
    pub fn push(&mut self, request: RequestId, event: &Event) {
        match event {
            Event::VoteCast(vote) => self.push_vote(request, vote),
            event => self.record(KIND_JSON, request, |out| {
                serde_json::to_writer(out, event).expect("events hold nothing that JSON cannot");
            }),
        }
    }

    /// Adds a vote brought by a request.
    pub fn push_vote(&mut self, request: RequestId, vote: &Vote) {
        self.record(KIND_VOTE, request, |out| {
            out.put_u16_le(vote.contest.0);
            out.put_slice(&vote.nullifier.0);
            vote.choices.iter().for_each(|choice| out.put_u16_le(choice.0));
        });
    }

    fn record(&mut self, kind: u8, request: RequestId, payload: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        let mut head = [0; LENGTH + HEADER];
        head[LENGTH] = VERSION;
        head[LENGTH + 1] = kind;
        head[LENGTH + REQUEST..].copy_from_slice(&request.0);
        self.bytes.extend_from_slice(&head);
        payload(&mut self.bytes);
        let length = u32::try_from(self.bytes.len() - start - LENGTH);
        let length = length.expect("a record of the log is far below 4 GiB").to_le_bytes();
        self.bytes[start..start + LENGTH].copy_from_slice(&length);
        self.count += 1;
    }

    /// The number of records.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The size in a batch, in bytes.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }
}

/// Puts drafts together into the bytes of one batch.
#[derive(Debug)]
pub struct BatchBuilder {
    out: Vec<u8>,
    time: Timestamp,
    count: u32,
}

impl BatchBuilder {
    /// Starts a batch whose records carry this tag and time.
    pub fn new(tag: u64, time: Timestamp) -> Self {
        let mut out = Vec::new();
        out.put_u64_le(tag);
        BatchBuilder { out, time, count: 0 }
    }

    /// Adds records.
    pub fn push(&mut self, drafts: &Drafts) {
        let mut at = self.out.len();
        self.out.extend_from_slice(&drafts.bytes);
        let time = self.time.0.to_le_bytes();
        while let Some(length) = self.out[at..].first_chunk::<LENGTH>() {
            let length = u32::from_le_bytes(*length);
            self.out[at + LENGTH..][TIME].copy_from_slice(&time);
            at += LENGTH + usize::try_from(length).expect("the record is in memory");
        }
        self.count += drafts.count;
    }

    /// The number of records and the bytes.
    pub fn finish(self) -> (u32, Bytes) {
        (self.count, self.out.into())
    }
}

/// A batch's tag and its records' bytes.
#[derive(Debug, Clone)]
pub struct BatchReader<'a> {
    /// By which a gateway knows its own batches.
    pub tag: u64,
    rest: &'a [u8],
}

impl<'a> BatchReader<'a> {
    /// Reads the tag of a batch. No bytes are a batch of nothing, which stands in a log where something lies that is
    /// not Canvass's; it has no tag, and 0 stands for it.
    pub fn new(mut bytes: &'a [u8]) -> Result<Self, DecodeError> {
        if bytes.is_empty() {
            return Ok(BatchReader { tag: 0, rest: bytes });
        }
        let tag = bytes.try_get_u64_le().map_err(|_| DecodeError::Short)?;
        Ok(BatchReader { tag, rest: bytes })
    }

    /// Decodes the records one after another.
    pub fn records(
        self,
        partition: PartitionId,
        offset: Offset,
    ) -> impl Iterator<Item = Result<Record, DecodeError>> + use<'a> {
        (0u32..)
            .zip(self)
            .map(move |(position, bytes)| decode(RecordId { partition, offset, position }, bytes?))
    }
}

impl<'a> Iterator for BatchReader<'a> {
    type Item = Result<&'a [u8], DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let length = self.rest.try_get_u32_le().ok().and_then(|l| usize::try_from(l).ok());
        match length.and_then(|length| self.rest.split_at_checked(length)) {
            Some((record, rest)) => {
                self.rest = rest;
                Some(Ok(record))
            }
            None => {
                self.rest = &[];
                Some(Err(DecodeError::Short))
            }
        }
    }
}

/// The time in the bytes of a record.
pub fn time(record: &[u8]) -> Result<Timestamp, DecodeError> {
    let time = record.get(TIME).and_then(|time| time.try_into().ok()).ok_or(DecodeError::Short)?;
    Ok(Timestamp(u64::from_le_bytes(time)))
}

/// Decodes the bytes of one record.
pub fn decode(id: RecordId, bytes: &[u8]) -> Result<Record, DecodeError> {
    let (header, mut payload) = bytes.split_at_checked(HEADER).ok_or(DecodeError::Short)?;
    let (mut rest, version, kind) = (&header[2..], header[0], header[1]);
    let time = Timestamp(rest.get_u64_le());
    let mut request = RequestId([0; 16]);
    rest.copy_to_slice(&mut request.0);
    let event = match (version, kind) {
        (VERSION, KIND_VOTE) => Event::VoteCast(decode_vote(&mut payload).ok_or(DecodeError::Short)?),
        (VERSION, KIND_JSON) => {
            serde_json::from_slice(payload).map_err(|e| DecodeError::Event(e.to_string()))?
        }
        (version, kind) => return Err(DecodeError::Unknown { version, kind }),
    };
    Ok(Record { id, time, request, event })
}

fn decode_vote(payload: &mut &[u8]) -> Option<Vote> {
    let contest = ContestId(payload.try_get_u16_le().ok()?);
    let mut nullifier = Nullifier([0; 16]);
    payload.try_copy_to_slice(&mut nullifier.0).ok()?;
    if !payload.len().is_multiple_of(2) {
        return None;
    }
    let mut choices = Choices::new();
    while let Ok(choice) = payload.try_get_u16_le() {
        choices.push(SelectionId(choice));
    }
    Some(Vote { contest, nullifier, choices })
}

#[cfg(test)]
mod tests {
    use canvass_election::event::{Actor, ContestAct};
    use proptest::prelude::*;

    use super::*;

    const PLACE: RecordId = RecordId { partition: PartitionId::votes(3), offset: Offset(7), position: 0 };

    fn batch(tag: u64, time: u64, drafts: &[Drafts]) -> Bytes {
        let mut builder = BatchBuilder::new(tag, Timestamp(time));
        drafts.iter().for_each(|d| builder.push(d));
        builder.finish().1
    }

    #[test]
    fn a_vote_of_one_choice_takes_fifty_bytes_in_a_batch() {
        let vote = Vote {
            contest: ContestId(0),
            nullifier: Nullifier([1; 16]),
            choices: [SelectionId(2)].into_iter().collect(),
        };
        assert_eq!(Drafts::one(RequestId([2; 16]), &Event::VoteCast(vote)).size(), 50);
    }

    #[test]
    fn no_bytes_are_a_batch_of_nothing_and_a_few_are_none() {
        assert_eq!(BatchReader::new(&[]).unwrap().count(), 0);
        assert!((1..8).all(|n| BatchReader::new(&vec![0; n]).is_err()));
        assert_eq!(BatchReader::new(&[0; 8]).unwrap().count(), 0);
    }

    #[test]
    fn unknown_versions_and_kinds_say_so() {
        let act = ContestAct { contest: ContestId(0), reason: String::new(), actor: Actor("desk".into()) };
        let draft = Drafts::one(RequestId([0; 16]), &Event::ContestClosed(act));
        let mut bytes = draft.bytes[LENGTH..].to_vec();
        bytes[0] = 9;
        assert_eq!(decode(PLACE, &bytes), Err(DecodeError::Unknown { version: 9, kind: KIND_JSON }));
        bytes[0] = VERSION;
        bytes[1] = 9;
        assert_eq!(decode(PLACE, &bytes), Err(DecodeError::Unknown { version: VERSION, kind: 9 }));
    }

    proptest! {
        #[test]
        fn records_read_back_what_was_written(
            tag: u64, time: u64,
            votes in prop::collection::vec((any::<u16>(), any::<[u8; 16]>(), prop::collection::vec(any::<u16>(), 0..6)), 0..20),
        ) {
            let events: Vec<Event> = votes.iter().map(|(contest, key, choices)| Event::VoteCast(Vote {
                contest: ContestId(*contest),
                nullifier: Nullifier(*key),
                choices: choices.iter().map(|c| SelectionId(*c)).collect(),
            })).collect();
            // Some by themselves and some together: a batch does not know how its records came.
            let drafts: Vec<Drafts> = events.chunks(3).map(|events| {
                let mut drafts = Drafts::default();
                events.iter().for_each(|e| drafts.push(RequestId([5; 16]), e));
                drafts
            }).collect();
            let bytes = batch(tag, time, &drafts);
            let reader = BatchReader::new(&bytes).unwrap();
            prop_assert_eq!(reader.tag, tag);
            let records: Vec<Record> =
                reader.records(PLACE.partition, PLACE.offset).collect::<Result<_, _>>().unwrap();
            prop_assert_eq!(records.len(), events.len());
            for (i, (record, event)) in records.iter().zip(&events).enumerate() {
                prop_assert_eq!(&record.event, event);
                prop_assert_eq!(record.time, Timestamp(time));
                prop_assert_eq!(record.id.position as usize, i);
            }
        }

        #[test]
        fn no_bytes_make_decoding_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(reader) = BatchReader::new(&bytes) {
                let _ = reader.records(PLACE.partition, PLACE.offset).count();
            }
        }
    }
}
