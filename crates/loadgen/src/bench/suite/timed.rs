//! Answers to votes that were to be sent at certain times, however late they were sent.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::super::{Latency, Meter};
use super::Fault;
use super::canvass::SELECTIONS;
use super::drive::Answers;
use super::http::first;
use super::votes::choice_at;

/// Votes on their way, and what became of the others.
pub(crate) struct Timed {
    /// Per connection, in the order they were sent: the place of each vote, and when it was to be sent.
    under_way: Vec<VecDeque<(u64, Instant)>>,
    accepted: Meter,
    shed: Meter,
    late: Meter,
    /// Votes of each selection that were acknowledged as new.
    pub(crate) totals: [u64; SELECTIONS.len()],
    /// Votes that were acknowledged as counted before.
    pub(crate) again: u64,
    /// Votes that were turned away with 503.
    pub(crate) turned_away: u64,
}

impl Timed {
    pub(crate) fn new(connections: usize) -> Self {
        Timed {
            under_way: vec![VecDeque::new(); connections],
            accepted: Meter::new(),
            shed: Meter::new(),
            late: Meter::new(),
            totals: [0; SELECTIONS.len()],
            again: 0,
            turned_away: 0,
        }
    }

    pub(crate) fn sent(&mut self, connection: usize, place: u64, due: Instant) {
        self.under_way[connection].push_back((place, due));
        self.late.record(due.elapsed(), 1);
    }

    /// From the time a vote was to be sent to when the load came to send it: what the load itself was late.
    pub(crate) fn lateness(&self) -> Latency {
        self.late.latency()
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        self.totals.iter().sum::<u64>() + self.again
    }

    /// From the time a vote was to be sent to its confirmation.
    pub(crate) fn confirmation(&self) -> Latency {
        self.accepted.latency()
    }

    /// From the time a vote was to be sent to its being turned away.
    pub(crate) fn refusal(&self) -> Latency {
        self.shed.latency()
    }
}

impl Answers for Timed {
    fn take(&mut self, connection: usize, bytes: &[u8]) -> Result<Option<usize>, Fault> {
        let Some(answer) = first(bytes)? else { return Ok(None) };
        let under_way = self.under_way[connection].pop_front();
        let (place, due) =
            under_way.ok_or_else(|| Fault("the server answered more than it was asked".to_owned()))?;
        let took = due.elapsed();
        match answer.status {
            201 => self.totals[choice_at(place)] += 1,
            200 => self.again += 1,
            503 => self.turned_away += 1,
            status => {
                return Err(Fault(format!(
                    "a vote was answered with {status}: {}",
                    String::from_utf8_lossy(answer.body)
                )));
            }
        }
        let meter = if answer.status == 503 { &self.shed } else { &self.accepted };
        meter.record(took, 1);
        Ok(Some(answer.length))
    }
}

/// Votes a second that are sent whatever the server does, so many at a time on one connection after another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) votes_per_second: u64,
    pub(crate) at_a_time: usize,
}

impl Pace {
    /// When the vote at this place is to be sent.
    pub(crate) fn due(&self, place: usize) -> Duration {
        let nanos =
            u128::try_from(place).unwrap_or(0) * 1_000_000_000 / u128::from(self.votes_per_second.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// How many votes are to be sent by then.
    pub(crate) fn by(&self, elapsed: Duration) -> usize {
        let count = elapsed.as_nanos() * u128::from(self.votes_per_second) / 1_000_000_000;
        usize::try_from(count).unwrap_or(usize::MAX)
    }
}
