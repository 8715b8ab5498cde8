//! Proofs that a record is in the log, as C2SP's tlog-proof writes them, and their verification.

use std::fmt;
use std::str::FromStr;

use base64::prelude::*;
use tlog_tiles::{Hash, check_record};

use crate::checkpoint::{CheckpointError, SignedCheckpoint};
use crate::hash::{leaf_hash, record_hash};
use crate::key::{KeyError, PublicKey};

const HEADER: &str = "c2sp.org/tlog-proof@v1";
/// More hashes than a path of a believable tree has.
const LONGEST_PATH: usize = 63;

/// A proof that an entry is in a log. Its text is a C2SP tlog-proof.
///
/// A proof by the meta-log carries, as extra data, the proof that leads from the record to the partition's
/// checkpoint, which is the meta-log's leaf: one text leads all the way.
#[derive(Debug, Clone, PartialEq)]
pub struct Proof {
    /// What the text carries beside the proof. Nobody has signed it.
    pub extra: Option<Vec<u8>>,
    /// Which leaf, from 0.
    pub index: u64,
    /// From the leaf's sibling up to the root's child.
    pub path: Vec<Hash>,
    /// The signed note.
    pub checkpoint: String,
}

/// Why a proof proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The text is not a tlog-proof.
    #[error("this is not a tlog-proof: {0}")]
    Form(&'static str),
    /// The checkpoint is not one of the log.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The proof is of another record, or was changed.
    #[error("the proof does not lead from this record to the checkpoint of {0}")]
    Path(String),
    /// The log within is not one of the logs that the meta-log speaks for.
    #[error("`{inner}` is not a partition of `{meta}`")]
    Foreign {
        /// The log that the record is in.
        inner: String,
        /// The log that the key is named after.
        meta: String,
    },
    /// The receipt's checkpoint is not that of a batch.
    #[error("`{0}` does not name a batch of the log")]
    NoBatch(String),
}

impl Proof {
    /// Verifies that the leaf is in the log that the key is named after.
    fn verify(&self, leaf: Hash, key: &PublicKey) -> Result<SignedCheckpoint, ProofError> {
        let checkpoint = SignedCheckpoint::open(self.checkpoint.as_bytes(), key)?;
        self.check(leaf, &checkpoint)?;
        Ok(checkpoint)
    }

    /// Verifies that the leaf is in the checkpoint's tree.
    pub(crate) fn check(&self, leaf: Hash, checkpoint: &SignedCheckpoint) -> Result<(), ProofError> {
        check_record(&self.path, checkpoint.size(), checkpoint.root(), self.index, leaf)
            .map_err(|_| ProofError::Path(checkpoint.origin().to_owned()))
    }
}

/// Verifies that a record is in the log that `key` is named after, and says by which checkpoint.
pub fn verify_inclusion(
    record: &[u8],
    proof: &Proof,
    key: &PublicKey,
) -> Result<SignedCheckpoint, ProofError> {
    proof.verify(record_hash(record), key)
}

/// What a proof by the meta-log has shown.
#[derive(Debug, Clone, PartialEq)]
pub struct Published {
    /// Which leaf of the partition the record is.
    pub index: u64,
    /// The checkpoint of the partition that has the record.
    pub partition: SignedCheckpoint,
    /// The checkpoint of the meta-log that has the partition's checkpoint; cosignatures are in its note.
    pub meta: SignedCheckpoint,
}

/// Verifies the whole way from a record over its partition's checkpoint to a checkpoint of the meta-log, which
/// `key` is named after. The same key under the partition's name must have signed the partition's checkpoint.
pub fn verify_published(record: &[u8], proof: &Proof, key: &PublicKey) -> Result<Published, ProofError> {
    let text = proof.extra.as_deref().and_then(|extra| std::str::from_utf8(extra).ok());
    let inner: Proof = text.ok_or(ProofError::Form("the partition's proof is missing"))?.parse()?;
    let origin = inner.checkpoint.lines().next().unwrap_or_default();
    let foreign = || ProofError::Foreign { inner: origin.to_owned(), meta: key.name().to_owned() };
    let below = origin.strip_prefix(key.name()).is_some_and(|rest| rest.starts_with('/'));
    let own = Some(origin).filter(|_| below).ok_or_else(foreign)?;
    let own = key.named(own).map_err(|_: KeyError| foreign())?;
    let partition = verify_inclusion(record, &inner, &own)?;
    let meta = proof.verify(leaf_hash(inner.checkpoint.as_bytes()), key)?;
    Ok(Published { index: inner.index, partition, meta })
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEADER}")?;
        if let Some(extra) = &self.extra {
            writeln!(f, "extra {}", BASE64_STANDARD.encode(extra))?;
        }
        writeln!(f, "index {}", self.index)?;
        self.path.iter().try_for_each(|hash| writeln!(f, "{hash}"))?;
        write!(f, "\n{}", self.checkpoint)
    }
}

impl FromStr for Proof {
    type Err = ProofError;

    fn from_str(text: &str) -> Result<Self, ProofError> {
        let form = ProofError::Form;
        let (head, checkpoint) = text.split_once("\n\n").ok_or(form("it has no checkpoint"))?;
        let mut lines = head.split('\n').peekable();
        if lines.next() != Some(HEADER) {
            return Err(form("it does not begin with c2sp.org/tlog-proof@v1"));
        }
        let extra =
            lines.next_if(|line| line.starts_with("extra ")).and_then(|line| line.strip_prefix("extra "));
        let extra = extra.map(|extra| BASE64_STANDARD.decode(extra)).transpose();
        let extra = extra.map_err(|_| form("its extra data is not Base64"))?;
        let index =
            lines.next().and_then(|line| line.strip_prefix("index ")).ok_or(form("it has no index"))?;
        let number: u64 = index.parse().map_err(|_| form("its index is not a number"))?;
        if number.to_string() != index {
            return Err(form("its index is not a number"));
        }
        let path: Result<Vec<Hash>, _> = lines.take(LONGEST_PATH + 1).map(Hash::parse_hash).collect();
        let path = path.map_err(|_| form("a line of its path is not a hash"))?;
        if path.len() > LONGEST_PATH {
            return Err(form("its path is too long"));
        }
        Ok(Proof { extra, index: number, path, checkpoint: checkpoint.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::SecretKey;

    // The example of the C2SP text, with checkpoint lines of its own.
    const TEXT: &str = "c2sp.org/tlog-proof@v1
extra aGFsbG8=
index 73894
gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=
B95lDa8R83lS8n0eG+o0buTxRKQTYFi//1U8anccXmA=

example.com/fancylog
109482
sFodV/vSp5O8n9a8QpW6PRY97tfOSW5bsc2Xl/EQi08=

— example.com/fancylog hI2DJwAA
";

    #[test]
    fn texts_read_back() {
        let proof: Proof = TEXT.parse().unwrap();
        assert_eq!((proof.index, proof.path.len(), proof.extra.as_deref()), (73_894, 2, Some(&b"hallo"[..])));
        assert!(proof.checkpoint.starts_with("example.com/fancylog\n109482\n"));
        assert_eq!(proof.to_string(), TEXT);
        let plain = TEXT.replace("extra aGFsbG8=\n", "");
        assert_eq!(plain.parse::<Proof>().unwrap().to_string(), plain);
    }

    #[test]
    fn other_texts_are_no_proofs() {
        let hash = "gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=\n";
        for (what, with) in [
            ("proof@v1", "proof@v2"),
            ("index 7", "index 07"),
            ("index 7", "index +7"),
            ("index 7", "place 7"),
            ("aGFsbG8=", "aGFsbG8"),
            ("AAA=", "AAA"),
            ("PlQ=", "Pl="),
            ("\n\n", "\n"),
            (hash, &hash.repeat(64)),
        ] {
            let text = TEXT.replace(what, with);
            assert!(text == TEXT || text.parse::<Proof>().is_err(), "{what} {with}");
        }
    }

    #[test]
    fn a_proof_is_of_one_record_at_one_place() {
        let key = SecretKey::generate("count.example/votes/0").unwrap();
        let (a, b) = (record_hash(b"a"), record_hash(b"b"));
        let signed = SignedCheckpoint::sign(&key, key.name(), 2, tlog_tiles::node_hash(a, b));
        let proof = Proof { extra: None, index: 0, path: vec![b], checkpoint: signed.note().to_owned() };
        assert_eq!(verify_inclusion(b"a", &proof, &key.public()), Ok(signed));
        let path = ProofError::Path("count.example/votes/0".to_owned());
        for wrong in [
            Proof { index: 1, ..proof.clone() },
            Proof { index: 2, ..proof.clone() },
            Proof { path: vec![], ..proof.clone() },
            Proof { path: vec![b, b], ..proof.clone() },
            Proof { path: vec![a], ..proof.clone() },
        ] {
            assert_eq!(verify_inclusion(b"a", &wrong, &key.public()), Err(path.clone()));
        }
        assert_eq!(verify_inclusion(b"b", &proof, &key.public()), Err(path));
        let other = SecretKey::generate(key.name()).unwrap();
        assert!(matches!(verify_inclusion(b"a", &proof, &other.public()), Err(ProofError::Checkpoint(_))));
    }
}
