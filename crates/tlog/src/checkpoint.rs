//! Checkpoints: what a tree of so many leaves hashes to, signed.

use signed_note::{Note, Signature, VerifierList};
use tlog_tiles::{Checkpoint, Hash};

use crate::MAX_SIZE;
use crate::key::{PublicKey, SecretKey};

/// Why a text is not a checkpoint of the log that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// Not a signed note, or not with a checkpoint in it.
    #[error("this is not a checkpoint")]
    Form,
    /// It has lines after the root hash, or names an impossible size.
    #[error("the checkpoint has extension lines or an impossible size")]
    Unexpected,
    /// It is about another log.
    #[error("the checkpoint is of the log `{found}`, not of `{wanted}`")]
    Origin {
        /// What was asked for.
        wanted: String,
        /// What it says.
        found: String,
    },
    /// The pinned key has not signed it.
    #[error("the checkpoint is not signed by the key {0}")]
    Signature(String),
}

/// A checkpoint and the note that says it.
#[derive(Debug, Clone, PartialEq)]
pub struct SignedCheckpoint {
    origin: String,
    size: u64,
    root: Hash,
    note: String,
}

impl SignedCheckpoint {
    /// Signs the head of the tree named `origin`. The same head and key give the same bytes.
    pub(crate) fn sign(key: &SecretKey, origin: &str, size: u64, root: Hash) -> Self {
        let text = text(origin, size, &root);
        // A key's name and so every origin is free of control characters, and Ed25519 signs anything.
        let mut note = Note::new(text.as_bytes(), &[]).expect("a checkpoint is a note");
        note.add_sigs(&[key]).expect("a key with a valid name signs");
        Self { origin: origin.to_owned(), size, root, note: note_text(&note) }
    }

    /// Reads a checkpoint of the log that `key` is named after, signed by it. Other signatures are left alone.
    pub fn open(note: &[u8], key: &PublicKey) -> Result<Self, CheckpointError> {
        let checkpoint = Self::signed_by(note, key)?;
        if checkpoint.origin == key.name() {
            return Ok(checkpoint);
        }
        Err(CheckpointError::Origin { wanted: key.name().to_owned(), found: checkpoint.origin })
    }

    /// Reads a checkpoint of whatever origin, signed by the key.
    pub(crate) fn signed_by(note: &[u8], key: &PublicKey) -> Result<Self, CheckpointError> {
        let note = Note::from_bytes(note).map_err(|_| CheckpointError::Form)?;
        note.verify(&VerifierList::new(vec![Box::new(key.clone())]))
            .map_err(|_| CheckpointError::Signature(key.to_string()))?;
        let checkpoint = Checkpoint::from_bytes(note.text()).map_err(|_| CheckpointError::Form)?;
        if !checkpoint.extension().is_empty() || checkpoint.size() > MAX_SIZE {
            return Err(CheckpointError::Unexpected);
        }
        Ok(Self {
            origin: checkpoint.origin().to_owned(),
            size: checkpoint.size(),
            root: *checkpoint.hash(),
            note: note_text(&note),
        })
    }

    /// The name of the log.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// How many leaves the tree has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The root hash.
    pub fn root(&self) -> Hash {
        self.root
    }

    /// The signed note, which is what `/checkpoint` serves.
    pub fn note(&self) -> &str {
        &self.note
    }

    /// The three lines that are signed.
    pub fn text(&self) -> String {
        text(&self.origin, self.size, &self.root)
    }

    /// The same checkpoint with more signatures under it.
    pub(crate) fn with(&self, signatures: &[Signature]) -> Self {
        let more = signatures.iter().map(Signature::to_bytes);
        let more: String = more.map(|line| String::from_utf8_lossy(&line).into_owned()).collect();
        Self { note: format!("{}{more}", self.note), ..self.clone() }
    }
}

fn text(origin: &str, size: u64, root: &Hash) -> String {
    format!("{origin}\n{size}\n{root}\n")
}

fn note_text(note: &Note) -> String {
    String::from_utf8_lossy(&note.to_bytes()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leaf_hash;

    #[test]
    fn only_what_the_key_signed_is_believed() {
        let key = SecretKey::generate("count.example/votes/0").unwrap();
        let signed = SignedCheckpoint::sign(&key, key.name(), 7, leaf_hash(b"a"));
        let note = signed.note();
        assert_eq!(SignedCheckpoint::open(note.as_bytes(), &key.public()), Ok(signed.clone()));
        assert_eq!(SignedCheckpoint::sign(&key, key.name(), 7, leaf_hash(b"a")), signed);
        for at in 0..note.len() {
            let mut bytes = note.as_bytes().to_vec();
            bytes[at] ^= 4;
            assert!(SignedCheckpoint::open(&bytes, &key.public()).is_err(), "byte {at}");
        }
        let other = SecretKey::generate(key.name()).unwrap();
        let error = SignedCheckpoint::open(note.as_bytes(), &other.public());
        assert!(matches!(error, Err(CheckpointError::Signature(_))));
    }

    #[test]
    fn other_logs_sizes_and_extensions_are_refused() {
        let key = SecretKey::generate("count.example").unwrap();
        let open = |text: &str| {
            let mut note = Note::new(text.as_bytes(), &[]).unwrap();
            note.add_sigs(&[&key]).unwrap();
            SignedCheckpoint::open(&note.to_bytes(), &key.public())
        };
        let root = leaf_hash(b"a");
        assert!(open(&format!("count.example\n5\n{root}\n")).is_ok());
        assert!(matches!(open(&format!("other.example\n5\n{root}\n")), Err(CheckpointError::Origin { .. })));
        let beyond = format!("count.example\n{}\n{root}\n", MAX_SIZE + 1);
        let extended = format!("count.example\n5\n{root}\nmore\n");
        for text in [beyond, extended] {
            assert_eq!(open(&text), Err(CheckpointError::Unexpected));
        }
        for text in ["count.example\n", "count.example\n05\nAAAA\n", "count.example\n5\nAAAA\n"] {
            assert_eq!(open(text), Err(CheckpointError::Form), "{text}");
        }
    }
}
