//! A log, a chain, the contract on it, and a publisher between them.

use std::time::Duration;

use alloy_primitives::Address;
use canvass_tlog::{SecretKey, SignedCheckpoint, Tiles, Tree, leaf_hash};

use crate::{Anchor, Anchored, Anchoring, Config, Head, Key, Rpc, Stage, Status, deploy, read};

use super::node::Node;

pub(crate) const ORIGIN: &str = "count.example";
/// The keys of the accounts that have money on each of these chains. They are public.
pub(crate) const KEYS: [&str; 2] = [
    "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80",
    "59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d",
];

/// A log that grows when it is told to.
pub(crate) struct Log {
    tree: Tree,
    _folder: tempfile::TempDir,
}

impl Log {
    /// A log of so many leaves; other names make other leaves.
    pub(crate) fn new(name: &str, leaves: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::open(folder.path(), SecretKey::generate(ORIGIN).unwrap()).unwrap();
        let mut log = Self { tree, _folder: folder };
        log.grow(name, leaves);
        log
    }

    pub(crate) fn grow(&mut self, name: &str, leaves: u64) -> Head {
        for n in self.tree.size()..self.tree.size() + leaves {
            self.tree.append(&[leaf_hash(format!("{name} {n}").as_bytes())]).unwrap();
        }
        head(&self.tree.publish().unwrap())
    }

    pub(crate) fn head(&self) -> Head {
        head(self.tree.published().unwrap())
    }

    pub(crate) fn tiles(&self) -> impl Fn() -> Tiles + Send + Sync + 'static {
        let tiles = self.tree.tiles();
        move || tiles.clone()
    }
}

fn head(checkpoint: &SignedCheckpoint) -> Head {
    Head { size: checkpoint.size(), root: checkpoint.root() }
}

/// All of it.
pub(crate) struct World {
    pub(crate) node: Node,
    pub(crate) rpc: Rpc,
    pub(crate) contract: Address,
    pub(crate) log: Log,
    pub(crate) folder: tempfile::TempDir,
    anchor: Option<Anchor>,
}

impl World {
    /// A log of 5 leaves, and nothing anchored yet.
    pub(crate) async fn new() -> Self {
        let node = Node::start();
        let rpc = Rpc::new(&node.url()).unwrap();
        let contract = deploy(&rpc, &key(0)).await.unwrap().contract;
        let (log, folder) = (Log::new("a", 5), tempfile::tempdir().unwrap());
        Self { node, rpc, contract, log, folder, anchor: None }
    }

    /// Starts the publisher, or another in its place.
    pub(crate) fn publish(&mut self) {
        self.anchor = None;
        let anchor = Anchor::start(self.config(), ORIGIN, self.log.tiles());
        self.anchor = Some(anchor.unwrap());
    }

    pub(crate) fn stop(&mut self) {
        self.anchor = None;
    }

    pub(crate) fn config(&self) -> Config {
        Config {
            rpc: self.rpc.clone(),
            contract: self.contract,
            key: key(0),
            interval: Duration::from_millis(200),
            folder: self.folder.path().to_owned(),
        }
    }

    /// The status, as soon as it is as it should be.
    pub(crate) async fn until(&self, what: &str, done: impl FnMut(&Status) -> bool) -> Status {
        until(self.anchor.as_ref().unwrap(), what, done).await
    }

    /// Waits until the log's head is at this stage.
    pub(crate) async fn until_newest_is(&self, stage: Stage) -> Anchoring {
        let head = self.log.head();
        let what = format!("{stage:?}");
        let status = self.until(&what, |status| {
            status.trouble.is_none()
                && status.anchors.last().is_some_and(|a| (a.head, a.stage) == (head, stage))
        });
        *status.await.anchors.last().unwrap()
    }

    /// Lets the publisher look a few times, so that what it should not do would be seen.
    pub(crate) async fn a_while(&self) {
        tokio::time::sleep(Duration::from_millis(600)).await;
    }

    /// What a verifier finds.
    pub(crate) async fn read(&self) -> Vec<Anchored> {
        read(&self.rpc, self.contract, ORIGIN).await.unwrap()
    }

    /// The sizes a verifier finds, with how sure they are.
    pub(crate) async fn stages(&self) -> Vec<(u64, Stage)> {
        self.read().await.iter().map(|anchored| (anchored.head.size, anchored.stage)).collect()
    }
}

/// Asks until there is an answer.
pub(crate) async fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    for _ in 0..1_500 {
        if let Some(answer) = ask() {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what} did not come about");
}

pub(crate) fn key(n: usize) -> Key {
    KEYS[n].parse().unwrap()
}

pub(crate) async fn until(anchor: &Anchor, what: &str, mut done: impl FnMut(&Status) -> bool) -> Status {
    let mut watch = anchor.watch();
    let wait = watch.wait_for(|status| done(status));
    match tokio::time::timeout(Duration::from_secs(30), wait).await {
        Ok(status) => status.unwrap().as_ref().clone(),
        Err(_) => panic!("{what} did not come about: {:#?}", anchor.status()),
    }
}
