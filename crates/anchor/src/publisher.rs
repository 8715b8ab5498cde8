//! Puts a log's newest head on the chain, again and again.
//!
//! Every look asks the chain what stands there, at one block, and takes that over ([`Ledger::see`]). So a restart, a
//! lost answer, a reorganisation or a second publisher need no code of their own. At most one anchor is begun
//! at a time; it is written to the file before it is sent.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use alloy_primitives::Address;
use canvass_protocol::anchors::{AnchoredHead, Anchors};
use canvass_tlog::{Tiles, check_consistency};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::chain::Chain;
use crate::contract;
use crate::ledger::{Entry, Ledger, Seen, Sent};
use crate::rpc::{Rpc, RpcError};
use crate::transaction::{Key, Transaction};
use crate::{Head, Place, Stage};

const FILE: &str = "anchors.json";
/// Looks at the chain for each interval between anchors.
const LOOKS: u32 = 5;
/// A chain that was found wrong or dead is looked at again after this at the latest.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Where and how a log is anchored.
#[derive(Debug, Clone)]
pub struct Config {
    /// A node of the chain.
    pub rpc: Rpc,
    /// The contract, made by the same key.
    pub contract: Address,
    /// Pays and signs.
    pub key: Key,
    /// Time between two anchors; nothing is anchored while the log does not grow.
    pub interval: Duration,
    /// Folder of the publisher's file; made where it is not there.
    pub folder: PathBuf,
}

/// What is known of the anchors of a log.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// The name of the log.
    pub origin: String,
    /// The contract.
    pub contract: Address,
    /// The address that pays.
    pub publisher: Address,
    /// The chain's number; unknown before a node has answered.
    pub chain: Option<u64>,
    /// The last anchors, oldest first.
    pub anchors: Vec<Anchoring>,
    /// Why nothing is anchored at the moment.
    pub trouble: Option<Told>,
}

/// A trouble, as it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Of which kind, for everybody: see [`Anchors::trouble`].
    pub kind: &'static str,
    /// All of it, for the operator.
    pub words: String,
}

impl Status {
    /// What is told to everybody.
    pub fn public(&self) -> Anchors {
        let heads = self.anchors.iter().map(|anchor| AnchoredHead {
            size: anchor.head.size,
            root: anchor.head.root.to_string(),
            stage: anchor.stage,
            block: anchor.place.map(|place| place.block),
            transaction: anchor.place.map(|place| place.transaction.to_string()),
        });
        Anchors {
            chain: self.chain,
            contract: self.contract.to_string(),
            publisher: self.publisher.to_string(),
            heads: heads.collect(),
            trouble: self.trouble.as_ref().map(|told| told.kind),
        }
    }
}

/// One anchor and how far it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Anchoring {
    /// What is anchored.
    pub head: Head,
    /// How sure it is to stay.
    pub stage: Stage,
    /// Where it is, once it is in a block.
    pub place: Option<Place>,
}

/// Why anchoring cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The file is damaged or cannot be read.
    #[error("{file} cannot be read ({error}); delete it, and what stands on the chain is asked of the chain")]
    File {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        error: io::Error,
    },
}

/// Why nothing is anchored at the moment.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Rpc(#[from] RpcError),
    #[error("the contract refuses: {0}")]
    Refused(&'static str),
    #[error("the address {0} has too little of the chain's money to anchor")]
    Poor(Address),
    #[error("there is no contract of Canvass at {0} on this chain; make one with `canvass anchor deploy`")]
    NotTheContract(Address),
    #[error("the contract takes anchors of {wanted} only, and the key is that of {own}")]
    OtherPublisher { wanted: Address, own: Address },
    #[error("{0} leaves with another root stand on the chain: another history of this log was anchored")]
    Fork(u64),
    #[error("{chain} leaves stand on the chain and this log has {own}: it was put back to an older state")]
    Ahead { chain: u64, own: u64 },
    #[error("the log cannot be read: {0}")]
    Log(io::Error),
    #[error("the list of anchors cannot be written: {0}")]
    File(io::Error),
}

impl Trouble {
    fn kind(&self) -> &'static str {
        match self {
            Trouble::Rpc(_) => "node",
            Trouble::Poor(_) => "funds",
            Trouble::Refused(_) | Trouble::NotTheContract(_) | Trouble::OtherPublisher { .. } => "contract",
            Trouble::Fork(_) => "fork",
            Trouble::Ahead { .. } => "rolled-back",
            Trouble::Log(_) | Trouble::File(_) => "disk",
        }
    }

    fn told(&self) -> Told {
        Told { kind: self.kind(), words: self.to_string() }
    }
}

/// A publisher that runs. It ends when this is dropped; what it sent is in its file.
#[derive(Debug)]
pub struct Anchor {
    status: watch::Receiver<Arc<Status>>,
    task: JoinHandle<()>,
}

impl Drop for Anchor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Anchor {
    /// Starts anchoring the log whose tiles these are each time, under the name `origin`. It asks no node before it
    /// returns, and never waits for one afterwards but in its own task.
    pub fn start(
        config: Config,
        origin: &str,
        tiles: impl Fn() -> Tiles + Send + Sync + 'static,
    ) -> Result<Self, StartError> {
        let file = config.folder.join(FILE);
        let loaded = Ledger::load(&file).map_err(|error| StartError::File { file: file.clone(), error })?;
        let new = Ledger::new(origin, config.contract, config.key.address());
        let ledger = match loaded {
            Some(ledger) if ledger.is_about(&new) => ledger,
            Some(_) => {
                tracing::warn!("the list of anchors was of another log or contract and is begun anew");
                new
            }
            None => new,
        };
        let chain = Chain::new(config.rpc, config.contract, origin);
        let (status, watching) = watch::channel(Arc::new(ledger.status(None)));
        let publisher = Publisher {
            chain,
            key: config.key,
            interval: config.interval,
            tiles: Box::new(tiles),
            file,
            saved: None,
            ledger,
            recognised: false,
            due: Instant::now(),
            status,
        };
        Ok(Self { status: watching, task: tokio::spawn(publisher.run()) })
    }

    /// What is known now.
    pub fn status(&self) -> Arc<Status> {
        self.status.borrow().clone()
    }

    /// What is known, and each change of it.
    pub fn watch(&self) -> watch::Receiver<Arc<Status>> {
        self.status.clone()
    }
}

impl Ledger {
    fn status(&self, trouble: Option<Told>) -> Status {
        let anchors =
            self.anchors.iter().map(|e| Anchoring { head: e.head, stage: e.stage, place: e.place }).collect();
        let Ledger { origin, contract, publisher, chain, .. } = self.clone();
        Status { origin, contract, publisher, chain, anchors, trouble }
    }
}

struct Publisher {
    chain: Chain,
    key: Key,
    interval: Duration,
    tiles: Box<dyn Fn() -> Tiles + Send + Sync>,
    file: PathBuf,
    /// What the file holds.
    saved: Option<Ledger>,
    ledger: Ledger,
    /// Whether the node was found to be of the right chain since it last failed.
    recognised: bool,
    /// When the next anchor may begin.
    due: Instant,
    status: watch::Sender<Arc<Status>>,
}

impl Publisher {
    async fn run(mut self) {
        let look = (self.interval / LOOKS).min(LONGEST_PAUSE);
        let mut pause = look;
        loop {
            let trouble = self.step().await.err().map(|trouble| trouble.told());
            pause = if trouble.is_some() { (pause * 2).min(LONGEST_PAUSE.max(look)) } else { look };
            self.recognised &= trouble.is_none();
            self.tell(trouble);
            tokio::time::sleep(pause).await;
        }
    }

    /// Shows how things stand, and logs a trouble once.
    fn tell(&self, trouble: Option<Told>) {
        let before = self.status.borrow().trouble.clone();
        match (&before, &trouble) {
            (_, Some(now)) if before != trouble => tracing::warn!("nothing is anchored: {}", now.words),
            (Some(_), None) => tracing::info!("anchoring goes on"),
            _ => {}
        }
        let status = self.ledger.status(trouble);
        self.status.send_if_modified(|shown| {
            let changed = **shown != status;
            if changed {
                *shown = Arc::new(status);
            }
            changed
        });
    }

    /// Looks at the chain, and does the next thing.
    async fn step(&mut self) -> Result<(), Trouble> {
        if !self.recognised {
            self.recognise().await?;
        }
        let seen = self.look().await?;
        self.save().await?;
        let Some(own) = self.own_head(seen.head)? else { return Ok(()) };
        if self.ledger.pending().next().is_some() {
            return self.nurse(&seen).await;
        }
        if own.size > seen.head.size && Instant::now() >= self.due {
            self.anchor(&seen, own).await?;
        }
        Ok(())
    }

    /// Makes sure of the chain and the contract.
    async fn recognise(&mut self) -> Result<(), Trouble> {
        let chain = self.chain.rpc.chain_id().await?;
        if self.ledger.chain.is_some_and(|known| known != chain) {
            tracing::warn!(chain, "the node is of another chain; the list of anchors is begun anew");
            let Ledger { origin, contract, publisher, .. } = &self.ledger;
            self.ledger = Ledger::new(origin, *contract, *publisher);
        }
        self.ledger.chain = Some(chain);
        let latest = self.chain.rpc.latest().await?;
        let own = self.key.address();
        match self.chain.publisher(latest.number).await? {
            Some(publisher) if publisher == own => {}
            Some(wanted) => return Err(Trouble::OtherPublisher { wanted, own }),
            None => return Err(Trouble::NotTheContract(self.chain.contract)),
        }
        self.recognised = true;
        Ok(())
    }

    /// Takes over what the chain shows.
    async fn look(&mut self) -> Result<Seen, Trouble> {
        let rpc = &self.chain.rpc;
        let latest = rpc.latest().await?;
        let block = latest.number;
        let mut seen = Seen {
            block,
            base_fee: latest.base_fee,
            final_block: rpc.final_block(block).await?,
            nonce: rpc.nonce(self.key.address(), block).await?,
            head: self.chain.head(block).await?,
            events: Vec::new(),
            whole: false,
        };
        let mut ledger = self.ledger.clone();
        let mut lost = Vec::new();
        if let Some(read_to) = ledger.read_to {
            seen.events = self.chain.events(read_to + 1, block).await?;
            lost = ledger.see(&seen);
        }
        if ledger.read_to.is_none() || !ledger.agrees(seen.head) {
            seen.events = self.chain.history(block).await?;
            seen.whole = true;
            ledger = self.ledger.clone();
            lost = ledger.see(&seen);
        }
        for entry in lost {
            tracing::warn!(leaves = entry.head.size, "an anchor is given up: its place was taken");
        }
        self.ledger = ledger;
        Ok(seen)
    }

    /// The log's newest head, if there is one, after a check that the log has grown from what stands on the chain.
    fn own_head(&self, stands: Head) -> Result<Option<Head>, Trouble> {
        let tiles = (self.tiles)();
        let Some(checkpoint) = tiles.checkpoint() else { return Ok(None) };
        let own = Head { size: checkpoint.size(), root: checkpoint.root() };
        if stands.size > own.size {
            return Err(Trouble::Ahead { chain: stands.size, own: own.size });
        }
        if stands != Head::NONE {
            let growth = tiles.prove_growth(stands.size, own.size).map_err(Trouble::Log)?;
            let growth = growth.unwrap_or_default();
            check_consistency(&growth, own.size, own.root, stands.size, stands.root)
                .map_err(|_| Trouble::Fork(stands.size))?;
        }
        Ok(Some(own))
    }

    /// Begins an anchor.
    async fn anchor(&mut self, seen: &Seen, head: Head) -> Result<(), Trouble> {
        let data = contract::anchor_call(self.chain.origin, seen.head, head);
        let rpc = &self.chain.rpc;
        let gas = rpc
            .gas(self.key.address(), Some(self.chain.contract), &data, seen.block)
            .await
            .map_err(refused)?;
        let fees = rpc.fees(seen.base_fee).await?;
        let sent = Sent {
            old: seen.head,
            nonce: seen.nonce,
            gas,
            fees,
            block: seen.block,
            bytes: alloy_primitives::Bytes::new(),
            hashes: Vec::new(),
        };
        self.ledger.anchors.push(Entry { head, stage: Stage::Pending, place: None, sent: Some(sent) });
        self.sign_first();
        self.save().await?;
        self.due = Instant::now() + self.interval;
        self.send_all().await
    }

    /// Sees to it that what waits gets into a block.
    async fn nurse(&mut self, seen: &Seen) -> Result<(), Trouble> {
        let market = self.chain.rpc.fees(seen.base_fee).await?;
        let first = self.ledger.pending().next().and_then(|entry| entry.sent.as_mut());
        let raised = first.filter(|sent| sent.is_stuck(seen.block)).and_then(|sent| {
            sent.block = seen.block;
            sent.fees = sent.fees.raised(market)?;
            Some(sent.fees)
        });
        if let Some(fees) = raised {
            tracing::info!(wei_a_gas = fees.max, "an anchor is in no block yet; it is sent for a higher fee");
            self.sign_first();
            self.save().await?;
        }
        self.send_all().await
    }

    /// Signs the first transaction that waits, with what it offers now.
    fn sign_first(&mut self) {
        let chain = self.ledger.chain.unwrap_or_default();
        let Some(Entry { head, sent: Some(sent), .. }) = self.ledger.pending().next() else { return };
        let transaction = Transaction {
            chain,
            nonce: sent.nonce,
            fees: sent.fees,
            gas: sent.gas,
            to: Some(self.chain.contract),
            data: contract::anchor_call(self.chain.origin, sent.old, *head),
        };
        let signed = transaction.sign(&self.key);
        sent.bytes = signed.bytes;
        sent.hashes.push(signed.hash);
    }

    /// Hands the node what waits and it does not have.
    async fn send_all(&mut self) -> Result<(), Trouble> {
        let (rpc, publisher) = (self.chain.rpc.clone(), self.key.address());
        for sent in self.ledger.pending().filter_map(|entry| entry.sent.as_mut()) {
            let Some(hash) = sent.hashes.last() else { continue };
            if rpc.knows(*hash).await? {
                continue;
            }
            match rpc.send(&sent.bytes).await {
                Ok(_) => {}
                // Another transaction of ours waits under this nonce, which a lost file or a crash explains.
                Err(RpcError::Refused { message, .. }) if message.contains("underpriced") => {
                    sent.block = 0;
                }
                Err(RpcError::Refused { message, .. }) if message.contains("insufficient funds") => {
                    return Err(Trouble::Poor(publisher));
                }
                Err(error) => return Err(refused(error)),
            }
        }
        Ok(())
    }

    async fn save(&mut self) -> Result<(), Trouble> {
        if self.saved.as_ref() == Some(&self.ledger) {
            return Ok(());
        }
        let (ledger, file) = (self.ledger.clone(), self.file.clone());
        let saved = tokio::task::spawn_blocking(move || ledger.save(&file).map(|()| ledger)).await;
        self.saved = Some(saved.map_err(io::Error::other).and_then(|saved| saved).map_err(Trouble::File)?);
        Ok(())
    }
}

/// Puts the contract's reason in words, where it gave one.
fn refused(error: RpcError) -> Trouble {
    match &error {
        RpcError::Refused { data: Some(data), .. } => {
            contract::refusal(data).map_or(Trouble::Rpc(error.clone()), Trouble::Refused)
        }
        _ => Trouble::Rpc(error),
    }
}
