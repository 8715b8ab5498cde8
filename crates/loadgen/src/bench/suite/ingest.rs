//! Votes in over HTTP: checked, counted once and durable before the answer, against a server that only answers.

use std::time::Duration;

use rustix::process::Signal;

use super::canvass::Credentials;
use super::drive::{Answers, Driver};
use super::http::{LineStatuses, Statuses};
use super::report::{Row, Table};
use super::votes::{Expected, Requests, batches, single};
use super::{Fault, Suite, stage};
use crate::bench::per_second;

/// Lines of one NDJSON request.
const LINES: u64 = 1_000;

/// What is measured, and how often.
#[derive(Debug, Clone)]
pub struct Options {
    /// Votes of one trial.
    pub votes: u64,
    /// Trials of each leg.
    pub rounds: u32,
    /// Only the legs of these names; all where none are named.
    pub only: Vec<String>,
}

/// One way to send votes to one server.
struct Leg {
    name: &'static str,
    server: Which,
    connections: usize,
    depth: usize,
    in_batches: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    Bare,
    Canvass,
}

const LEGS: [Leg; 5] = [
    Leg { name: "bare-1", server: Which::Bare, connections: 1_024, depth: 1, in_batches: false },
    Leg { name: "canvass-1", server: Which::Canvass, connections: 1_024, depth: 1, in_batches: false },
    Leg { name: "bare-16", server: Which::Bare, connections: 256, depth: 16, in_batches: false },
    Leg { name: "canvass-16", server: Which::Canvass, connections: 256, depth: 16, in_batches: false },
    Leg { name: "canvass-ndjson", server: Which::Canvass, connections: 16, depth: 1, in_batches: true },
];

/// What one trial came to.
pub(crate) struct Trial {
    pub(crate) votes_per_second: u64,
    /// How much of their cores the server and the load had, in percent.
    pub(crate) server_busy: u64,
    pub(crate) load_busy: u64,
}

/// Measures how long a trial takes, and how busy both sides are meanwhile.
pub(crate) struct Stopwatch {
    pid: u32,
    before: (u64, u64),
}

impl Stopwatch {
    pub(crate) fn start(pid: u32) -> Self {
        Stopwatch { pid, before: Self::ticks(pid) }
    }

    fn ticks(pid: u32) -> (u64, u64) {
        (stage::cpu_ticks(pid), stage::cpu_ticks(std::process::id()))
    }

    pub(crate) fn stop(&self, votes: u64, elapsed: Duration) -> Trial {
        let (server, load) = Self::ticks(self.pid);
        let available = u128::from(stage::ticks_a_second()) * elapsed.as_millis() / 1_000;
        let percent = |now: u64, before: u64| {
            u64::try_from(u128::from(now - before) * 100 / available.max(1)).unwrap_or(0)
        };
        Trial {
            votes_per_second: per_second(votes, elapsed),
            server_busy: percent(server, self.before.0),
            load_busy: percent(load, self.before.1),
        }
    }
}

struct Bench<'a> {
    suite: &'a Suite,
    credentials: Credentials,
    single: (Requests, Expected),
    batches: (Requests, Expected),
}

impl Suite {
    /// The table `ingest`.
    pub fn ingest(&self, options: &Options) -> Result<Table, Fault> {
        let legs: Vec<&Leg> = LEGS.iter().filter(|leg| wanted(&options.only, leg.name)).collect();
        if legs.is_empty() {
            let names: Vec<&str> = LEGS.iter().map(|leg| leg.name).collect();
            return Err(Fault(format!("there is no such leg; there are {}", names.join(", "))));
        }
        let credentials = self.credentials()?;
        let signer = credentials.signer.clone();
        let needs =
            |in_batches| if legs.iter().any(|l| l.in_batches == in_batches) { options.votes } else { 0 };
        let bench = Bench {
            suite: self,
            single: single(0..needs(false), &*signer),
            batches: batches(0..needs(true), LINES, &credentials.key),
            credentials,
        };
        let mut trials: Vec<Vec<Trial>> = legs.iter().map(|_| Vec::new()).collect();
        for _ in 0..options.rounds {
            for (leg, trials) in legs.iter().zip(&mut trials) {
                trials.push(bench.trial(leg)?);
            }
        }
        let rows = legs.iter().zip(trials).map(|(leg, trials)| row(leg.name, &trials)).collect();
        let mut table = Table::new("ingest", rows);
        table.compare("canvass-1", "bare-1", 50);
        table.compare("canvass-16", "bare-16", 45);
        table.compare("canvass-ndjson", "canvass-16", 200);
        Ok(table)
    }
}

/// Whether a leg of this name is asked for.
pub(crate) fn wanted(only: &[String], name: &str) -> bool {
    only.is_empty() || only.iter().any(|one| one == name)
}

/// The trials of a leg; the note is that of its busiest moment.
pub(crate) fn row(name: &str, trials: &[Trial]) -> Row {
    let most = |f: fn(&Trial) -> u64| trials.iter().map(f).max().unwrap_or(0);
    let (server, load) = (most(|t| t.server_busy), most(|t| t.load_busy));
    let note = format!("server's core {server} % busy, load's {load} %");
    Row::new(name, "votes/s", trials.iter().map(|t| t.votes_per_second).collect(), note)
}

impl Bench<'_> {
    fn trial(&self, leg: &Leg) -> Result<Trial, Fault> {
        match leg.server {
            Which::Bare => self.bare(leg),
            Which::Canvass => self.canvass(leg),
        }
    }

    fn bare(&self, leg: &Leg) -> Result<Trial, Fault> {
        let (pid, address) = self.suite.bare()?;
        announce(leg.name, pid);
        let (requests, expected) = &self.single;
        let mut driver = Driver::connect(address, leg.connections, requests, Statuses::default())?;
        let watch = Stopwatch::start(pid);
        let elapsed = driver.closed(leg.depth)?;
        let votes = expected.new + expected.again;
        let trial = watch.stop(votes, elapsed);
        check_answers(&driver.answers, &[(201, votes)])?;
        self.suite.stage.stop(pid, Signal::KILL)?;
        Ok(trial)
    }

    fn canvass(&self, leg: &Leg) -> Result<Trial, Fault> {
        let server = self.suite.canvass(&self.credentials, leg.name)?;
        announce(leg.name, server.pid);
        let (requests, expected) = if leg.in_batches { &self.batches } else { &self.single };
        let watch = Stopwatch::start(server.pid);
        let (elapsed, statuses) = if leg.in_batches {
            let (elapsed, lines) = drive(server.address, leg, requests, LineStatuses::default())?;
            (elapsed, lines.0)
        } else {
            drive(server.address, leg, requests, Statuses::default())?
        };
        let trial = watch.stop(expected.new + expected.again, elapsed);
        check_answers(&statuses, &[(200, expected.again), (201, expected.new)])?;
        self.suite.check_totals(&server, expected)?;
        self.suite.remove(&server)?;
        Ok(trial)
    }
}

fn drive<A: Answers>(
    address: std::net::SocketAddr,
    leg: &Leg,
    requests: &Requests,
    answers: A,
) -> Result<(Duration, A), Fault> {
    let mut driver = Driver::connect(address, leg.connections, requests, answers)?;
    let elapsed = driver.closed(leg.depth)?;
    Ok((elapsed, driver.answers))
}

/// Tells which process to look at.
pub(crate) fn announce(leg: &str, pid: u32) {
    eprintln!("{leg}: process {pid}");
}

/// Holds what was answered against what must have been.
pub(crate) fn check_answers(found: &Statuses, expected: &[(u16, u64)]) -> Result<(), Fault> {
    let expected: Vec<(usize, u64)> =
        expected.iter().filter(|(_, n)| *n > 0).map(|(status, n)| (usize::from(*status), *n)).collect();
    if found.all() == expected {
        return Ok(());
    }
    Err(Fault(format!("the answers must be {expected:?} (status, number), they are {:?}", found.all())))
}
