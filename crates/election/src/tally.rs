//! The fold: records in, counts out.
//!
//! One [`Tally`] folds one partition. [`Tally::apply`] is synchronous and total: every record has an
//! [`Outcome`], and none of them stops the fold.

mod calls;
mod digest;
mod returns;
mod voters;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::definition::{Counting, Definition, VotePolicy};
use crate::event::{Cell, Choices, ContestAct, Counts, Event, Record, Vote};
use crate::ids::{ContestId, Nullifier, Offset, PartitionId, RecordId, Timestamp, UnitId};

pub use calls::{Call, Proposal};
pub use digest::Digest;
pub use returns::{
    DOUBLING_ODDS, HeldReturn, HoldReason, REPLAY_ODDS, Remembered, UNITS_FOR_PARENT_RULE, odds,
};
pub use voters::Cast;
use voters::{Admission, Voters};

/// What a record did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It changed the state like this.
    Counted(Delta),
    /// The same request was recorded before; nothing changed.
    Duplicate {
        /// The record that counts.
        first: RecordId,
    },
    /// It waits for the desk, outside the totals.
    Held(HoldReason),
    /// It changed nothing.
    Rejected(Reason),
}

/// A change of the state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Delta {
    /// The election came to be.
    Defined,
    /// A contest's state changed.
    Contest(ContestId),
    /// A vote: its choices gain one vote each, `minus` (those of the vote it replaces) lose one each.
    Vote {
        /// The contest.
        contest: ContestId,
        /// The choices of the vote that is replaced.
        minus: Option<Choices>,
    },
    /// Cells took new values.
    Cells(Vec<CellChange>),
}

/// A cell before and after a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellChange {
    /// The cell.
    pub cell: Cell,
    /// Its value before.
    pub before: CellValue,
    /// Its value after.
    pub after: CellValue,
}

/// The value of a cell: what readers are shown of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellValue {
    /// The counts in the official totals; none before the first return.
    pub official: Option<Counts>,
    /// The counts of an open recount.
    pub provisional: Option<Counts>,
    /// Returns that wait for the desk.
    pub held: u32,
}

impl CellValue {
    /// The counts of the recount where there are any, else the official ones.
    pub fn provisional_or_official(&self) -> Option<&Counts> {
        self.provisional.as_ref().or(self.official.as_ref())
    }
}

/// Why a record changed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// A record before the definition.
    NotDefined,
    /// A second definition.
    AlreadyDefined,
    /// No such contest, not one that counts this way, or not the one the voter's pseudonym is for.
    UnknownContest,
    /// No such selection.
    UnknownSelection,
    /// No such unit, not a unit that reports, or one outside the contest's district.
    UnknownUnit,
    /// The contest does not use this count type.
    UnknownCountType,
    /// Too many choices, none, or one of them twice.
    BadChoices,
    /// A count above the limit, or not one count for each selection.
    BadCounts,
    /// Before the voting window.
    NotOpen,
    /// After the voting window, or after the desk closed the contest.
    Closed,
    /// The voter has voted, and the contest takes one vote.
    AlreadyVoted {
        /// The vote that counts.
        first: RecordId,
    },
    /// The voter has cast as many votes as the contest takes.
    VotesUsedUp {
        /// The voter's last vote.
        last: RecordId,
    },
    /// The named record has no counts that stand now: never had, or was corrected since.
    NotStanding,
    /// The named record is not held.
    NotHeld,
    /// The unit reported again after the held return, and that return counts.
    Superseded,
    /// The contest is certified; only a correction can change it.
    Certified,
    /// The contest is not called.
    NotCalled,
    /// The contest is called; to call it otherwise, the call is taken back first.
    AlreadyCalled,
    /// A return of the contest waits for the desk; there is no call before it is answered.
    HoldOpen {
        /// The first such return.
        held: RecordId,
    },
    /// Another proposal for the contest waits for its answer.
    ProposalOpen {
        /// That proposal.
        proposal: RecordId,
    },
    /// The named record is no proposal of this kind that waits for an answer.
    NoSuchProposal,
    /// Whoever proposed it cannot confirm it.
    SamePerson,
    /// The named record opened no recount that is open now.
    NoSuchRecount,
    /// A recount is open that covers this unit.
    RecountOpen,
    /// The unit is outside the recount.
    OutsideRecount,
    /// The contest was closed before.
    AlreadyClosed,
}

/// A contest's state beside its counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContestState {
    /// When the desk closed it.
    pub closed: Option<Timestamp>,
    /// When its results became official.
    pub certified: Option<Timestamp>,
    /// Whether a correction was counted after that.
    pub corrected_since: bool,
    /// Who the desk says won.
    pub called: Option<Call>,
    /// A call, or the end of one, that waits for a second person.
    pub proposal: Option<Proposal>,
    /// The units under recount, by the record that opened it.
    pub recounts: BTreeMap<RecordId, UnitId>,
}

/// What the board merges: values of a partition's cells and contests at an offset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partial {
    /// The partition.
    pub partition: PartitionId,
    /// The offset after the last batch folded.
    pub end: Offset,
    /// The time of the last record folded.
    pub time: Timestamp,
    /// Values of cells.
    pub cells: Vec<(Cell, CellValue)>,
    /// States of contests.
    pub contests: Vec<(ContestId, ContestState)>,
}

/// Votes of one contest in this partition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Ballots {
    votes: Vec<u64>,
    ballots: u64,
}

/// The state of one partition after some prefix of its records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    partition: PartitionId,
    end: Offset,
    time: Timestamp,
    definition: Option<Arc<Definition>>,
    states: Vec<ContestState>,
    ballots: Vec<Ballots>,
    voters: Voters,
    returns: returns::Returns,
    changed_cells: BTreeSet<Cell>,
    changed_contests: BTreeSet<ContestId>,
}

impl Tally {
    /// The state before the first record of `partition`.
    pub fn new(partition: PartitionId) -> Self {
        Tally {
            partition,
            end: Offset(0),
            time: Timestamp(0),
            definition: None,
            states: Vec::new(),
            ballots: Vec::new(),
            voters: Voters::default(),
            returns: returns::Returns::default(),
            changed_cells: BTreeSet::new(),
            changed_contests: BTreeSet::new(),
        }
    }

    /// The partition this is the state of.
    pub fn partition(&self) -> PartitionId {
        self.partition
    }

    /// The offset after the last batch folded: where reading goes on.
    pub fn end(&self) -> Offset {
        self.end
    }

    /// The time of the last record folded.
    pub fn time(&self) -> Timestamp {
        self.time
    }

    /// The election, once its definition was folded.
    pub fn definition(&self) -> Option<&Arc<Definition>> {
        self.definition.as_ref()
    }

    /// How many voters of this partition have voted, over all contests.
    pub fn voters(&self) -> usize {
        self.voters.len()
    }

    /// Bytes of memory that the voters take.
    pub fn voters_bytes(&self) -> usize {
        self.voters.bytes()
    }

    /// What the voter behind `nullifier` has cast, as it counts now.
    pub fn cast(&self, nullifier: &Nullifier) -> Option<Cast> {
        self.voters.cast(self.partition, nullifier)
    }

    /// Returns that wait for the desk, in the order in which they came.
    pub fn held(&self) -> impl Iterator<Item = (&RecordId, &HeldReturn)> {
        self.returns.held.iter()
    }

    /// What a record of this partition did when it came; votes are not remembered here.
    pub fn outcome_of(&self, record: &RecordId) -> Option<&returns::Remembered> {
        self.returns.outcomes.get(record)
    }

    /// Folds one record. The caller hands over records in the order of the log, each once.
    pub fn apply(&mut self, record: &Record) -> Outcome {
        debug_assert_eq!(record.id.partition, self.partition);
        self.end = record.id.offset.next();
        // Taken out while it is read, and put back below: cloning it would cost an atomic count for every vote.
        let Some(definition) = self.definition.take() else {
            return match &record.event {
                Event::ElectionDefined(definition) => self.define(definition),
                _ => Outcome::Rejected(Reason::NotDefined),
            };
        };
        let outcome = self.apply_defined(&definition, record);
        self.definition = Some(definition);
        outcome
    }

    fn apply_defined(&mut self, definition: &Definition, record: &Record) -> Outcome {
        if let Event::ElectionDefined(_) = record.event {
            return Outcome::Rejected(Reason::AlreadyDefined);
        }
        // The definition's own time says when counting was prepared; the count's time starts after it.
        self.time = self.time.max(record.time);
        if let Event::VoteCast(vote) = &record.event {
            return self.cast_vote(definition, record, vote);
        }
        if let Some(first) = self.returns.requests.get(&record.request) {
            return Outcome::Duplicate { first: *first };
        }
        let outcome = match self.apply_returns(definition, record) {
            Ok(delta) => Outcome::Counted(delta),
            Err(returns::Refusal::Held(reason)) => Outcome::Held(reason),
            Err(returns::Refusal::Rejected(reason)) => Outcome::Rejected(reason),
        };
        self.returns.remember(record, &outcome);
        outcome
    }

    fn apply_returns(&mut self, definition: &Definition, record: &Record) -> Result<Delta, returns::Refusal> {
        match &record.event {
            Event::ContestClosed(act) => self.close(record.time, act),
            Event::ContestCertified(act) => self.certify(record.time, act),
            Event::CallProposed(proposal) => self.propose_call(definition, record, proposal),
            Event::ContestCalled(answer) => self.call(record, answer),
            Event::ContestUncalled(answer) => self.uncall(answer),
            Event::CallDropped(answer) => self.drop_call(answer),
            Event::ReturnReported(reported) => self.report(definition, record.id, reported),
            Event::ReturnCorrected(correction) => self.correct(definition, record.id, correction),
            Event::ReturnReleased(answer) => self.release(definition, record.id, answer),
            Event::ReturnRejected(answer) => self.reject(answer),
            Event::RecountOpened(opening) => self.open_recount(definition, record.id, opening),
            Event::RecountReported(counted) => self.recount(definition, record.id, counted),
            Event::RecountClosed(closing) => self.close_recount(definition, closing),
            Event::ElectionDefined(_) | Event::VoteCast(_) => Err(Reason::AlreadyDefined.into()),
        }
    }

    fn define(&mut self, definition: &Definition) -> Outcome {
        self.states = vec![ContestState::default(); definition.contests.len()];
        self.ballots = definition
            .contests
            .iter()
            .map(|c| Ballots { votes: vec![0; c.selections.len()], ballots: 0 })
            .collect();
        self.voters = Voters::new(definition);
        self.definition = Some(Arc::new(definition.clone()));
        Outcome::Counted(Delta::Defined)
    }

    fn cast_vote(&mut self, definition: &Definition, record: &Record, vote: &Vote) -> Outcome {
        let policy = match self.admit(definition, record.time, vote) {
            Ok(policy) => policy,
            Err(reason) => {
                // A retry gets the answer of the first, also after the contest was closed.
                let policy = definition.contest(vote.contest).and_then(|c| c.voting()).map(|v| v.policy);
                let first = policy.and_then(|policy| self.voters.retry_of(policy, record, vote));
                return first.map_or(Outcome::Rejected(reason), |first| Outcome::Duplicate { first });
            }
        };
        let minus = match self.voters.admit(policy, record, vote) {
            Admission::New => None,
            Admission::Replaces(old) => Some(old),
            Admission::Duplicate(first) => return Outcome::Duplicate { first },
            Admission::Refused(reason) => return Outcome::Rejected(reason),
        };
        let ballots = &mut self.ballots[vote.contest.index()];
        for old in minus.iter().flatten() {
            ballots.votes[old.index()] -= 1;
        }
        for new in &vote.choices {
            ballots.votes[new.index()] += 1;
        }
        if minus.is_none() {
            ballots.ballots += 1;
        }
        self.changed_contests.insert(vote.contest);
        Outcome::Counted(Delta::Vote { contest: vote.contest, minus })
    }

    /// Whether the vote is one that the contest takes at this time.
    fn admit(&self, definition: &Definition, time: Timestamp, vote: &Vote) -> Result<VotePolicy, Reason> {
        let contest = definition.contest(vote.contest).ok_or(Reason::UnknownContest)?;
        let voting = contest.voting().ok_or(Reason::UnknownContest)?;
        if vote.choices.is_empty() || vote.choices.len() > usize::from(contest.max_choices()) {
            return Err(Reason::BadChoices);
        }
        if vote.choices.windows(2).any(|pair| pair[0] >= pair[1]) {
            return Err(Reason::BadChoices);
        }
        if vote.choices.iter().any(|s| s.index() >= contest.selections.len()) {
            return Err(Reason::UnknownSelection);
        }
        if voting.opens.is_some_and(|opens| time < opens) {
            return Err(Reason::NotOpen);
        }
        let state = &self.states[vote.contest.index()];
        if state.closed.is_some() || voting.closes.is_some_and(|closes| time >= closes) {
            return Err(Reason::Closed);
        }
        if state.certified.is_some() {
            return Err(Reason::Certified);
        }
        Ok(voting.policy)
    }

    fn state(&mut self, contest: ContestId) -> Result<&mut ContestState, returns::Refusal> {
        self.states.get_mut(contest.index()).ok_or(Reason::UnknownContest.into())
    }

    fn close(&mut self, time: Timestamp, act: &ContestAct) -> Result<Delta, returns::Refusal> {
        let state = self.state(act.contest)?;
        if state.closed.is_some() {
            return Err(Reason::AlreadyClosed.into());
        }
        state.closed = Some(time);
        Ok(self.contest_changed(act.contest))
    }

    fn certify(&mut self, time: Timestamp, act: &ContestAct) -> Result<Delta, returns::Refusal> {
        let state = self.state(act.contest)?;
        if state.certified.is_some() && !state.corrected_since {
            return Err(Reason::Certified.into());
        }
        if !state.recounts.is_empty() {
            return Err(Reason::RecountOpen.into());
        }
        state.certified = Some(time);
        state.corrected_since = false;
        Ok(self.contest_changed(act.contest))
    }

    fn contest_changed(&mut self, contest: ContestId) -> Delta {
        self.changed_contests.insert(contest);
        Delta::Contest(contest)
    }

    /// Everything the board needs to know of this partition.
    pub fn partial(&self) -> Partial {
        let contests = (0..=u16::MAX).zip(&self.states).map(|(i, _)| ContestId(i));
        let cells = self.returns.cells.keys().copied().collect::<Vec<_>>();
        self.partial_of(cells, contests.collect())
    }

    /// What has changed since the last call.
    pub fn take_partial(&mut self) -> Partial {
        let cells = std::mem::take(&mut self.changed_cells).into_iter().collect();
        let contests = std::mem::take(&mut self.changed_contests).into_iter().collect();
        self.partial_of(cells, contests)
    }

    fn partial_of(&self, cells: Vec<Cell>, contests: Vec<ContestId>) -> Partial {
        let votes = contests.iter().filter_map(|c| self.vote_cell(*c));
        let values = cells.into_iter().map(|cell| (cell, self.returns.value(&cell)));
        Partial {
            partition: self.partition,
            end: self.end,
            time: self.time,
            cells: values.chain(votes).collect(),
            contests: contests.iter().map(|c| (*c, self.states[c.index()].clone())).collect(),
        }
    }

    /// The cell in which a live vote's contest is counted, once it has votes.
    fn vote_cell(&self, id: ContestId) -> Option<(Cell, CellValue)> {
        let contest = self.definition.as_ref()?.contest(id)?;
        let Counting::Votes(_) = contest.counting else { return None };
        let Ballots { votes, ballots } = self.ballots.get(id.index())?;
        if *ballots == 0 {
            return None;
        }
        let cell = Cell { contest: id, unit: contest.unit, count_type: contest.count_types()[0] };
        let counts = Counts { votes: votes.clone(), ballots: Some(*ballots), ..Counts::default() };
        Some((cell, CellValue { official: Some(counts), ..CellValue::default() }))
    }
}
