//! What stands on the chain, for those who verify a log.

use alloy_primitives::Address;

use crate::chain::{Chain, Event};
use crate::rpc::{Rpc, RpcError};
use crate::{Head, Place, Stage};

/// A head that stands on the chain.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Anchored {
    /// What was anchored.
    pub head: Head,
    /// Where.
    pub place: Place,
    /// [`Stage::Included`] or [`Stage::Finalised`].
    pub stage: Stage,
}

/// Why the anchors could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The node did not do its part.
    #[error(transparent)]
    Rpc(#[from] RpcError),
    /// The contract is another one, which may not refuse what this one refuses.
    #[error("there is no contract of Canvass at {0} on this chain")]
    NotTheContract(Address),
}

/// Every head of a log that the contract ever took, oldest first; each goes on from the one before. The contract's
/// code is compared with the known one, so that what it refuses is known as well.
///
/// A node is believed in what it says of its chain. Who does not believe one asks several.
pub async fn read(rpc: &Rpc, contract: Address, origin: &str) -> Result<Vec<Anchored>, ReadError> {
    let chain = Chain::new(rpc.clone(), contract, origin);
    let latest = rpc.latest().await?.number;
    if chain.publisher(latest).await?.is_none() {
        return Err(ReadError::NotTheContract(contract));
    }
    let final_block = rpc.final_block(latest).await?;
    let anchored =
        |event: Event| Anchored { head: event.head, place: event.place, stage: event.stage(final_block) };
    Ok(chain.history(latest).await?.into_iter().map(anchored).collect())
}

impl Event {
    pub(crate) fn stage(&self, final_block: u64) -> Stage {
        if self.place.block <= final_block { Stage::Finalised } else { Stage::Included }
    }
}
