//! Receipts: what a voter holds before the next checkpoint, a signed promise that their record is in the log.
//!
//! A signature takes sixteen microseconds, longer than all else that a vote needs, so not every record is signed
//! by itself: the records of one batch of the log are the leaves of a small tree, and its head is signed once, as
//! a checkpoint named `<log>/batch/<number of the batch>/<time>`. A receipt is the tlog-proof of a record in it:
//! whoever can check a proof can check a receipt. It binds the leaf hash to log, place and time.
//!
//! All of it follows from the batch and the key, so a retry gets the same bytes.

use tlog_tiles::{Error, Hash, HashReader, prove_record, split_stored_hash_index};

use crate::checkpoint::SignedCheckpoint;
use crate::hash::{node_hash, record_hash, root};
use crate::key::{PublicKey, SecretKey};
use crate::proof::{Proof, ProofError};

/// The receipts of one batch's records.
#[derive(Debug, Clone)]
pub struct BatchReceipts {
    /// The hashes of all complete subtrees, by level and place.
    levels: Vec<Vec<Hash>>,
    checkpoint: SignedCheckpoint,
}

impl BatchReceipts {
    /// Signs for a batch: its number in the log that the key is named after, the time its records carry
    /// (milliseconds since 1970), and their leaf hashes ([`record_hash`](crate::record_hash)) in order.
    pub fn sign(key: &SecretKey, batch: u64, time: u64, leaves: Vec<Hash>) -> Self {
        let size = leaves.len() as u64;
        let mut levels = vec![leaves];
        while let Some(level) = levels.last().filter(|level| level.len() > 1) {
            let above = level.as_chunks::<2>().0.iter().map(|[left, right]| node_hash(left, right)).collect();
            levels.push(above);
        }
        // Where a level has an odd number of hashes, the last of them is in no complete subtree above.
        let edges = levels.iter().map(|level| &level[level.len() & !1..]);
        let root = root(edges);
        let origin = format!("{}/batch/{batch}/{time}", key.name());
        Self { checkpoint: SignedCheckpoint::sign(key, &origin, size, root), levels }
    }

    /// The receipt of the record at that position in the batch, if it has so many.
    pub fn receipt(&self, position: u32) -> Option<Proof> {
        let path = prove_record(self.checkpoint.size(), position.into(), self).ok()?;
        let checkpoint = self.checkpoint.note().to_owned();
        Some(Proof { extra: None, index: position.into(), path, checkpoint })
    }
}

impl HashReader for BatchReceipts {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, Error> {
        let read = |index: &u64| {
            let (level, n) = split_stored_hash_index(*index);
            let hashes = self.levels.get(usize::from(level))?;
            hashes.get(usize::try_from(n).ok()?).copied()
        };
        indexes.iter().map(|index| read(index).ok_or(Error::IndexesNotInTree)).collect()
    }
}

/// What a receipt promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Promise {
    /// The batch of the log that has the record.
    pub batch: u64,
    /// The record's position in it.
    pub position: u64,
    /// The record's time, milliseconds since 1970.
    pub time: u64,
}

/// Verifies that the log which `key` is named after has promised this record, and says where and when.
pub fn verify_receipt(record: &[u8], receipt: &Proof, key: &PublicKey) -> Result<Promise, ProofError> {
    let checkpoint = SignedCheckpoint::signed_by(receipt.checkpoint.as_bytes(), key)?;
    let numbers = |origin: &str| -> Option<(u64, u64)> {
        let (batch, time) = origin.strip_prefix(key.name())?.strip_prefix("/batch/")?.split_once('/')?;
        Some((batch.parse().ok()?, time.parse().ok()?))
    };
    let (batch, time) = numbers(checkpoint.origin())
        .filter(|(batch, time)| checkpoint.origin() == format!("{}/batch/{batch}/{time}", key.name()))
        .ok_or_else(|| ProofError::NoBatch(checkpoint.origin().to_owned()))?;
    receipt.check(record_hash(record), &checkpoint)?;
    Ok(Promise { batch, position: receipt.index, time })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::CheckpointError;

    #[test]
    fn every_record_of_a_batch_has_a_receipt() {
        let key = SecretKey::generate("count.example/votes/3").unwrap();
        for count in (1..20_u32).chain([100, 255, 256, 257]) {
            let records: Vec<_> = (0..count).map(u32::to_be_bytes).collect();
            let leaves: Vec<_> = records.iter().map(|record| record_hash(record)).collect();
            let receipts = BatchReceipts::sign(&key, 17, 1_700_000_000_000, leaves.clone());
            let again = BatchReceipts::sign(&key, 17, 1_700_000_000_000, leaves);
            for (position, record) in (0..).zip(&records) {
                let receipt = receipts.receipt(position).unwrap();
                assert_eq!(again.receipt(position).unwrap().to_string(), receipt.to_string());
                let read: Proof = receipt.to_string().parse().unwrap();
                let promise = verify_receipt(record, &read, &key.public()).unwrap();
                assert_eq!(
                    promise,
                    Promise { batch: 17, position: position.into(), time: 1_700_000_000_000 }
                );
                assert!(matches!(verify_receipt(b"x", &read, &key.public()), Err(ProofError::Path(_))));
            }
            assert_eq!(receipts.receipt(count), None);
        }
    }

    #[test]
    fn receipts_and_checkpoints_are_not_taken_for_each_other() {
        let key = SecretKey::generate("count.example/votes/3").unwrap();
        let leaf = record_hash(b"a");
        let receipt = BatchReceipts::sign(&key, 0, 5, vec![leaf]).receipt(0).unwrap();
        assert!(matches!(
            crate::verify_inclusion(b"a", &receipt, &key.public()),
            Err(ProofError::Checkpoint(CheckpointError::Origin { .. }))
        ));
        for origin in
            ["", "/batch/0", "/batch/0/", "/batch/00/5", "/batch/+0/5", "/batches/0/5", "/batch/0/5/"]
        {
            let signed = SignedCheckpoint::sign(&key, &format!("{}{origin}", key.name()), 1, leaf);
            let wrong = Proof { checkpoint: signed.note().to_owned(), ..receipt.clone() };
            assert!(
                matches!(verify_receipt(b"a", &wrong, &key.public()), Err(ProofError::NoBatch(_))),
                "{origin}"
            );
        }
    }
}
