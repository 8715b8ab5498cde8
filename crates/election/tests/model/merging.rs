//! Partials: in any portions, in any order between partitions, from any owner, they come to the same results.

use std::sync::Arc;

use canvass_election::tally::{Delta, Outcome, Partial};
use canvass_election::{Merge, Tally};
use proptest::prelude::*;

use crate::CASES;
use crate::world::{self, World};

pub(crate) fn merge_changes(world: &mut World, merge: &mut Merge) {
    for part in &mut world.parts {
        merge.merge(&part.tally.take_partial());
    }
}

/// All partitions merged whole, the last one first.
fn whole(world: &World) -> Merge {
    let mut merge = Merge::new(Arc::new(world.definition.clone()));
    world.parts.iter().rev().for_each(|part| _ = merge.merge(&part.tally.partial()));
    merge
}

/// The partials an owner publishes who folds all records and tells at the moments `cuts` say; the first is
/// whole, since an owner does not know what was told before it.
fn published(tally: &mut Tally, world: &World, part: usize, cuts: &[u8]) -> Vec<Partial> {
    let records = &world.parts[part].records;
    let mut partials = Vec::new();
    for (i, record) in records.iter().enumerate() {
        tally.apply(record);
        let whole_batch = records.get(i + 1).is_none_or(|next| next.id.offset != record.id.offset);
        if whole_batch && cuts[i % cuts.len()].is_multiple_of(3) {
            let changes = tally.take_partial();
            partials.push(if partials.is_empty() { tally.partial() } else { changes });
        }
    }
    let changes = tally.take_partial();
    partials.push(if partials.is_empty() { tally.partial() } else { changes });
    partials
}

/// Takes from the front of one of the queues after the other, as `order` says.
fn interleave(queues: Vec<Vec<Partial>>, order: &[u8]) -> Vec<Partial> {
    let mut queues: Vec<_> = queues.into_iter().map(Vec::into_iter).collect();
    let mut all = Vec::new();
    let mut left: usize = queues.iter().map(|q| q.len()).sum();
    let mut turn = order.iter().cycle();
    while left > 0 {
        queues.retain(|q| q.len() > 0);
        let chosen = usize::from(*turn.next().expect("it cycles")) % queues.len();
        all.extend(queues[chosen].next());
        left -= 1;
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_portions_in_any_order_merge_to_the_same(
        seed in world::seed(60),
        cuts in prop::collection::vec(any::<u8>(), 1..40),
        order in prop::collection::vec(any::<u8>(), 1..60),
        again in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
    ) {
        let world = World::run(&seed);
        let queues = |cuts: &[u8]| -> Vec<Vec<Partial>> {
            let new = |i: usize| Tally::new(world.parts[i].tally.partition());
            (0..world.parts.len()).map(|i| published(&mut new(i), &world, i, cuts)).collect()
        };
        // Two owners of every partition publish at different moments.
        let mut twice = queues(&cuts);
        twice.extend(queues(&cuts.iter().rev().map(|c| c.wrapping_add(1)).collect::<Vec<_>>()));
        let partials = interleave(twice, &order);
        let mut merge = Merge::new(Arc::new(world.definition.clone()));
        for partial in &partials {
            merge.merge(partial);
        }
        let expected = whole(&world);
        prop_assert_eq!(merge.results(), expected.results());
        // What comes late is older than what is known, or the same.
        for index in again {
            let late = index.get(&partials);
            if late.end < merge.results().watermark[&late.partition] {
                prop_assert!(merge.merge(late).is_empty());
            }
        }
        prop_assert_eq!(merge.results(), expected.results());
    }

    /// The cells' deltas, added up, are the cells' values; a vote's deltas are its contest's counts.
    #[test]
    fn deltas_add_up(seed in world::seed(60)) {
        let world = World::run(&seed);
        for part in &world.parts {
            let partial = part.tally.partial();
            let value = |cell| partial.cells.iter().find(|(c, _)| *c == cell).map(|(_, v)| v.clone());
            let mut last = std::collections::BTreeMap::new();
            for (record, outcome) in part.records.iter().zip(&part.outcomes) {
                match outcome {
                    Outcome::Counted(Delta::Cells(changes)) => for change in changes {
                        let before = last.insert(change.cell, change.after.clone()).unwrap_or_default();
                        prop_assert_eq!(&before, &change.before, "{:?}", record);
                    },
                    // A hold tells no delta, but it changes how many wait.
                    Outcome::Held(_) => if let canvass_election::Event::ReturnReported(r) = &record.event {
                        last.entry(r.cell).or_default().held += 1;
                    },
                    _ => {}
                }
            }
            for (cell, after) in last {
                prop_assert_eq!(value(cell), Some(after));
            }
        }
    }
}
