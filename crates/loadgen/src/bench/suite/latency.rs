//! How long a vote takes to its confirmation, and to a screen, while others vote at a steady rate.

use super::canvass::Server;
use super::drive::Driver;
use super::http::Statuses;
use super::report::{Bound, Row, Table};
use super::screen::Screen;
use super::timed::{Pace, Timed};
use super::votes::{Expected, Requests, single};
use super::{Fault, Suite};
use crate::bench::{Latency, per_second};

const CONNECTIONS: usize = 1_024;
/// Votes by which the reached rate is found.
const VOTES: u64 = 500_000;
/// Percent of the reached rate.
const LOADS: [u64; 2] = [50, 80];

/// For how long, and how often.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Seconds of one trial.
    pub seconds: u64,
    /// Trials of each load.
    pub rounds: u32,
}

/// What was found at one load.
#[derive(Default)]
struct Found {
    confirmation: Vec<Latency>,
    screen: Vec<Latency>,
}

impl Suite {
    /// The table `latency`.
    pub fn latency(&self, options: &Options) -> Result<Table, Fault> {
        let credentials = self.credentials()?;
        let start = || self.canvass(&credentials, "latency");
        let (requests, expected) = single(0..VOTES, &*credentials.signer, "");
        let mut reached = Vec::new();
        for _ in 0..options.rounds {
            reached.push(self.reached(&start()?, &requests, &expected, CONNECTIONS, 1)?);
        }
        let reached = Row::new("reached rate", "votes/s", reached, "1 in flight a connection".to_owned());
        let mut found = LOADS.map(|_| Found::default());
        for _ in 0..options.rounds {
            for (percent, found) in LOADS.iter().zip(&mut found) {
                let rate = reached.median * percent / 100;
                let (requests, _) = single(0..rate * options.seconds, &*credentials.signer, "");
                self.paced(&start()?, &requests, rate, found)?;
            }
        }
        let mut table = Table::new("latency", vec![reached]);
        for (percent, found) in LOADS.iter().zip(&found) {
            table.rows.extend(rows(&format!("{percent} % confirmation"), &found.confirmation));
            table.rows.extend(rows(&format!("{percent} % vote to screen"), &found.screen));
        }
        table.aim("80 % confirmation p99", Bound::AtMost(100_000));
        table.aim("80 % vote to screen p99", Bound::AtMost(1_000_000));
        Ok(table)
    }

    /// Votes a second that a server takes when each answer brings the next vote. It is removed afterwards.
    pub(crate) fn reached(
        &self,
        server: &Server,
        requests: &Requests,
        expected: &Expected,
        connections: usize,
        depth: usize,
    ) -> Result<u64, Fault> {
        let mut driver = Driver::connect(server.address, connections, requests, Statuses::default())?;
        let elapsed = driver.closed(depth)?;
        driver.answers.check(&[(200, expected.again), (201, expected.new)])?;
        self.check_totals(server, expected.totals)?;
        self.remove(server)?;
        Ok(per_second(expected.new + expected.again, elapsed))
    }

    fn paced(&self, server: &Server, requests: &Requests, rate: u64, found: &mut Found) -> Result<(), Fault> {
        let mut driver = Driver::connect(server.address, CONNECTIONS, requests, Timed::new(CONNECTIONS))?;
        let screen = Screen::watch(server.address.to_string());
        driver.open(Pace { votes_per_second: rate, at_a_time: 1 }, || Ok(()))?;
        found.screen.push(screen.stop()?);
        let timed = &driver.answers;
        if timed.turned_away > 0 {
            return Err(Fault(format!(
                "{} votes were turned away below the reached rate",
                timed.turned_away
            )));
        }
        found.confirmation.push(timed.confirmation());
        self.check_totals(server, timed.totals)?;
        self.remove(server)
    }
}

/// A row for each quantile.
pub(crate) fn rows(name: &str, found: &[Latency]) -> Vec<Row> {
    let row = |quantile: &str, of: fn(&Latency) -> u64| {
        Row::new(&format!("{name} {quantile}"), "us", found.iter().map(of).collect(), String::new())
    };
    vec![row("p50", |l| l.p50_us), row("p99", |l| l.p99_us), row("p99.9", |l| l.p999_us)]
}
