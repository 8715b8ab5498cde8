//! What happens to a publisher.

use serde_json::json;

use crate::Rpc;
use crate::Stage::{Finalised, Included, Pending};

use super::node::{number, without_finality};
use super::world::{World, eventually};

#[tokio::test]
async fn heads_are_anchored_and_become_final() {
    let mut world = World::new().await;
    assert_eq!(world.read().await, []);
    world.publish();
    let first = world.until_newest_is(Included).await;
    assert_eq!(first.place.unwrap().block, world.node.block());
    assert_eq!(world.stages().await, [(5, Included)]);

    // A log that has not grown is not anchored again.
    world.a_while().await;
    assert_eq!(world.stages().await, [(5, Included)]);

    // Nor do heads between two intervals matter: the newest is taken.
    world.log.grow("a", 1);
    let second = world.log.grow("a", 300);
    world.until_newest_is(Included).await;
    world.node.mine(3);
    world.until_newest_is(Finalised).await;
    let read = world.read().await;
    assert_eq!(
        read.iter().map(|a| (a.head.size, a.stage)).collect::<Vec<_>>(),
        [(5, Finalised), (306, Finalised)]
    );
    assert_eq!(read[1].head, second);
    assert_eq!(read[0].place, first.place.unwrap());

    // The figures of docs/operate.md.
    for (anchored, gas) in read.iter().zip([70_000, 36_000]) {
        let receipt = world.node.ask("eth_getTransactionReceipt", json!([anchored.place.transaction]));
        let used = number(&receipt["gasUsed"]);
        assert!((gas - 1_000..gas + 500).contains(&used), "{used}");
    }
}

#[tokio::test]
async fn without_the_word_of_the_chain_a_block_is_final_behind_64_others() {
    let mut world = World::new().await;
    world.rpc = Rpc::new(&without_finality(world.node.port)).unwrap();
    world.publish();
    world.until_newest_is(Included).await;
    world.node.mine(63);
    world.a_while().await;
    assert_eq!(world.stages().await, [(5, Included)]);
    world.node.mine(1);
    world.until_newest_is(Finalised).await;
    assert_eq!(world.stages().await, [(5, Finalised)]);
}

#[tokio::test]
async fn a_dead_node_holds_up_anchors_and_nothing_else() {
    let mut world = World::new().await;
    world.publish();
    world.until_newest_is(Included).await;
    world.node.end();
    world.log.grow("a", 2);
    let status = world.until("trouble", |status| status.trouble.is_some()).await;
    assert!(status.trouble.unwrap().words.contains("does not answer"), "it says why");
    assert_eq!(status.anchors.len(), 1, "what is known is still shown");
    world.log.grow("a", 2);
    world.node.start_again();
    world.until_newest_is(Included).await;
    assert_eq!(world.stages().await.last(), Some(&(9, Included)));
}

#[tokio::test]
async fn a_publisher_starts_without_a_node() {
    let mut world = World::new().await;
    world.node.end();
    world.publish();
    world.until("trouble", |status| status.trouble.is_some()).await;
    world.node.start_again();
    world.until_newest_is(Included).await;
}

#[tokio::test]
async fn an_anchor_that_is_taken_back_waits_again_and_returns() {
    let mut world = World::new().await;
    world.publish();
    let first = world.until_newest_is(Included).await;
    world.log.grow("a", 1);
    let second = world.until_newest_is(Included).await;
    // The last two blocks are replaced by empty ones.
    world.node.automatic(false);
    world.node.ask("anvil_reorg", json!([2, []]));
    let status = world.until("pending", |status| status.anchors.iter().all(|a| a.stage == Pending)).await;
    assert_eq!(
        status.anchors.iter().map(|a| (a.head, a.place)).collect::<Vec<_>>(),
        [(first.head, None), (second.head, None)]
    );
    world.node.mine(1);
    world.until_newest_is(Included).await;
    assert_eq!(world.stages().await, [(5, Included), (6, Included)]);
    let again = world.read().await;
    // The same transactions, in another block.
    assert_eq!(again[0].place.transaction, first.place.unwrap().transaction);
    assert_ne!(again[0].place, first.place.unwrap());
    world.node.mine(3);
    world.until_newest_is(Finalised).await;
}

#[tokio::test]
async fn a_chain_that_takes_back_what_was_final_is_followed() {
    let mut world = World::new().await;
    let before = world.node.ask("evm_snapshot", json!([]));
    world.publish();
    world.node.mine(3);
    world.until_newest_is(Included).await;
    world.node.mine(3);
    world.until_newest_is(Finalised).await;
    world.node.ask("evm_revert", json!([before]));
    let head = world.log.grow("a", 1);
    world.until_newest_is(Included).await;
    assert_eq!(world.read().await.iter().map(|a| a.head).collect::<Vec<_>>(), [head]);
}

#[tokio::test]
async fn too_low_a_fee_is_raised_under_the_same_nonce() {
    let mut world = World::new().await;
    world.node.automatic(false);
    world.publish();
    world.until_newest_is(Pending).await;
    let offered = || {
        let waiting = world.node.waiting();
        assert!(waiting.len() <= 1, "{waiting:?}");
        waiting.first().map(|one| (one["nonce"].clone(), number(&one["maxFeePerGas"])))
    };
    let (nonce, fee) = eventually("the transaction", offered).await;
    // Blocks come, dearer than what is offered.
    for _ in 0..6 {
        world.node.ask("anvil_setNextBlockBaseFeePerGas", json!([format!("{:#x}", fee * 3)]));
        world.node.mine(1);
    }
    let raised = || offered().filter(|(_, now)| *now != fee);
    let (same, raised) = eventually("a higher fee", raised).await;
    assert!(same == nonce && raised > fee * 3, "{nonce} {fee}: {same} {raised}");
    world.node.mine(1);
    world.until_newest_is(Included).await;
}

#[tokio::test]
async fn a_chain_that_makes_no_blocks_is_waited_for_at_the_same_fee() {
    let mut world = World::new().await;
    world.node.automatic(false);
    world.publish();
    world.until_newest_is(Pending).await;
    world.a_while().await;
    world.log.grow("a", 4);
    world.a_while().await;
    let waits = world.node.waiting();
    assert_eq!(waits.len(), 1, "{waits:?}");
    // The node forgets it, as nodes do that are full or restarted.
    world.node.ask("anvil_dropAllTransactions", json!([]));
    let again = eventually("sending it again", || world.node.waiting().pop()).await;
    assert_eq!(again["hash"], waits[0]["hash"]);
    world.node.automatic(true);
    world.node.mine(1);
    world.until_newest_is(Included).await;
    assert_eq!(world.read().await.iter().map(|a| a.head.size).collect::<Vec<_>>(), [5, 9]);
}
