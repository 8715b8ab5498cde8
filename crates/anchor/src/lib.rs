//! Anchors: a log's newest root, put on an Ethereum-compatible chain each minute.
//!
//! A small contract keeps the newest head of the log and refuses one that does not go on from it, so whoever runs
//! the log cannot show different histories of it once a head is final. [`Anchor`] publishes, [`read`] tells a
//! verifier what stands there, [`deploy`] makes the contract. Everything goes by JSON-RPC ([`Rpc`]); a node that is
//! dead, slow or wrong delays anchors and nothing else.
//!
//! What stands on the chain is asked of the chain each time. The file in the publisher's folder holds only what
//! the chain cannot say: the transactions that wait.

mod chain;
mod contract;
mod deploy;
mod ledger;
mod publisher;
mod read;
mod rpc;
#[cfg(test)]
mod tests;
mod transaction;

pub use alloy_primitives::{Address, B256};
pub use canvass_protocol::anchors::Stage;
pub use deploy::{DeployError, Deployed, deploy};
pub use publisher::{Anchor, Anchoring, Config, StartError, Status, Told};
pub use read::{Anchored, ReadError, read};
pub use rpc::{Rpc, RpcError};
pub use transaction::Key;

use canvass_tlog::Hash;
use serde::{Deserialize, Serialize};

/// What a log was at one time: so many leaves, and their root.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// Leaves.
    pub size: u64,
    /// Their RFC 6962 root; in JSON as 64 hexadecimal digits behind `0x`.
    #[serde(with = "hexadecimal")]
    pub root: Hash,
}

impl Head {
    /// What the contract holds of a log that it does not know: not the head of any log.
    pub(crate) const NONE: Head = Head { size: 0, root: Hash([0; 32]) };
}

/// Where an anchor is on the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Number of the block.
    pub block: u64,
    /// Hash of the block.
    pub block_hash: B256,
    /// Hash of the transaction.
    pub transaction: B256,
}

mod hexadecimal {
    use alloy_primitives::B256;
    use canvass_tlog::Hash;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(hash: &Hash, to: S) -> Result<S::Ok, S::Error> {
        B256::from(hash.0).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Hash, D::Error> {
        B256::deserialize(from).map(|bytes| Hash(bytes.0))
    }
}
