//! Snapshots: a partition's state at an offset, so that a start need not read the whole log.
//!
//! A file is a 16-byte header (`CANVSNAP`, version in 4 bytes, CRC32C of the rest in 4 bytes, little-endian) and
//! the [`Snapshot`] in postcard's form. It is written aside and renamed, so it is whole or not there. A snapshot
//! that is not readable, or whose digest does not fit its state, is set aside: the log alone gives the same state.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use canvass_election::ids::PartitionId;
use canvass_election::{Digest, Tally};
use serde::{Deserialize, Serialize};

use crate::history::PartitionHistory;

const MAGIC: &[u8; 8] = b"CANVSNAP";
const VERSION: u32 = 1;
const HEADER: usize = 16;

/// A partition's state after some prefix of its batches.
#[derive(Serialize, Deserialize)]
pub(crate) struct Snapshot<T = Tally, H = PartitionHistory> {
    pub(crate) digest: Digest,
    pub(crate) tally: T,
    pub(crate) history: H,
}

fn path(folder: &Path, partition: PartitionId) -> PathBuf {
    folder.join(format!("{}.snapshot", partition.to_string().replace('/', "-")))
}

/// Writes the snapshot of a tally and its history.
pub(crate) fn save(folder: &Path, tally: &Tally, history: &PartitionHistory) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let snapshot = Snapshot { digest: tally.digest(), tally, history };
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
