//! The log of logs: its leaves are the partitions' checkpoints, and its checkpoint speaks for all of them.
//!
//! A leaf is the note of a partition's checkpoint, byte for byte, with the log's signature and no other. The
//! leaves of one publication are those that changed since the last, ordered by their origin. Beside its tree's
//! files the folder holds `entries`, all leaves in the form of an entry bundle. Unlike a partition's records they
//! are nowhere else: this file must not be lost.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::checkpoint::SignedCheckpoint;
use crate::disk::{Disk, DiskFile, Folder};
use crate::flat::Flat;
use crate::hash::{WIDTH, leaf_hash};
use crate::key::{PublicKey, SecretKey};
use crate::proof::Proof;
use crate::tile::{TilePath, push_entry, take_entry};
use crate::tiles::Tiles;
use crate::tree::{OpenError, Tree, TreeError};

const ENTRIES: &str = "entries";
/// How much of the entries is read at once when a folder is opened.
const CHUNK: usize = 1 << 20;

/// The log of the partitions' checkpoints, for the one who writes it.
pub struct MetaLog {
    tree: Tree,
    entries: Flat,
    tiles: MetaTiles,
    broken: bool,
}

impl std::fmt::Debug for MetaLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MetaLog({:?})", self.tree)
    }
}

/// What readers know of the entries.
#[derive(Default)]
struct Index {
    /// Where each bundle begins in the file, and where the last entry ends.
    bundles: Vec<u64>,
    end: u64,
    /// By origin, the newest checkpoint in the log and its leaf.
    newest: BTreeMap<String, (u64, SignedCheckpoint)>,
}

impl MetaLog {
    /// Opens the log that the key is named after, or begins it. It is as its last checkpoint says.
    pub fn open(folder: &Path, key: SecretKey) -> Result<Self, OpenError> {
        Self::open_on(Arc::new(Folder::open(folder)?), key)
    }

    pub(crate) fn open_on(disk: Arc<dyn Disk>, key: SecretKey) -> Result<Self, OpenError> {
        let public = key.public();
        let mut entries = Flat::open(&*disk, ENTRIES)?;
        let mut tree = Tree::open_on(disk, key, None)?;
        let index = recover(&mut tree, &mut entries, &public)?;
        let tiles =
            MetaTiles { tiles: tree.tiles(), entries: entries.file(), index: Arc::new(RwLock::new(index)) };
        Ok(Self { tree, entries, tiles, broken: false })
    }

    /// The last checkpoint.
    pub fn published(&self) -> Option<&SignedCheckpoint> {
        self.tree.published()
    }

    /// What readers see.
    pub fn tiles(&self) -> MetaTiles {
        self.tiles.clone()
    }

    /// Publishes a checkpoint that covers these checkpoints of partitions; those that are in the log already
    /// are passed over. None may take back what an earlier one of its origin said.
    pub fn publish(&mut self, checkpoints: &[SignedCheckpoint]) -> Result<SignedCheckpoint, TreeError> {
        if self.broken {
            return Err(TreeError::Broken);
        }
        let mut new = Vec::new();
        for checkpoint in checkpoints {
            if self.tiles.is_new(checkpoint)? {
                new.push(checkpoint.clone());
            }
        }
        new.sort_by(|a, b| (a.origin(), a.size()).cmp(&(b.origin(), b.size())));
        let result = self.try_publish(&new);
        self.broken = result.is_err();
        result
    }

    fn try_publish(&mut self, new: &[SignedCheckpoint]) -> Result<SignedCheckpoint, TreeError> {
        let mut index = self.tiles.write();
        for (leaf, checkpoint) in (self.tree.size()..).zip(new) {
            let mut bytes = Vec::new();
            push_entry(&mut bytes, checkpoint.note().as_bytes());
            index.begin(leaf, self.entries.size());
            self.entries.append(&bytes)?;
            self.tree.append(&[leaf_hash(checkpoint.note().as_bytes())])?;
        }
        index.end = self.entries.size();
        drop(index);
        self.entries.sync()?;
        let first = self.tree.size() - new.len() as u64;
        let published = self.tree.publish()?;
        let mut index = self.tiles.write();
        for (leaf, checkpoint) in (first..).zip(new) {
            index.newest.insert(checkpoint.origin().to_owned(), (leaf, checkpoint.clone()));
        }
        drop(index);
        Ok(published)
    }
}

impl Index {
    /// Notes where an entry begins.
    fn begin(&mut self, leaf: u64, at: u64) {
        if leaf.is_multiple_of(WIDTH as u64) {
            self.bundles.push(at);
        }
    }
}

/// Reads the entries up to the last checkpoint, cuts what lies behind it, and appends to the tree what it lost.
fn recover(tree: &mut Tree, entries: &mut Flat, key: &PublicKey) -> Result<Index, OpenError> {
    let wanted = tree.published().map_or(0, SignedCheckpoint::size);
    let (mut index, mut notes) = (Index::default(), BTreeMap::new());
    let mut reader =
        EntryReader { file: entries.file(), size: entries.size(), buffer: Vec::new(), from: 0, at: 0 };
    for leaf in 0..wanted {
        index.begin(leaf, index.end);
        let entry = reader.next()?.ok_or(OpenError::Damaged(ENTRIES))?;
        index.end += 2 + entry.len() as u64;
        if leaf >= tree.size() {
            tree.append(&[leaf_hash(entry)]).map_err(io::Error::other)?;
        }
        let origin = entry.split(|byte| *byte == b'\n').next().unwrap_or_default();
        notes.insert(origin.to_vec(), (leaf, entry.to_vec()));
    }
    for (origin, (leaf, note)) in notes {
        let origin = std::str::from_utf8(&origin).ok().and_then(|origin| key.named(origin).ok());
        let checkpoint = origin.and_then(|own| SignedCheckpoint::open(&note, &own).ok());
        let checkpoint = checkpoint.ok_or(OpenError::Damaged(ENTRIES))?;
        index.newest.insert(checkpoint.origin().to_owned(), (leaf, checkpoint));
    }
    entries.cut(index.end)?;
    Ok(index)
}

/// Reads a file of entries from its beginning, a chunk at a time.
struct EntryReader {
    file: Arc<dyn DiskFile>,
    size: u64,
    buffer: Vec<u8>,
    /// How much of the buffer was given out.
    from: usize,
    /// How much of the file was read.
    at: u64,
}

impl EntryReader {
    fn next(&mut self) -> io::Result<Option<&[u8]>> {
        while take_entry(&self.buffer[self.from..]).is_none() {
            let left = self.size - self.at;
            let more = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
            if more == 0 {
                return Ok(None);
            }
            self.buffer.drain(..self.from);
            self.from = 0;
            let begin = self.buffer.len();
            self.buffer.resize(begin + more, 0);
            self.file.read_at(&mut self.buffer[begin..], self.at)?;
            self.at += more as u64;
        }
        let entry = take_entry(&self.buffer[self.from..]).map(|(entry, _)| entry);
        self.from += entry.map_or(0, |entry| 2 + entry.len());
        Ok(entry)
    }
}

/// The published part of the meta-log. Cheap to clone.
#[derive(Clone)]
pub struct MetaTiles {
    tiles: Tiles,
    entries: Arc<dyn DiskFile>,
    index: Arc<RwLock<Index>>,
}

impl std::fmt::Debug for MetaTiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.tiles.fmt(f)
    }
}

impl MetaTiles {
    fn read(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tree's tiles, checkpoint and proofs.
    pub fn tiles(&self) -> &Tiles {
        &self.tiles
    }

    /// The newest checkpoint of a partition that a published checkpoint of the meta-log covers. Proofs of
    /// records are to be made for this one, so that [`MetaTiles::prove`] can lead on from there.
    pub fn covered(&self, origin: &str) -> Option<SignedCheckpoint> {
        self.read().newest.get(origin).map(|(_, checkpoint)| checkpoint.clone())
    }

    /// Whether a checkpoint is not in the log yet.
    fn is_new(&self, checkpoint: &SignedCheckpoint) -> Result<bool, TreeError> {
        let Some(before) = self.covered(checkpoint.origin()) else { return Ok(true) };
        let (published, size) = (before.size(), checkpoint.size());
        if size < published {
            return Err(TreeError::RolledBack { published, size });
        }
        if size == published && checkpoint.root() != before.root() {
            return Err(TreeError::Contradiction { published });
        }
        Ok(size > published)
    }

    /// Leads a proof within a partition on to the last checkpoint of the meta-log. `None` unless the proof is
    /// for the partition's [`MetaTiles::covered`] checkpoint; a newer one may have come since it was asked for.
    pub fn prove(&self, inner: &Proof) -> io::Result<Option<Proof>> {
        let origin = inner.checkpoint.lines().next().unwrap_or_default();
        let leaf = match self.read().newest.get(origin) {
            Some((leaf, checkpoint)) if checkpoint.note() == inner.checkpoint => *leaf,
            _ => return Ok(None),
        };
        let Some(checkpoint) = self.tiles.checkpoint() else { return Ok(None) };
        let proof = self.tiles.prove(leaf, &checkpoint)?;
        Ok(proof.map(|proof| Proof { extra: Some(inner.to_string().into_bytes()), ..proof }))
    }

    /// The bytes of an entry bundle; `None` where nothing that was published has it.
    pub fn bundle(&self, path: TilePath) -> io::Result<Option<Vec<u8>>> {
        let size = self.tiles.checkpoint().map_or(0, |checkpoint| checkpoint.size());
        if path.level.is_some() || path.end().is_none_or(|end| end > size) {
            return Ok(None);
        }
        let (begin, end) = {
            let index = self.read();
            let Some(number) = usize::try_from(path.index).ok() else { return Ok(None) };
            let Some(begin) = index.bundles.get(number) else { return Ok(None) };
            (*begin, index.bundles.get(number + 1).copied().unwrap_or(index.end))
        };
        let mut bytes = vec![0; usize::try_from(end - begin).map_err(io::Error::other)?];
        self.entries.read_at(&mut bytes, begin)?;
        let mut rest = &bytes[..];
        for _ in 0..path.width {
            (_, rest) = take_entry(rest).ok_or(io::ErrorKind::InvalidData)?;
        }
        bytes.truncate(bytes.len() - rest.len());
        Ok(Some(bytes))
    }
}

#[cfg(test)]
mod tests;
