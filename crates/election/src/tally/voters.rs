//! Who has voted: the memory that makes one person's vote count once.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

use serde::{Deserialize, Serialize};

use super::Reason;
use crate::definition::VotePolicy;
use crate::event::{Choices, Record, Vote};
use crate::ids::{ContestId, Nullifier, Offset, PartitionId, RecordId, RequestId, SelectionId};

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

/// A voter's standing vote, packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Standing {
    /// The first half of the request id; within one voter's requests, that is unique enough to tell two apart.
    request: u64,
    offset: Offset,
    position: u32,
    choices: u32,
    votes: u32,
    contest: ContestId,
}

/// What a voter has cast.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    #[serde(with = "packed")]
    standing: HashMap<Nullifier, Standing, Keyed>,
    /// Requests of voters who may vote again, so that a late retry of an older vote is known; by [`own_request`].
    requests: HashMap<RequestId, (Offset, u32), Keyed>,
    /// Every combination of several choices that was ever cast, each once.
    combinations: Vec<Choices>,
    combination_ids: BTreeMap<Choices, u32>,
}

pub(super) enum Admission {
    New,
    Replaces(Choices),
    Duplicate(RecordId),
    Refused(Reason),
}

/// The table of voters as one run of bytes in a snapshot: field by field, millions of voters would take long.
mod packed {
    use std::collections::HashMap;

    use serde::{Deserialize, Deserializer, Serializer};

    use super::{ContestId, Keyed, Nullifier, Offset, Standing};

    /// 16 bytes of nullifier, then request 8, offset 8, position 4, choices 4, votes 4, contest 2, little-endian.
    const ENTRY: usize = 46;

    pub(super) fn serialize<S: Serializer>(
        table: &HashMap<Nullifier, Standing, Keyed>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        let mut bytes = Vec::with_capacity(table.len() * ENTRY);
        for (nullifier, standing) in table {
            bytes.extend(nullifier.0);
            bytes.extend(standing.request.to_le_bytes());
            bytes.extend(standing.offset.0.to_le_bytes());
            bytes.extend(standing.position.to_le_bytes());
            bytes.extend(standing.choices.to_le_bytes());
            bytes.extend(standing.votes.to_le_bytes());
            bytes.extend(standing.contest.0.to_le_bytes());
        }
        s.serialize_bytes(&bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<HashMap<Nullifier, Standing, Keyed>, D::Error> {
        let bytes = serde_bytes::ByteBuf::deserialize(d)?;
        let (entries, rest) = bytes.as_chunks::<ENTRY>();
        if !rest.is_empty() {
            return Err(serde::de::Error::custom("the table of voters is not whole"));
        }
        let mut table = HashMap::with_capacity_and_hasher(entries.len(), Keyed::default());
        table.extend(entries.iter().map(read));
        Ok(table)
    }

    fn read(entry: &[u8; ENTRY]) -> (Nullifier, Standing) {
        let mut rest = entry.as_slice();
        let nullifier = Nullifier(take(&mut rest));
        let standing = Standing {
            request: u64::from_le_bytes(take(&mut rest)),
            offset: Offset(u64::from_le_bytes(take(&mut rest))),
            position: u32::from_le_bytes(take(&mut rest)),
            choices: u32::from_le_bytes(take(&mut rest)),
            votes: u32::from_le_bytes(take(&mut rest)),
            contest: ContestId(u16::from_le_bytes(take(&mut rest))),
        };
        (nullifier, standing)
    }

    /// The next bytes of an entry, which is long enough for all of its fields.
    fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
        let mut field = [0; N];
        if let Some((first, after)) = rest.split_first_chunk() {
            field = *first;
            *rest = after;
        }
        field
    }
}

/// Ids of combinations start above every single selection's number.
const FIRST_COMBINATION: u32 = 1 << 16;

impl Voters {
    pub(super) fn len(&self) -> usize {
        self.standing.len()
    }

    /// The vote that counts of which this is a retry.
    pub(super) fn retry_of(&self, record: &Record, vote: &Vote) -> Option<RecordId> {
        let standing = self.standing.get(&vote.nullifier)?;
        let (offset, position) = if standing.request == first_half(record.request) {
            (standing.offset, standing.position)
        } else {
            *self.requests.get(&own_request(record, vote))?
        };
        Some(RecordId { partition: record.id.partition, offset, position })
    }

    /// Decides on a vote that the contest takes, and remembers it if it counts.
    pub(super) fn admit(&mut self, policy: VotePolicy, record: &Record, vote: &Vote) -> Admission {
        if let Some(first) = self.retry_of(record, vote) {
            return Admission::Duplicate(first);
        }
        let partition = record.id.partition;
        let before = self.standing.get(&vote.nullifier).copied();
        let place = |s: &Standing| RecordId { partition, offset: s.offset, position: s.position };
        if before.is_some_and(|s| s.contest != vote.contest) {
            return Admission::Refused(Reason::UnknownContest);
        }
        let votes = match (policy, &before) {
            (_, None) | (VotePolicy::Replace, Some(_)) => 1,
            (VotePolicy::One, Some(s)) => {
                return Admission::Refused(Reason::AlreadyVoted { first: place(s) });
            }
            (VotePolicy::UpTo(n), Some(s)) if s.votes >= n => {
                return Admission::Refused(Reason::VotesUsedUp { last: place(s) });
            }
            (VotePolicy::UpTo(_), Some(s)) => s.votes + 1,
        };
        if policy != VotePolicy::One {
            self.requests.insert(own_request(record, vote), (record.id.offset, record.id.position));
        }
        let choices = self.pack(&vote.choices);
        let RecordId { offset, position, .. } = record.id;
        let (request, contest) = (first_half(record.request), vote.contest);
        self.standing.insert(vote.nullifier, Standing { request, offset, position, choices, votes, contest });
        match (policy, before) {
            (VotePolicy::Replace, Some(old)) => Admission::Replaces(self.unpack(old.choices)),
            _ => Admission::New,
        }
    }

    pub(super) fn cast(&self, partition: PartitionId, nullifier: &Nullifier) -> Option<Cast> {
        let Standing { offset, position, choices, votes, .. } = *self.standing.get(nullifier)?;
        let record = RecordId { partition, offset, position };
        Some(Cast { record, choices: self.unpack(choices), votes })
    }

    /// One number for any combination of choices: the selection itself where there is one.
    fn pack(&mut self, choices: &Choices) -> u32 {
        if let [only] = choices.as_slice() {
            return u32::from(only.0);
        }
        if let Some(known) = self.combination_ids.get(choices) {
            return *known;
        }
        // A combination takes a vote to appear, and a partition holds fewer than 2^32 - 2^16 voters.
        let id = u32::try_from(self.combinations.len()).unwrap_or(u32::MAX).saturating_add(FIRST_COMBINATION);
        self.combinations.push(choices.clone());
        self.combination_ids.insert(choices.clone(), id);
        id
    }

    fn unpack(&self, packed: u32) -> Choices {
        match u16::try_from(packed) {
            Ok(only) => [SelectionId(only)].into_iter().collect(),
            Err(_) => self.combinations[(packed - FIRST_COMBINATION) as usize].clone(),
        }
    }

    /// Hands every voter's nullifier, vote and number of votes to `f`, in no particular order.
    pub(super) fn for_each(&self, mut f: impl FnMut(&Nullifier, &[SelectionId], u32)) {
        for (nullifier, standing) in &self.standing {
            match u16::try_from(standing.choices) {
                Ok(only) => f(nullifier, &[SelectionId(only)], standing.votes),
                Err(_) => f(nullifier, &self.unpack(standing.choices), standing.votes),
            }
        }
    }
}

/// A request of this voter alone, so that another voter's vote under the same request is no retry. Both ids are
/// keyed hashes, so one key of their size is enough; the odd factor keeps equal ids from cancelling out.
fn own_request(record: &Record, vote: &Vote) -> RequestId {
    const GOLDEN: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
    let request = u128::from_le_bytes(record.request.0).wrapping_mul(GOLDEN);
    RequestId(request.wrapping_add(u128::from_le_bytes(vote.nullifier.0)).to_le_bytes())
}

fn first_half(request: RequestId) -> u64 {
    let mut half = [0; 8];
    half.copy_from_slice(&request.0[..8]);
    u64::from_le_bytes(half)
}
