//! What a board hears of a partition whose owners change.

use std::path::Path;

use canvass_election::ids::Timestamp;
use canvass_log::MemoryLog;

use super::messages::{Gathering, News, Told, decode};
use super::*;
use crate::tests::world::{SONG, definition, publish, start, submit, vote};
use crate::{At, snapshot};

/// Folds a partition to its present end, from its snapshot where it has one, and writes a snapshot.
async fn fold(log: &Arc<MemoryLog>, folder: &Path, id: PartitionId, told: Offset) -> Arc<Partition> {
    let snapshots = Snapshots::new(folder.to_owned());
    let partition = Arc::new(Partition::outgoing(id, snapshot::load(folder, id), told));
    let audience = Audience::Here(Arc::new(Waiting::new(1)));
    let (_kept, stop) = watch::channel(true);
    let run = Arc::clone(&partition).run(Arc::clone(log), audience, Some(snapshots), None, stop);
    run.await.unwrap();
    partition
}

/// A flush as it comes out of its messages.
fn sent(flush: &Flush) -> Flush {
    let mut gathering = Gathering::default();
    let mut flushes = flush.messages().unwrap().into_iter().filter_map(|said| {
        let told: Told = decode(&said.value).unwrap();
        gathering.take(flush.partition, told)
    });
    let whole = flushes.next().unwrap();
    assert_eq!(flushes.next(), None);
    whole
}

/// The first owner tells what it has. The second folds more, writes a snapshot and is gone before it told of it. The
/// third goes on from that snapshot, and the board still comes to know all of it, every moment of the past as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_between_owners() {
    let log = Arc::new(MemoryLog::new());
    let folder = tempfile::tempdir().unwrap();
    let engine = start(&log, None).await.unwrap();
    let definition = Arc::new(definition());
    let histories = definition.partition_ids().map(|id| (id, Arc::default())).collect();
    let board = Board::new(&definition, histories, Past::default(), None);
    board.hear(News::Board { number: 1, epoch: 7, published: Timestamp(1) });
    let mut told = BTreeMap::new();
    let mut voter = 0;
    let mut times = Vec::new();
    for owner in 0..3 {
        for _ in 0..10 {
            submit(&engine, voter, vote(SONG, voter, 0)).await;
            voter += 1;
        }
        times.push(engine.clock().now());
        // Record time crosses a step, so that there is a past.
        tokio::time::sleep(Duration::from_millis(150)).await;
        let mut flushes = Vec::new();
        for id in definition.partition_ids() {
            let known = told.get(&id).copied().unwrap_or_default();
            let partition = fold(&log, folder.path(), id, known).await;
            if owner != 1 {
                let flush = partition.take_flush();
                assert_eq!(sent(&flush).partials.len(), flush.partials.len());
                told.insert(id, flush.end);
                flushes.push(sent(&flush));
            }
        }
        // Heard twice it is the same, as is what a sleeper says late.
        for _ in 0..2 {
            board.hear(News::Update { published: Timestamp(2), flushes: flushes.clone() });
        }
    }
    let expected = publish(&engine);
    let shown = board.published().borrow().clone();
    for (shown, expected) in shown.contests.iter().zip(&expected.contests) {
        assert_eq!(shown.results, expected.results);
    }
    assert_eq!(shown.seq.epoch, 7);
    for time in times.into_iter().map(At::Time) {
        let (shown, expected) = (board.results_at(time).unwrap(), engine.results_at(time).unwrap());
        for (shown, expected) in shown.contests.iter().zip(&expected.contests) {
            assert_eq!(shown.results, expected.results, "{time:?}");
        }
    }
}
