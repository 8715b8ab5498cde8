//! How much a lane has taken on, and whether it may take more.
//!
//! Whoever comes too fast must hear so at once, and what waits in a socket is seen by nobody. So a lane reads
//! whatever its sockets have, and turns votes away before it looks into them once a round of reading takes too long,
//! or the votes that it took wait for too long.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long a round of reading all sockets may take before the rest of it is turned away.
const LONGEST_ROUND: Duration = Duration::from_millis(10);
/// How long a vote may have waited here for its verdict before new ones are turned away.
const PATIENCE: Duration = Duration::from_millis(40);
/// So many votes may wait, or be taken in a round, however long it takes: a disk that is slow for a moment turns nobody
/// away, nor does a core that others have.
const CALM: usize = 4_096;
/// Most votes that wait, however quick it goes: each takes memory.
const MAX_AWAITED: usize = 16_384;

/// Votes on their way to a verdict.
pub(super) struct Load {
    /// When the present round of reading began.
    round: Instant,
    /// Votes taken on in it.
    taken: usize,
    /// The submissions since the oldest that awaits its verdicts: when they were made, while they do.
    submissions: VecDeque<Option<Instant>>,
    /// The number of the first of them.
    first: u64,
    /// Votes without a verdict, submitted or not.
    awaited: usize,
}

impl Load {
    pub(super) fn new(now: Instant) -> Self {
        Load { round: now, taken: 0, submissions: VecDeque::new(), first: 0, awaited: 0 }
    }

    /// Begins a round of reading.
    pub(super) fn begin(&mut self, now: Instant) {
        (self.round, self.taken) = (now, 0);
    }

    /// Whether a vote that is looked at `now` must be turned away.
    pub(super) fn is_full(&self, now: Instant) -> bool {
        let since = |then| now.saturating_duration_since(then);
        let oldest = self.submissions.front().copied().flatten();
        self.awaited >= MAX_AWAITED
            || self.taken >= CALM && since(self.round) > LONGEST_ROUND
            || self.awaited >= CALM && oldest.is_some_and(|oldest| since(oldest) > PATIENCE)
    }

    /// Notes a vote that is taken on.
    pub(super) fn take(&mut self) {
        self.taken += 1;
        self.awaited += 1;
    }

    /// Numbers a submission of votes that were taken on.
    pub(super) fn submit(&mut self, now: Instant) -> u64 {
        self.submissions.push_back(Some(now));
        self.first + self.submissions.len() as u64 - 1
    }

    /// Notes the verdicts on a submission of so many votes.
    pub(super) fn answered(&mut self, number: u64, votes: usize) {
        self.awaited = self.awaited.saturating_sub(votes);
        let place = number.checked_sub(self.first).and_then(|i| usize::try_from(i).ok());
        if let Some(submission) = place.and_then(|i| self.submissions.get_mut(i)) {
            *submission = None;
        }
        while self.submissions.pop_front_if(|submission| submission.is_none()).is_some() {
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(load: &mut Load, votes: usize, now: Instant) -> u64 {
        (0..votes).for_each(|_| load.take());
        load.submit(now)
    }

    #[test]
    fn few_votes_may_wait_for_long() {
        let start = Instant::now();
        let mut load = Load::new(start);
        take(&mut load, CALM - 1, start);
        assert!(!load.is_full(start + Duration::from_secs(9)));
    }

    #[test]
    fn many_votes_may_wait_for_a_moment_and_not_longer() {
        let start = Instant::now();
        let late = start + PATIENCE + Duration::from_millis(1);
        let mut load = Load::new(start);
        let old = take(&mut load, CALM, start);
        load.begin(late);
        let new = take(&mut load, CALM, late);
        assert!(load.is_full(late), "the oldest has waited for too long");
        load.answered(old, CALM);
        assert!(!load.is_full(late), "the oldest is new");
        load.answered(new, CALM);
        assert!(!load.is_full(late) && load.submissions.is_empty() && load.awaited == 0);
    }

    #[test]
    fn a_round_that_lasts_for_too_long_takes_no_more() {
        let start = Instant::now();
        let late = start + 2 * LONGEST_ROUND;
        let mut load = Load::new(start);
        // Its votes are answered before it ends, which leaves what waits in the sockets where it is.
        let number = take(&mut load, CALM, start);
        load.answered(number, CALM);
        assert!(!load.is_full(start + LONGEST_ROUND));
        assert!(load.is_full(late));
        load.begin(late);
        assert!(!load.is_full(late));
    }

    #[test]
    fn memory_has_an_end_however_quick_it_goes() {
        let start = Instant::now();
        let mut load = Load::new(start);
        take(&mut load, MAX_AWAITED, start);
        assert!(load.is_full(start));
    }

    #[test]
    fn answers_come_in_any_order() {
        let start = Instant::now();
        let mut load = Load::new(start);
        let numbers: Vec<u64> = (0..4).map(|_| take(&mut load, CALM - 1, start)).collect();
        load.begin(start + 2 * PATIENCE);
        for number in [numbers[2], numbers[1], numbers[3]] {
            load.answered(number, CALM - 1);
        }
        assert_eq!((load.submissions.len(), load.first), (4, 0), "the first is open");
        load.answered(numbers[0], CALM - 1);
        assert_eq!((load.submissions.len(), load.first, load.awaited), (0, 4, 0));
    }
}
