use std::collections::BTreeMap;

use canvass_election::definition::CountItemType;
use canvass_election::event::{
    Actor, CallAnswer, CallProposal, Cell, ContestAct, Correction, Event, HeldAnswer, Record, RecountClosing,
    RecountOpening, RecountReturn, Return,
};
use canvass_election::ids::{Offset, PartitionId, RecordId, RequestId, SelectionId, Timestamp};
use canvass_election::{Outcome, Tally};
use canvass_protocol::definition::{from_value, to_value};

use super::*;

/// The event that the API makes of a step.
fn event(night: &Night, records: &BTreeMap<&str, RecordId>, action: &Action) -> Event {
    let definition = &night.definition;
    let actor = Actor("desk".to_owned());
    let contest_of = |id: &str| definition.contest_by_id(id).unwrap();
    let reported = |request: &ReturnRequest| {
        let contest = contest_of(&request.contest);
        let unit = definition.unit_by_id(&request.unit).unwrap();
        let count_type = CountItemType::parse(&request.count_type).unwrap();
        let counts = request.counts.to_counts(&definition.contests[contest.index()], "").unwrap();
        let cell = Cell { contest, unit, count_type };
        Return { cell, counts, stated_total: request.total, source: actor.clone() }
    };
    match action.clone() {
        Action::Return(request) => Event::ReturnReported(reported(&request)),
        Action::Correct { of, counts, reason } => {
            let contest = definition.contests.iter().find(|c| counts.to_counts(c, "").is_ok()).unwrap();
            let counts = counts.to_counts(contest, "").unwrap();
            let corrects = records[of.as_str()];
            Event::ReturnCorrected(Correction { corrects, reason, actor, counts })
        }
        Action::Release { of, reason } => {
            Event::ReturnReleased(HeldAnswer { held: records[of.as_str()], reason, actor })
        }
        Action::Reject { of, reason } => {
            Event::ReturnRejected(HeldAnswer { held: records[of.as_str()], reason, actor })
        }
        Action::OpenRecount { contest, unit, reason } => {
            let (contest, unit) = (contest_of(&contest), definition.unit_by_id(&unit).unwrap());
            Event::RecountOpened(RecountOpening { contest, unit, reason, actor })
        }
        Action::Recount { of, found } => Event::RecountReported(RecountReturn {
            recount: records[of.as_str()],
            reported: reported(&found),
        }),
        Action::CloseRecount { of, reason } => {
            Event::RecountClosed(RecountClosing { recount: records[of.as_str()], reason, actor })
        }
        Action::ProposeCall { contest, winners, reason } => {
            let contest = contest_of(&contest);
            let selection = |id: &String| definition.contests[contest.index()].selection_by_id(id).unwrap();
            let mut winners: Vec<SelectionId> = winners.iter().map(selection).collect();
            winners.sort_unstable();
            let winners = Some(winners.into_iter().collect());
            Event::CallProposed(CallProposal { contest, winners, reason, projection: None, actor })
        }
        Action::ConfirmCall { of, reason } => {
            let id = of.split('/').nth(1).expect("the step's key names the contest").to_owned();
            let (contest, proposal) = (contest_of(&id), records[of.as_str()]);
            Event::ContestCalled(CallAnswer { contest, proposal, reason, actor: Actor("second".into()) })
        }
        Action::Certify { contest, reason } => {
            Event::ContestCertified(ContestAct { contest: contest_of(&contest), reason, actor })
        }
    }
}

/// Folds the night, and counts what was held and corrected.
fn fold(night: &Night) -> (Tally, usize, usize) {
    let mut tally = Tally::new(PartitionId::CONTROL);
    let (mut held, mut corrections) = (0, 0);
    let mut records = BTreeMap::new();
    let defined = Event::ElectionDefined(night.definition.clone());
    let steps = night.script.iter().map(Some);
    for (offset, step) in (0u64..).zip(std::iter::once(None).chain(steps)) {
        let id = RecordId { partition: PartitionId::CONTROL, offset: Offset(offset), position: 0 };
        let mut request = RequestId([0; 16]);
        request.0[..8].copy_from_slice(&offset.to_le_bytes());
        let event = step.map_or_else(|| defined.clone(), |step| event(night, &records, &step.action));
        let outcome = tally.apply(&Record { id, time: Timestamp(offset), request, event });
        let Some(step) = step else { continue };
        records.insert(step.key.as_str(), id);
        match outcome {
            Outcome::Counted(_) => corrections += usize::from(matches!(step.action, Action::Correct { .. })),
            Outcome::Held(_) => held += 1,
            other => panic!("{step:?}: {other:?}"),
        }
    }
    (tally, held, corrections)
}

#[test]
fn every_night_counts_as_it_is_written() {
    for seed in 0..30 {
        let night = Night::generate(seed);
        let (tally, held, corrections) = fold(&night);
        assert_eq!(held, 2, "seed {seed}: a doubling and a lower count are held, and nothing else");
        assert_eq!(tally.held().count(), 0, "seed {seed}: the desk answered both");
        assert!((5..=7).contains(&corrections), "seed {seed}");
        let partial = tally.partial();
        let returns = partial
            .contests
            .iter()
            .filter(|(id, _)| night.definition.contests[id.index()].voting().is_none());
        for (id, state) in returns {
            assert!(state.certified.is_some() && state.called.is_some(), "seed {seed}: contest {id:?}");
            assert!(state.recounts.is_empty());
        }
        let hours = night.length().as_secs() / 3_600;
        assert!((6..10).contains(&hours), "{hours} hours");
        let leaves = night.definition.leaves(canvass_election::ids::UnitId(0));
        assert!((240..=480).contains(&leaves), "{leaves} precincts");
    }
}

#[test]
fn a_night_follows_from_its_seed_and_is_test_data() {
    let night = Night::generate(9);
    assert_eq!(night, Night::generate(9));
    assert_ne!(night.script, Night::generate(10).script);
    assert!(night.definition.is_test);
    assert_eq!(from_value(&to_value(&night.definition)).unwrap(), night.definition);
    let keys: std::collections::BTreeSet<&str> = night.script.iter().map(|s| s.key.as_str()).collect();
    assert_eq!(keys.len(), night.script.len(), "every step has its own key");
}
