//! Snapshots: a partition's state at an offset, so that a start need not read the whole log.
//!
//! A file is a 16-byte header (`CANVSNAP`, version in 4 bytes, CRC32C of the rest in 4 bytes, little-endian) and
//! the [`Snapshot`] in postcard's form. It is written aside and renamed, so it is whole or not there. A snapshot
//! that is not readable, whose digest does not fit its state, or whose last batch is not the one that the log has
//! there (the log was put back to an older state, or is another election's) is not used: the log alone gives the
//! same state.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use canvass_election::ids::{Offset, PartitionId, Timestamp};
use canvass_election::{Digest, Tally};
use canvass_log::{Log, ReadError};
use serde::{Deserialize, Serialize};

use crate::history::PartitionHistory;

const MAGIC: &[u8; 8] = b"CANVSNAP";
const VERSION: u32 = 4;
const HEADER: usize = 16;

/// A partition's state after some prefix of its batches.
#[derive(Serialize, Deserialize)]
pub(crate) struct Snapshot<T = Tally, H = PartitionHistory> {
    pub(crate) digest: Digest,
    /// The checksum of the last batch folded.
    pub(crate) last: u32,
    pub(crate) tally: T,
    pub(crate) history: H,
}

fn path(folder: &Path, partition: PartitionId) -> PathBuf {
    folder.join(format!("{}.snapshot", partition.to_string().replace('/', "-")))
}

/// Writes the snapshot of a tally and its history.
pub(crate) fn save(folder: &Path, last: u32, tally: &Tally, history: &PartitionHistory) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let snapshot = Snapshot { digest: tally.digest(), last, tally, history };
    let mut bytes = Vec::from(*MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend([0; 4]);
    let mut bytes = postcard::to_extend(&snapshot, bytes).map_err(io::Error::other)?;
    let sum = crc32c::crc32c(&bytes[HEADER..]);
    bytes[12..HEADER].copy_from_slice(&sum.to_le_bytes());
    let target = path(folder, tally.partition());
    let aside = target.with_extension("new");
    let mut file = fs::File::create(&aside)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(&aside, &target)?;
    fs::File::open(folder)?.sync_all()
}

/// The snapshot, if it is one of this log.
pub(crate) async fn of_log<L: Log>(log: &L, snapshot: Snapshot) -> Result<Option<Snapshot>, ReadError> {
    let (partition, end) = (snapshot.tally.partition(), snapshot.tally.end());
    let last = match end.0.checked_sub(1) {
        Some(last) => log.entry(partition, Offset(last)).await?,
        None => None,
    };
    if last.is_some_and(|entry| crc32c::crc32c(&entry.batch.bytes) == snapshot.last) {
        return Ok(Some(snapshot));
    }
    tracing::warn!(%partition, %end, "a snapshot is not of this log; the log is replayed instead");
    Ok(None)
}

/// When the snapshot of a partition was written, if there is one.
pub(crate) fn written(folder: &Path, partition: PartitionId) -> Option<Timestamp> {
    let modified = fs::metadata(path(folder, partition)).and_then(|m| m.modified()).ok()?;
    let since = modified.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_millis()).ok().map(Timestamp)
}

/// Reads the snapshot of a partition, if there is one and it is whole.
pub(crate) fn load(folder: &Path, partition: PartitionId) -> Option<Snapshot> {
    let path = path(folder, partition);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(%partition, %error, "a snapshot cannot be read; the log is replayed instead");
            return None;
        }
    };
    let snapshot = decode(&bytes).filter(|s| s.tally.partition() == partition);
    if snapshot.is_none() {
        tracing::warn!(%partition, "a snapshot is damaged or of another version; the log is replayed instead");
    }
    snapshot
}

fn decode(bytes: &[u8]) -> Option<Snapshot> {
    let (header, body) = bytes.split_at_checked(HEADER)?;
    let sum = u32::from_le_bytes(header[12..].try_into().ok()?);
    if &header[..8] != MAGIC || header[8..12] != VERSION.to_le_bytes() || crc32c::crc32c(body) != sum {
        return None;
    }
    let snapshot: Snapshot = postcard::from_bytes(body).ok()?;
    (snapshot.tally.digest() == snapshot.digest).then_some(snapshot)
}
