//! What the proof costs: votes in with it and without, and how fast a tree takes leaves.

use std::hint::black_box;
use std::time::Instant;

use canvass_tlog::{SecretKey, Tree, record_hash};

use super::legs::{Leg, Options, canvass_with, ndjson_with};
use super::report::{Bound, Row, Table};
use super::{Fault, Suite};
use crate::bench::per_second;

const LEGS: [Leg; 5] = [
    Leg { name: "none-16", connections: 256, depth: 16, trial: |b, leg| canvass_with(b, leg, "none") },
    Leg {
        name: "checkpoints-16",
        connections: 256,
        depth: 16,
        trial: |b, leg| canvass_with(b, leg, "checkpoints"),
    },
    Leg { name: "promises-16", connections: 256, depth: 16, trial: |b, leg| canvass_with(b, leg, "whole") },
    Leg { name: "none-ndjson", connections: 16, depth: 1, trial: |b, leg| ndjson_with(b, leg, "none") },
    Leg {
        name: "checkpoints-ndjson",
        connections: 16,
        depth: 1,
        trial: |b, leg| ndjson_with(b, leg, "checkpoints"),
    },
];

/// Leaves of one trial, and of one batch.
const LEAVES: u64 = 4_000_000;
const BATCH: u64 = 1_000;

impl Suite {
    /// The table `proof`.
    pub fn proof(&self, options: &Options) -> Result<Table, Fault> {
        let mut table = self.in_turn("proof", &LEGS, options)?;
        table.compare("checkpoints-16", "none-16", Some(85));
        table.compare("promises-16", "none-16", None);
        table.compare("checkpoints-ndjson", "none-ndjson", Some(85));
        if options.only.is_empty() {
            table.add(self.integrating(options.rounds)?);
            table.aim("integrating", Bound::AtLeast(2_000_000));
        }
        Ok(table)
    }

    /// Leaves a second that one core hashes and takes into a tree on disk, with a checkpoint every million.
    fn integrating(&self, rounds: u32) -> Result<Row, Fault> {
        let fault = |error: &dyn std::fmt::Display| Fault(error.to_string());
        let key = SecretKey::generate("bench.example").map_err(|e| fault(&e))?;
        let mut trials = Vec::new();
        for round in 0..rounds {
            let folder = self.stage.folder().join(format!("tree-{round}"));
            let mut tree = Tree::open(&folder, key.clone()).map_err(|e| fault(&e))?;
            let mut record = [1; 46];
            let begin = Instant::now();
            for batch in 0..LEAVES / BATCH {
                let leaves: Vec<_> = (batch * BATCH..(batch + 1) * BATCH)
                    .map(|n| {
                        record[20..28].copy_from_slice(&n.to_le_bytes());
                        record_hash(&record)
                    })
                    .collect();
                tree.append(&leaves).map_err(|e| fault(&e))?;
                if (batch + 1).is_multiple_of(1_000_000 / BATCH) {
                    black_box(tree.publish().map_err(|e| fault(&e))?);
                }
            }
            trials.push(per_second(LEAVES, begin.elapsed()));
            std::fs::remove_dir_all(folder)?;
        }
        let note = format!("one thread, {LEAVES} leaves, hashed, in files, a checkpoint every million");
        Ok(Row::new("integrating", "leaves/s", trials, note))
    }
}
