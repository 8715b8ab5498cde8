//! What the contract and the publisher refuse.

use alloy_primitives::{Address, B256};
use canvass_tlog::Hash;
use serde_json::json;

use crate::Stage::Included;
use crate::chain::Chain;
use crate::rpc::RpcError;
use crate::{Anchor, Head, ReadError, Rpc, contract, read};

use super::node::number;
use super::world::{Log, ORIGIN, World, eventually, key, until};

/// Why the contract refuses to go from one head to another.
async fn refusal(world: &World, from: Address, old: Head, new: Head) -> &'static str {
    let data = contract::anchor_call(contract::origin(ORIGIN), old, new);
    let error = world.rpc.gas(from, Some(world.contract), &data, world.node.block()).await.unwrap_err();
    let RpcError::Refused { data: Some(data), .. } = error else { panic!("{error}") };
    contract::refusal(&data).unwrap()
}

fn other(size: u64) -> Head {
    Head { size, root: Hash([9; 32]) }
}

#[tokio::test]
async fn the_contract_refuses_forks_shrinking_and_strangers() {
    let mut world = World::new().await;
    world.publish();
    world.until_newest_is(Included).await;
    world.stop();
    let (stands, own) = (world.log.head(), key(0).address());
    let not_there = "the log does not stand there as it was said to";
    for old in [Head::NONE, other(5), Head { size: 4, ..stands }, Head { size: 6, ..stands }] {
        assert_eq!(refusal(&world, own, old, other(7)).await, not_there);
    }
    for size in [0, 4, 5] {
        assert_eq!(refusal(&world, own, stands, other(size)).await, "the log has not grown");
    }
    let stranger = key(1).address();
    assert_eq!(refusal(&world, stranger, stands, other(7)).await, "the contract is another key's");

    // Nor does it help to send it all the same.
    let data = contract::anchor_call(contract::origin(ORIGIN), Head::NONE, other(7));
    let transaction = json!([{ "from": own, "to": world.contract, "data": data, "gas": "0x30000" }]);
    let hash: B256 = world.rpc.call("eth_sendTransaction", transaction).await.unwrap();
    let receipt =
        || Some(world.node.ask("eth_getTransactionReceipt", json!([hash]))).filter(|r| !r.is_null());
    assert_eq!(eventually("the receipt", receipt).await["status"], "0x0");
    let chain = Chain::new(world.rpc.clone(), world.contract, ORIGIN);
    assert_eq!(chain.head(world.node.block()).await.unwrap(), stands);
    assert_eq!(world.read().await.len(), 1);
}

#[tokio::test]
async fn another_history_of_the_log_is_not_anchored() {
    let mut world = World::new().await;
    world.publish();
    world.until_newest_is(Included).await;

    // Somebody starts an edited copy of the log elsewhere, with the same key.
    let folder = tempfile::tempdir().unwrap();
    let config = crate::Config { folder: folder.path().to_owned(), ..world.config() };
    let fork = Log::new("b", 9);
    let anchor = Anchor::start(config.clone(), ORIGIN, fork.tiles()).unwrap();
    let status = until(&anchor, "trouble", |status| status.trouble.is_some()).await;
    assert!(status.trouble.unwrap().words.contains("another history of this log was anchored"));
    drop(anchor);

    // Or a copy from a backup, which is a beginning of the log.
    let mut old = Log::new("a", 3);
    let anchor = Anchor::start(config, ORIGIN, old.tiles()).unwrap();
    let status = until(&anchor, "trouble", |status| status.trouble.is_some()).await;
    assert!(status.trouble.unwrap().words.contains("put back to an older state"));
    assert_eq!(world.read().await.len(), 1);

    // When the log has caught up, it goes on.
    old.grow("a", 9);
    until(&anchor, "the anchor", |status| {
        status.trouble.is_none() && status.anchors.last().is_some_and(|a| a.head.size == 12)
    })
    .await;
}

#[tokio::test]
async fn a_nonce_that_was_used_elsewhere_is_given_up() {
    let mut world = World::new().await;
    world.node.automatic(false);
    world.publish();
    world.until_newest_is(crate::Stage::Pending).await;
    world.a_while().await;
    // The owner sends something else with the same key.
    world.node.ask("anvil_dropAllTransactions", json!([]));
    let own = key(0).address();
    let nonce = world.node.ask("eth_getTransactionCount", json!([own, "latest"]));
    let fee = "0x174876e800";
    let transaction = json!([{ "from": own, "to": own, "value": "0x1", "nonce": nonce,
                               "maxFeePerGas": fee, "maxPriorityFeePerGas": fee }]);
    world.node.ask("eth_sendTransaction", transaction);
    world.node.mine(1);
    let next = world.node.ask("eth_getTransactionCount", json!([own, "latest"]));
    assert_eq!(number(&next), number(&nonce) + 1);
    world.node.automatic(true);
    world.node.mine(1);
    world.until_newest_is(Included).await;
    assert_eq!(world.stages().await, [(5, Included)]);
}

#[tokio::test]
async fn wrong_contracts_and_keys_are_named() {
    let world = World::new().await;
    let start = |config| Anchor::start(config, ORIGIN, world.log.tiles()).unwrap();
    let nothing = crate::Config { contract: Address::repeat_byte(1), ..world.config() };
    let status = until(&start(nothing), "trouble", |status| status.trouble.is_some()).await;
    assert!(status.trouble.unwrap().words.contains("no contract of Canvass at 0x0101"));
    let stranger = crate::Config { key: key(1), ..world.config() };
    let status = until(&start(stranger), "trouble", |status| status.trouble.is_some()).await;
    assert!(status.trouble.unwrap().words.contains("takes anchors of 0xf39Fd6"));
    let read = read(&world.rpc, Address::repeat_byte(1), ORIGIN).await;
    assert!(matches!(read, Err(ReadError::NotTheContract(_))));
    let dead = Rpc::new("http://127.0.0.1:9").unwrap();
    assert!(matches!(crate::read(&dead, world.contract, ORIGIN).await, Err(ReadError::Rpc(_))));
}
