//! What can happen to an election. Each event is one record of the log, and is never changed.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::definition::{CountItemType, Definition};
use crate::ids::{ContestId, Nullifier, RecordId, RequestId, SelectionId, Timestamp, UnitId};

/// Most votes a return may state, all selections together, and most of anything else it counts: 10^12, far
/// above any electorate. A million units with every count type stay below the largest sum.
pub const MAX_COUNT: u64 = 1_000_000_000_000;

/// An event at its place in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Where it stands.
    pub id: RecordId,
    /// When the gateway took it in.
    pub time: Timestamp,
    /// The request that brought it; a second record of one request is a duplicate.
    pub request: RequestId,
    /// What happened.
    pub event: Event,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// The first record of every partition.
    ElectionDefined(Definition),
    /// Voting in the contest is over.
    ContestClosed(ContestAct),
    /// The contest's results are official.
    ContestCertified(ContestAct),
    /// One of the desk proposes to call a contest, or to take its call back.
    CallProposed(CallProposal),
    /// Another one agrees: the contest is called, before its count is complete.
    ContestCalled(CallAnswer),
    /// Another one agrees: the call is taken back.
    ContestUncalled(CallAnswer),
    /// The desk drops a proposal.
    CallDropped(CallAnswer),
    /// One voter's choice.
    VoteCast(Vote),
    /// A unit's cumulative counts for one contest and count type.
    ReturnReported(Return),
    /// New counts for what an earlier record said.
    ReturnCorrected(Correction),
    /// The desk counts a held return.
    ReturnReleased(HeldAnswer),
    /// The desk drops a held return.
    ReturnRejected(HeldAnswer),
    /// A unit is counted again; its official counts stand meanwhile.
    RecountOpened(RecountOpening),
    /// A unit's counts in an open recount.
    RecountReported(RecountReturn),
    /// The recount's counts become the official ones.
    RecountClosed(RecountClosing),
}

/// The name of the key that acted, as the log keeps it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Actor(pub String);

/// The selections of one vote, ascending and without repetition.
pub type Choices = SmallVec<[SelectionId; 4]>;

/// One voter's choice in one contest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    /// The contest.
    pub contest: ContestId,
    /// Who, without saying who.
    pub nullifier: Nullifier,
    /// What they chose.
    pub choices: Choices,
}

/// What one number stands for: a contest in a unit, by count type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Cell {
    /// The contest.
    pub contest: ContestId,
    /// The unit.
    pub unit: UnitId,
    /// How the ballots were cast.
    pub count_type: CountItemType,
}

/// Counts of one cell, or sums of such counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Counts {
    /// Votes of each selection, in the contest's order.
    pub votes: Vec<u64>,
    /// Votes not counted because a ballot chose too many.
    pub overvotes: u64,
    /// Votes not given.
    pub undervotes: u64,
    /// Ballots, where known.
    pub ballots: Option<u64>,
}

impl Counts {
    /// Counts of nothing for a contest with this many selections.
    pub fn zero(selections: usize) -> Self {
        Counts { votes: vec![0; selections], ..Counts::default() }
    }

    /// Votes of all selections together; counts nobody has checked yet may be too large for a sum.
    pub fn total(&self) -> u64 {
        self.votes.iter().fold(0, |sum, n| sum.saturating_add(*n))
    }

    /// Adds `other`; a sum of ballots exists where either side knows ballots.
    pub fn add(&mut self, other: &Counts) {
        self.votes.resize(self.votes.len().max(other.votes.len()), 0);
        for (sum, n) in self.votes.iter_mut().zip(&other.votes) {
            *sum += n;
        }
        self.overvotes += other.overvotes;
        self.undervotes += other.undervotes;
        self.ballots = match (self.ballots, other.ballots) {
            (None, None) => None,
            (a, b) => Some(a.unwrap_or(0) + b.unwrap_or(0)),
        };
    }

    /// Takes away `other`, which was added before.
    pub fn subtract(&mut self, other: &Counts) {
        for (sum, n) in self.votes.iter_mut().zip(&other.votes) {
            *sum -= n;
        }
        self.overvotes -= other.overvotes;
        self.undervotes -= other.undervotes;
        if let (Some(sum), Some(n)) = (self.ballots, other.ballots) {
            self.ballots = Some(sum - n);
        }
    }

    /// Whether any selection's votes, or the ballots, are fewer than in `before`. Overvotes and undervotes may
    /// fall: a ballot looked at again becomes a vote.
    pub fn falls_below(&self, before: &Counts) -> bool {
        self.votes.iter().zip(&before.votes).any(|(now, then)| now < then)
            || matches!((self.ballots, before.ballots), (Some(now), Some(then)) if now < then)
    }

    /// Whether these can be counts of a contest with this many selections.
    pub(crate) fn fit(&self, selections: usize) -> bool {
        let numbers = [self.total(), self.overvotes, self.undervotes, self.ballots.unwrap_or(0)];
        self.votes.len() == selections && numbers.iter().all(|n| *n <= MAX_COUNT)
    }
}

/// A unit's cumulative counts for one contest and count type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Return {
    /// What was counted.
    pub cell: Cell,
    /// How much.
    pub counts: Counts,
    /// The sum of the votes as the source states it, to be compared.
    pub stated_total: Option<u64>,
    /// The key that sent it.
    pub source: Actor,
}

/// New counts for what an earlier record said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Correction {
    /// The record whose counts stand now.
    pub corrects: RecordId,
    /// Why.
    pub reason: String,
    /// The key that sent it.
    pub actor: Actor,
    /// The cell's counts from now on.
    pub counts: Counts,
}

/// An act of the desk on a contest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContestAct {
    /// The contest.
    pub contest: ContestId,
    /// Why.
    pub reason: String,
    /// The key that acted.
    pub actor: Actor,
}

/// One of the desk proposes who won, or that a call be taken back. It takes another one to do it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallProposal {
    /// The contest.
    pub contest: ContestId,
    /// Who won; for a ballot measure, the side that did. None to take the call back.
    pub winners: Option<Choices>,
    /// On what basis.
    pub reason: String,
    /// The projection that was published when it was proposed, where there was one.
    pub projection: Option<Basis>,
    /// The key that acted.
    pub actor: Actor,
}

/// Names a projection so that it can be computed again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Basis {
    /// Run and number of the publication whose results it stands on.
    pub snapshot: (u64, u64),
    /// BLAKE3 of the model and the baseline, in hexadecimal.
    pub model: String,
    /// What its draws were made from.
    pub seed: u64,
    /// Whether it recommended this call.
    pub recommended: bool,
}

/// What the desk says to a proposal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallAnswer {
    /// The contest.
    pub contest: ContestId,
    /// The record of the proposal.
    pub proposal: RecordId,
    /// Why.
    pub reason: String,
    /// The key that acted.
    pub actor: Actor,
}

/// The desk's answer to a held return.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldAnswer {
    /// The held record.
    pub held: RecordId,
    /// Why it is counted or dropped.
    pub reason: String,
    /// The key that acted.
    pub actor: Actor,
}

/// A recount begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecountOpening {
    /// The contest.
    pub contest: ContestId,
    /// The unit that is counted again, with all below it.
    pub unit: UnitId,
    /// Why.
    pub reason: String,
    /// The key that acted.
    pub actor: Actor,
}

/// A unit's counts in an open recount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecountReturn {
    /// The record that opened the recount.
    pub recount: RecordId,
    /// What was counted this time.
    #[serde(rename = "return")]
    pub reported: Return,
}

/// A recount ends, and its counts become official.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecountClosing {
    /// The record that opened the recount.
    pub recount: RecordId,
    /// Why.
    pub reason: String,
    /// The key that acted.
    pub actor: Actor,
}
