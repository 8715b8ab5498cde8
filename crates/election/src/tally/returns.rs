//! Returns, corrections, holds and recounts: cumulative counts turned into deltas.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{CellChange, CellValue, Delta, Outcome, Reason, Tally};
use crate::definition::{CountItemType, Counting, Definition};
use crate::event::{
    Cell, Correction, Counts, HeldAnswer, Record, RecountClosing, RecountOpening, RecountReturn, Return,
};
use crate::ids::{ContestId, RecordId, RequestId, UnitId};

/// From these [`odds`] on, an exact doubling, or a row equal to a parent's sum, is no coincidence: among a hundred
/// thousand honest returns about one would be held.
pub const DOUBLING_ODDS: u128 = 100_000;

/// From these [`odds`] on, the numbers of another unit are no coincidence. The line is higher, since a return is
/// compared with every unit's: a hundred thousand units make five billion pairs.
pub const REPLAY_ODDS: u128 = 10_000_000_000;

/// How many different returns are about as likely as this one: the product of its votes, since a number of a
/// size of *n* may well have been any of some *n* others. 300 and 400 votes give 120,000.
pub fn odds(counts: &Counts) -> u128 {
    counts.votes.iter().fold(1, |product, votes| product.saturating_mul(u128::from(*votes).max(1)))
}

/// Units that must have reported before a row equal to their sum is taken for a parent's total.
pub const UNITS_FOR_PARENT_RULE: usize = 3;

/// Why a return waits for the desk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HoldReason {
    /// A number is lower than the one that stands, and the return is not a correction.
    LowerCount {
        /// The record that stands.
        standing: RecordId,
    },
    /// More votes than the ballots could hold.
    VotesAboveBallots,
    /// More ballots, or votes, than registered voters could cast.
    AboveRegistered,
    /// The votes do not add up to the total the source states.
    PartsNotTotal,
    /// Every number is exactly twice what it was.
    Doubling {
        /// The record that stands.
        standing: RecordId,
    },
    /// Another unit reported exactly these numbers.
    Replayed {
        /// That unit's record.
        of: RecordId,
    },
    /// The numbers are those of a unit above this one.
    ParentTotal {
        /// That unit.
        unit: UnitId,
    },
    /// A recount is open here; its numbers come as recount returns.
    UnderRecount {
        /// The record that opened it.
        recount: RecordId,
    },
}

/// A return that waits for the desk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldReturn {
    /// What was reported.
    pub reported: Return,
    /// Why it waits.
    pub reason: HoldReason,
}

/// What a record of the returns did, remembered so that a retry gets the same answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Remembered {
    /// It counted.
    Counted,
    /// It was held.
    Held(HoldReason),
    /// It was refused.
    Rejected(Reason),
}

/// A record does not count at once.
pub(super) enum Refusal {
    Held(HoldReason),
    Rejected(Reason),
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Refusal::Rejected(reason)
    }
}

/// Counts and the record that made them stand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Standing {
    pub(super) counts: Counts,
    record: RecordId,
    /// The record that stated them: the held return where `record` released it.
    stated: RecordId,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CellState {
    pub(super) official: Option<Standing>,
    pub(super) provisional: Option<Standing>,
    held: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Returns {
    pub(super) cells: BTreeMap<Cell, CellState>,
    pub(super) held: BTreeMap<RecordId, HeldReturn>,
    pub(super) requests: BTreeMap<RequestId, RecordId>,
    pub(super) outcomes: BTreeMap<RecordId, Remembered>,
    /// The cell of every record whose official counts stand.
    standing: BTreeMap<RecordId, Cell>,
    /// Official sums of every unit that is or has a part that reported, with the number of such parts.
    sums: BTreeMap<Cell, (Counts, usize)>,
    /// Who first reported a payload, where it is too large to be a coincidence.
    payloads: BTreeMap<(ContestId, CountItemType, Vec<u64>), (UnitId, RecordId)>,
}

impl Returns {
    pub(super) fn value(&self, cell: &Cell) -> CellValue {
        self.cells.get(cell).map_or_else(CellValue::default, |state| CellValue {
            official: state.official.as_ref().map(|s| s.counts.clone()),
            provisional: state.provisional.as_ref().map(|s| s.counts.clone()),
            held: state.held,
        })
    }

    pub(super) fn remember(&mut self, record: &Record, outcome: &Outcome) {
        let remembered = match outcome {
            Outcome::Counted(_) => Remembered::Counted,
            Outcome::Held(reason) => Remembered::Held(*reason),
            Outcome::Rejected(reason) => Remembered::Rejected(*reason),
            Outcome::Duplicate { .. } => return,
        };
        self.requests.insert(record.request, record.id);
        self.outcomes.insert(record.id, remembered);
    }

    fn official(&self, cell: &Cell) -> Option<&Standing> {
        self.cells.get(cell)?.official.as_ref()
    }

    /// Makes `counts` the official counts of the cell, and moves the sums above it by the difference.
    fn set_official(&mut self, definition: &Definition, cell: Cell, standing: Standing) {
        let Standing { counts, record, .. } = &standing;
        let before = self.cells.entry(cell).or_default().official.take();
        for unit in definition.ancestry(cell.unit) {
            let (sum, parts) = self.sums.entry(Cell { unit, ..cell }).or_default();
            match &before {
                Some(before) => sum.subtract(&before.counts),
                None => *parts += 1,
            }
            sum.add(counts);
        }
        if let Some(before) = before {
            self.standing.remove(&before.record);
        }
        self.standing.insert(*record, cell);
        if odds(counts) >= REPLAY_ODDS {
            let payload = (cell.contest, cell.count_type, counts.votes.clone());
            self.payloads.entry(payload).or_insert((cell.unit, *record));
        }
        self.cells.entry(cell).or_default().official = Some(standing);
    }

    fn hold(&mut self, record: RecordId, reported: &Return, reason: HoldReason) -> Refusal {
        self.held.insert(record, HeldReturn { reported: reported.clone(), reason });
        self.cells.entry(reported.cell).or_default().held += 1;
        Refusal::Held(reason)
    }

    fn unhold(&mut self, record: &RecordId) -> Option<HeldReturn> {
        let held = self.held.remove(record)?;
        self.cells.entry(held.reported.cell).or_default().held -= 1;
        Some(held)
    }
}

impl Tally {
    pub(super) fn report(
        &mut self,
        definition: &Definition,
        id: RecordId,
        reported: &Return,
    ) -> Result<Delta, Refusal> {
        let cell = reported.cell;
        self.check_return(definition, reported)?;
        let state = &self.states[cell.contest.index()];
        if state.certified.is_some() {
            return Err(Reason::Certified.into());
        }
        let recount = state.recounts.iter().find(|(_, unit)| definition.is_within(cell.unit, **unit));
        let hold = match recount {
            Some((recount, _)) => Some(HoldReason::UnderRecount { recount: *recount }),
            None => self.hold_reason(definition, reported),
        };
        if let Some(reason) = hold {
            self.changed_cells.insert(cell);
            return Err(self.returns.hold(id, reported, reason));
        }
        let standing = Standing { counts: reported.counts.clone(), record: id, stated: id };
        Ok(self.count(definition, cell, standing))
    }

    pub(super) fn correct(
        &mut self,
        definition: &Definition,
        id: RecordId,
        correction: &Correction,
    ) -> Result<Delta, Refusal> {
        let cell = *self.returns.standing.get(&correction.corrects).ok_or(Reason::NotStanding)?;
        let contest = definition.contest(cell.contest).ok_or(Reason::UnknownContest)?;
        if !correction.counts.fit(contest.selections.len()) {
            return Err(Reason::BadCounts.into());
        }
        let state = &mut self.states[cell.contest.index()];
        if state.recounts.values().any(|unit| definition.is_within(cell.unit, *unit)) {
            return Err(Reason::RecountOpen.into());
        }
        if state.certified.is_some() {
            state.corrected_since = true;
            self.changed_contests.insert(cell.contest);
        }
        let standing = Standing { counts: correction.counts.clone(), record: id, stated: id };
        Ok(self.count(definition, cell, standing))
    }

    pub(super) fn release(
        &mut self,
        definition: &Definition,
        id: RecordId,
        answer: &HeldAnswer,
    ) -> Result<Delta, Refusal> {
        let held = self.returns.held.get(&answer.held).ok_or(Reason::NotHeld)?;
        let cell = held.reported.cell;
        let state = &self.states[cell.contest.index()];
        if state.certified.is_some() {
            return Err(Reason::Certified.into());
        }
        if self.returns.official(&cell).is_some_and(|standing| standing.stated > answer.held) {
            return Err(Reason::Superseded.into());
        }
        if state.recounts.values().any(|unit| definition.is_within(cell.unit, *unit)) {
            return Err(Reason::RecountOpen.into());
        }
        let before = self.returns.value(&cell);
        let standing = Standing { counts: held.reported.counts.clone(), record: id, stated: answer.held };
        self.returns.unhold(&answer.held);
        self.returns.set_official(definition, cell, standing);
        Ok(self.changed(cell, before))
    }

    pub(super) fn reject(&mut self, answer: &HeldAnswer) -> Result<Delta, Refusal> {
        let cell = self.returns.held.get(&answer.held).ok_or(Reason::NotHeld)?.reported.cell;
        let before = self.returns.value(&cell);
        self.returns.unhold(&answer.held);
        self.changed_cells.insert(cell);
        Ok(self.changed(cell, before))
    }

    pub(super) fn open_recount(
        &mut self,
        definition: &Definition,
        id: RecordId,
        opening: &RecountOpening,
    ) -> Result<Delta, Refusal> {
        let contest = definition.contest(opening.contest).ok_or(Reason::UnknownContest)?;
        if contest.voting().is_some() {
            return Err(Reason::UnknownContest.into());
        }
        if definition.unit(opening.unit).is_none() || !definition.is_within(opening.unit, contest.unit) {
            return Err(Reason::UnknownUnit.into());
        }
        let state = &mut self.states[opening.contest.index()];
        if state.certified.is_some() {
            return Err(Reason::Certified.into());
        }
        let overlaps = |unit: &UnitId| {
            definition.is_within(*unit, opening.unit) || definition.is_within(opening.unit, *unit)
        };
        if state.recounts.values().any(overlaps) {
            return Err(Reason::RecountOpen.into());
        }
        state.recounts.insert(id, opening.unit);
        self.changed_contests.insert(opening.contest);
        Ok(Delta::Contest(opening.contest))
    }

    pub(super) fn recount(
        &mut self,
        definition: &Definition,
        id: RecordId,
        counted: &RecountReturn,
    ) -> Result<Delta, Refusal> {
        let cell = counted.reported.cell;
        self.check_return(definition, &counted.reported)?;
        let unit = self.states[cell.contest.index()].recounts.get(&counted.recount);
        let unit = *unit.ok_or(Reason::NoSuchRecount)?;
        if !definition.is_within(cell.unit, unit) {
            return Err(Reason::OutsideRecount.into());
        }
        let before = self.returns.value(&cell);
        let counts = counted.reported.counts.clone();
        self.returns.cells.entry(cell).or_default().provisional =
            Some(Standing { counts, record: id, stated: id });
        Ok(self.changed(cell, before))
    }

    pub(super) fn close_recount(
        &mut self,
        definition: &Definition,
        closing: &RecountClosing,
    ) -> Result<Delta, Refusal> {
        let mut open = self.states.iter_mut().zip(0..=u16::MAX);
        let (contest, unit) = open
            .find_map(|(state, i)| Some((ContestId(i), state.recounts.remove(&closing.recount)?)))
            .ok_or(Reason::NoSuchRecount)?;
        self.changed_contests.insert(contest);
        let recounted = |(cell, state): (&Cell, &CellState)| {
            let inside = cell.contest == contest && definition.is_within(cell.unit, unit);
            (inside && state.provisional.is_some()).then_some(*cell)
        };
        let cells: Vec<Cell> = self.returns.cells.iter().filter_map(recounted).collect();
        let mut changes = Vec::with_capacity(cells.len());
        for cell in cells {
            let before = self.returns.value(&cell);
            let counted = self.returns.cells.entry(cell).or_default().provisional.take();
            if let Some(standing) = counted {
                self.returns.set_official(definition, cell, standing);
            }
            self.changed_cells.insert(cell);
            changes.push(CellChange { cell, before, after: self.returns.value(&cell) });
        }
        Ok(Delta::Cells(changes))
    }

    fn count(&mut self, definition: &Definition, cell: Cell, standing: Standing) -> Delta {
        let before = self.returns.value(&cell);
        self.returns.set_official(definition, cell, standing);
        self.changed(cell, before)
    }

    fn changed(&mut self, cell: Cell, before: CellValue) -> Delta {
        self.changed_cells.insert(cell);
        Delta::Cells(vec![CellChange { cell, before, after: self.returns.value(&cell) }])
    }

    /// Whether the return speaks of something the election has.
    fn check_return(&self, definition: &Definition, reported: &Return) -> Result<(), Reason> {
        let Cell { contest, unit, count_type } = reported.cell;
        let contest = definition.contest(contest).ok_or(Reason::UnknownContest)?;
        let Counting::Returns { count_types } = &contest.counting else {
            return Err(Reason::UnknownContest);
        };
        let reports = definition.unit(unit).is_some() && definition.children(unit).is_empty();
        if !reports || !definition.is_within(unit, contest.unit) {
            return Err(Reason::UnknownUnit);
        }
        if !count_types.contains(&count_type) {
            return Err(Reason::UnknownCountType);
        }
        if !reported.counts.fit(contest.selections.len()) {
            return Err(Reason::BadCounts);
        }
        Ok(())
    }

    /// The first hard rule that the return breaks.
    fn hold_reason(&self, definition: &Definition, reported: &Return) -> Option<HoldReason> {
        let Return { cell, counts, stated_total, .. } = reported;
        let total = counts.total();
        if stated_total.is_some_and(|stated| stated != total) {
            return Some(HoldReason::PartsNotTotal);
        }
        let contest = definition.contest(cell.contest)?;
        let choices = u64::from(contest.max_choices());
        let given = total + counts.overvotes + counts.undervotes;
        if counts.ballots.is_some_and(|ballots| given > ballots.saturating_mul(choices)) {
            return Some(HoldReason::VotesAboveBallots);
        }
        if self.above_registered(definition, cell, counts, choices) {
            return Some(HoldReason::AboveRegistered);
        }
        if let Some(standing) = self.returns.official(cell) {
            if counts.falls_below(&standing.counts) {
                return Some(HoldReason::LowerCount { standing: standing.record });
            }
            if counts.votes == standing.counts.votes {
                return None;
            }
            let twice = counts.votes.iter().zip(&standing.counts.votes).all(|(now, then)| *now == 2 * then);
            if twice && odds(counts) >= DOUBLING_ODDS {
                return Some(HoldReason::Doubling { standing: standing.record });
            }
        }
        if odds(counts) < DOUBLING_ODDS {
            return None;
        }
        if let Some(unit) = self.parent_with_total(definition, cell, counts) {
            return Some(HoldReason::ParentTotal { unit });
        }
        let payload = (cell.contest, cell.count_type, counts.votes.clone());
        match self.returns.payloads.get(&payload) {
            Some((unit, of)) if *unit != cell.unit => Some(HoldReason::Replayed { of: *of }),
            _ => None,
        }
    }

    /// Whether the unit's ballots over all count types, or the votes they imply, exceed its registered voters.
    fn above_registered(&self, definition: &Definition, cell: &Cell, counts: &Counts, choices: u64) -> bool {
        let Some(registered) = definition.unit(cell.unit).and_then(|u| u.registered) else { return false };
        let Some(contest) = definition.contest(cell.contest) else { return false };
        let mut all = counts.clone();
        for count_type in contest.count_types().iter().filter(|t| **t != cell.count_type) {
            if let Some(other) = self.returns.official(&Cell { count_type: *count_type, ..*cell }) {
                all.add(&other.counts);
            }
        }
        all.total() > registered.saturating_mul(choices) || all.ballots.is_some_and(|b| b > registered)
    }

    /// A unit above this one whose sum, with or without this cell's old part, is what the return says.
    fn parent_with_total(&self, definition: &Definition, cell: &Cell, counts: &Counts) -> Option<UnitId> {
        let own = self.returns.official(cell);
        definition.ancestry(cell.unit).skip(1).find(|unit| {
            let Some((sum, parts)) = self.returns.sums.get(&Cell { unit: *unit, ..*cell }) else {
                return false;
            };
            let others = parts - usize::from(own.is_some());
            let mut without = sum.clone();
            if let Some(own) = own {
                without.subtract(&own.counts);
            }
            others >= UNITS_FOR_PARENT_RULE && (counts.votes == sum.votes || counts.votes == without.votes)
        })
    }
}
