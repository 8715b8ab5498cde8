//! A small election, events for it, and the slow recount of a log.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use canvass_election::definition::{
    Contest, ContestKind, CountItemType, Counting, Eligibility, Partitions, Parts, Selection, Unit,
    VotePolicy, Voting,
};
use canvass_election::event::{Actor, Cell, ContestAct, Counts, Return, Vote};
use canvass_election::ids::{ContestId, Nullifier, Offset, PartitionId, RequestId, SelectionId, UnitId};
use canvass_election::{Definition, Digest, Event, Merge, Record, Results, Tally};
use canvass_log::{Batch, Log, MemoryLog};
use canvass_protocol::record::{BatchReader, Drafts};

use crate::{Engine, Options, Published, StartError, Until};

/// The contest of returns, the vote that may be changed, and the vote that may not.
pub(crate) const MAYOR: ContestId = ContestId(0);
pub(crate) const SONG: ContestId = ContestId(1);
pub(crate) const POLL: ContestId = ContestId(2);

/// A state of two regions with two precincts and one: each region's returns have a partition of their own.
pub(crate) fn definition() -> Definition {
    let unit = |id: &str, parent: Option<u32>| Unit {
        id: id.to_owned(),
        name: id.to_owned(),
        kind: "unit".to_owned(),
        parent: parent.map(UnitId),
        registered: None,
    };
    let contest = |id: &str, counting| Contest {
        id: id.to_owned(),
        name: id.to_owned(),
        kind: ContestKind::SingleChoice,
        unit: UnitId(0),
        selections: ["a", "b", "c"]
            .map(|id| Selection { id: id.to_owned(), name: id.to_owned(), party: None })
            .into(),
        counting,
        baseline: None,
    };
    let voting = |policy| {
        Counting::Votes(Voting { opens: None, closes: None, policy, eligibility: Eligibility::Open })
    };
    let count_types = vec![CountItemType::Early, CountItemType::ElectionDay];
    Definition::from(Parts {
        id: "small".to_owned(),
        name: "Small".to_owned(),
        is_test: true,
        partitions: Partitions { votes: 2, returns: 2 },
        parties: Vec::new(),
        units: vec![
            unit("state", None),
            unit("north", Some(0)),
            unit("south", Some(0)),
            unit("n1", Some(1)),
            unit("n2", Some(1)),
            unit("s1", Some(2)),
        ],
        contests: vec![
            contest("mayor", Counting::Returns { count_types }),
            contest("song", voting(VotePolicy::Replace)),
            contest("poll", voting(VotePolicy::One)),
        ],
    })
}

pub(crate) fn actor() -> Actor {
    Actor("someone".to_owned())
}

pub(crate) fn request(n: u64) -> RequestId {
    RequestId(std::array::from_fn(|i| n.to_le_bytes()[i % 8]))
}

/// A voter's vote with the partition it belongs to.
pub(crate) fn vote(contest: ContestId, voter: u64, choice: u16) -> (PartitionId, Event) {
    let mut nullifier = [0; 16];
    nullifier[..8].copy_from_slice(&voter.to_le_bytes());
    nullifier[8..].copy_from_slice(&(voter * 8 + u64::from(contest.0) * 3).to_le_bytes());
    nullifier[7] = u8::try_from(contest.0).unwrap();
    let nullifier = Nullifier(nullifier);
    let choices = [SelectionId(choice)].into_iter().collect();
    let partition = crate::secret::votes_partition(&nullifier, definition().partitions.votes);
    (partition, Event::VoteCast(Vote { contest, nullifier, choices }))
}

pub(crate) fn cell(unit: u32, early: bool) -> Cell {
    let count_type = if early { CountItemType::Early } else { CountItemType::ElectionDay };
    Cell { contest: MAYOR, unit: UnitId(unit), count_type }
}

pub(crate) fn counts(votes: [u64; 3]) -> Counts {
    Counts { votes: votes.to_vec(), ..Counts::default() }
}

pub(crate) fn reported(cell: Cell, counts: Counts) -> Return {
    Return { cell, counts, stated_total: None, source: actor() }
}

pub(crate) fn act(contest: ContestId) -> ContestAct {
    ContestAct { contest, reason: "because".to_owned(), actor: actor() }
}

/// Starts an engine that publishes when it starts and when a test says so.
pub(crate) async fn start<L: Log>(log: &Arc<L>, folder: Option<&Path>) -> Result<Engine, StartError> {
    let options = Options {
        folder: folder.map(Path::to_owned),
        tick: Duration::from_secs(3_600),
        audit: None,
        secret: None,
        only_read: false,
        baselines: BTreeMap::new(),
    };
    Engine::start(Arc::clone(log), Some(definition()), options).await
}

pub(crate) async fn submit(
    engine: &Engine,
    n: u64,
    (partition, event): (PartitionId, Event),
) -> crate::Verdict {
    let verdicts = engine.ingest().submit(partition, Drafts::one(request(n), &event), Until::Judged).await;
    verdicts.unwrap().verdicts.remove(0)
}

pub(crate) fn publish(engine: &Engine) -> Arc<Published> {
    let partitions: Vec<_> = engine.partitions.values().cloned().collect();
    engine.board.publish(&partitions).unwrap();
    engine.published().borrow().clone()
}

/// Everything in a log.
pub(crate) async fn records<L: Log>(log: &L) -> BTreeMap<PartitionId, Vec<Record>> {
    let mut all = BTreeMap::new();
    for partition in definition().partition_ids() {
        let records: &mut Vec<Record> = all.entry(partition).or_default();
        while let Some(entry) = {
            let next = records.last().map_or(Offset(0), |r| r.id.offset.next());
            log.entry(partition, next).await.unwrap()
        } {
            let reader = BatchReader::new(&entry.batch.bytes).unwrap();
            records.extend(reader.records(partition, entry.offset).map(Result::unwrap));
        }
    }
    all
}

/// A log that holds the first batches of another.
pub(crate) async fn prefix(log: &MemoryLog, ends: &BTreeMap<PartitionId, Offset>) -> MemoryLog {
    let copy = MemoryLog::new();
    for (partition, end) in ends {
        for n in 0..end.0 {
            let Batch { count, bytes } = log.entry(*partition, Offset(n)).await.unwrap().unwrap().batch;
            copy.append(*partition, Batch { count, bytes }).await.unwrap();
        }
    }
    copy
}

fn tallies<'a>(
    records: &'a BTreeMap<PartitionId, Vec<Record>>,
    counts: impl Fn(&Record) -> bool + 'a,
) -> impl Iterator<Item = Tally> + 'a {
    records.iter().map(move |(partition, records)| {
        let mut tally = Tally::new(*partition);
        // The definition is where counting begins, whenever it was written.
        let counted = records.iter().filter(|r| matches!(r.event, Event::ElectionDefined(_)) || counts(r));
        counted.for_each(|record| _ = tally.apply(record));
        tally
    })
}

/// The slow recount: what the records for which `counts` holds add up to, from nothing.
pub(crate) fn recount(
    records: &BTreeMap<PartitionId, Vec<Record>>,
    counts: impl Fn(&Record) -> bool,
) -> Results {
    let mut merge = Merge::new(Arc::new(definition()));
    tallies(records, counts).for_each(|tally| _ = merge.merge(&tally.partial()));
    merge.results().clone()
}

pub(crate) fn digests(records: &BTreeMap<PartitionId, Vec<Record>>) -> BTreeMap<PartitionId, Digest> {
    tallies(records, |_| true).map(|t| (t.partition(), t.digest())).collect()
}
