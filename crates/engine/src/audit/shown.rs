//! The last checkpoints of the log as a whole, with what they speak of and who has cosigned them.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use canvass_election::ids::{Offset, PartitionId, Timestamp};
use canvass_tlog::SignedCheckpoint;
use canvass_tlog::witness::Cosignature;

/// Checkpoints that may still be cosigned.
const KEPT: usize = 64;
/// A checkpoint that enough witnesses have cosigned is shown rather than a newer one for so long.
const QUORUM_PATIENCE: Duration = Duration::from_secs(10);

/// A checkpoint of the log as a whole.
#[derive(Debug, Clone)]
pub struct Shown {
    /// The checkpoint, with its cosignatures.
    pub checkpoint: SignedCheckpoint,
    /// When it was published, by this server's time.
    pub published: Timestamp,
    /// For each partition, the offset behind the last batch that it speaks of.
    pub covers: BTreeMap<PartitionId, Offset>,
    /// Who has cosigned it.
    pub cosignatures: Vec<Cosignature>,
}

impl Shown {
    /// Whether it speaks of everything before these offsets.
    pub fn has(&self, watermark: &BTreeMap<PartitionId, Offset>) -> bool {
        watermark.iter().all(|(id, end)| self.covers.get(id).is_some_and(|covered| covered >= end))
    }
}

/// The last checkpoints, the newest at the end.
#[derive(Default)]
pub(super) struct Recent(VecDeque<Shown>);

impl Recent {
    pub(super) fn push(&mut self, shown: Shown) {
        if self.newest().is_some_and(|newest| newest.checkpoint.size() == shown.checkpoint.size()) {
            return;
        }
        self.0.push_back(shown);
        if self.0.len() > KEPT {
            self.0.pop_front();
        }
    }

    pub(super) fn newest(&self) -> Option<&Shown> {
        self.0.back()
    }

    /// Leaves of the newest checkpoint that a witness has cosigned; 0 where it has cosigned none of these.
    pub(super) fn cosigned_by(&self, witness: &str) -> u64 {
        let by = |shown: &&Shown| shown.cosignatures.iter().any(|c| c.witness() == witness);
        self.0.iter().rev().find(by).map_or(0, |shown| shown.checkpoint.size())
    }

    /// The checkpoint to show: the newest that `quorum` witnesses have cosigned, unless there is a newer one that
    /// they should have cosigned by now.
    pub(super) fn best(&self, quorum: usize, now: Timestamp) -> Option<&Shown> {
        let good = self.0.iter().rposition(|shown| shown.cosignatures.len() >= quorum);
        let Some((good, newer)) = good.map(|good| (&self.0[good], self.0.get(good + 1))) else {
            return self.newest();
        };
        let patience = u64::try_from(QUORUM_PATIENCE.as_millis()).unwrap_or(u64::MAX);
        let late = newer.is_some_and(|newer| now.0.saturating_sub(newer.published.0) > patience);
        if late { self.newest() } else { Some(good) }
    }

    /// The note with cosignatures of which this is the one without.
    pub(super) fn note_of(&self, note: &str) -> Option<String> {
        let shown = self.0.iter().rev().find(|shown| shown.checkpoint.note().starts_with(note))?;
        Some(shown.checkpoint.note().to_owned())
    }

    /// Adds cosignatures to the checkpoint they are of, if it is still here.
    pub(super) fn cosigned(&mut self, checkpoint: &SignedCheckpoint, new: Vec<Cosignature>) {
        let same = |shown: &&mut Shown| {
            shown.checkpoint.size() == checkpoint.size() && shown.checkpoint.root() == checkpoint.root()
        };
        let Some(shown) = self.0.iter_mut().rev().find(same) else { return };
        for cosignature in new {
            if shown.cosignatures.iter().all(|known| known.witness() != cosignature.witness()) {
                shown.checkpoint = shown.checkpoint.cosigned(std::slice::from_ref(&cosignature));
                shown.cosignatures.push(cosignature);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use canvass_tlog::{MetaLog, SecretKey};

    use super::*;

    fn shown(checkpoint: &SignedCheckpoint, published: u64) -> Shown {
        let (checkpoint, published) = (checkpoint.clone(), Timestamp(published));
        Shown { checkpoint, published, covers: BTreeMap::new(), cosignatures: Vec::new() }
    }

    #[test]
    fn the_newest_is_shown_where_no_witness_is_asked() {
        let folder = tempfile::tempdir().unwrap();
        let mut meta = MetaLog::open(folder.path(), SecretKey::generate("count.example").unwrap()).unwrap();
        let checkpoint = meta.publish(&[]).unwrap();
        let mut recent = Recent::default();
        assert!(recent.best(0, Timestamp(0)).is_none());
        recent.push(shown(&checkpoint, 5));
        recent.push(shown(&checkpoint, 9));
        assert_eq!(recent.0.len(), 1, "the same checkpoint is there once");
        assert_eq!(recent.best(0, Timestamp(99)).unwrap().published, Timestamp(5));
        assert_eq!(recent.best(1, Timestamp(99)).unwrap().published, Timestamp(5));
    }
}
