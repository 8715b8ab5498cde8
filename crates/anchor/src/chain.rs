//! What is asked of a chain.

use alloy_primitives::{Address, B256, Bytes, U64, U128};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::contract;
use crate::rpc::{Rpc, RpcError};
use crate::transaction::Fees;
use crate::{Head, Place};

/// On a chain that does not say which blocks are final, one is taken for final behind so many others.
const CONFIRMATIONS: u64 = 64;
/// Blocks whose events are asked for at once; halved where a node finds that too many.
const PAGE: u64 = 10_000;
/// What is offered to the maker of a block where the node has no advice: a gwei.
const TIP: u128 = 1_000_000_000;

/// A block, as far as it matters.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Block {
    pub(crate) number: u64,
    pub(crate) base_fee: u128,
}

/// The contract's event `Anchored`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Event {
    pub(crate) old_size: u64,
    pub(crate) head: Head,
    pub(crate) place: Place,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawBlock {
    number: U64,
    base_fee_per_gas: Option<U128>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawLog {
    block_number: U64,
    block_hash: B256,
    transaction_hash: B256,
    data: Bytes,
    #[serde(default)]
    removed: bool,
}

/// What became of a transaction.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Receipt {
    pub(crate) block_number: U64,
    pub(crate) status: U64,
    pub(crate) contract_address: Option<Address>,
    pub(crate) gas_used: U64,
}

/// One log in one contract on one chain.
#[derive(Debug, Clone)]
pub(crate) struct Chain {
    pub(crate) rpc: Rpc,
    pub(crate) contract: Address,
    pub(crate) origin: B256,
}

impl Rpc {
    pub(crate) async fn chain_id(&self) -> Result<u64, RpcError> {
        Ok(self.call::<U64>("eth_chainId", json!([])).await?.to())
    }

    /// The newest block.
    pub(crate) async fn latest(&self) -> Result<Block, RpcError> {
        let fault =
            || RpcError::Answer { method: "eth_getBlockByNumber", fault: "no newest block".to_owned() };
        self.block("latest").await?.ok_or_else(fault)
    }

    async fn block(&self, tag: &str) -> Result<Option<Block>, RpcError> {
        let block: Option<RawBlock> = self.call("eth_getBlockByNumber", json!([tag, false])).await?;
        Ok(block.map(|block| Block {
            number: block.number.to(),
            base_fee: block.base_fee_per_gas.map_or(0, |fee| fee.to()),
        }))
    }

    /// The number of the last block that stays.
    pub(crate) async fn final_block(&self, latest: u64) -> Result<u64, RpcError> {
        match self.block("finalized").await {
            Ok(Some(block)) => Ok(block.number.min(latest)),
            Ok(None) | Err(RpcError::Refused { .. }) => Ok(latest.saturating_sub(CONFIRMATIONS)),
            Err(error) => Err(error),
        }
    }

    /// How many transactions of an address are in the blocks up to this one.
    pub(crate) async fn nonce(&self, address: Address, block: u64) -> Result<u64, RpcError> {
        Ok(self.call::<U64>("eth_getTransactionCount", json!([address, U64::from(block)])).await?.to())
    }

    /// What would be offered now for a place in one of the next blocks: it lasts while the base fee doubles.
    pub(crate) async fn fees(&self, base: u128) -> Result<Fees, RpcError> {
        let tip = match self.call::<U128>("eth_maxPriorityFeePerGas", json!([])).await {
            Ok(tip) => tip.to(),
            Err(RpcError::Refused { .. }) => TIP,
            Err(error) => return Err(error),
        };
        Ok(Fees { tip, max: base.saturating_mul(2).saturating_add(tip) })
    }

    /// What a call takes after a block, with a quarter on top since the next may find the contract otherwise.
    pub(crate) async fn gas(
        &self,
        from: Address,
        to: Option<Address>,
        data: &Bytes,
        block: u64,
    ) -> Result<u64, RpcError> {
        let mut call = json!({ "from": from, "data": data });
        if let Some(to) = to {
            call["to"] = json!(to);
        }
        let gas: u64 = self.call::<U64>("eth_estimateGas", json!([call, U64::from(block)])).await?.to();
        Ok(gas.saturating_add(gas / 4))
    }

    /// Hands a signed transaction to the node.
    pub(crate) async fn send(&self, transaction: &Bytes) -> Result<B256, RpcError> {
        self.call("eth_sendRawTransaction", json!([transaction])).await
    }

    /// Whether the node has a transaction, waiting or in a block.
    pub(crate) async fn knows(&self, hash: B256) -> Result<bool, RpcError> {
        Ok(!self.call::<Value>("eth_getTransactionByHash", json!([hash])).await?.is_null())
    }

    /// What became of a transaction, once it is in a block.
    pub(crate) async fn receipt(&self, hash: B256) -> Result<Option<Receipt>, RpcError> {
        self.call("eth_getTransactionReceipt", json!([hash])).await
    }
}

impl Chain {
    pub(crate) fn new(rpc: Rpc, contract: Address, origin: &str) -> Self {
        Self { rpc, contract, origin: contract::origin(origin) }
    }

    /// Whose contract it is; `None` where something else or nothing is at the address.
    pub(crate) async fn publisher(&self, block: u64) -> Result<Option<Address>, RpcError> {
        let code: Bytes = self.rpc.call("eth_getCode", json!([self.contract, U64::from(block)])).await?;
        Ok(contract::publisher(&code))
    }

    /// The log's head as the contract has it after a block.
    pub(crate) async fn head(&self, block: u64) -> Result<Head, RpcError> {
        let call = json!({ "to": self.contract, "data": contract::heads_call(self.origin) });
        let answer: Bytes = self.rpc.call("eth_call", json!([call, U64::from(block)])).await?;
        contract::read_head(&answer)
            .ok_or_else(|| RpcError::Answer { method: "eth_call", fault: "not a head".to_owned() })
    }

    /// What was anchored in the blocks from one to another, in order.
    pub(crate) async fn events(&self, from: u64, to: u64) -> Result<Vec<Event>, RpcError> {
        let mut events = Vec::new();
        let (mut at, mut page) = (from, PAGE);
        while at <= to {
            let end = to.min(at.saturating_add(page - 1));
            match self.page(at, end).await {
                Ok(found) => {
                    events.extend(found);
                    at = end + 1;
                }
                Err(RpcError::Refused { .. }) if end > at => page = (end - at).div_ceil(2),
                Err(error) => return Err(error),
            }
        }
        Ok(events)
    }

    /// All that was ever anchored up to a block, in order. Events lead back to the first, so no more of the chain
    /// is asked for than there are anchors in; and none can be missing between.
    pub(crate) async fn history(&self, to: u64) -> Result<Vec<Event>, RpcError> {
        let mut wanted = self.head(to).await?;
        let mut events: Vec<Event> = Vec::new();
        let mut end = to;
        while wanted.size > 0 {
            let begin = end.saturating_sub(PAGE - 1);
            for event in self.events(begin, end).await?.into_iter().rev() {
                // The root before is not in the event, and the contract has compared it.
                if event.head.size != wanted.size || (events.is_empty() && event.head != wanted) {
                    return Err(missing(wanted.size));
                }
                wanted.size = event.old_size;
                events.push(event);
            }
            if begin == 0 && wanted.size > 0 {
                return Err(missing(wanted.size));
            }
            end = begin.saturating_sub(1);
        }
        events.reverse();
        Ok(events)
    }

    async fn page(&self, from: u64, to: u64) -> Result<Vec<Event>, RpcError> {
        let filter = json!({
            "address": self.contract,
            "topics": [contract::anchored_topic(), self.origin],
            "fromBlock": U64::from(from),
            "toBlock": U64::from(to),
        });
        let logs: Vec<RawLog> = self.rpc.call("eth_getLogs", json!([filter])).await?;
        let event = |log: RawLog| {
            let (old_size, head) = contract::read_anchored(&log.data)?;
            let (block, block_hash) = (log.block_number.to(), log.block_hash);
            let place = Place { block, block_hash, transaction: log.transaction_hash };
            (from..=to).contains(&block).then_some(Event { old_size, head, place })
        };
        let events: Option<Vec<Event>> = logs.into_iter().filter(|log| !log.removed).map(event).collect();
        events.ok_or_else(|| RpcError::Answer {
            method: "eth_getLogs",
            fault: "an event that was not asked for".to_owned(),
        })
    }
}

fn missing(size: u64) -> RpcError {
    let fault =
        format!("the event that anchored {size} leaves is not there; ask a node that keeps all of them");
    RpcError::Answer { method: "eth_getLogs", fault }
}
