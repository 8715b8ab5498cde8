//! Measures a journal on this machine: `cargo run --release -p canvass-log --example rates [FOLDER]`.
//!
//! Fills a new folder within the given one (or the system's folder for temporary files) with about a
//! gigabyte, opens it again and replays it, then removes it.

#![allow(clippy::print_stdout, reason = "it reports to whoever runs it")]

use std::env;
use std::path::Path;
use std::time::Instant;

use bytes::Bytes;
use canvass_election::ids::{Offset, PartitionId};
use canvass_log::{AppendError, Batch, FileLog, Log};
use futures_util::StreamExt;
use futures_util::future::join_all;

const PARTITIONS: u16 = 8;

/// Some appenders per partition, each waiting for its answer before the next batch.
async fn append(log: &FileLog, appenders: u16, batches: u32, size: usize) {
    let payload = Bytes::from(vec![b'v'; size]);
    let begin = Instant::now();
    let all = (0..PARTITIONS * appenders).map(|n| {
        let batch = Batch { count: 100, bytes: payload.clone() };
        async move {
            for _ in 0..batches {
                let mut batch = batch.clone();
                while let Err(error) = log.append(PartitionId::votes(n % PARTITIONS), batch).await {
                    let AppendError::Full(back) = error else { panic!("{error}") };
                    batch = back;
                    tokio::task::yield_now().await;
                }
            }
        }
    });
    join_all(all).await;
    let seconds = begin.elapsed().as_secs_f64();
    let count = f64::from(PARTITIONS) * f64::from(appenders) * f64::from(batches);
    let megabytes = count * f64::from(u32::try_from(size).expect("a small size")) / 1e6;
    println!(
        "append {size:>7} bytes, {:>4} appenders: {:>8.0} batches/s {:>7.1} MB/s",
        PARTITIONS * appenders,
        count / seconds,
        megabytes / seconds
    );
}

async fn replay(folder: &Path) {
    let begin = Instant::now();
    let (log, recovered) = FileLog::open(folder).expect("the journal opens again");
    let bytes = f64::from(u32::try_from(recovered.bytes / 1000).expect("gigabytes")) / 1e3;
    let seconds = begin.elapsed().as_secs_f64();
    println!("open: {} batches, {bytes:.0} MB, {:.0} MB/s", recovered.batches, bytes / seconds);
    log.close().await;
    let begin = Instant::now();
    let streams = (0..PARTITIONS).map(|n| {
        let stream = log.read(PartitionId::votes(n), Offset(0));
        tokio::spawn(
            stream.fold(0_u64, async |sum, item| sum + u64::from(item.expect("it reads").batch.count)),
        )
    });
    let streams: Vec<_> = streams.collect();
    let records: u64 = join_all(streams).await.into_iter().map(|sum| sum.expect("a reader ends")).sum();
    assert_eq!(records, recovered.records);
    let seconds = begin.elapsed().as_secs_f64();
    println!("replay: {records} records in {seconds:.2} s, {:.0} MB/s", bytes / seconds);
}

#[tokio::main]
async fn main() {
    let parent = env::args_os().nth(1).map_or_else(env::temp_dir, Into::into);
    let folder = tempfile::tempdir_in(parent).expect("a folder can be made");
    let (log, _) = FileLog::open(folder.path()).expect("a new journal opens");
    append(&log, 1, 100, 1_000).await;
    append(&log, 64, 100, 1_000).await;
    append(&log, 8, 100, 64_000).await;
    append(&log, 4, 10, 1_000_000).await;
    append(&log, 16, 200, 10_000).await;
    drop(log);
    replay(folder.path()).await;
}
