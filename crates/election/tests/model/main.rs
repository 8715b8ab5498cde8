//! The fold against a slow second version of it, and against itself told in other words.

mod calls;
mod merging;
mod naive;
mod replay;
mod world;

use std::collections::BTreeMap;

use canvass_election::definition::CountItemType;
use canvass_election::event::Cell;
use canvass_election::ids::{ContestId, PartitionId, Topic, UnitId};
use canvass_election::results::{ByType, ResultsStatus};
use canvass_election::tally::ContestState;
use canvass_election::{Definition, Merge};
use proptest::prelude::*;

use naive::{is_leaf, within};
use world::World;

/// How many random elections each property is tried on.
pub(crate) const CASES: u32 = 256;

pub(crate) fn units(definition: &Definition) -> impl Iterator<Item = UnitId> + use<> {
    (0..u32::try_from(definition.units.len()).expect("few")).map(UnitId)
}

fn cells(definition: &Definition, contest: ContestId) -> impl Iterator<Item = Cell> + use<> {
    let of_unit = move |unit| CountItemType::ALL.map(|count_type| Cell { contest, unit, count_type });
    units(definition).flat_map(of_unit)
}

/// What a contest's state should be for readers: the control partition's, with all recounts and corrections.
fn state(world: &World, contest: ContestId) -> ContestState {
    let returns = world.parts.iter().filter(|p| p.tally.partition().topic == Topic::Returns);
    let control = returns.clone().find(|p| p.tally.partition() == PartitionId::CONTROL);
    let mut state = control.expect("the control partition").naive.state(contest);
    for own in returns.map(|p| p.naive.state(contest)) {
        state.recounts.extend(own.recounts);
        state.corrected_since |= own.corrected_since;
    }
    state
}

#[derive(Default)]
struct Sums {
    official: ByType,
    provisional: ByType,
    reporting: u32,
    /// Counts of one unit and count type that are in.
    settled: usize,
    held: u32,
}

/// What readers should be shown of a contest in a unit, added up cell by cell.
fn sums(world: &World, id: ContestId, unit: UnitId) -> Sums {
    let (definition, mut sums) = (&world.definition, Sums::default());
    let district = definition.contests[id.index()].unit;
    if !within(definition, unit, district) {
        return sums;
    }
    let (mut official, mut provisional) = (BTreeMap::new(), BTreeMap::new());
    let mut reporting = Vec::new();
    for part in &world.parts {
        for cell in cells(definition, id).filter(|cell| within(definition, cell.unit, unit)) {
            let (counts, instead, held) = part.naive.cell(cell);
            if let Some(counts) = counts {
                naive::add(official.entry(cell.count_type).or_insert(None), &counts);
                reporting.push(cell.unit);
                sums.settled += 1;
            }
            if let Some(counts) = instead {
                naive::add(provisional.entry(cell.count_type).or_insert(None), &counts);
            }
            sums.held += held;
        }
    }
    reporting.sort_unstable();
    reporting.dedup();
    sums.reporting = u32::try_from(reporting.len()).expect("few");
    sums.official = official.into_iter().filter_map(|(t, counts)| Some((t, counts?))).collect();
    sums.provisional = provisional.into_iter().filter_map(|(t, counts)| Some((t, counts?))).collect();
    sums
}

fn status(world: &World, id: ContestId, unit: UnitId, sums: &Sums) -> ResultsStatus {
    let (definition, state) = (&world.definition, state(world, id));
    if state.certified.is_some() {
        return if state.corrected_since { ResultsStatus::Correction } else { ResultsStatus::Certified };
    }
    let touches = |r: &UnitId| within(definition, *r, unit) || within(definition, unit, *r);
    if state.recounts.values().any(touches) {
        return ResultsStatus::Recount;
    }
    let leaves =
        units(definition).filter(|u| is_leaf(definition, *u) && within(definition, *u, unit)).count();
    let contest = &definition.contests[id.index()];
    let all = contest.voting().is_none() && sums.settled == leaves * contest.count_types().len();
    let complete = all || state.closed.is_some();
    match (complete, sums.official.is_empty()) {
        (true, _) => ResultsStatus::UnofficialComplete,
        (false, true) => ResultsStatus::PreElection,
        (false, false) => ResultsStatus::UnofficialPartial,
    }
}

fn compare_results(world: &World, merge: &Merge) {
    for (id, contest) in world.definition.contest_ids() {
        let results = &merge.results().contests[id.index()];
        assert_eq!(results.state, state(world, id), "{id:?}");
        for unit in units(&world.definition) {
            let (shown, sums) = (results.unit(unit), sums(world, id, unit));
            assert_eq!(shown.official, sums.official, "{id:?} {unit:?}");
            assert_eq!(shown.provisional, sums.provisional, "{id:?} {unit:?}");
            assert_eq!((shown.reporting, shown.held), (sums.reporting, sums.held), "{id:?} {unit:?}");
            let told = results.status(&world.definition, contest, unit);
            assert_eq!(told, status(world, id, unit, &sums), "{id:?} {unit:?}");
        }
    }
}

/// The tally's own answers: held returns, voters, and what each of its records did.
fn compare_tallies(world: &World) {
    for part in &world.parts {
        let held: Vec<_> =
            part.tally.held().map(|(id, held)| (*id, held.reported.clone(), held.reason)).collect();
        assert_eq!(held, part.naive.held());
        let mut voters: Vec<_> = part.naive.votes().map(|(_, vote)| vote.nullifier).collect();
        voters.sort_unstable();
        voters.dedup();
        assert_eq!(part.tally.voters(), voters.len());
        for voter in voters {
            let cast = part.tally.cast(&voter).expect("they voted");
            let (record, last) =
                part.naive.votes().filter(|(_, vote)| vote.nullifier == voter).last().expect("they voted");
            assert_eq!((cast.record, cast.choices), (record.id, last.choices.clone()));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    /// Both folds agree on every record (the world compares them as it runs) and on what readers see.
    #[test]
    fn the_fold_is_the_sum_of_its_records(seed in world::seed(60)) {
        let mut world = World::new(seed.definition(), seed.events.len() % 8 == 0);
        let mut merge = Merge::new(seed.definition().into());
        for (i, raw) in seed.events.iter().enumerate() {
            world.step(*raw);
            if i % 6 == 0 {
                merging::merge_changes(&mut world, &mut merge);
                compare_results(&world, &merge);
            }
        }
        merging::merge_changes(&mut world, &mut merge);
        compare_results(&world, &merge);
        compare_tallies(&world);
    }
}
