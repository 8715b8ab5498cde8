//! The log as it is published: all of it, nothing but it, and never against what was published before.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use canvass_election::ids::{Offset, PartitionId, RecordId};
use canvass_log::{Log, MemoryLog};
use canvass_protocol::record::BatchReader;
use canvass_tlog::{Bundle, SecretKey, SignedCheckpoint, TilePath, check_consistency, verify_published};

use super::world::*;
use crate::{Audit, AuditError, AuditOptions, Engine, Options, StartError};

fn key() -> SecretKey {
    // A fixed key: what is published must follow from the log alone.
    "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz".parse().unwrap()
}

async fn start(log: &Arc<MemoryLog>, folder: &Path) -> Result<Engine, StartError> {
    let options = Options {
        folder: Some(folder.to_owned()),
        tick: Duration::from_secs(3_600),
        audit: Some(AuditOptions { key: key(), promises: true, witnesses: Vec::new(), quorum: 0 }),
        secret: None,
        only_read: false,
        baselines: std::collections::BTreeMap::new(),
    };
    Engine::start(Arc::clone(log), Some(definition()), options).await
}

async fn cast(engine: &Engine, voters: std::ops::Range<u64>) {
    for n in voters {
        submit(engine, n, vote(SONG, n, 0)).await;
    }
}

/// Waits until all of the log is published.
async fn published(audit: &Audit, log: &MemoryLog) -> SignedCheckpoint {
    for _ in 0..1_000 {
        let mut all = true;
        for id in definition().partition_ids() {
            let name = format!("{}/{id}", key().name());
            let covered = audit.meta().covered(&name).map_or(0, |checkpoint| checkpoint.size());
            all &= covered == records(log).await[&id].len() as u64;
        }
        if all {
            return audit.newest().unwrap();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the log was not published");
}

/// The bytes of all records of a partition.
async fn bytes(log: &MemoryLog, partition: PartitionId) -> Vec<(RecordId, Vec<u8>)> {
    let mut all = Vec::new();
    let mut offset = Offset(0);
    while let Some(entry) = log.entry(partition, offset).await.unwrap() {
        for (position, record) in (0..).zip(BatchReader::new(&entry.batch.bytes).unwrap()) {
            all.push((RecordId { partition, offset, position }, record.unwrap().to_vec()));
        }
        offset = offset.next();
    }
    all
}

/// Every record is in its bundle, and has a proof by the last checkpoint.
async fn check(audit: &Audit, log: &MemoryLog) {
    for id in definition().partition_ids() {
        let records = bytes(log, id).await;
        let mut entries = Vec::new();
        for path in TilePath::all(records.len() as u64).filter(|path| path.level.is_none()) {
            let bundle = audit.bundle(id, path).await.unwrap().unwrap();
            entries.extend(Bundle::new(&bundle).map(|entry| entry.unwrap().to_vec()));
        }
        assert_eq!(entries, records.iter().map(|(_, bytes)| bytes.clone()).collect::<Vec<_>>());
        for (index, (record, bytes)) in (0..).zip(&records) {
            let proof = audit.proof(*record).unwrap().unwrap();
            let shown = verify_published(bytes, &proof, &key().public()).unwrap();
            assert_eq!((shown.index, shown.meta), (index, audit.newest().unwrap()));
        }
        let beyond = RecordId { partition: id, offset: Offset(9_999), position: 0 };
        assert_eq!(audit.proof(beyond).unwrap(), None);
    }
}

/// The newer checkpoint continues the older one.
fn continues(audit: &Audit, old: &SignedCheckpoint, new: &SignedCheckpoint) {
    let tiles = audit.meta();
    let proof = tiles.tiles().prove_growth(old.size(), new.size()).unwrap().unwrap();
    check_consistency(&proof, new.size(), new.root(), old.size(), old.root()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_record_is_published_and_starts_go_on() {
    let log = Arc::new(MemoryLog::new());
    let folder = tempfile::tempdir().unwrap();
    let mut last: Option<SignedCheckpoint> = None;
    for run in 0..3 {
        let engine = start(&log, folder.path()).await.unwrap();
        let audit = Arc::clone(engine.audit().unwrap());
        if let Some(before) = &last {
            assert_eq!(audit.newest().as_ref(), Some(before), "a start shows what was published");
        }
        cast(&engine, run * 300..run * 300 + 300).await;
        let checkpoint = published(&audit, &log).await;
        check(&audit, &log).await;
        if let Some(before) = &last {
            continues(&audit, before, &checkpoint);
        }
        // What comes last is published before the engine ends.
        cast(&engine, run * 300 + 9_000..run * 300 + 9_010).await;
        engine.stop().await;
        last = Some(published(&audit, &log).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_cannot_be_written_stop_nothing_but_checkpoints() {
    let log = Arc::new(MemoryLog::new());
    let folder = tempfile::tempdir().unwrap();
    for (n, file) in (0..).zip(["votes-1/level-0", "votes-1/batches", "returns-0/level-0", "meta/level-0"]) {
        let engine = start(&log, folder.path()).await.unwrap();
        cast(&engine, n * 100..n * 100 + 20).await;
        let before = published(engine.audit().unwrap(), &log).await;
        engine.stop().await;
        // A disk that is full for this file.
        let path = folder.path().join("proof").join(file);
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        let engine = start(&log, folder.path()).await.unwrap();
        cast(&engine, n * 100 + 20..n * 100 + 40).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        std::fs::remove_file(&path).unwrap();
        let audit = Arc::clone(engine.audit().unwrap());
        let after = published(&audit, &log).await;
        continues(&audit, &before, &after);
        check(&audit, &log).await;
        engine.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trees_that_are_gone_are_made_again() {
    let log = Arc::new(MemoryLog::new());
    let folder = tempfile::tempdir().unwrap();
    let engine = start(&log, folder.path()).await.unwrap();
    cast(&engine, 0..300).await;
    let before = published(engine.audit().unwrap(), &log).await;
    engine.stop().await;
    for id in ["votes-0", "votes-1", "returns-0", "returns-1"] {
        std::fs::remove_dir_all(folder.path().join("proof").join(id)).unwrap();
    }
    let engine = start(&log, folder.path()).await.unwrap();
    let audit = Arc::clone(engine.audit().unwrap());
    cast(&engine, 300..310).await;
    let after = published(&audit, &log).await;
    continues(&audit, &before, &after);
    check(&audit, &log).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_lost_or_changed_records_is_not_published() {
    let log = Arc::new(MemoryLog::new());
    let folder = tempfile::tempdir().unwrap();
    let engine = start(&log, folder.path()).await.unwrap();
    cast(&engine, 0..40).await;
    published(engine.audit().unwrap(), &log).await;
    let mut ends: std::collections::BTreeMap<_, _> =
        engine.progress().into_iter().map(|(id, progress)| (id, progress.end)).collect();
    engine.stop().await;
    ends.get_mut(&PartitionId::votes(1)).unwrap().0 -= 1;
    let shorter = Arc::new(prefix(&log, &ends).await);
    let refused = start(&shorter, folder.path()).await.err();
    assert!(
        matches!(refused, Some(StartError::Audit(AuditError::RolledBack { partition, .. })) if partition == PartitionId::votes(1)),
        "{refused:?}"
    );
    // With the tree gone, only its checkpoint knows better; with that gone too, the meta-log does.
    let files = |id: &str| folder.path().join("proof").join(id);
    ["votes-1", "returns-0"].iter().for_each(|id| std::fs::remove_file(files(id).join("level-0")).unwrap());
    ["votes-0", "returns-1"].iter().for_each(|id| std::fs::remove_dir_all(files(id)).unwrap());
    let engine = start(&shorter, folder.path()).await.unwrap();
    let reason = engine.failed().await;
    assert!(reason.contains("a checkpoint of"), "{reason}");
    drop(engine);
    // A log of the same length that is another one.
    let other = Arc::new(MemoryLog::new());
    let elsewhere = tempfile::tempdir().unwrap();
    let engine = start(&other, elsewhere.path()).await.unwrap();
    cast(&engine, 0..40).await;
    engine.stop().await;
    let engine = start(&other, folder.path()).await.unwrap();
    let reason = engine.failed().await;
    assert!(reason.contains("the log was changed"), "{reason}");
}
