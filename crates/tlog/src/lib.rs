//! The transparency log: anyone can check that a record is in the log and that the log only grew.
//!
//! Each partition of the log is one RFC 6962 tree ([`Tree`]) whose leaves are its records, published as the
//! C2SP texts say: [tiles](https://c2sp.org/tlog-tiles) and signed [checkpoints](https://c2sp.org/tlog-checkpoint).
//! The partitions' checkpoints are the leaves of one more tree, the [`MetaLog`]; its checkpoint speaks for all
//! of them and is what witnesses cosign. A [`Proof`] leads from a record to a checkpoint, a receipt
//! ([`receipt`]) from a record to a promise.
//!
//! One Ed25519 key signs all of it, under the name of each log ([`SecretKey::named`]), so a verifier pins one key.
//!
//! This crate knows nothing of elections: a record is bytes, a log is a name.

mod checkpoint;
mod disk;
#[cfg(test)]
mod faults;
mod flat;
mod frontier;
mod hash;
mod key;
mod meta;
mod proof;
pub mod receipt;
mod tile;
mod tiles;
mod tree;
pub mod witness;

pub use checkpoint::{CheckpointError, SignedCheckpoint};
pub use frontier::Frontier;
pub use hash::{Entry, entry, leaf_hash, record_hash};
pub use key::{KeyError, PublicKey, SecretKey};
pub use meta::{MetaLog, MetaTiles};
pub use proof::{Proof, ProofError, Published, verify_inclusion, verify_published};
pub use tile::{Bundle, BundleError, TilePath, push_entry};
pub use tiles::{BATCH_ENDS, Tiles};
pub use tlog_tiles::Hash;
pub use tlog_tiles::check_tree as check_consistency;
pub use tree::{OpenError, Tree, TreeError};

/// The most leaves a tree takes: twelve days of a million a second. No checkpoint of a larger tree is
/// believed either, which keeps all arithmetic on sizes far from its limits.
pub const MAX_SIZE: u64 = (1 << 40) - 1;
