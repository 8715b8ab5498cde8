//! One log's tree on disk: leaf hashes come in by the batch, tiles and checkpoints come out.
//!
//! A folder holds, for each level of tiles, one flat file of all hashes of that level (`level-0` the leaf
//! hashes), so that every tile, full or partial, is a slice of it; `batches`, the number of leaves up to the end
//! of each batch, 8 bytes each, little-endian; and `checkpoint`, the last one published. All of it but the
//! checkpoint can be made again from the log.
//!
//! A checkpoint is signed when everything it speaks of is durable, and shown when it is durable itself. So after
//! a crash the files are whole up to the last checkpoint; what lies behind it is cut and comes again.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tlog_tiles::Hash;

use crate::MAX_SIZE;
use crate::checkpoint::SignedCheckpoint;
use crate::disk::{Disk, DiskFile, Folder};
use crate::flat::Flat;
use crate::hash::{WIDTH, from_bytes, root, subtree};
use crate::key::SecretKey;
use crate::tiles::{Tiles, View};

/// Levels of tiles: enough for [`MAX_SIZE`].
pub(crate) const LEVELS: usize = 5;
const CHECKPOINT: &str = "checkpoint";

/// Why a tree's folder could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder could not be read or made.
    #[error("the tree's files could not be opened: {0}")]
    Io(#[from] io::Error),
    /// The checkpoint in the folder is not one that the log's key has signed.
    #[error("the last checkpoint in the folder is not this log's: {0}")]
    Checkpoint(#[from] crate::checkpoint::CheckpointError),
    /// What cannot be made again is not there.
    #[error("`{0}` is shorter than the last checkpoint says, or damaged; put it back from a copy")]
    Damaged(&'static str),
}

/// Why a tree took no leaves or published nothing.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// The files could not be written. The tree must be opened again, which cuts it to its last checkpoint.
    #[error("the tree's files could not be written: {0}")]
    Io(#[from] io::Error),
    /// An earlier call failed with [`TreeError::Io`].
    #[error("the tree must be opened again after its files could not be written")]
    Broken,
    /// The tree has [`MAX_SIZE`] leaves.
    #[error("a tree takes no more than {MAX_SIZE} leaves")]
    Full,
    /// The tree is shorter than its last checkpoint. If the whole log was appended, the log lost records.
    #[error("the tree has {size} leaves, and a checkpoint of {published} was published")]
    RolledBack {
        /// The leaves that the last checkpoint speaks of.
        published: u64,
        /// The leaves there are.
        size: u64,
    },
    /// The first leaves are not those that the last checkpoint speaks of: the log was changed.
    #[error("the first {published} leaves are not those that were published; the log was changed")]
    Contradiction {
        /// The leaves that the last checkpoint speaks of.
        published: u64,
    },
}

/// The hashes of one level of tiles.
struct Level {
    flat: Flat,
    /// Those in the last tile, while it is partial.
    edge: Vec<Hash>,
}

/// One log's tree, for the one who writes it. Readers have its [`Tiles`].
pub struct Tree {
    key: SecretKey,
    disk: Arc<dyn Disk>,
    levels: Vec<Level>,
    batches: Flat,
    size: u64,
    published: Option<SignedCheckpoint>,
    tiles: Tiles,
    broken: bool,
}

impl std::fmt::Debug for Tree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tree({}, {} leaves)", self.key.name(), self.size)
    }
}

impl Tree {
    /// Opens the tree of the log that the key is named after, or begins it.
    ///
    /// The tree is as its last checkpoint says, and goes on at [`Tree::next_batch`]. Where its files do not
    /// bear the checkpoint out, it is empty and all of the log must be appended again; then nothing is shown
    /// until the tree has been found to agree with the checkpoint.
    pub fn open(folder: &Path, key: SecretKey) -> Result<Self, OpenError> {
        Self::open_knowing(folder, key, None)
    }

    /// The same, where a checkpoint of this log is known from elsewhere, such as the meta-log. The tree does not
    /// contradict it either, should the folder have none or an older one.
    pub fn open_knowing(
        folder: &Path,
        key: SecretKey,
        known: Option<SignedCheckpoint>,
    ) -> Result<Self, OpenError> {
        Self::open_on(Arc::new(Folder::open(folder)?), key, known)
    }

    pub(crate) fn open_on(
        disk: Arc<dyn Disk>,
        key: SecretKey,
        known: Option<SignedCheckpoint>,
    ) -> Result<Self, OpenError> {
        let own = disk.read(CHECKPOINT)?;
        let own = own.map(|note| SignedCheckpoint::open(&note, &key.public())).transpose()?;
        let published = own.into_iter().chain(known).max_by_key(SignedCheckpoint::size);
        let mut levels = Vec::new();
        for level in 0..LEVELS {
            levels.push(Level { flat: Flat::open(&*disk, &format!("level-{level}"))?, edge: Vec::new() });
        }
        let batches = Flat::open(&*disk, "batches")?;
        disk.sync_names()?;
        let files = levels.iter().map(|level| level.flat.file()).collect();
        let tiles = Tiles::new(files, batches.file());
        let mut tree = Self { key, disk, levels, batches, size: 0, published, tiles, broken: false };
        tree.recover()?;
        Ok(tree)
    }

    /// Cuts the files to the last checkpoint if they bear it out, and to nothing otherwise.
    fn recover(&mut self) -> io::Result<()> {
        let published = self.published.clone();
        let (mut size, mut batches) = (0, 0);
        if let Some(checkpoint) = &published
            && let Some(count) = self.batches_up_to(checkpoint.size())?
            && self.holds(checkpoint.size())
            && self.root_at(checkpoint.size())? == checkpoint.root()
        {
            (size, batches) = (checkpoint.size(), count);
        }
        self.batches.cut(8 * batches)?;
        for level in 0..LEVELS {
            self.levels[level].edge = self.edge(level, size)?;
            self.levels[level].flat.cut(32 * (size >> (8 * level)))?;
        }
        self.size = size;
        if let Some(checkpoint) = published.filter(|checkpoint| checkpoint.size() == size) {
            self.tiles.show(View { checkpoint, batches });
        }
        Ok(())
    }

    /// Whether every level has as many hashes as a tree of that size needs.
    fn holds(&self, size: u64) -> bool {
        (0..).zip(&self.levels).all(|(level, own)| own.flat.size() / 32 >= size >> (8 * level))
    }

    /// How many batches make up that many leaves, if some do. What lies behind the last sync may be anything,
    /// so this looks from the front.
    fn batches_up_to(&self, size: u64) -> io::Result<Option<u64>> {
        const STEP: usize = 1 << 16;
        let (file, end) = (self.batches.file(), self.batches.size() / 8 * 8);
        let (mut at, mut buffer) = (0, vec![0; STEP]);
        if size == 0 {
            return Ok(Some(0));
        }
        while at < end {
            buffer.truncate(usize::try_from(end - at).unwrap_or(STEP));
            file.read_at(&mut buffer, at)?;
            let ends = buffer.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes));
            if let Some((index, found)) = (0_u64..).zip(ends).find(|(_, leaves)| *leaves >= size) {
                return Ok((found == size).then_some(at / 8 + index + 1));
            }
            at += buffer.len() as u64;
        }
        Ok(None)
    }

    /// The hashes in the last, partial tile of a level in a tree of that size.
    fn edge(&self, level: usize, size: u64) -> io::Result<Vec<Hash>> {
        edge(&*self.levels[level].flat.file(), level, size)
    }

    /// The root of the tree as it was at that size, from the files.
    fn root_at(&self, size: u64) -> io::Result<Hash> {
        let edges: Vec<_> = (0..LEVELS).map(|level| self.edge(level, size)).collect::<Result<_, _>>()?;
        Ok(root(edges.iter().map(Vec::as_slice)))
    }

    /// How many leaves the tree has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The batch to append next, counted from 0: the log's offset to go on reading from.
    pub fn next_batch(&self) -> u64 {
        self.batches.size() / 8
    }

    /// The last checkpoint, whether or not the tree has reached it again.
    pub fn published(&self) -> Option<&SignedCheckpoint> {
        self.published.as_ref()
    }

    /// What readers see: everything up to the last checkpoint.
    pub fn tiles(&self) -> Tiles {
        self.tiles.clone()
    }

    /// Appends the leaf hashes of the next batch. They are in no tile until they are published.
    pub fn append(&mut self, leaves: &[Hash]) -> Result<(), TreeError> {
        if self.broken {
            return Err(TreeError::Broken);
        }
        let size = self.size + leaves.len() as u64;
        if size > MAX_SIZE {
            return Err(TreeError::Full);
        }
        self.try_append(leaves, size).inspect_err(|_| self.broken = true)?;
        self.size = size;
        Ok(())
    }

    fn try_append(&mut self, leaves: &[Hash], size: u64) -> io::Result<()> {
        for leaf in leaves {
            let mut hash = *leaf;
            for Level { flat, edge } in &mut self.levels {
                flat.append(&hash.0)?;
                edge.push(hash);
                if edge.len() < WIDTH {
                    break;
                }
                hash = subtree(edge);
                edge.clear();
            }
        }
        self.batches.append(&size.to_le_bytes())
    }

    /// Makes the tree durable, then a checkpoint of it, and shows both to readers. The checkpoint never
    /// contradicts one that was published before.
    pub fn publish(&mut self) -> Result<SignedCheckpoint, TreeError> {
        if self.broken {
            return Err(TreeError::Broken);
        }
        let result = self.try_publish();
        self.broken |= matches!(result, Err(TreeError::Io(_)));
        result
    }

    fn try_publish(&mut self) -> Result<SignedCheckpoint, TreeError> {
        for level in &mut self.levels {
            level.flat.flush()?;
        }
        if let Some(before) = &self.published {
            let (published, size) = (before.size(), self.size);
            if size < published {
                return Err(TreeError::RolledBack { published, size });
            }
            if self.root_at(published)? != before.root() {
                return Err(TreeError::Contradiction { published });
            }
        }
        for level in &mut self.levels {
            level.flat.sync()?;
        }
        self.batches.sync()?;
        let head = root(self.levels.iter().map(|level| level.edge.as_slice()));
        let checkpoint = SignedCheckpoint::sign(&self.key, self.key.name(), self.size, head);
        if self.published.as_ref() != Some(&checkpoint) {
            self.disk.replace(CHECKPOINT, checkpoint.note().as_bytes())?;
            self.published = Some(checkpoint.clone());
        }
        self.tiles.show(View { checkpoint: checkpoint.clone(), batches: self.next_batch() });
        Ok(checkpoint)
    }
}

/// The hashes in the last, partial tile of a level in a tree of that size.
fn edge(file: &dyn DiskFile, level: usize, size: u64) -> io::Result<Vec<Hash>> {
    let end = size >> (8 * level);
    let width = usize::from(end.to_le_bytes()[0]);
    let mut bytes = vec![0; 32 * width];
    file.read_at(&mut bytes, 32 * (end - width as u64))?;
    Ok(from_bytes(&bytes))
}

/// What a tree shares with its readers.
pub(crate) type File = Arc<dyn DiskFile>;

#[cfg(test)]
mod tests;
