//! Journals that were written by earlier versions are read for ever.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use canvass_election::ids::{Offset, PartitionId};
use canvass_log::{Batch, FileLog, Log, Options};
use futures_util::StreamExt;

const PARTITIONS: [PartitionId; 3] =
    [PartitionId::returns(0), PartitionId::votes(0), PartitionId::votes(65535)];

fn fixture(version: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/journal-v{version}"))
}

/// What every fixture holds: batches 0 to 7 of three partitions, the first of them empty.
fn batch(partition: PartitionId, n: u32) -> Batch {
    let text = format!("batch {n} of {partition}; ").repeat(n as usize);
    Batch { count: n * 1000, bytes: Bytes::from(text) }
}

async fn fill(folder: &Path) {
    let options = Options { segment_bytes: 1500, ..Options::default() };
    let (log, _) = FileLog::open_with(folder, options).expect("a new journal opens");
    for n in 0..8 {
        for partition in PARTITIONS {
            log.append(partition, batch(partition, n)).await.expect("an append works");
        }
    }
}

#[tokio::test]
async fn a_journal_of_version_1_is_read() {
    let folder = tempfile::tempdir().unwrap();
    for file in fs::read_dir(fixture(1)).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
    }
    let (log, recovered) = FileLog::open(folder.path()).unwrap();
    assert_eq!((recovered.segments, recovered.batches, recovered.records), (3, 24, 84_000));
    assert_eq!(recovered.torn_tail, None);
    for partition in PARTITIONS {
        assert_eq!(log.append(partition, batch(partition, 8)).await.unwrap(), Offset(8));
    }
    log.close().await;
    for partition in PARTITIONS {
        let entries: Vec<_> = log.read(partition, Offset(0)).map(Result::unwrap).collect().await;
        let batches: Vec<_> = entries.into_iter().map(|entry| entry.batch).collect();
        let written: Vec<_> = (0..9).map(|n| batch(partition, n)).collect();
        assert_eq!(batches, written);
    }
}

/// Run when the format gets a new version: `cargo test -p canvass-log -- --ignored write_a_fixture`, then
/// name the folder after the version. The fixtures that are there are never written again.
#[tokio::test]
#[ignore = "writes into the source tree"]
async fn write_a_fixture() {
    let folder = fixture(0);
    fill(&folder).await;
    fs::remove_file(folder.join("lock")).unwrap();
}
