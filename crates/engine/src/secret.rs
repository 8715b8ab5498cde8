//! The key that turns voters into pseudonyms.

use canvass_election::event::Choices;
use canvass_election::ids::{Nullifier, PartitionId, RequestId};
use smallvec::SmallVec;

/// 32 secret bytes of this election. Whoever has them can tell whether a known person voted.
#[derive(Clone)]
pub struct Secret([u8; 32]);

// Debug would put the key into logs; it is left out on purpose.
impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Secret {
    /// Takes the bytes of the secret file.
    pub fn new(bytes: [u8; 32]) -> Self {
        Secret(bytes)
    }

    /// The pseudonym of `subject` in the contest with this text id.
    pub fn nullifier(&self, contest: &str, subject: &str) -> Nullifier {
        Nullifier(self.hash("nullifier", &[contest.as_bytes(), subject.as_bytes()]))
    }

    /// The id of a request: who asks (`scope`, such as a nullifier or a key's name) and their idempotency key.
    pub fn request(&self, scope: &[u8], key: &str) -> RequestId {
        RequestId(self.hash("request", &[scope, key.as_bytes()]))
    }

    /// What the secret is known by: it stands in the log's first record, and tells nothing else of it.
    pub fn sign(&self) -> RequestId {
        RequestId(self.hash("secret", &[]))
    }

    /// The id of a request that has no key: the same voter with the same choices is the same request.
    pub fn request_of_choices(&self, nullifier: &Nullifier, choices: &Choices) -> RequestId {
        let bytes: SmallVec<[u8; 16]> = choices.iter().flat_map(|choice| choice.0.to_le_bytes()).collect();
        RequestId(self.hash("choices", &[&nullifier.0, &bytes]))
    }

    fn hash(&self, purpose: &str, parts: &[&[u8]]) -> [u8; 16] {
        // One run of bytes is hashed much faster than several; it is on the stack unless a name is very long.
        let mut input: SmallVec<[u8; 256]> = SmallVec::new();
        for part in std::iter::once(purpose.as_bytes()).chain(parts.iter().copied()) {
            // Lengths in front keep ("ab", "c") and ("a", "bc") apart.
            input.extend_from_slice(&(part.len() as u64).to_le_bytes());
            input.extend_from_slice(part);
        }
        let mut out = [0; 16];
        out.copy_from_slice(&blake3::keyed_hash(&self.0, &input).as_bytes()[..16]);
        out
    }
}

/// The partition of a nullifier: by its second half, since tables of voters go by the first.
pub fn votes_partition(nullifier: &Nullifier, partitions: u16) -> PartitionId {
    let mut half = [0; 8];
    half.copy_from_slice(&nullifier.0[8..]);
    let index = u64::from_le_bytes(half) % u64::from(partitions.max(1));
    PartitionId::votes(u16::try_from(index).unwrap_or(0))
}
