//! Puts the contract on a chain.

use std::time::Duration;

use alloy_primitives::{Address, B256};

use crate::chain::Receipt;
use crate::contract;
use crate::rpc::{Rpc, RpcError};
use crate::transaction::{Key, Transaction};

/// Time between two looks for the receipt.
const LOOK: Duration = Duration::from_millis(500);
/// How long a block is waited for.
const PATIENCE: Duration = Duration::from_secs(300);

/// A contract that stands.
#[derive(Debug, Clone, Copy)]
pub struct Deployed {
    /// Its address.
    pub contract: Address,
    /// Number of the block it is in.
    pub block: u64,
    /// What it took of gas.
    pub gas: u64,
}

/// Why there is no contract.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// The node did not do its part.
    #[error(transparent)]
    Rpc(#[from] RpcError),
    /// The chain ran the transaction and made no contract.
    #[error("the transaction {0} made no contract")]
    Failed(B256),
    /// No block has it yet.
    #[error("the transaction {0} is in no block after {seconds} s; look it up before you try again", seconds = PATIENCE.as_secs())]
    Late(B256),
}

/// Makes the contract, which will take anchors of this key alone, and waits until it is in a block.
pub async fn deploy(rpc: &Rpc, key: &Key) -> Result<Deployed, DeployError> {
    let from = key.address();
    let latest = rpc.latest().await?;
    let data = contract::creation();
    let transaction = Transaction {
        chain: rpc.chain_id().await?,
        nonce: rpc.nonce(from, latest.number).await?,
        fees: rpc.fees(latest.base_fee).await?,
        gas: rpc.gas(from, None, &data, latest.number).await?,
        to: None,
        data,
    };
    let signed = transaction.sign(key);
    rpc.send(&signed.bytes).await?;
    let wait = async {
        loop {
            match rpc.receipt(signed.hash).await? {
                Some(receipt) => return made(&receipt).ok_or(DeployError::Failed(signed.hash)),
                None => tokio::time::sleep(LOOK).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or(Err(DeployError::Late(signed.hash)))
}

fn made(receipt: &Receipt) -> Option<Deployed> {
    let contract = receipt.contract_address.filter(|_| receipt.status == alloy_primitives::U64::from(1))?;
    Some(Deployed { contract, block: receipt.block_number.to(), gas: receipt.gas_used.to() })
}
