//! How far the anchors of a log are on the chain that keeps them.

use serde::{Deserialize, Serialize};

/// How sure it is that an anchor stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// It waits for a block.
    Pending,
    /// It is in a block, which the chain may still take back.
    Included,
    /// It stays.
    Finalised,
}

/// The anchors of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Anchors {
    /// The chain's number (EIP-155), once a node has said it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chain: Option<u64>,
    /// Address of the contract.
    pub contract: String,
    /// The address that anchors.
    pub publisher: String,
    /// The last heads, oldest first.
    pub heads: Vec<AnchoredHead>,
    /// Why nothing is anchored at the moment, in one word: `node`, `funds`, `contract`, `fork`, `rolled-back` or `disk`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<&'static str>,
}

/// A head of a log that is anchored, or on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AnchoredHead {
    /// Leaves.
    pub size: u64,
    /// Their root, in Base64, as in a checkpoint.
    pub root: String,
    /// How sure it is to stay.
    pub stage: Stage,
    /// Number of the block it is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block: Option<u64>,
    /// Hash of the transaction that put it there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transaction: Option<String>,
}
