//! Votes in over HTTP: checked, counted once and durable before the answer, against a server that only answers.

use super::http::Statuses;
use super::legs::{self, Bench, Leg, Options, Trial, announce, drive};
use super::report::{Bound, Table};
use super::{Fault, Suite};

const LEGS: [Leg; 5] = [
    Leg { name: "bare-1", connections: 1_024, depth: 1, trial: bare },
    Leg { name: "canvass-1", connections: 1_024, depth: 1, trial: legs::canvass },
    Leg { name: "bare-16", connections: 256, depth: 16, trial: bare },
    Leg { name: "canvass-16", connections: 256, depth: 16, trial: legs::canvass },
    Leg { name: "canvass-ndjson", connections: 16, depth: 1, trial: legs::canvass_ndjson },
];

impl Suite {
    /// The table `ingest`.
    pub fn ingest(&self, options: &Options) -> Result<Table, Fault> {
        let mut table = self.in_turn("ingest", &LEGS, options)?;
        table.compare("canvass-1", "bare-1", Some(50));
        table.compare("canvass-16", "bare-16", Some(45));
        table.compare("canvass-ndjson", "canvass-16", Some(200));
        table.aim("canvass-ndjson", Bound::AtLeast(700_000));
        Ok(table)
    }
}

/// Every vote is a new one to a server that keeps nothing.
fn bare(bench: &Bench<'_>, leg: &Leg) -> Result<Trial, Fault> {
    let (pid, address) = bench.suite.bare()?;
    announce(leg, pid);
    let (requests, expected) = bench.single();
    let (trial, statuses) = drive(address, leg, requests, expected, Statuses::default())?;
    statuses.check(&[(201, expected.new + expected.again)])?;
    bench.suite.stage.end(pid)?;
    Ok(trial)
}
