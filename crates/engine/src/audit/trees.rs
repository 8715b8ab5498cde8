//! The trees of all partitions and the meta-log above them, for the one who writes them.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::UNIX_EPOCH;

use canvass_election::ids::{Offset, PartitionId, Timestamp};
use canvass_log::Log;
use canvass_tlog::{Hash, MetaLog, SecretKey, Tree, TreeError};

use super::{AuditError, Shown, Views, log_name, partition_key};

pub(crate) struct Trees {
    meta: MetaLog,
    partitions: BTreeMap<PartitionId, Growing>,
    /// A checkpoint of a partition may not be in the meta-log yet.
    owes_meta: bool,
}

/// A tree that takes batches.
struct Growing {
    tree: Tree,
    /// The log had so many batches when the tree was opened: below that, it may be behind its own checkpoint.
    end: u64,
}

impl Growing {
    /// Whether the tree lost its files, and has not yet reached again what was published of it.
    fn catches_up(&self) -> bool {
        let published = self.tree.published().map_or(0, |checkpoint| checkpoint.size());
        self.tree.size() < published && self.tree.next_batch() < self.end
    }

    /// Whether there is something to publish.
    fn has_grown(&self) -> bool {
        let shown = self.tree.tiles().checkpoint();
        shown.is_none_or(|checkpoint| checkpoint.size() != self.tree.size())
    }
}

impl Trees {
    pub(super) fn open(
        folder: &Path,
        key: &SecretKey,
        partitions: &[PartitionId],
    ) -> Result<Self, AuditError> {
        let failed = |log: String| move |source| AuditError::Open { log, source };
        let meta = MetaLog::open(&folder.join("meta"), key.clone()).map_err(failed(key.name().to_owned()))?;
        let mut trees = BTreeMap::new();
        for id in partitions {
            let log = log_name(key.name(), *id);
            let folder = folder.join(id.to_string().replace('/', "-"));
            let known = meta.tiles().covered(&log);
            let tree = Tree::open_knowing(&folder, partition_key(key, *id), known).map_err(failed(log))?;
            trees.insert(*id, Growing { tree, end: 0 });
        }
        Ok(Trees { meta, partitions: trees, owes_meta: true })
    }

    pub(super) fn views(&self) -> Views {
        let tiles = self.partitions.iter().map(|(id, growing)| (*id, growing.tree.tiles()));
        Views { meta: self.meta.tiles(), partitions: tiles.collect() }
    }

    /// Notes where the log ends, which must not be before the trees do.
    pub(super) async fn note_ends<L: Log>(&mut self, log: &L) -> Result<(), AuditError> {
        for (id, growing) in &mut self.partitions {
            growing.end = log.end(*id).await?.0;
            let (partition, end, published) = (*id, growing.end, growing.tree.next_batch());
            if end < published {
                return Err(AuditError::RolledBack { partition, published, end });
            }
        }
        Ok(())
    }

    /// The next batch that each partition's tree takes.
    pub(super) fn next(&self) -> impl Iterator<Item = (PartitionId, u64)> {
        self.partitions.iter().map(|(id, growing)| (*id, growing.tree.next_batch()))
    }

    /// Whether every tree has all that the log held at these ends.
    pub(super) fn have_reached(&self, ends: &BTreeMap<PartitionId, u64>) -> bool {
        self.next().all(|(id, next)| ends.get(&id).is_none_or(|end| next >= *end))
    }

    pub(super) fn append(&mut self, partition: PartitionId, leaves: &[Hash]) -> Result<(), TreeError> {
        let growing = self.partitions.get_mut(&partition);
        growing.map_or(Ok(()), |growing| growing.tree.append(leaves))
    }

    /// What was published last, as it is shown.
    pub(super) fn shown(&self, folder: &Path) -> Option<Shown> {
        let checkpoint = self.meta.tiles().tiles().checkpoint()?;
        let covers = self.partitions.iter().filter_map(|(id, growing)| {
            let tiles = growing.tree.tiles();
            let covered = self.meta.tiles().covered(tiles.checkpoint()?.origin())?;
            (covered.size() == tiles.checkpoint()?.size()).then(|| (*id, Offset(tiles.batches())))
        });
        // Its file is as old as the checkpoint.
        let written =
            std::fs::metadata(folder.join("meta").join("checkpoint")).and_then(|file| file.modified());
        let since = written.ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        let published = Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        Some(Shown { checkpoint, published, covers: covers.collect(), cosignatures: Vec::new() })
    }

    /// Publishes the partitions that have grown, then a checkpoint that speaks for all; tells whether there was anything to publish.
    pub(super) fn publish(&mut self) -> Result<bool, TreeError> {
        for growing in self.partitions.values_mut() {
            if growing.has_grown() && !growing.catches_up() {
                growing.tree.publish()?;
                self.owes_meta = true;
            }
        }
        let owed = self.owes_meta;
        if owed {
            let shown = self.partitions.values().filter_map(|growing| growing.tree.tiles().checkpoint());
            self.meta.publish(&shown.collect::<Vec<_>>())?;
            self.owes_meta = false;
        }
        Ok(owed)
    }
}
