//! The anchors of one log and what is known of each: the part of publishing that asks nobody.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use alloy_primitives::{Address, B256, Bytes};
use serde::{Deserialize, Serialize};

use crate::chain::Event;
use crate::transaction::Fees;
use crate::{Head, Place, Stage};

/// Finalised anchors that are kept for the status; all of them stand on the chain.
const KEPT: usize = 32;
/// After so many blocks without it, a transaction offers too little.
const STUCK_BLOCKS: u64 = 5;
/// No more than so many times what the market asks is ever offered.
const MOST_TIMES_MARKET: u128 = 4;
/// A file is no longer than this.
const MAX_BYTES: u64 = 16 << 20;

/// The anchors of a log in a contract, oldest first. This is the publisher's file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ledger {
    pub(crate) origin: String,
    pub(crate) contract: Address,
    pub(crate) publisher: Address,
    /// Unknown until a node has been asked.
    pub(crate) chain: Option<u64>,
    /// Blocks up to this one are final, and their anchors are here; `None` before any was looked at.
    pub(crate) read_to: Option<u64>,
    pub(crate) anchors: Vec<Entry>,
}

/// An anchor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    pub(crate) head: Head,
    pub(crate) stage: Stage,
    pub(crate) place: Option<Place>,
    /// What was sent for it; kept until it is final, since it may be needed again.
    pub(crate) sent: Option<Sent>,
}

/// A transaction that anchors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sent {
    /// The head it goes on from.
    pub(crate) old: Head,
    pub(crate) nonce: u64,
    pub(crate) gas: u64,
    pub(crate) fees: Fees,
    /// The newest block when it was sent for these fees.
    pub(crate) block: u64,
    /// What is sent.
    pub(crate) bytes: Bytes,
    /// Hashes of all that was sent for this anchor, the newest last.
    pub(crate) hashes: Vec<B256>,
}

/// What a chain shows at one of its blocks.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// The newest block.
    pub(crate) block: u64,
    pub(crate) base_fee: u128,
    /// The last block that stays.
    pub(crate) final_block: u64,
    /// The publisher's next nonce.
    pub(crate) nonce: u64,
    /// The log's head in the contract.
    pub(crate) head: Head,
    /// The anchors behind [`Ledger::read_to`], or all there ever were.
    pub(crate) events: Vec<Event>,
    /// Whether they are all there ever were.
    pub(crate) whole: bool,
}

impl Ledger {
    pub(crate) fn new(origin: &str, contract: Address, publisher: Address) -> Self {
        Self {
            origin: origin.to_owned(),
            contract,
            publisher,
            chain: None,
            read_to: None,
            anchors: Vec::new(),
        }
    }

    /// Whether it is about the same log in the same contract.
    pub(crate) fn is_about(&self, other: &Ledger) -> bool {
        (&self.origin, self.contract, self.publisher) == (&other.origin, other.contract, other.publisher)
    }

    /// Takes over what the chain shows; returns the anchors that can never come to be, since something else has
    /// taken their place.
    pub(crate) fn see(&mut self, seen: &Seen) -> Vec<Entry> {
        let all = std::mem::take(&mut self.anchors);
        let settled = |entry: &Entry| entry.stage == Stage::Finalised && !seen.whole;
        let (settled, mut open): (Vec<Entry>, Vec<Entry>) = all.into_iter().partition(settled);
        self.anchors = settled;
        for event in &seen.events {
            let stage = event.stage(seen.final_block);
            let known = open.iter().position(|entry| entry.head == event.head).map(|at| open.remove(at));
            let sent = known.and_then(|entry| entry.sent).filter(|_| stage != Stage::Finalised);
            self.anchors.push(Entry { head: event.head, stage, place: Some(event.place), sent });
        }
        // What waits must go on from the chain's head, one nonce after the other.
        let (mut nonce, mut head, mut lost) = (seen.nonce, seen.head, Vec::new());
        for entry in open {
            if entry.sent.as_ref().is_some_and(|sent| sent.nonce == nonce && sent.old == head) {
                (nonce, head) = (nonce + 1, entry.head);
                self.anchors.push(Entry { stage: Stage::Pending, place: None, ..entry });
            } else {
                lost.push(entry);
            }
        }
        let read_to = self.read_to.filter(|_| !seen.whole).unwrap_or(0);
        self.read_to = Some(read_to.max(seen.final_block));
        let finalised = self.anchors.iter().filter(|entry| entry.stage == Stage::Finalised).count();
        self.anchors.drain(..finalised.saturating_sub(KEPT));
        lost
    }

    /// Whether the last anchor on the chain is the head that the contract has. If not, blocks that were taken for
    /// final are gone, or somebody else has anchored.
    pub(crate) fn agrees(&self, head: Head) -> bool {
        let last = self.anchors.iter().rfind(|entry| entry.place.is_some());
        last.map_or(Head::NONE, |entry| entry.head) == head
    }

    /// The anchors that wait, in the order of their nonces.
    pub(crate) fn pending(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.anchors.iter_mut().filter(|entry| entry.stage == Stage::Pending)
    }

    /// Reads the file, if there is one.
    pub(crate) fn load(file: &Path) -> io::Result<Option<Self>> {
        match fs::metadata(file) {
            Ok(metadata) if metadata.len() > MAX_BYTES => Err(io::Error::other("the file is too long")),
            Ok(_) => Ok(Some(serde_json::from_slice(&fs::read(file)?)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Puts it in the place of the file, durably.
    pub(crate) fn save(&self, file: &Path) -> io::Result<()> {
        let folder = file.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let aside = file.with_extension("new");
        let mut out = File::create(&aside)?;
        out.write_all(&serde_json::to_vec_pretty(self)?)?;
        out.sync_all()?;
        fs::rename(aside, file)?;
        File::open(folder)?.sync_all()
    }
}

impl Sent {
    /// Whether blocks come and it is in none of them.
    pub(crate) fn is_stuck(&self, block: u64) -> bool {
        block >= self.block.saturating_add(STUCK_BLOCKS)
    }
}

impl Fees {
    /// What to offer after these were too little: a quarter more, which nodes take for a replacement, and no less
    /// than the market asks. `None` where that is out of all proportion to the market, so that the fees are not
    /// the reason.
    pub(crate) fn raised(self, market: Fees) -> Option<Fees> {
        let more = |fee: u128| fee.saturating_add(fee.div_ceil(4));
        let raised = Fees { tip: more(self.tip).max(market.tip), max: more(self.max).max(market.max) };
        (raised.max <= market.max.saturating_mul(MOST_TIMES_MARKET)).then_some(raised)
    }
}

#[cfg(test)]
mod tests;
