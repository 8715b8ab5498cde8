//! Hashes of leaves and nodes, as RFC 6962 has them, and what of a record is a leaf.

use std::borrow::Cow;

use sha2::{Digest, Sha256, compress256};
use tlog_tiles::{EMPTY_HASH, Hash};

/// An entry bundle has two bytes for the length of an entry.
const LONGEST: usize = 65_535;
/// No record starts with this byte, because it is the version that no record has.
const STAND_IN: u8 = 0;
/// What fits into two blocks of SHA-256 with its first byte, the end mark and the length.
const SHORT: usize = 128 - 1 - 1 - 8 + 1;
const STAND_IN_LENGTH: usize = 1 + 8 + 32;
/// How many hashes a tile holds.
pub(crate) const WIDTH: usize = 256;

/// What stands in the log for a record, and what its leaf hash is made of.
///
/// For a record of up to 65,535 bytes that is the record. A longer one does not fit an entry bundle, so a
/// stand-in of 41 bytes takes its place: a zero byte, the record's length (8 bytes, big-endian), and its SHA-256.
/// Records must not be empty nor start with a zero byte.
pub fn entry(record: &[u8]) -> Cow<'_, [u8]> {
    if record.len() <= LONGEST {
        return Cow::Borrowed(record);
    }
    let mut out = Vec::with_capacity(STAND_IN_LENGTH);
    out.push(STAND_IN);
    out.extend_from_slice(&(record.len() as u64).to_be_bytes());
    out.extend_from_slice(&Sha256::digest(record));
    Cow::Owned(out)
}

/// What an entry says of its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry<'a> {
    /// The entry is the record.
    Record(&'a [u8]),
    /// The record is too long for an entry bundle and must be fetched by itself.
    Long {
        /// The record's length in bytes.
        length: u64,
        /// The record's SHA-256.
        sha256: [u8; 32],
    },
}

impl<'a> Entry<'a> {
    /// Reads an entry; `None` where it is neither a record nor a stand-in for one.
    pub fn read(entry: &'a [u8]) -> Option<Self> {
        match entry {
            [STAND_IN, rest @ ..] => {
                let (length, sha256) = rest.split_first_chunk::<8>()?;
                Some(Self::Long { length: u64::from_be_bytes(*length), sha256: sha256.try_into().ok()? })
            }
            [] => None,
            record => Some(Self::Record(record)),
        }
    }

    /// Whether this is the entry of that record.
    pub fn is_of(&self, record: &[u8]) -> bool {
        match self {
            Self::Record(own) => *own == record,
            Self::Long { .. } => record.len() > LONGEST && Entry::read(&entry(record)) == Some(*self),
        }
    }
}

/// The leaf hash of an entry, as it stands in a bundle: SHA-256 of a zero byte and the entry.
pub fn leaf_hash(entry: &[u8]) -> Hash {
    if entry.len() < SHORT {
        return short_hash(0, [entry, &[]]);
    }
    let mut sha = Sha256::new();
    sha.update([0]);
    sha.update(entry);
    Hash(sha.finalize().into())
}

/// SHA-256 of a byte and two texts that are together shorter than [`SHORT`]. The blocks are put together here, which
/// takes half the time of a hasher that must be ready for any length.
fn short_hash(first: u8, texts: [&[u8]; 2]) -> Hash {
    const START: [u32; 8] = [
        0x6a09_e667,
        0xbb67_ae85,
        0x3c6e_f372,
        0xa54f_f53a,
        0x510e_527f,
        0x9b05_688c,
        0x1f83_d9ab,
        0x5be0_cd19,
    ];
    let mut bytes = [0; 128];
    bytes[0] = first;
    let mut end = 1;
    for text in texts {
        bytes[end..end + text.len()].copy_from_slice(text);
        end += text.len();
    }
    bytes[end] = 0x80;
    // One block where the end mark and the length, in 8 bytes, fit into it.
    let blocks = if end < 56 { 1 } else { 2 };
    bytes[64 * blocks - 8..64 * blocks].copy_from_slice(&(8 * end as u64).to_be_bytes());
    let (bytes, _) = bytes.as_chunks::<64>();
    let mut state = START;
    compress256(&mut state, &[bytes[0].into(), bytes[1].into()][..blocks]);
    let mut hash = [0; 32];
    for (word, out) in state.iter().zip(hash.as_chunks_mut::<4>().0) {
        *out = word.to_be_bytes();
    }
    Hash(hash)
}

/// The leaf hash of a record.
pub fn record_hash(record: &[u8]) -> Hash {
    leaf_hash(&entry(record))
}

/// The hash of an inner node.
pub(crate) fn node_hash(left: &Hash, right: &Hash) -> Hash {
    short_hash(1, [&left.0, &right.0])
}

/// The root of a complete tree over 1, 2, 4 … or 256 hashes.
pub(crate) fn subtree(hashes: &[Hash]) -> Hash {
    let mut level = [Hash::default(); WIDTH];
    level[..hashes.len()].copy_from_slice(hashes);
    let mut width = hashes.len();
    while width > 1 {
        width /= 2;
        for i in 0..width {
            level[i] = node_hash(&level[2 * i], &level[2 * i + 1]);
        }
    }
    level[0]
}

/// The root of a tree, from the hashes in the last, partial tile of each level, level 0 first.
pub(crate) fn root<'a>(edges: impl Iterator<Item = &'a [Hash]>) -> Hash {
    let mut root = None;
    for edge in edges {
        // From the right: the complete subtrees of a partial tile are the ones of its width in binary.
        let mut end = edge.len();
        while end > 0 {
            let begin = end - (1 << end.trailing_zeros());
            let left = subtree(&edge[begin..end]);
            root = Some(root.map_or(left, |right| node_hash(&left, &right)));
            end = begin;
        }
    }
    root.unwrap_or(EMPTY_HASH)
}

/// Hashes as they lie in a tile.
pub(crate) fn from_bytes(bytes: &[u8]) -> Vec<Hash> {
    bytes.as_chunks::<32>().0.iter().map(|chunk| Hash(*chunk)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_records_have_a_stand_in() {
        let longest = vec![1; LONGEST];
        assert_eq!(entry(&longest), longest);
        assert!(Entry::read(&longest).unwrap().is_of(&longest));
        let long = vec![1; LONGEST + 1];
        let stand_in = entry(&long).into_owned();
        assert_eq!(stand_in.len(), STAND_IN_LENGTH);
        let read = Entry::read(&stand_in).unwrap();
        assert!(matches!(read, Entry::Long { length: 65_536, .. }));
        assert!(read.is_of(&long));
        let mut other = long.clone();
        other[9] ^= 1;
        assert!(!read.is_of(&other) && !read.is_of(&longest) && !read.is_of(&stand_in));
        for bad in [&[][..], &[0], &stand_in[..40], &[&stand_in[..], &[0]].concat()] {
            assert_eq!(Entry::read(bad), None);
        }
    }

    #[test]
    fn hashes_are_those_of_rfc_6962() {
        let (a, b) = (leaf_hash(b"a"), leaf_hash(b"b"));
        assert_eq!(a, tlog_tiles::record_hash(b"a"));
        assert_eq!(node_hash(&a, &b), tlog_tiles::node_hash(a, b));
        for length in 0..200 {
            let entry = vec![7; length];
            assert_eq!(leaf_hash(&entry), tlog_tiles::record_hash(&entry), "{length}");
        }
    }
}
