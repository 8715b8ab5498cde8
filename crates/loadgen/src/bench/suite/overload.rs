//! Twice as many votes as the server can take: it must turn some away, stay quick, and count what it acknowledged.

use super::drive::Driver;
use super::latency::{Options, rows};
use super::report::{Bound, Row, Table};
use super::timed::{Pace, Timed};
use super::votes::single;
use super::{Fault, Suite, stage};
use crate::bench::per_second;

const CONNECTIONS: usize = 1_024;
/// Connections and votes by which the reached rate is found; the same number on one connection as later.
const REACHED: (usize, u64) = (256, 1_000_000);
const AT_A_TIME: usize = 16;

/// What one trial came to.
struct Trial {
    acknowledged_per_second: u64,
    /// Votes turned away, in percent of those sent.
    shed_percent: u64,
    /// The server's own memory each second, in KiB.
    memory: Vec<u64>,
    timed: Timed,
}

impl Suite {
    /// The table `overload`.
    pub fn overload(&self, options: &Options) -> Result<Table, Fault> {
        let credentials = self.credentials()?;
        let (connections, votes) = REACHED;
        let (requests, expected) = single(0..votes, &*credentials.signer, "");
        let mut reached = Vec::new();
        for _ in 0..options.rounds {
            let server = self.canvass(&credentials, "reached")?;
            reached.push(self.reached(&server, &requests, &expected, connections, AT_A_TIME)?);
        }
        drop(requests);
        let reached = Row::new("reached rate", "votes/s", reached, "16 in flight a connection".to_owned());
        let offered = reached.median * 2;
        let (requests, _) = single(0..offered * options.seconds, &*credentials.signer, "");
        let mut trials = Vec::new();
        for _ in 0..options.rounds {
            let server = self.canvass(&credentials, "overload")?;
            let timed = Timed::new(CONNECTIONS);
            let mut driver = Driver::connect(server.address, CONNECTIONS, &requests, timed)?;
            let mut memory = vec![stage::memory(server.pid)?];
            let pace = Pace { votes_per_second: offered, at_a_time: AT_A_TIME };
            let elapsed = driver.open(pace, || {
                memory.push(stage::memory(server.pid)?);
                Ok(())
            })?;
            let timed = driver.answers;
            self.check_totals(&server, timed.totals)?;
            self.remove(&server)?;
            let sent = timed.acknowledged() + timed.turned_away;
            let shed_percent = (timed.turned_away * 100).checked_div(sent).unwrap_or(0);
            let acknowledged_per_second = per_second(timed.acknowledged(), elapsed);
            trials.push(Trial { acknowledged_per_second, shed_percent, memory, timed });
        }
        Ok(table(reached, offered, &trials))
    }
}

fn table(reached: Row, offered: u64, trials: &[Trial]) -> Table {
    let row = |name: &str, unit: &str, of: &dyn Fn(&Trial) -> u64| {
        Row::new(name, unit, trials.iter().map(of).collect(), String::new())
    };
    let mebibytes = |kib: Option<&u64>| kib.copied().unwrap_or(0) / 1_024;
    let mut table = Table::new("overload", vec![reached]);
    table.rows.push(Row::new("offered rate", "votes/s", vec![offered], "twice the reached rate".to_owned()));
    table.rows.push(row("acknowledged", "votes/s", &|t| t.acknowledged_per_second));
    table.rows.push(row("turned away with 503", "percent", &|t| t.shed_percent));
    let confirmations: Vec<_> = trials.iter().map(|t| t.timed.confirmation()).collect();
    table.rows.extend(rows("confirmation", &confirmations));
    let refusals: Vec<_> = trials.iter().map(|t| t.timed.refusal()).collect();
    table.rows.extend(rows("refusal", &refusals));
    let lateness: Vec<_> = trials.iter().map(|t| t.timed.lateness()).collect();
    table.rows.extend(rows("lateness of the load", &lateness));
    table.rows.push(row("memory at the start", "MiB", &|t| mebibytes(t.memory.first())));
    table.rows.push(row("memory after a quarter", "MiB", &|t| mebibytes(t.memory.get(t.memory.len() / 4))));
    table.rows.push(row("memory at the end", "MiB", &|t| mebibytes(t.memory.last())));
    // A known voter takes up to 40 bytes, which is no growth of anything that waits.
    table
        .rows
        .push(row("of it for voters, at most", "MiB", &|t| (t.timed.totals.iter().sum::<u64>() * 40) >> 20));
    table.aim("confirmation p99", Bound::AtMost(100_000));
    table
}
