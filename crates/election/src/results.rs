//! Partials of all partitions merged and summed up the tree of units: what readers are shown.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::definition::{Contest, ContestKind, CountItemType, Definition};
use crate::event::{Cell, Counts};
use crate::ids::{ContestId, Offset, PartitionId, SelectionId, Timestamp, UnitId};
use crate::tally::{CellValue, ContestState, Partial};

/// How far a contest's results are (NIST SP 1500-100 ResultsStatus).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResultsStatus {
    /// Nothing has been counted.
    PreElection,
    /// More is to come: units, count types or votes.
    UnofficialPartial,
    /// Every unit has reported every count type, or the desk has closed the contest.
    UnofficialComplete,
    /// A recount is open.
    Recount,
    /// Certified, and corrected since.
    Correction,
    /// Official.
    Certified,
}

impl ResultsStatus {
    /// The word used on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PreElection => "pre-election",
            Self::UnofficialPartial => "unofficial-partial",
            Self::UnofficialComplete => "unofficial-complete",
            Self::Recount => "recount",
            Self::Correction => "correction",
            Self::Certified => "certified",
        }
    }
}

/// Counts by count type.
pub type ByType = BTreeMap<CountItemType, Counts>;

/// The results of one contest in one unit with all below it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnitResults {
    /// Official counts by count type; a type nobody reported is absent.
    pub official: ByType,
    /// The same with the counts of open recounts in place of the official ones.
    pub provisional: ByType,
    /// Units without children, here or below, that reported.
    pub reporting: u32,
    /// Returns that wait for the desk, here or below.
    pub held: u32,
    /// Cells that have official counts, here and below.
    cells: u32,
    /// How many cells know their ballots, by position of the count type: where none does, the sum does not.
    official_ballots: Knowing,
    provisional_ballots: Knowing,
}

type Knowing = [u32; CountItemType::ALL.len()];

impl UnitResults {
    /// Official counts of all types together.
    pub fn total(&self, selections: usize) -> Counts {
        sum(&self.official, selections)
    }

    /// Counts of all types together with those of open recounts in place of the official ones.
    pub fn provisional_total(&self, selections: usize) -> Counts {
        sum(&self.provisional, selections)
    }
}

fn sum(by_type: &ByType, selections: usize) -> Counts {
    let mut total = Counts::zero(selections);
    by_type.values().for_each(|counts| total.add(counts));
    total
}

/// The results of one contest. Cloning is cheap, and a clone does not change with the original.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContestResults {
    /// Its state beside the counts.
    pub state: ContestState,
    units: BTreeMap<UnitId, Arc<UnitResults>>,
}

/// Stands for a unit nobody reported from.
static NOTHING: UnitResults = UnitResults {
    official: BTreeMap::new(),
    provisional: BTreeMap::new(),
    reporting: 0,
    held: 0,
    cells: 0,
    official_ballots: [0; CountItemType::ALL.len()],
    provisional_ballots: [0; CountItemType::ALL.len()],
};

impl ContestResults {
    /// The results of `unit` with all below it.
    pub fn unit(&self, unit: UnitId) -> &UnitResults {
        self.units.get(&unit).map_or(&NOTHING, Arc::as_ref)
    }

    /// Whether an open recount covers `unit` or lies within it.
    pub fn in_recount(&self, definition: &Definition, unit: UnitId) -> bool {
        let touches = |r: &UnitId| definition.is_within(unit, *r) || definition.is_within(*r, unit);
        self.state.recounts.values().any(touches)
    }

    /// Whether nothing more is to come from `unit`. Units report early votes long before their last ones: complete
    /// is what has every count type from every unit, or what the desk has closed.
    pub fn is_complete(&self, definition: &Definition, contest: &Contest, unit: UnitId) -> bool {
        let types = u32::try_from(contest.count_types().len()).unwrap_or(u32::MAX);
        let all_in = contest.voting().is_none()
            && u64::from(self.unit(unit).cells) == u64::from(definition.leaves(unit)) * u64::from(types);
        all_in || self.state.closed.is_some()
    }

    /// How far the results of `unit` are.
    pub fn status(&self, definition: &Definition, contest: &Contest, unit: UnitId) -> ResultsStatus {
        let results = self.unit(unit);
        let complete = self.is_complete(definition, contest, unit);
        if self.state.certified.is_some() {
            return if self.state.corrected_since {
                ResultsStatus::Correction
            } else {
                ResultsStatus::Certified
            };
        }
        if self.in_recount(definition, unit) {
            return ResultsStatus::Recount;
        }
        match (results.official.is_empty(), complete) {
            (_, true) => ResultsStatus::UnofficialComplete,
            (true, false) => ResultsStatus::PreElection,
            (false, false) => ResultsStatus::UnofficialPartial,
        }
    }
}

/// Who is ahead: for a measure the side it stands on, else the selections with the most votes, as many as
/// there are seats, the most votes first. A tie for the last seat leaves out all who share it, except that nobody
/// is left out of a tie for a single seat: all who share it are named.
pub fn leaders(contest: &Contest, counts: &Counts) -> Vec<SelectionId> {
    let total = counts.total();
    if total == 0 {
        return Vec::new();
    }
    if let ContestKind::BallotMeasure { threshold } = contest.kind {
        let passes = threshold.reached(counts.votes[0], total);
        return vec![SelectionId(u16::from(!passes))];
    }
    let mut ranked: Vec<(u64, SelectionId)> = counts
        .votes
        .iter()
        .copied()
        .zip((0..=u16::MAX).map(SelectionId))
        .filter(|(votes, _)| *votes > 0)
        .collect();
    ranked.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    let seats = usize::from(contest.max_choices());
    if let (Some(last), Some(next)) = (ranked[..seats.min(ranked.len())].last().copied(), ranked.get(seats))
        && last.0 == next.0
    {
        ranked.retain(|(votes, _)| if seats == 1 { *votes == last.0 } else { *votes > last.0 });
    } else {
        ranked.truncate(seats);
    }
    ranked.into_iter().map(|(_, selection)| selection).collect()
}

/// `votes` out of `total` in hundredths of a percent, rounded half up; none while there are no votes.
pub fn share(votes: u64, total: u64) -> Option<u64> {
    let scaled = u128::from(votes) * 20_000 + u128::from(total);
    let share = scaled.checked_div(u128::from(total) * 2)?;
    u64::try_from(share).ok()
}

/// The results of the whole election at one moment. Cloning is cheap, and a clone does not change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Results {
    /// The results of each contest, in the definition's order.
    pub contests: Vec<Arc<ContestResults>>,
    /// One offset a partition: these results are the sum of exactly the batches before them.
    pub watermark: BTreeMap<PartitionId, Offset>,
    /// The time of the last record in these results.
    pub time: Timestamp,
}

/// Merges partials into [`Results`].
#[derive(Debug)]
pub struct Merge {
    definition: Arc<Definition>,
    results: Results,
    /// What was last merged of each partition.
    cells: BTreeMap<(PartitionId, Cell), CellValue>,
    states: BTreeMap<(ContestId, PartitionId), ContestState>,
}

impl Merge {
    /// Starts with no records at all.
    pub fn new(definition: Arc<Definition>) -> Self {
        let contests = definition.contests.iter().map(|_| Arc::default()).collect();
        let results = Results { contests, watermark: BTreeMap::new(), time: Timestamp(0) };
        Merge { definition, results, cells: BTreeMap::new(), states: BTreeMap::new() }
    }

    /// The results as merged so far.
    pub fn results(&self) -> &Results {
        &self.results
    }

    /// Takes in a partial, whole or of what changed; one that is older than what was merged is ignored.
    /// Returns the contests that changed.
    pub fn merge(&mut self, partial: &Partial) -> Vec<ContestId> {
        let end = self.results.watermark.entry(partial.partition).or_default();
        if partial.end < *end {
            return Vec::new();
        }
        *end = partial.end;
        self.results.time = self.results.time.max(partial.time);
        let mut changed = Vec::new();
        let contests = self.results.contests.len();
        for (cell, after) in partial.cells.iter().filter(|(cell, _)| cell.contest.index() < contests) {
            let before = self.cells.insert((partial.partition, *cell), after.clone()).unwrap_or_default();
            if before != *after {
                Self::move_sums(&self.definition, &mut self.results.contests, *cell, &before, after);
                changed.push(cell.contest);
            }
        }
        for (contest, state) in partial.contests.iter().filter(|(contest, _)| contest.index() < contests) {
            self.states.insert((*contest, partial.partition), state.clone());
            let results = &mut self.results.contests[contest.index()];
            let state = merged_state(&self.states, *contest);
            if results.state != state {
                Arc::make_mut(results).state = state;
                changed.push(*contest);
            }
        }
        changed.sort_unstable();
        changed.dedup();
        changed
    }

    fn move_sums(
        definition: &Definition,
        contests: &mut [Arc<ContestResults>],
        cell: Cell,
        before: &CellValue,
        after: &CellValue,
    ) {
        let contest = Arc::make_mut(&mut contests[cell.contest.index()]);
        let (then, now) = (u32::from(before.official.is_some()), u32::from(after.official.is_some()));
        let cells = contest.unit(cell.unit).cells;
        let (was, is) = (u32::from(cells > 0), u32::from(cells + now > then));
        let top = definition.contest(cell.contest).map(|c| c.unit);
        for unit in definition.ancestry(cell.unit) {
            let results = Arc::make_mut(contest.units.entry(unit).or_default());
            results.cells = results.cells + now - then;
            let (then, now) = (before.official.as_ref(), after.official.as_ref());
            replace(&mut results.official, &mut results.official_ballots, cell, then, now);
            let (then, now) = (before.provisional_or_official(), after.provisional_or_official());
            replace(&mut results.provisional, &mut results.provisional_ballots, cell, then, now);
            results.reporting = results.reporting + is - was;
            results.held = results.held + after.held - before.held;
            // A held return that was rejected leaves nothing, and then equal results are equal.
            if *results == NOTHING {
                contest.units.remove(&unit);
            }
            if Some(unit) == top {
                break;
            }
        }
    }
}

fn replace(
    sums: &mut ByType,
    knowing: &mut Knowing,
    cell: Cell,
    before: Option<&Counts>,
    after: Option<&Counts>,
) {
    if before.is_none() && after.is_none() {
        return;
    }
    let sum = sums.entry(cell.count_type).or_default();
    if let Some(after) = after {
        sum.add(after);
    }
    if let Some(before) = before {
        sum.subtract(before);
    }
    let knows = |counts: Option<&Counts>| u32::from(counts.is_some_and(|c| c.ballots.is_some()));
    let knowing = &mut knowing[cell.count_type as usize];
    *knowing = *knowing + knows(after) - knows(before);
    if *knowing == 0 {
        sum.ballots = None;
    }
}

/// The state of a contest from what each partition told. The control partition decides; the other partitions
/// of returns add the recounts that are open in their units, and the corrections they counted.
fn merged_state(told: &BTreeMap<(ContestId, PartitionId), ContestState>, contest: ContestId) -> ContestState {
    let mut merged = told.get(&(contest, PartitionId::CONTROL)).cloned().unwrap_or_default();
    let returns = (contest, PartitionId::returns(0))..=(contest, PartitionId::returns(u16::MAX));
    for state in told.range(returns).map(|(_, state)| state) {
        merged.recounts.extend(&state.recounts);
        merged.corrected_since |= state.corrected_since;
    }
    merged
}
