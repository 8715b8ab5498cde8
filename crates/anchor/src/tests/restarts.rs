//! A publisher that ends at any time goes on where it was, with its file or without.

use std::fs;

use serde_json::json;

use crate::Stage::{Finalised, Included, Pending};
use crate::{Anchor, StartError, read};

use super::world::{ORIGIN, World, eventually, until};

#[tokio::test]
async fn restarts_in_each_state() {
    let mut world = World::new().await;
    world.node.automatic(false);
    world.publish();
    let pending = world.until_newest_is(Pending).await;

    world.stop();
    world.publish();
    assert_eq!(world.until_newest_is(Pending).await, pending);
    world.a_while().await;
    assert_eq!(world.node.waiting().len(), 1, "it is the same transaction");

    // It comes into a block while no publisher runs.
    world.stop();
    world.node.mine(1);
    world.publish();
    let included = world.until_newest_is(Included).await;

    // The chain takes it back while no publisher runs, and forgets it.
    world.stop();
    world.node.ask("anvil_reorg", json!([1, []]));
    world.node.ask("anvil_dropAllTransactions", json!([]));
    world.publish();
    world.until_newest_is(Pending).await;
    world.a_while().await;
    world.node.mine(1);
    assert_eq!(
        world.until_newest_is(Included).await.place.unwrap().transaction,
        included.place.unwrap().transaction
    );

    world.stop();
    world.node.mine(3);
    world.publish();
    world.until_newest_is(Finalised).await;
    world.stop();
    world.publish();
    world.until_newest_is(Finalised).await;
    world.log.grow("a", 1);
    world.until_newest_is(Pending).await;
    world.a_while().await;
    world.node.mine(1);
    world.until_newest_is(Included).await;
    assert_eq!(world.stages().await, [(5, Finalised), (6, Included)]);
}

#[tokio::test]
async fn a_lost_file_is_asked_of_the_chain() {
    let mut world = World::new().await;
    world.publish();
    world.until_newest_is(Included).await;
    world.node.mine(3);
    world.until_newest_is(Finalised).await;
    world.node.automatic(false);
    world.log.grow("a", 1);
    world.until_newest_is(Pending).await;
    world.a_while().await;
    let waiting = world.node.waiting();
    assert_eq!(waiting.len(), 1);

    // The transaction that waits is known to nobody but the node.
    world.stop();
    fs::remove_file(world.folder.path().join("anchors.json")).unwrap();
    world.log.grow("a", 1);
    world.publish();
    world.until_newest_is(Pending).await;
    let replaced = || Some(world.node.waiting()).filter(|now| *now != waiting);
    let now = eventually("another transaction", replaced).await;
    assert_eq!((now.len(), &now[0]["nonce"]), (1, &waiting[0]["nonce"]), "it is replaced, not followed");
    world.node.mine(1);
    world
        .until("the list", |status| {
            status.anchors.iter().map(|a| (a.head.size, a.stage)).eq([(5, Finalised), (7, Included)])
        })
        .await;
}

#[tokio::test]
async fn a_damaged_file_is_refused_and_another_logs_is_not_used() {
    let mut world = World::new().await;
    world.publish();
    world.until_newest_is(Included).await;
    world.stop();
    let file = world.folder.path().join("anchors.json");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, &text[..text.len() / 2]).unwrap();
    let start = Anchor::start(world.config(), ORIGIN, world.log.tiles());
    assert!(matches!(&start, Err(StartError::File { .. })));
    assert!(start.unwrap_err().to_string().contains("anchors.json"));

    fs::write(&file, text).unwrap();
    let anchor = Anchor::start(world.config(), "other.example", world.log.tiles()).unwrap();
    until(&anchor, "the other log's anchor", |status| {
        status.origin == "other.example" && status.anchors.iter().any(|a| a.stage == Included)
    })
    .await;
    assert_eq!(read(&world.rpc, world.contract, "other.example").await.unwrap().len(), 1);
    assert_eq!(world.read().await.len(), 1, "one contract keeps both logs");
}
