//! Taking in: order, overload, and a log that fails.

use std::sync::Arc;
use std::time::Duration;

use canvass_election::event::Actor;
use canvass_election::ids::PartitionId;
use canvass_election::{Event, Outcome};
use canvass_log::{FileLog, Log, MemoryLog};
use canvass_protocol::record::Drafts;
use futures_util::future::{join_all, select_all};
use tokio::time::timeout;

use super::faulty::{Appends, FaultyLog, Reads};
use super::world::{
    POLL, SONG, cell, counts, publish, records, recount, reported, request, start, submit, vote,
};
use crate::ingest::QUEUE_BYTES;
use crate::{At, IngestError, Until};

const SOON: Duration = Duration::from_secs(30);

/// Many callers at once, several drafts each: every verdict is that of its own draft, in order and in one batch.
async fn verdicts_come_in_the_order_of_drafts<L: Log>(log: L) {
    let log = Arc::new(log);
    let engine = Arc::new(start(&log, None).await.unwrap());
    let callers = (0..64u64).map(|caller| {
        let engine = Arc::clone(&engine);
        tokio::spawn(async move {
            for round in 0..8 {
                let base = caller * 1_000 + round * 10;
                let (partition, _) = vote(POLL, base, 0);
                let drafts: Vec<_> = (base..base + 1 + caller % 5)
                    .map(|voter| (request(voter), Event::clone(&vote(POLL, voter, 0).1)))
                    .collect();
                let mut sent = Drafts::default();
                drafts.iter().for_each(|(request, event)| sent.push(*request, event));
                let verdicts = engine.ingest().submit(partition, sent, Until::Judged).await.unwrap().verdicts;
                assert_eq!(verdicts.len(), drafts.len());
                for pair in verdicts.windows(2) {
                    assert_eq!(pair[0].record.offset, pair[1].record.offset);
                    assert_eq!(pair[0].record.position + 1, pair[1].record.position);
                }
                for ((request, event), verdict) in drafts.iter().zip(&verdicts) {
                    let record = engine.record(verdict.record).await.unwrap().unwrap();
                    assert_eq!((record.request, &record.event, record.time), (*request, event, verdict.time));
                    assert!(matches!(verdict.outcome, Some(Outcome::Counted(_))));
                }
            }
        })
    });
    join_all(callers).await.into_iter().for_each(Result::unwrap);
    assert_eq!(engine.waiting().await, 0);
    for records in records(&*log).await.values() {
        assert!(records.windows(2).all(|pair| pair[0].time <= pair[1].time) || records[0].id.offset.0 == 0);
    }
    engine.stop().await;
    log.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verdicts_come_in_the_order_of_drafts_in_memory() {
    verdicts_come_in_the_order_of_drafts(MemoryLog::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verdicts_come_in_the_order_of_drafts_in_files() {
    let folder = tempfile::tempdir().unwrap();
    verdicts_come_in_the_order_of_drafts(FileLog::open(folder.path()).unwrap().0).await;
}

/// Large submissions fill a queue long before it is full of them.
#[tokio::test]
async fn a_log_that_hangs_makes_overload_and_no_heap() {
    const SIZE: usize = 1 << 20;
    let log = Arc::new(FaultyLog::new());
    let engine = start(&log, None).await.unwrap();
    log.appends.send_replace(Appends::Wait);
    let draft = |n: u64| {
        let mut large = reported(cell(5, true), counts([n, 0, 0]));
        large.source = Actor("x".repeat(SIZE));
        Drafts::one(request(n), &Event::ReturnReported(large))
    };
    let send = |n| Box::pin(engine.ingest().submit(PartitionId::CONTROL, draft(n), Until::Judged));
    let mut sent: Vec<_> = Vec::new();
    let mut refused = 0;
    for n in 0..100 {
        sent.push(send(n));
        // Gives the batcher its turn, and finds whoever was refused.
        if let Ok((answer, at, _)) = timeout(Duration::from_millis(2), select_all(sent.iter_mut())).await {
            assert_eq!(answer, Err(IngestError::Overloaded));
            drop(sent.remove(at));
            refused += 1;
        }
    }
    let most = QUEUE_BYTES as usize / SIZE + 2;
    assert!(sent.len() <= most && refused >= 100 - most, "{} wait, {refused} refused", sent.len());
    assert!(matches!(vote(POLL, 1, 0), (votes, _) if votes != PartitionId::CONTROL));
    log.appends.send_replace(Appends::Work);
    for answer in timeout(SOON, join_all(sent)).await.unwrap() {
        assert!(answer.is_ok());
    }
    // All of the queue's room is free again.
    assert!(timeout(SOON, send(1_000)).await.unwrap().is_ok());
    assert_eq!(engine.waiting().await, 0);
}

#[tokio::test]
async fn a_log_that_fails_counts_nothing_and_recovers() {
    let log = Arc::new(FaultyLog::new());
    let engine = start(&log, None).await.unwrap();
    submit(&engine, 1, vote(SONG, 1, 0)).await;
    let before = (engine.digests(), publish(&engine).seq);
    log.appends.send_replace(Appends::Fail);
    for n in 2..50 {
        let (partition, event) = vote(SONG, n, 1);
        let answer = engine.ingest().submit(partition, Drafts::one(request(n), &event), Until::Judged).await;
        assert!(matches!(answer, Err(IngestError::Log(why)) if why.contains("broken on purpose")));
    }
    assert_eq!((engine.digests(), publish(&engine).seq), before);
    assert_eq!(engine.waiting().await, 0);
    log.appends.send_replace(Appends::Work);
    for n in 2..50 {
        assert!(matches!(submit(&engine, n, vote(SONG, n, 1)).await.outcome, Some(Outcome::Counted(_))));
    }
    let shown = publish(&engine);
    let slow = recount(&records(&*log).await, |_| true);
    assert_eq!(shown.contests[SONG.index()].results, slow.contests[SONG.index()]);
    assert_eq!(
        engine.results_at(At::Seq(shown.seq)).unwrap().contests[SONG.index()].results,
        slow.contests[SONG.index()]
    );
}

/// A read may fail for want of a descriptor; nothing is lost by reading again.
#[tokio::test]
async fn a_read_that_fails_is_tried_again() {
    let log = Arc::new(FaultyLog::new());
    let engine = start(&log, None).await.unwrap();
    log.failures.store(3, std::sync::atomic::Ordering::SeqCst);
    log.reads.send_replace(Reads::Fail);
    let verdict = timeout(SOON, submit(&engine, 1, vote(SONG, 1, 0))).await.unwrap();
    assert!(matches!(verdict.outcome, Some(Outcome::Counted(_))));
    assert_eq!(log.failures.load(std::sync::atomic::Ordering::SeqCst), 0);
}
