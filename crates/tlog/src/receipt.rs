//! Receipts: what a voter holds before the next checkpoint, a signed promise that their record is in the log.
//!
//! A signature takes sixteen microseconds, longer than all else that a vote needs, so not every record is signed
//! by itself: the records of one batch of the log are the leaves of a small tree, and its head is signed once, as
//! a checkpoint named `<log>/batch/<number of the batch>/<time>`. A receipt is the tlog-proof of a record in it:
//! whoever can check a proof can check a receipt. It binds the leaf hash to log, place and time.
//!
//! All of it follows from the batch and the key, so a retry gets the same bytes.

use std::fmt;

use base64::prelude::*;
use tlog_tiles::Hash;

use crate::checkpoint::SignedCheckpoint;
use crate::hash::{node_hash, record_hash};
use crate::key::{PublicKey, SecretKey};
use crate::proof::{Proof, ProofError};

/// What every receipt begins with.
const BEGIN: &[u8] = b"c2sp.org/tlog-proof@v1\\nindex ";
/// A hash in Base64 and a line break as it stands in JSON.
type Line = [u8; 46];
/// Levels of the tree above which the rest of a path is the same for a whole group of records.
const GROUP_LEVELS: usize = 4;

/// The receipts of one batch's records, in the form in which they stand in a JSON string: line breaks are `\\n`.
#[derive(Clone, PartialEq)]
pub struct BatchReceipts {
    /// The lines of the nodes of the lower levels, by level and place, the leaves first. Each stands in the receipts
    /// of all records below its sibling, so it is written once. A node without a sibling stands in the level above as
    /// well.
    levels: Vec<Vec<Line>>,
    /// For each group of records, the rest of the path, an empty line and the note.
    rests: Vec<Vec<u8>>,
    checkpoint: SignedCheckpoint,
}

impl fmt::Debug for BatchReceipts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BatchReceipts({}, {} records)", self.checkpoint.origin(), self.size())
    }
}

impl BatchReceipts {
    /// Signs for a batch: its number in the log that the key is named after, the time its records carry
    /// (milliseconds since 1970), and their leaf hashes ([`record_hash`](crate::record_hash)) in order.
    pub fn sign(key: &SecretKey, batch: u64, time: u64, mut hashes: Vec<Hash>) -> Self {
        let size = hashes.len() as u64;
        let mut levels = vec![lines(&hashes)];
        while hashes.len() > 1 {
            let (pairs, single) = hashes.as_chunks::<2>();
            let above = pairs.iter().map(|[left, right]| node_hash(left, right));
            hashes = above.chain(single.iter().copied()).collect();
            levels.push(lines(&hashes));
        }
        let root = hashes.first().copied().unwrap_or(tlog_tiles::EMPTY_HASH);
        let origin = format!("{}/batch/{batch}/{time}", key.name());
        let checkpoint = SignedCheckpoint::sign(key, &origin, size, root);
        let note = escape(checkpoint.note());
        let upper = levels.split_off(levels.len().min(GROUP_LEVELS));
        let groups = upper.first().map_or(1, Vec::len);
        let rests = (0..groups).map(|group| {
            let mut rest = Vec::with_capacity(upper.len() * size_of::<Line>() + 2 + note.len());
            siblings(&upper, group, &mut rest);
            rest.extend_from_slice(b"\\n");
            rest.extend_from_slice(note.as_bytes());
            rest
        });
        Self { rests: rests.collect(), levels, checkpoint }
    }

    /// How many records the batch has.
    pub fn size(&self) -> u64 {
        self.checkpoint.size()
    }

    /// The receipt of the record at that position in the batch, if it has so many: a tlog-proof.
    pub fn text(&self, position: u32) -> Option<String> {
        let mut json = Vec::new();
        self.write_json(position, &mut json).then_some(())?;
        let text = String::from_utf8(json).ok()?;
        let (head, _) = text.split_at(text.find("\\n\\n")?);
        Some(format!("{}\n\n{}", head.replace("\\n", "\n"), self.checkpoint.note()))
    }

    /// Writes the same as the inside of a JSON string; false, and nothing, if the batch has no such position.
    pub fn write_json(&self, position: u32, out: &mut Vec<u8>) -> bool {
        let place = usize::try_from(position).unwrap_or(usize::MAX);
        let Some(rest) = self.rests.get(place >> GROUP_LEVELS).filter(|_| u64::from(position) < self.size())
        else {
            return false;
        };
        out.extend_from_slice(BEGIN);
        out.extend_from_slice(itoa::Buffer::new().format(position).as_bytes());
        out.extend_from_slice(b"\\n");
        siblings(&self.levels, place, out);
        out.extend_from_slice(rest);
        true
    }
}

/// The lines beside the way up from a node of the lowest of some levels.
fn siblings(levels: &[Vec<Line>], mut node: usize, out: &mut Vec<u8>) {
    for level in levels {
        if let Some(sibling) = level.get(node ^ 1) {
            out.extend_from_slice(sibling);
        }
        node /= 2;
    }
}

fn lines(hashes: &[Hash]) -> Vec<Line> {
    let line = |hash: &Hash| {
        let mut line = *b"????????????????????????????????????????????\\n";
        // 32 bytes are 44 digits, always.
        let _ = BASE64_STANDARD.encode_slice(hash.0, &mut line[..44]);
        line
    };
    hashes.iter().map(line).collect()
}

/// The inside of a JSON string; notes hold no control characters but line breaks.
fn escape(note: &str) -> String {
    note.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
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
                let receipt = receipts.text(position).unwrap();
                assert_eq!(again.text(position).unwrap(), receipt);
                let mut json = Vec::new();
                assert!(receipts.write_json(position, &mut json));
                assert_eq!(String::from_utf8(json).unwrap(), receipt.replace('\n', "\\n"));
                let read: Proof = receipt.parse().unwrap();
                assert_eq!(read.to_string(), receipt);
                let promise = verify_receipt(record, &read, &key.public()).unwrap();
                assert_eq!(
                    promise,
                    Promise { batch: 17, position: position.into(), time: 1_700_000_000_000 }
                );
                assert!(matches!(verify_receipt(b"x", &read, &key.public()), Err(ProofError::Path(_))));
            }
            assert_eq!(receipts.text(count), None);
            assert!(!receipts.write_json(count, &mut Vec::new()));
        }
    }

    #[test]
    fn names_that_json_escapes_are_escaped() {
        let key = SecretKey::generate("a\"b\\c").unwrap();
        let receipts = BatchReceipts::sign(&key, 0, 5, vec![record_hash(b"a")]);
        let mut json = Vec::new();
        assert!(receipts.write_json(0, &mut json));
        let json = String::from_utf8(json).unwrap();
        assert!(json.contains(r#"\n\na\"b\\c/batch/0/5\n1\n"#), "{json}");
    }

    #[test]
    fn receipts_and_checkpoints_are_not_taken_for_each_other() {
        let key = SecretKey::generate("count.example/votes/3").unwrap();
        let leaf = record_hash(b"a");
        let receipt = BatchReceipts::sign(&key, 0, 5, vec![leaf]).text(0).unwrap();
        let receipt: Proof = receipt.parse().unwrap();
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
