//! Starting, stopping and failing.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use canvass_election::ids::{Offset, PartitionId, RecordId, Timestamp};
use canvass_election::{Event, Outcome};
use canvass_log::{Batch, FileLog, Log, MemoryLog};
use canvass_protocol::record::{BatchBuilder, Drafts};
use canvass_protocol::stream::Seq;
use futures_util::future::join_all;
use tokio::time::timeout;

use super::faulty::{Appends, FaultyLog, Reads};
use super::world::{
    POLL, SONG, definition, digests, prefix, publish, records, recount, request, start, submit, vote,
};
use crate::{At, Engine, IngestError, StartError, Until};

const SOON: Duration = Duration::from_secs(30);

async fn cast(engine: &Engine, voters: std::ops::Range<u64>, choice: u16) {
    for voter in voters {
        assert!(matches!(
            submit(engine, voter, vote(POLL, voter, choice)).await.outcome,
            Some(Outcome::Counted(_))
        ));
    }
}

/// The engine counts what its log says, whatever else lay in its folder.
async fn counts_its_log<L: Log>(engine: &Engine, log: &L) {
    let records = records(log).await;
    assert_eq!(engine.digests(), digests(&records));
    let slow = recount(&records, |_| true);
    for (shown, slow) in engine.published().borrow().contests.iter().zip(&slow.contests) {
        assert_eq!(shown.results, *slow);
    }
}

fn replayed(engine: &Engine) -> u64 {
    engine.progress().values().map(|p| p.records).sum()
}

async fn ends(log: &MemoryLog) -> BTreeMap<PartitionId, Offset> {
    let mut ends = BTreeMap::new();
    for id in definition().partition_ids() {
        ends.insert(id, log.end(id).await.unwrap());
    }
    ends
}

/// Whoever is on the way when the engine stops gets a verdict or a clean refusal, and the snapshots hold all that
/// was confirmed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_answers_everybody_and_then_writes_snapshots() {
    let log = Arc::new(MemoryLog::new());
    let folder = tempfile::tempdir().unwrap();
    let engine = Arc::new(start(&log, Some(folder.path())).await.unwrap());
    let callers: Vec<_> = (0..32u64)
        .map(|caller| {
            let engine = Arc::clone(&engine);
            tokio::spawn(async move {
                let mut confirmed: Vec<RecordId> = Vec::new();
                for n in 0.. {
                    let voter = caller * 1_000_000 + n;
                    let (partition, event) = vote(POLL, voter, 0);
                    match engine
                        .ingest()
                        .submit(partition, Drafts::one(request(voter), &event), Until::Judged)
                        .await
                    {
                        Ok(judged) => confirmed.push(judged.verdicts[0].record),
                        Err(IngestError::Stopping) => break,
                        Err(error) => panic!("{error}"),
                    }
                }
                confirmed
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    timeout(SOON, engine.stop()).await.unwrap();
    let confirmed = timeout(SOON, join_all(callers)).await.unwrap();
    let confirmed: u64 = confirmed.into_iter().map(|c| c.unwrap().len() as u64).sum();
    assert!(confirmed > 0);
    let engine = start(&log, Some(folder.path())).await.unwrap();
    assert_eq!(replayed(&engine), 0, "the snapshots are as far as the log");
    let voters: usize = engine.progress().values().map(|p| p.voters).sum();
    assert_eq!(voters as u64, confirmed, "what was not confirmed was not taken");
    counts_its_log(&engine, &*log).await;
}

/// A batch that the log takes only while the engine stops is folded and confirmed all the same.
#[tokio::test]
async fn a_batch_on_its_way_to_the_log_is_waited_for() {
    let log = Arc::new(FaultyLog::new());
    let folder = tempfile::tempdir().unwrap();
    let engine = start(&log, Some(folder.path())).await.unwrap();
    log.appends.send_replace(Appends::Wait);
    let late = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let queued = submit_one(&engine, 2);
        let free = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            log.appends.send_replace(Appends::Work);
        };
        tokio::join!(engine.stop(), free, queued).2
    };
    let (on_its_way, queued) =
        timeout(SOON, async { tokio::join!(submit_one(&engine, 1), late) }).await.unwrap();
    assert!(on_its_way.is_ok());
    assert_eq!(queued, Err(IngestError::Stopping));
    assert_eq!(submit_one(&engine, 3).await, Err(IngestError::Stopping));
    assert_eq!(replayed(&start(&log, Some(folder.path())).await.unwrap()), 0);
}

async fn submit_one(engine: &Engine, n: u64) -> Result<(), IngestError> {
    let (_, event) = vote(POLL, 8, 0);
    let partition = vote(POLL, 8, 0).0;
    engine.ingest().submit(partition, Drafts::one(request(n), &event), Until::Judged).await.map(drop)
}

/// A worker that panics is no silence: the engine fails, and whoever waits is told.
#[tokio::test]
async fn a_worker_that_panics_ends_the_engine_loudly() {
    let log = Arc::new(FaultyLog::new());
    let folder = tempfile::tempdir().unwrap();
    let engine = start(&log, Some(folder.path())).await.unwrap();
    log.reads.send_replace(Reads::Panic);
    assert_eq!(timeout(SOON, submit_one(&engine, 1)).await.unwrap(), Err(IngestError::Stopping));
    assert!(timeout(SOON, engine.failed()).await.unwrap().contains("panicked"));
    assert_eq!(timeout(SOON, submit_one(&engine, 2)).await.unwrap(), Err(IngestError::Stopping));
    timeout(SOON, engine.stop()).await.unwrap();
    // The vote is in the log: after a restart it counts, and its retry is told so.
    log.reads.send_replace(Reads::Work);
    let engine = start(&log, Some(folder.path())).await.unwrap();
    counts_its_log(&engine, &*log).await;
    let verdict = submit(&engine, 1, vote(POLL, 8, 0)).await;
    assert!(matches!(verdict.outcome, Some(Outcome::Duplicate { .. })));
}

/// A log that is gone ends the engine as loudly, and nobody waits for it.
#[tokio::test]
async fn a_log_that_is_closed_ends_the_engine_loudly() {
    let log = Arc::new(MemoryLog::new());
    let engine = start(&log, None).await.unwrap();
    cast(&engine, 0..10, 0).await;
    log.close().await;
    assert!(timeout(SOON, engine.failed()).await.unwrap().contains("closed"));
    assert_eq!(timeout(SOON, submit_one(&engine, 20)).await.unwrap(), Err(IngestError::Stopping));
    timeout(SOON, engine.stop()).await.unwrap();
}

/// Half a batch is never shown: what cannot be decoded ends the engine.
#[tokio::test]
async fn a_batch_that_cannot_be_decoded_is_not_published_by_half() {
    let log = Arc::new(MemoryLog::new());
    let engine = start(&log, None).await.unwrap();
    let shown = publish(&engine).seq;
    let (partition, event) = vote(POLL, 8, 0);
    let mut builder = BatchBuilder::new(0, engine.clock().now());
    builder.push(&Drafts::one(request(1), &event));
    let (count, bytes) = builder.finish();
    let mut bytes = BytesMut::from(&*bytes);
    bytes.extend_from_slice(b"rubbish");
    log.append(partition, Batch { count, bytes: bytes.freeze() }).await.unwrap();
    let waits = submit_one(&engine, 2);
    let (reason, answer) = timeout(SOON, async { tokio::join!(engine.failed(), waits) }).await.unwrap();
    assert!(reason.contains("batch 1"), "{reason}");
    assert_eq!(answer, Err(IngestError::Stopping));
    assert_eq!(publish(&engine).seq, shown);
    assert!(matches!(start(&log, None).await.err(), Some(StartError::Decode(_))));
}

/// The definition goes into one partition after the other; wherever that ends, the next start goes on.
#[tokio::test]
async fn a_definition_written_in_part_is_completed() {
    let partitions = u32::try_from(definition().partition_ids().count()).unwrap();
    for written in 0..partitions {
        for given in [true, false] {
            let log = Arc::new(FaultyLog::new());
            log.appends.send_replace(Appends::Last(written));
            assert!(matches!(start(&log, None).await.err(), Some(StartError::Append(_))));
            log.appends.send_replace(Appends::Work);
            let options = crate::Options {
                folder: None,
                tick: Duration::from_secs(60),
                audit: None,
                secret: None,
                only_read: false,
                baselines: std::collections::BTreeMap::new(),
            };
            let started = Engine::start(Arc::clone(&log), given.then(definition), options).await;
            if written == 0 && !given {
                assert!(matches!(started.err(), Some(StartError::NoDefinition)));
                continue;
            }
            let engine = started.unwrap();
            cast(&engine, 0..20, 0).await;
            for records in records(&*log).await.values() {
                let defined = records.iter().filter(|r| matches!(r.event, Event::ElectionDefined(_)));
                assert_eq!(defined.map(|r| r.id.offset).collect::<Vec<_>>(), [Offset(0)]);
            }
        }
    }
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let snapshots = std::fs::read_dir(folder.join("snapshots")).unwrap();
    snapshots.map(|file| file.unwrap().path()).collect()
}

#[tokio::test]
async fn a_snapshot_with_a_flipped_bit_is_not_used() {
    let log = Arc::new(MemoryLog::new());
    let folder = tempfile::tempdir().unwrap();
    let engine = start(&log, Some(folder.path())).await.unwrap();
    cast(&engine, 0..40, 0).await;
    engine.stop().await;
    for file in files(folder.path()) {
        let good = std::fs::read(&file).unwrap();
        // Every bit of the header, and some of what follows.
        for bit in (0..128).chain((128..good.len() * 8).step_by(977)) {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&file, bytes).unwrap();
            let id = file.file_stem().unwrap().to_str().unwrap().replace('-', "/").parse().unwrap();
            assert!(crate::snapshot::load(&folder.path().join("snapshots"), id).is_none(), "bit {bit}");
        }
    }
    // All are damaged now, and nothing is missing.
    let engine = start(&log, Some(folder.path())).await.unwrap();
    assert!(replayed(&engine) >= 40);
    counts_its_log(&engine, &*log).await;
}

/// A log put back to an older state, which then grows beyond the snapshots and publications of the lost one.
#[tokio::test]
async fn snapshots_and_numbers_of_a_log_that_was_put_back_are_not_used() {
    let log = Arc::new(MemoryLog::new());
    let folder = tempfile::tempdir().unwrap();
    let engine = start(&log, Some(folder.path())).await.unwrap();
    cast(&engine, 0..20, 0).await;
    let kept = publish(&engine);
    let early = ends(&log).await;
    cast(&engine, 20..40, 0).await;
    let lost = publish(&engine);
    engine.stop().await;
    let log = Arc::new(prefix(&log, &early).await);
    // Ends without writing snapshots, so that the old ones are there when the log is long enough for them.
    let engine = start(&log, Some(folder.path())).await.unwrap();
    counts_its_log(&engine, &*log).await;
    cast(&engine, 100..160, 1).await;
    publish(&engine);
    for run in 0..2 {
        let engine = start(&log, Some(folder.path())).await.unwrap();
        counts_its_log(&engine, &*log).await;
        assert!(engine.results_at(At::Seq(lost.seq)).is_none(), "run {run}: a number of the lost state");
        let then = engine.results_at(At::Seq(kept.seq)).unwrap();
        assert_eq!(then.contests[POLL.index()].results, kept.contests[POLL.index()].results);
        engine.stop().await;
    }
}

/// A number that stands exactly where a snapshot was taken before it was published.
#[tokio::test]
async fn a_snapshot_does_not_hide_the_number_at_its_end() {
    let log = Arc::new(MemoryLog::new());
    let folder = tempfile::tempdir().unwrap();
    let engine = start(&log, Some(folder.path())).await.unwrap();
    let (partition, _) = vote(POLL, 0, 0);
    let voters: Vec<u64> = (0..100).filter(|voter| vote(POLL, *voter, 0).0 == partition).take(30).collect();
    let file = folder.path().join("snapshots").join(format!("votes-{}.snapshot", partition.index));
    let mut voters = voters.into_iter();
    while !file.exists() {
        let voter = voters.next().expect("a snapshot is written every few records");
        cast(&engine, voter..voter + 1, 0).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let shown = publish(&engine);
    let voter = voters.next().unwrap();
    cast(&engine, voter..voter + 1, 0).await;
    let engine = start(&log, Some(folder.path())).await.unwrap();
    let then = engine.results_at(At::Seq(shown.seq)).unwrap();
    assert_eq!(then.contests[POLL.index()].results, shown.contests[POLL.index()].results);
}

/// Another election's log in a folder that was used before.
#[tokio::test]
async fn snapshots_and_numbers_of_another_log_are_not_used() {
    let log = Arc::new(MemoryLog::new());
    let folder = tempfile::tempdir().unwrap();
    let engine = start(&log, Some(folder.path())).await.unwrap();
    cast(&engine, 0..20, 0).await;
    let other = publish(&engine);
    engine.stop().await;
    // A definition's record has the time it was written.
    tokio::time::sleep(Duration::from_millis(5)).await;
    let log = Arc::new(MemoryLog::new());
    let engine = start(&log, None).await.unwrap();
    cast(&engine, 0..60, 2).await;
    let engine = start(&log, Some(folder.path())).await.unwrap();
    counts_its_log(&engine, &*log).await;
    assert!(engine.results_at(At::Seq(other.seq)).is_none());
}

#[tokio::test]
async fn epochs_only_grow() {
    let log = Arc::new(MemoryLog::new());
    let folder = tempfile::tempdir().unwrap();
    let mut last = 0;
    for run in 0..12u64 {
        let engine = start(&log, Some(folder.path())).await.unwrap();
        let seq = engine.published().borrow().seq;
        assert!(seq.epoch > last && seq.seq == 1, "run {run}: {seq} after epoch {last}");
        last = seq.epoch;
        cast(&engine, run * 10..run * 10 + 3, 0).await;
        let next = publish(&engine).seq;
        assert!(next.epoch == last && next.seq > 1);
        assert_eq!(publish(&engine).seq, next, "nothing has changed");
        if run % 3 == 0 {
            engine.stop().await;
        }
    }
}

/// Without the list of publications the past is still there; a moment before all known numbers has none.
#[tokio::test]
async fn a_moment_before_every_known_number_has_none() {
    let log = Arc::new(MemoryLog::new());
    let folder = tempfile::tempdir().unwrap();
    let engine = start(&log, Some(folder.path())).await.unwrap();
    cast(&engine, 0..10, 0).await;
    engine.stop().await;
    std::fs::remove_file(folder.path().join("publications.ndjson")).unwrap();
    let engine = start(&log, Some(folder.path())).await.unwrap();
    let shown = engine.published().borrow().clone();
    let before = engine.results_at(At::Time(Timestamp(1))).unwrap();
    assert_eq!(before.seq, Seq::default());
    let now = engine.results_at(At::Time(engine.clock().now())).unwrap();
    assert_eq!((now.seq, &now.contests[2].results), (shown.seq, &shown.contests[2].results));
}

/// The same through files: a count goes on where it was, with snapshots and without.
#[tokio::test]
async fn a_count_in_files_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Arc::new(FileLog::open(folder.path().join("journal")).unwrap().0);
    let mut before = None;
    for run in 0..4u64 {
        let log = open();
        let engine = start(&log, Some(folder.path())).await.unwrap();
        assert!(before.is_none_or(|before| before == engine.digests()));
        cast(&engine, run * 100..run * 100 + 50, 1).await;
        for voter in 0..10 {
            submit(&engine, run * 100 + voter, vote(SONG, voter, u16::try_from(run % 3).unwrap())).await;
        }
        publish(&engine);
        counts_its_log(&engine, &*log).await;
        before = Some(engine.digests());
        if run % 2 == 0 {
            engine.stop().await;
        } else {
            std::fs::remove_dir_all(folder.path().join("snapshots")).unwrap();
        }
        drop(engine);
        log.close().await;
    }
}
