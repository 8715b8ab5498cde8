//! What a check came to.

use std::fmt;

use canvass_anchor::{Anchored, Stage};
use canvass_tlog::SignedCheckpoint;
use serde::Serialize;

use super::difference::Difference;
use super::partition::{Counted, Outcomes};
use super::trust::Trust;

/// What was checked and found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    log: String,
    key: String,
    /// Nobody but the server said that this is the key.
    key_on_first_use: bool,
    checkpoint_size: u64,
    checkpoint_root: String,
    cosigners: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    anchored: Option<OnChain>,
    partitions: u64,
    records: u64,
    voters: u64,
    outcomes: Outcomes,
    /// Result documents that were compared.
    pub(crate) documents: usize,
    pub(crate) corrections: usize,
    /// Returns that were held at some time.
    pub(crate) held: usize,
    pub(crate) bytes: u64,
    pub(crate) elapsed_ms: u64,
    pub(crate) differences: Vec<Difference>,
}

/// What stands on a chain.
#[derive(Debug, Serialize)]
struct OnChain {
    heads: usize,
    /// Of them, those that the chain cannot take back.
    finalised: usize,
    newest_size: u64,
    newest_block: u64,
}

impl Report {
    pub(crate) fn new(trust: &Trust) -> Self {
        Report {
            log: trust.key.name().to_owned(),
            key: trust.key.to_string(),
            key_on_first_use: trust.on_first_use,
            checkpoint_size: 0,
            checkpoint_root: String::new(),
            cosigners: Vec::new(),
            anchored: None,
            partitions: 0,
            records: 0,
            voters: 0,
            outcomes: Outcomes::default(),
            documents: 0,
            corrections: 0,
            held: 0,
            bytes: 0,
            elapsed_ms: 0,
            differences: Vec::new(),
        }
    }

    pub(crate) fn checkpoint(&mut self, checkpoint: &SignedCheckpoint, cosigners: Vec<String>) {
        self.checkpoint_size = checkpoint.size();
        self.checkpoint_root = checkpoint.root().to_string();
        self.cosigners = cosigners;
    }

    /// Notes what a chain has; it must have something.
    pub(crate) fn chained(&mut self, anchored: &[Anchored]) {
        let finalised = anchored.iter().filter(|anchored| anchored.stage == Stage::Finalised).count();
        self.anchored = anchored.last().map(|newest| OnChain {
            heads: anchored.len(),
            finalised,
            newest_size: newest.head.size,
            newest_block: newest.place.block,
        });
    }

    pub(crate) fn partition(&mut self, records: u64, counted: &Counted) {
        self.partitions += 1;
        self.records += records;
        self.voters += counted.voters;
        self.outcomes.add(counted.outcomes);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "log          {}", self.log)?;
        let word = if self.key_on_first_use {
            "  (the server's own word: compare it with the key its operator has made known, and give it with --key)"
        } else {
            "  (pinned)"
        };
        writeln!(f, "key          {}{word}", self.key)?;
        writeln!(f, "checkpoint   {} leaves, root {}", self.checkpoint_size, self.checkpoint_root)?;
        if !self.cosigners.is_empty() {
            writeln!(f, "cosigned by  {}", self.cosigners.join(", "))?;
        }
        if let Some(OnChain { heads, finalised, newest_size, newest_block }) = self.anchored {
            writeln!(
                f,
                "anchored     {heads} heads, {finalised} of them final; the newest is of {newest_size} leaves, in block \
                 {newest_block}"
            )?;
        }
        let Outcomes { counted, duplicates, held, rejected } = self.outcomes;
        writeln!(
            f,
            "records      {} in {} partitions: {counted} counted, {duplicates} duplicates, {held} held, {rejected} \
             rejected; {} voters",
            self.records, self.partitions, self.voters
        )?;
        writeln!(
            f,
            "published    {} result documents, {} corrections, {} returns that were held",
            self.documents, self.corrections, self.held
        )?;
        let seconds = std::time::Duration::from_millis(self.elapsed_ms).as_secs_f64();
        writeln!(f, "read         {} bytes in {seconds:.1} s", self.bytes)?;
        match self.differences.len() {
            0 => f.write_str("Everything that is published is what the log says."),
            1 => f.write_str("1 thing differs."),
            count => write!(f, "{count} things differ."),
        }
    }
}
