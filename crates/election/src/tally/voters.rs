//! Who has voted: the memory that makes one person's vote count once.

mod table;

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

use serde::{Deserialize, Serialize};

use super::Reason;
use crate::definition::{Definition, VotePolicy};
use crate::event::{Choices, Record, Vote};
use crate::ids::{ContestId, Nullifier, Offset, PartitionId, RecordId, RequestId, SelectionId};
use table::{Entry, Table};

/// Takes the first eight bytes of a key that is itself a keyed hash, so no second hash is needed.
#[derive(Debug, Default, Clone)]
pub(super) struct FirstBytes(u64);

impl Hasher for FirstBytes {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    // Arrays announce their length; it is the same for every key.
    fn write_usize(&mut self, _: usize) {}
}

type Keyed = BuildHasherDefault<FirstBytes>;

/// What a voter has cast.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cast {
    /// The record of the vote; the last one where a voter has several.
    pub record: RecordId,
    /// Its choices.
    pub choices: Choices,
    /// How many votes of the voter count.
    pub votes: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Voters {
    table: Table,
    ballots: Ballots,
    /// By number of entry: the votes of those who have more than one.
    several: BTreeMap<u32, u32>,
    /// By number of entry: places that an entry has no room for.
    far: BTreeMap<u32, (Offset, u32)>,
    /// Requests of voters who may vote again, so that a late retry of an older vote is known; by [`own_request`].
    requests: HashMap<RequestId, (Offset, u32), Keyed>,
}

pub(super) enum Admission {
    New,
    Replaces(Choices),
    Duplicate(RecordId),
    Refused(Reason),
}

impl Voters {
    /// Voters of this election, before any has voted.
    pub(super) fn new(definition: &Definition) -> Self {
        Voters { ballots: Ballots::new(definition), ..Voters::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// Bytes of memory that the voters take, but for those with several votes.
    pub(super) fn bytes(&self) -> usize {
        self.table.bytes()
    }

    fn place(&self, number: u32, entry: &Entry) -> (Offset, u32) {
        self.far.get(&number).copied().unwrap_or((entry.offset, entry.position))
    }

    /// The vote that counts of which this is a retry.
    pub(super) fn retry_of(&self, policy: VotePolicy, record: &Record, vote: &Vote) -> Option<RecordId> {
        let (offset, position) = match policy {
            // A part of the request's id is enough to tell a retry from a second vote: neither counts.
            VotePolicy::One => {
                let number = self.table.find(&vote.nullifier)?;
                let entry = self.table.get(number);
                (entry.request == tag(record.request)).then(|| self.place(number, &entry))?
            }
            VotePolicy::Replace | VotePolicy::UpTo(_) => *self.requests.get(&own_request(record, vote))?,
        };
        Some(RecordId { partition: record.id.partition, offset, position })
    }

    /// Decides on a vote that the contest takes, and remembers it if it counts.
    pub(super) fn admit(&mut self, policy: VotePolicy, record: &Record, vote: &Vote) -> Admission {
        if let Some(first) = self.retry_of(policy, record, vote) {
            return Admission::Duplicate(first);
        }
        let Some(number) = self.table.find(&vote.nullifier) else {
            let entry = self.entry(record, vote);
            // A table that has no room for another voter can take no vote that it could not tell from a second one.
            let Some(number) = self.table.push(&entry) else { return Admission::Refused(Reason::Closed) };
            self.note(number, policy, record, vote);
            return Admission::New;
        };
        let before = self.table.get(number);
        let (offset, position) = self.place(number, &before);
        let place = RecordId { partition: record.id.partition, offset, position };
        let (contest, replaced) = self.ballots.unpack(before.choice);
        if contest != vote.contest {
            return Admission::Refused(Reason::UnknownContest);
        }
        let votes = self.votes(number);
        match policy {
            VotePolicy::One => return Admission::Refused(Reason::AlreadyVoted { first: place }),
            VotePolicy::UpTo(n) if votes >= n => {
                return Admission::Refused(Reason::VotesUsedUp { last: place });
            }
            VotePolicy::UpTo(_) => {
                self.several.insert(number, votes + 1);
            }
            VotePolicy::Replace => {}
        }
        let entry = self.entry(record, vote);
        self.table.replace(number, &entry);
        self.note(number, policy, record, vote);
        if policy == VotePolicy::Replace { Admission::Replaces(replaced) } else { Admission::New }
    }

    fn entry(&mut self, record: &Record, vote: &Vote) -> Entry {
        let RecordId { offset, position, .. } = record.id;
        let choice = self.ballots.pack(vote.contest, &vote.choices);
        Entry { nullifier: vote.nullifier, request: tag(record.request), offset, position, choice }
    }

    /// Keeps what the entry has no room for.
    fn note(&mut self, number: u32, policy: VotePolicy, record: &Record, vote: &Vote) {
        let RecordId { offset, position, .. } = record.id;
        if Entry::fits(offset, position) {
            self.far.remove(&number);
        } else {
            self.far.insert(number, (offset, position));
        }
        if policy != VotePolicy::One {
            self.requests.insert(own_request(record, vote), (offset, position));
        }
    }

    fn votes(&self, number: u32) -> u32 {
        self.several.get(&number).copied().unwrap_or(1)
    }

    pub(super) fn cast(&self, partition: PartitionId, nullifier: &Nullifier) -> Option<Cast> {
        let number = self.table.find(nullifier)?;
        let entry = self.table.get(number);
        let (offset, position) = self.place(number, &entry);
        let record = RecordId { partition, offset, position };
        Some(Cast { record, choices: self.ballots.unpack(entry.choice).1, votes: self.votes(number) })
    }

    /// Hands every voter's nullifier, vote and number of votes to `f`.
    pub(super) fn for_each(&self, mut f: impl FnMut(&Nullifier, &[SelectionId], u32)) {
        for (number, entry) in self.table.iter() {
            f(&entry.nullifier, &self.ballots.unpack(entry.choice).1, self.votes(number));
        }
    }
}

/// Every choice that can be cast, as one number: first each selection of each contest by itself, then the
/// combinations of several in the order in which they were first cast.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Ballots {
    /// The number of each contest's first selection, and the first number of a combination at the end.
    first: Vec<u32>,
    combinations: Vec<(ContestId, Choices)>,
    known: BTreeMap<(ContestId, Choices), u32>,
}

impl Ballots {
    fn new(definition: &Definition) -> Self {
        let mut first = vec![0u32];
        let mut next = 0u32;
        for contest in &definition.contests {
            next = next.saturating_add(u32::try_from(contest.selections.len()).unwrap_or(u32::MAX));
            first.push(next);
        }
        Ballots { first, ..Ballots::default() }
    }

    fn first_combination(&self) -> u32 {
        self.first.last().copied().unwrap_or(0)
    }

    fn pack(&mut self, contest: ContestId, choices: &Choices) -> u32 {
        if let [only] = choices.as_slice() {
            return self.first[contest.index()] + u32::from(only.0);
        }
        if let Some(known) = self.known.get(&(contest, choices.clone())) {
            return *known;
        }
        // A combination takes a voter to appear, and a table has fewer than 2^32 of them.
        let number = u32::try_from(self.combinations.len()).unwrap_or(u32::MAX);
        let number = number.saturating_add(self.first_combination());
        self.combinations.push((contest, choices.clone()));
        self.known.insert((contest, choices.clone()), number);
        number
    }

    fn unpack(&self, number: u32) -> (ContestId, Choices) {
        if number >= self.first_combination() {
            return self.combinations[(number - self.first_combination()) as usize].clone();
        }
        let contest = self.first.partition_point(|first| *first <= number) - 1;
        let selection = u16::try_from(number - self.first[contest]).unwrap_or(u16::MAX);
        let contest = ContestId(u16::try_from(contest).unwrap_or(u16::MAX));
        (contest, [SelectionId(selection)].into_iter().collect())
    }
}

/// A request of this voter alone, so that another voter's vote under the same request is no retry. Both ids are
/// keyed hashes, so one key of their size is enough; the odd factor keeps equal ids from cancelling out.
fn own_request(record: &Record, vote: &Vote) -> RequestId {
    const GOLDEN: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
    let request = u128::from_le_bytes(record.request.0).wrapping_mul(GOLDEN);
    RequestId(request.wrapping_add(u128::from_le_bytes(vote.nullifier.0)).to_le_bytes())
}

fn tag(request: RequestId) -> u32 {
    request.0.first_chunk().map_or(0, |part| u32::from_le_bytes(*part))
}
