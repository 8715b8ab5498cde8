//! The fold alone with many voters known, and how long a start takes with many votes in the log.

use std::fs;
use std::time::{Duration, Instant};

use super::super::fold::Bench;
use super::canvass::Server;
use super::drive::Driver;
use super::http::LineStatuses;
use super::report::{Bound, Row, Table};
use super::votes::{Expected, batches};
use super::{Fault, Suite};
use crate::bench::{millis, per_second};

const MILLION: u64 = 1_000_000;
/// Voters that are known before the clock starts.
const KNOWN: [u64; 3] = [0, 20 * MILLION, 100 * MILLION];
/// Votes of one trial.
const VOTES: u64 = 2 * MILLION;
const PARTITIONS: u16 = 8;
/// Lines of a request, and connections, by which the log is filled.
const FILL: (u64, usize) = (1_000, 16);

/// How much, and how often.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Votes in the log that is recovered.
    pub votes: u64,
    /// Trials of each.
    pub rounds: u32,
}

impl Suite {
    /// The table `fold`.
    pub fn fold(&self, options: &Options) -> Result<Table, Fault> {
        let mut rows = folds(options.rounds)?;
        rows.extend(self.recoveries(options)?);
        let mut table = Table::new("fold", rows);
        table.aim("fold, 20 M known", Bound::AtLeast(1_500_000));
        table.aim("memory, 20 M known", Bound::AtMost(400));
        if options.votes >= 20 * MILLION {
            table.aim("recovery, log alone", Bound::AtMost(15_000));
        }
        Ok(table)
    }

    /// Starts on one log with snapshots and without, in turn.
    fn recoveries(&self, options: &Options) -> Result<Vec<Row>, Fault> {
        let (mut server, expected) = self.filled(options.votes)?;
        let (snapshots, aside) = (server.data.join("snapshots"), server.data.join("snapshots-aside"));
        let (mut with, mut without) = (Vec::new(), Vec::new());
        for _ in 0..options.rounds {
            let elapsed;
            (server, elapsed) = self.started(server, &expected)?;
            with.push(millis(elapsed));
            fs::rename(&snapshots, &aside)?;
            let elapsed;
            (server, elapsed) = self.started(server, &expected)?;
            without.push(millis(elapsed));
            // Whatever it has written meanwhile goes.
            let _ = fs::remove_dir_all(&snapshots);
            fs::rename(&aside, &snapshots)?;
        }
        fs::remove_dir_all(&server.data)?;
        let note = format!("{} votes in the log, on one core, the log in the page cache", options.votes);
        Ok(vec![
            Row::new("recovery, snapshots", "ms", with, note.clone()),
            Row::new("recovery, log alone", "ms", without, note),
        ])
    }

    /// A data folder with so many votes, whose server has ended well and left its snapshots.
    fn filled(&self, votes: u64) -> Result<(Server, Expected), Fault> {
        let credentials = self.credentials()?;
        let server = self.canvass(&credentials, "recovery")?;
        let (lines, connections) = FILL;
        let mut expected = Expected::default();
        let mut first = 0;
        while first < votes {
            let end = (first + MILLION).min(votes);
            let (requests, part) = batches(first..end, lines, &credentials.key);
            let mut driver =
                Driver::connect(server.address, connections, &requests, LineStatuses::default())?;
            driver.closed(1)?;
            driver.answers.as_ref().check(&[(200, part.again), (201, part.new)])?;
            expected += part;
            first = end;
        }
        self.check_totals(&server, expected.totals)?;
        self.stage.ask_to_end(server.pid)?;
        Ok((server, expected))
    }

    /// Starts a server on a folder, which must count what was counted before, and ends it without warning.
    fn started(&self, server: Server, expected: &Expected) -> Result<(Server, Duration), Fault> {
        let since = Instant::now();
        let server = self.canvass_again(server.data)?;
        let elapsed = since.elapsed();
        self.check_totals(&server, expected.totals)?;
        self.stage.end(server.pid)?;
        Ok((server, elapsed))
    }
}

/// Votes a second, and tenths of bytes a voter, with more and more voters known.
fn folds(rounds: u32) -> Result<Vec<Row>, Fault> {
    let mut rows = Vec::new();
    let mut memory = Vec::new();
    let mut bench = Bench::new(PARTITIONS);
    let mut voters = 0;
    for known in KNOWN {
        let mut trials = Vec::new();
        for _ in 0..rounds {
            if known == 0 {
                (bench, voters) = (Bench::new(PARTITIONS), 0);
            }
            bench.voters(voters..known.max(voters));
            voters = known.max(voters);
            if known > 0 && trials.is_empty() {
                let name = format!("memory, {} M known", known / MILLION);
                let note = "tenths of a byte a voter".to_owned();
                memory.push(Row::new(&name, "tenths of a byte", vec![bench.tenths_of_bytes_a_voter()], note));
            }
            let elapsed = bench.voters(voters..voters + VOTES);
            voters += VOTES;
            trials.push(per_second(VOTES, elapsed));
        }
        bench.check(voters).map_err(Fault)?;
        let note = "one thread, one core, decode and apply".to_owned();
        rows.push(Row::new(&format!("fold, {} M known", known / MILLION), "votes/s", trials, note));
    }
    rows.extend(memory);
    Ok(rows)
}
