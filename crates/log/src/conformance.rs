//! The suite every log must pass.
//!
//! [`log_conformance!`](crate::log_conformance) makes one test of each case:
//!
//! ```ignore
//! canvass_log::log_conformance!(async || (MyLog::start().await, ()));
//! ```

#![allow(clippy::unwrap_used, reason = "these are tests, wherever they are compiled")]

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use canvass_election::ids::{Offset, PartitionId};
use futures_util::future::join_all;
use futures_util::{Stream, StreamExt};
use tokio::time::timeout;

use crate::{AppendError, Batch, Entry, Log, MAX_BATCH_BYTES, ReadError};

/// Tests a log. The argument is called once a test, for an empty log and what must outlive it.
#[macro_export]
macro_rules! log_conformance {
    ($new_log:expr) => {
        $crate::log_conformance!(@cases $new_log;
            appended_batches_read_back
            the_order_of_calls_is_the_order_of_records
            a_stream_starts_at_any_offset
            a_stream_follows_later_appends
            a_stream_waits_for_an_offset_that_is_not_there
            partitions_are_independent
            empty_bytes_are_a_batch
            the_largest_batch_fits_and_a_larger_one_does_not
            entries_are_found_by_place
            concurrent_appends_leave_no_gap
            closing_ends_streams_and_refuses_appends
            closing_finishes_what_waits
            dropping_ends_streams
        );
    };
    (@cases $new_log:expr; $($case:ident)*) => {$(
        #[tokio::test]
        async fn $case() {
            let (log, _kept) = ($new_log)().await;
            $crate::conformance::$case(log).await;
        }
    )*};
}

/// How long a test waits for what should come, and, much shorter, for what should not.
const SOON: Duration = Duration::from_secs(30);
const QUIET: Duration = Duration::from_millis(30);

const P: PartitionId = PartitionId::votes(0);
const Q: PartitionId = PartitionId::returns(0);

/// A batch that can be told from others.
fn batch(n: u32) -> Batch {
    Batch { count: n + 1, bytes: Bytes::from(format!("batch {n}").repeat(1 + n as usize % 50)) }
}

async fn append<L: Log>(log: &L, partition: PartitionId, batch: Batch) -> Offset {
    timeout(SOON, log.append(partition, batch))
        .await
        .expect("an append is answered")
        .expect("an append works")
}

async fn fill<L: Log>(log: &L, partition: PartitionId, batches: u32) {
    for n in 0..batches {
        assert_eq!(append(log, partition, batch(n)).await, Offset(u64::from(n)));
    }
}

async fn take(stream: impl Stream<Item = Result<Entry, ReadError>>, count: u32) -> Vec<Entry> {
    let read = stream.take(count as usize).map(|item| item.expect("a read works")).collect();
    timeout(SOON, read).await.expect("entries that are there come")
}

/// The entries `from..to` of a partition that [`fill`] filled.
fn filled(partition: PartitionId, from: u32, to: u32) -> Vec<Entry> {
    (from..to).map(|n| Entry { partition, offset: Offset(u64::from(n)), batch: batch(n) }).collect()
}

/// What went in comes out, from offset 0 without gaps.
pub async fn appended_batches_read_back<L: Log>(log: L) {
    assert_eq!(log.end(P).await.unwrap(), Offset(0));
    fill(&log, P, 100).await;
    assert_eq!(log.end(P).await.unwrap(), Offset(100));
    assert_eq!(take(log.read(P, Offset(0)), 100).await, filled(P, 0, 100));
}

/// Calls made in turn, without waiting for answers, and answers waited for in reverse.
pub async fn the_order_of_calls_is_the_order_of_records<L: Log>(log: L) {
    let mut calls: Vec<_> = (0..200).map(|n| (n, Box::pin(log.append(P, batch(n))))).collect();
    calls.reverse();
    for (n, call) in calls {
        assert_eq!(timeout(SOON, call).await.unwrap().unwrap(), Offset(u64::from(n)));
    }
    assert_eq!(take(log.read(P, Offset(0)), 200).await, filled(P, 0, 200));
}

/// A reader may begin anywhere.
pub async fn a_stream_starts_at_any_offset<L: Log>(log: L) {
    fill(&log, P, 50).await;
    for from in 0..50 {
        assert_eq!(take(log.read(P, Offset(u64::from(from))), 50 - from).await, filled(P, from, 50));
    }
}

/// A reader at the end gets what is appended after it got there.
pub async fn a_stream_follows_later_appends<L: Log>(log: L) {
    fill(&log, P, 3).await;
    let mut stream = pin!(log.read(P, Offset(0)));
    assert_eq!(take(&mut stream, 3).await, filled(P, 0, 3));
    for n in 3..20 {
        assert!(timeout(QUIET / 10, stream.next()).await.is_err(), "nothing comes before it is appended");
        append(&log, P, batch(n)).await;
        assert_eq!(take(&mut stream, 1).await, filled(P, n, n + 1));
    }
}

/// A reader may begin beyond the end.
pub async fn a_stream_waits_for_an_offset_that_is_not_there<L: Log>(log: L) {
    let mut stream = pin!(log.read(P, Offset(4)));
    assert!(timeout(QUIET, stream.next()).await.is_err());
    fill(&log, P, 4).await;
    assert!(timeout(QUIET, stream.next()).await.is_err());
    append(&log, P, batch(4)).await;
    assert_eq!(take(&mut stream, 1).await, filled(P, 4, 5));
}

/// Offsets count within a partition, and a reader sees its own partition only.
pub async fn partitions_are_independent<L: Log>(log: L) {
    for n in 0..20 {
        append(&log, P, batch(n)).await;
        append(&log, Q, batch(n)).await;
        append(&log, PartitionId::votes(7), batch(n)).await;
    }
    for partition in [P, Q, PartitionId::votes(7)] {
        assert_eq!(log.end(partition).await.unwrap(), Offset(20));
        assert_eq!(take(log.read(partition, Offset(0)), 20).await, filled(partition, 0, 20));
    }
    assert_eq!(log.end(PartitionId::returns(7)).await.unwrap(), Offset(0));
    assert_eq!(log.entry(PartitionId::returns(7), Offset(0)).await.unwrap(), None);
}

/// The log does not ask for bytes, nor for records.
pub async fn empty_bytes_are_a_batch<L: Log>(log: L) {
    let empty = Batch { count: 0, bytes: Bytes::new() };
    assert_eq!(append(&log, P, empty.clone()).await, Offset(0));
    append(&log, P, batch(1)).await;
    let read = take(log.read(P, Offset(0)), 2).await;
    assert_eq!((&read[0].batch, &read[1].batch), (&empty, &batch(1)));
}

/// The limit is where it is said to be.
pub async fn the_largest_batch_fits_and_a_larger_one_does_not<L: Log>(log: L) {
    let of_size = |size| Batch { count: 1, bytes: Bytes::from(vec![7; size]) };
    let too_large = log.append(P, of_size(MAX_BATCH_BYTES + 1)).await.unwrap_err();
    assert!(matches!(too_large, AppendError::TooLarge { size, limit: MAX_BATCH_BYTES }
        if size == MAX_BATCH_BYTES + 1));
    assert_eq!(append(&log, P, of_size(MAX_BATCH_BYTES)).await, Offset(0));
    let read = take(log.read(P, Offset(0)), 1).await;
    assert!(read[0].batch == of_size(MAX_BATCH_BYTES));
}

/// One batch can be looked up again.
pub async fn entries_are_found_by_place<L: Log>(log: L) {
    fill(&log, P, 30).await;
    for n in (0..30).rev() {
        let found = log.entry(P, Offset(u64::from(n))).await.unwrap();
        assert_eq!(found, filled(P, n, n + 1).pop());
    }
    assert_eq!(log.entry(P, Offset(30)).await.unwrap(), None);
    assert_eq!(log.entry(P, Offset(u64::MAX)).await.unwrap(), None);
}

/// Many appenders: each offset is given once, and holds what its appender put there.
pub async fn concurrent_appends_leave_no_gap<L: Log>(log: L) {
    let appenders = (0..16).map(|who| {
        let log = &log;
        async move {
            let mut placed = Vec::new();
            for n in 0..50 {
                let batch = batch(who * 50 + n);
                placed.push((append(log, P, batch.clone()).await, batch));
            }
            assert!(placed.is_sorted_by_key(|(offset, _)| *offset));
            placed
        }
    });
    let mut placed: Vec<_> = join_all(appenders).await.into_iter().flatten().collect();
    placed.sort_by_key(|(offset, _)| *offset);
    let read = take(log.read(P, Offset(0)), 800).await;
    let read: Vec<_> = read.into_iter().map(|entry| (entry.offset, entry.batch)).collect();
    assert_eq!(read, placed);
    assert!((0..800).eq(read.iter().map(|(offset, _)| offset.0)));
}

/// A closed log takes nothing, and can still be read to its end.
pub async fn closing_ends_streams_and_refuses_appends<L: Log>(log: L) {
    fill(&log, P, 5).await;
    let mut early = pin!(log.read(P, Offset(0)));
    assert_eq!(take(&mut early, 5).await, filled(P, 0, 5));
    let mut idle = pin!(log.read(Q, Offset(0)));
    assert!(timeout(QUIET, idle.next()).await.is_err());
    timeout(SOON, log.close()).await.expect("a log closes");
    timeout(SOON, log.close()).await.expect("a log closes twice");
    for ended in [early.next().await, idle.next().await] {
        assert!(ended.is_none());
    }
    assert!(matches!(log.append(P, batch(5)).await, Err(AppendError::Closed(b)) if b == batch(5)));
    let late: Vec<_> = timeout(SOON, log.read(P, Offset(0)).map(Result::unwrap).collect()).await.unwrap();
    assert_eq!(late, filled(P, 0, 5));
    assert_eq!(log.end(P).await.unwrap(), Offset(5));
    assert_eq!(log.entry(P, Offset(4)).await.unwrap(), filled(P, 4, 5).pop());
}

/// What was taken before the close is appended.
pub async fn closing_finishes_what_waits<L: Log>(log: L) {
    let calls: Vec<_> = (0..100).map(|n| log.append(P, batch(n))).collect();
    timeout(SOON, log.close()).await.expect("a log closes");
    for (n, answer) in (0..).zip(join_all(calls).await) {
        assert_eq!(answer.unwrap(), Offset(n));
    }
    let read: Vec<_> = timeout(SOON, log.read(P, Offset(0)).map(Result::unwrap).collect()).await.unwrap();
    assert_eq!(read, filled(P, 0, 100));
}

/// A stream outlives the log it came from, as long as it takes to read what is there.
pub async fn dropping_ends_streams<L: Log>(log: L) {
    fill(&log, P, 10).await;
    let stream = log.read(P, Offset(0));
    drop(log);
    let read: Vec<_> = timeout(SOON, stream.map(Result::unwrap).collect()).await.expect("the stream ends");
    assert_eq!(read, filled(P, 0, 10));
}

/// For logs that outlive a process: opened again, the log is what it was and goes on from there.
pub async fn a_reopened_log_is_the_same<L: Log>(open: impl AsyncFn() -> L) {
    for (run, to) in [(0, 40), (40, 41), (41, 90)] {
        let log = open().await;
        assert_eq!(log.end(P).await.unwrap(), Offset(u64::from(run)));
        assert_eq!(take(log.read(P, Offset(0)), run).await, filled(P, 0, run));
        for n in run..to {
            assert_eq!(append(&log, P, batch(n)).await, Offset(u64::from(n)));
            append(&log, Q, batch(n)).await;
        }
        log.close().await;
    }
    let log = open().await;
    for partition in [P, Q] {
        assert_eq!(take(log.read(partition, Offset(0)), 90).await, filled(partition, 0, 90));
    }
}
