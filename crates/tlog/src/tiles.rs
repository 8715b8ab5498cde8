//! What of a tree was published, for its readers: tiles, proofs, and which record is which leaf.

use std::io;
use std::sync::{Arc, PoisonError, RwLock};

use tlog_tiles::{Error, Hash, HashReader, prove_record, prove_tree, split_stored_hash_index};

use crate::checkpoint::SignedCheckpoint;
use crate::hash::{from_bytes, subtree};
use crate::proof::Proof;
use crate::tile::TilePath;
use crate::tree::File;

/// How many batches' ends are read at once.
pub const BATCH_ENDS: u64 = 8_192;

/// How far readers see.
#[derive(Clone)]
pub(crate) struct View {
    pub(crate) checkpoint: SignedCheckpoint,
    pub(crate) batches: u64,
}

struct Shared {
    levels: Vec<File>,
    batches: File,
    view: RwLock<Option<Arc<View>>>,
}

/// The published part of a [`Tree`](crate::Tree). Cheap to clone; bytes once published never change.
#[derive(Clone)]
pub struct Tiles(Arc<Shared>);

impl std::fmt::Debug for Tiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tiles({:?})", self.checkpoint())
    }
}

impl Tiles {
    pub(crate) fn new(levels: Vec<File>, batches: File) -> Self {
        Self(Arc::new(Shared { levels, batches, view: RwLock::new(None) }))
    }

    /// Lets readers see as far as this.
    pub(crate) fn show(&self, view: View) {
        *self.0.view.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(view));
    }

    fn view(&self) -> Option<Arc<View>> {
        self.0.view.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The last checkpoint; `None` before the first, and while a tree that lost its files catches up.
    pub fn checkpoint(&self) -> Option<SignedCheckpoint> {
        self.view().map(|view| view.checkpoint.clone())
    }

    fn size(&self) -> u64 {
        self.view().map_or(0, |view| view.checkpoint.size())
    }

    /// The bytes of a tile of hashes; `None` where nothing that was published has it.
    pub fn tile(&self, path: TilePath) -> io::Result<Option<Vec<u8>>> {
        let Some((level, file)) =
            path.level.and_then(|level| Some((level, self.0.levels.get(usize::from(level))?)))
        else {
            return Ok(None);
        };
        let count = self.size() >> (8 * level);
        let Some(end) = path.end().filter(|end| *end <= count) else { return Ok(None) };
        let mut bytes = vec![0; 32 * usize::from(path.width)];
        file.read_at(&mut bytes, 32 * (end - u64::from(path.width)))?;
        Ok(Some(bytes))
    }

    /// The proof that a checkpoint of this tree has the leaf with this index; `None` where it has no such leaf,
    /// or speaks of more than was published.
    pub fn prove(&self, index: u64, checkpoint: &SignedCheckpoint) -> io::Result<Option<Proof>> {
        if index >= checkpoint.size() || checkpoint.size() > self.size() {
            return Ok(None);
        }
        let path = prove_record(checkpoint.size(), index, self).map_err(io::Error::other)?;
        Ok(Some(Proof { extra: None, index, path, checkpoint: checkpoint.note().to_owned() }))
    }

    /// The proof that the tree of `new` leaves began as the one of `old` leaves; `None` where that cannot be,
    /// or was not published. Nothing needs proving from the empty tree.
    pub fn prove_growth(&self, old: u64, new: u64) -> io::Result<Option<Vec<Hash>>> {
        if old > new || new > self.size() {
            return Ok(None);
        }
        if old == 0 {
            return Ok(Some(Vec::new()));
        }
        prove_tree(new, old, self).map(Some).map_err(io::Error::other)
    }

    /// How many batches were published.
    pub fn batches(&self) -> u64 {
        self.view().map_or(0, |view| view.batches)
    }

    /// The leaf of the record at a position of a batch, if it was published.
    pub fn leaf(&self, batch: u64, position: u32) -> io::Result<Option<u64>> {
        if self.view().is_none_or(|view| batch >= view.batches) {
            return Ok(None);
        }
        let begin = if batch == 0 { 0 } else { self.batch_end(batch - 1)? };
        let leaf = begin + u64::from(position);
        Ok((leaf < self.batch_end(batch)?).then_some(leaf))
    }

    /// The batch of a leaf and the leaf's position in it, if it was published.
    pub fn record(&self, leaf: u64) -> io::Result<Option<(u64, u32)>> {
        let Some(view) = self.view().filter(|view| leaf < view.checkpoint.size()) else { return Ok(None) };
        // The first batch that ends behind the leaf.
        let (mut low, mut high) = (0, view.batches);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.batch_end(middle)? > leaf { high = middle } else { low = middle + 1 }
        }
        let begin = if low == 0 { 0 } else { self.batch_end(low - 1)? };
        let position = u32::try_from(leaf - begin).map_err(io::Error::other)?;
        Ok(Some((low, position)))
    }

    /// Where batches end: the number of leaves up to the end of each, 8 bytes each, little-endian, for the batches
    /// from `slice` times [`BATCH_ENDS`] on. A slice that is not full grows with the next checkpoint; `None` where it
    /// has none yet. A leaf does not say which batch it came in, and a record is named after its batch.
    pub fn batch_ends(&self, slice: u64) -> io::Result<Option<Vec<u8>>> {
        let count = self.view().map_or(0, |view| view.batches);
        let Some(begin) = slice.checked_mul(BATCH_ENDS).filter(|begin| *begin < count) else {
            return Ok(None);
        };
        let wanted = usize::try_from((count - begin).min(BATCH_ENDS)).map_err(io::Error::other)?;
        let mut bytes = vec![0; 8 * wanted];
        self.0.batches.read_at(&mut bytes, 8 * begin)?;
        Ok(Some(bytes))
    }

    fn batch_end(&self, batch: u64) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.0.batches.read_at(&mut bytes, 8 * batch)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// The hash of the `n`th complete subtree of `2^level` leaves.
    fn node(&self, level: u8, n: u64) -> io::Result<Hash> {
        let (tiles, height) = (level / 8, level % 8);
        let file = self.0.levels.get(usize::from(tiles)).ok_or(io::ErrorKind::InvalidInput)?;
        let mut bytes = vec![0; 32 << height];
        file.read_at(&mut bytes, (32 * n) << height)?;
        Ok(subtree(&from_bytes(&bytes)))
    }
}

impl HashReader for Tiles {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, Error> {
        let read = |index: &u64| {
            let (level, n) = split_stored_hash_index(*index);
            self.node(level, n).map_err(|error| Error::InvalidInput(error.to_string()))
        };
        indexes.iter().map(read).collect()
    }
}
