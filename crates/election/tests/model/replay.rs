//! The same events told in other words: other batches, retries in between, a snapshot on the way.

use std::collections::BTreeMap;

use canvass_election::ids::{Offset, RecordId};
use canvass_election::tally::{Outcome, Reason};
use canvass_election::{Event, Record, Tally};
use proptest::prelude::*;

use crate::CASES;
use crate::world::{self, Part, World};

/// The record with every id it names replaced.
fn renamed(record: &Record, id: RecordId, names: &BTreeMap<RecordId, RecordId>) -> Record {
    let mut record = Record { id, ..record.clone() };
    let named = match &mut record.event {
        Event::ReturnCorrected(c) => Some(&mut c.corrects),
        Event::ReturnReleased(answer) | Event::ReturnRejected(answer) => Some(&mut answer.held),
        Event::ContestCalled(a) | Event::ContestUncalled(a) | Event::CallDropped(a) => Some(&mut a.proposal),
        Event::RecountReported(counted) => Some(&mut counted.recount),
        Event::RecountClosed(closing) => Some(&mut closing.recount),
        _ => None,
    };
    if let Some(named) = named {
        *named = names.get(named).copied().unwrap_or(*named);
    }
    record
}

/// Whether the log may hold the record a second time without any effect.
fn may_be_retried(record: &Record, outcome: &Outcome) -> bool {
    match &record.event {
        Event::VoteCast(_) => matches!(outcome, Outcome::Counted(_) | Outcome::Duplicate { .. }),
        _ => *outcome != Outcome::Rejected(Reason::NotDefined),
    }
}

/// Folds the records of a partition anew: in batches as `cuts` say, with retries as `retries` say.
fn retold(part: &Part, cuts: &[u8], retries: &[u8]) -> Tally {
    let mut tally = Tally::new(part.tally.partition());
    let mut names = BTreeMap::new();
    let mut told: Vec<Record> = Vec::new();
    let mut id = RecordId { partition: part.tally.partition(), offset: Offset(0), position: 0 };
    for (i, (record, outcome)) in part.records.iter().zip(&part.outcomes).enumerate() {
        let new = renamed(record, id, &names);
        tally.apply(&new);
        names.insert(record.id, id);
        if may_be_retried(record, outcome) {
            told.push(new);
        }
        id = after(id, cuts[i % cuts.len()]);
        let retry = retries.get(i).filter(|r| **r % 4 == 0 && !told.is_empty());
        if let Some(retry) = retry {
            let first = &told[usize::from(*retry) % told.len()];
            let outcome = tally.apply(&Record { id, ..first.clone() });
            assert!(matches!(outcome, Outcome::Duplicate { .. } | Outcome::Rejected(Reason::AlreadyDefined)));
            id = after(id, cuts[i % cuts.len()].wrapping_mul(7));
        }
    }
    tally
}

fn after(id: RecordId, cut: u8) -> RecordId {
    match cut % 3 {
        0 => RecordId { position: id.position + 1, ..id },
        _ => RecordId { offset: id.offset.next(), position: 0, ..id },
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn batches_and_retries_leave_the_digest_alone(
        seed in world::seed(60),
        cuts in prop::collection::vec(any::<u8>(), 1..40),
        retries in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        for part in &World::run(&seed).parts {
            let digest = part.tally.digest();
            prop_assert_eq!(retold(part, &cuts, &[]).digest(), digest);
            let with_retries = retold(part, &cuts, &retries);
            prop_assert_eq!(with_retries.digest(), digest);
            prop_assert_eq!(with_retries.partial().cells, part.tally.partial().cells);
        }
    }

    #[test]
    fn a_snapshot_anywhere_goes_on_as_if_nothing_had_been(seed in world::seed(60), at in any::<prop::sample::Index>()) {
        for part in &World::run(&seed).parts {
            let mut tally = Tally::new(part.tally.partition());
            let cut = at.index(part.records.len() + 1);
            part.records[..cut].iter().for_each(|r| _ = tally.apply(r));
            let bytes = postcard::to_stdvec(&tally).expect("a tally is serialised");
            let mut read: Tally = postcard::from_bytes(&bytes).expect("and read again");
            prop_assert_eq!(&read, &tally);
            prop_assert_eq!(read.digest(), tally.digest());
            for (record, outcome) in part.records.iter().zip(&part.outcomes).skip(cut) {
                prop_assert_eq!(&read.apply(record), outcome);
            }
            prop_assert_eq!(read.digest(), part.tally.digest());
            prop_assert_eq!(read, part.tally.clone());
        }
    }
}
