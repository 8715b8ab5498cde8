//! Votes as requests, made before any clock starts, and what must come of them.

use std::fmt::Write as _;
use std::ops::{AddAssign, Range};

use super::super::fold::spread;
use super::canvass::{CONTEST, SELECTIONS};

/// One request in so many is an earlier vote sent again.
const RETRY_EVERY: u64 = 100;
/// It is one of the last so many.
const RETRIED_WITHIN: u64 = 20_000;

/// Requests one behind another.
#[derive(Default)]
pub(crate) struct Requests {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Requests {
    pub(crate) fn push(&mut self, request: &[u8]) {
        self.bytes.extend_from_slice(request);
        self.ends.push(self.bytes.len());
    }

    /// Adds the request at `i` once more.
    fn repeat(&mut self, i: usize) {
        let range = self.range(i, 1);
        self.bytes.extend_from_within(range);
        self.ends.push(self.bytes.len());
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Where the bytes of `count` requests from the `first` on lie.
    pub(crate) fn range(&self, first: usize, count: usize) -> Range<usize> {
        let end = |n: usize| n.checked_sub(1).and_then(|last| self.ends.get(last)).copied().unwrap_or(0);
        end(first)..end(first + count)
    }

    pub(crate) fn bytes(&self, range: Range<usize>) -> &[u8] {
        self.bytes.get(range).unwrap_or_default()
    }
}

/// What must come of some requests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Expected {
    /// Votes that are new.
    pub(crate) new: u64,
    /// Votes that are sent a second time.
    pub(crate) again: u64,
    /// New votes of each selection.
    pub(crate) totals: [u64; SELECTIONS.len()],
}

/// What the vote at this place is: that of a voter who has not voted, or a recent one again.
fn voter_at(i: u64) -> (u64, bool) {
    let is_retry = |i| i % RETRY_EVERY == RETRY_EVERY - 1;
    if !is_retry(i) {
        return (i, false);
    }
    let earlier = i - 1 - spread(i) % i.min(RETRIED_WITHIN);
    (if is_retry(earlier) { earlier - 1 } else { earlier }, true)
}

/// The choice of the vote at this place.
pub(crate) fn choice_at(i: u64) -> usize {
    choice(voter_at(i).0)
}

fn choice(voter: u64) -> usize {
    // The lesser of two draws: selections get different shares.
    let (a, b) = (spread(voter) & 3, (spread(voter) >> 2) & 3);
    usize::try_from(a.min(b)).unwrap_or(0)
}

impl AddAssign for Expected {
    fn add_assign(&mut self, other: Self) {
        self.new += other.new;
        self.again += other.again;
        self.totals.iter_mut().zip(other.totals).for_each(|(total, more)| *total += more);
    }
}

/// Tells the voter and the choice of each vote, and what must come of all of them.
pub(crate) fn each(votes: Range<u64>, mut vote: impl FnMut(u64, usize)) -> Expected {
    let mut expected = Expected::default();
    for i in votes {
        let (voter, again) = voter_at(i);
        let choice = choice(voter);
        vote(voter, choice);
        if again {
            expected.again += 1;
        } else {
            expected.new += 1;
            expected.totals[choice] += 1;
        }
    }
    expected
}

/// Votes one a request, each with its voter's token. A retry is the same bytes. `headers` are more of them, each line
/// with its end.
pub(crate) fn single(
    votes: Range<u64>,
    sign: &dyn Fn(&str) -> String,
    headers: &str,
) -> (Requests, Expected) {
    let mut requests = Requests::default();
    let mut text = String::new();
    let first = votes.start;
    let expected = each(votes, |voter, choice| {
        let sent = voter.checked_sub(first).and_then(|place| usize::try_from(place).ok());
        if let Some(sent) = sent.filter(|sent| *sent < requests.len()) {
            requests.repeat(sent);
        } else {
            text.clear();
            request(&mut text, &sign(&name(voter)), headers, choice);
            requests.push(text.as_bytes());
        }
    });
    (requests, expected)
}

/// The id of a voter. Voters come in no order.
pub(crate) fn id(voter: u64) -> u64 {
    spread(voter) >> 1
}

/// The name of a voter, as tokens and collectors tell it.
pub(crate) fn name(voter: u64) -> String {
    format!("{:016x}", id(voter))
}

fn request(out: &mut String, token: &str, headers: &str, choice: usize) {
    let body = format!(r#"{{"contest":"{CONTEST}","selections":["{}"]}}"#, SELECTIONS[choice]);
    // Writing to a string cannot fail.
    let _ = write!(
        out,
        "POST /api/v1/vote HTTP/1.1\r\nhost: vote.example.org\r\ncontent-type: application/json\r\n\
         {headers}authorization: Bearer {token}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
}

/// Asks for receipts without promises.
pub(crate) const MINIMAL: &str = "prefer: return=minimal\r\n";

/// Votes as NDJSON, `lines` a request, for voters whom a collector names.
pub(crate) fn batches(votes: Range<u64>, lines: u64, key: &str) -> (Requests, Expected) {
    let (mut requests, mut expected) = (Requests::default(), Expected::default());
    let (mut body, mut text) = (String::new(), String::new());
    let mut first = votes.start;
    while first < votes.end {
        let end = (first + lines).min(votes.end);
        body.clear();
        expected += each(first..end, |voter, choice| {
            let (name, selection) = (name(voter), SELECTIONS[choice]);
            let _ =
                writeln!(body, r#"{{"contest":"{CONTEST}","selections":["{selection}"],"voter":"{name}"}}"#);
        });
        text.clear();
        let _ = write!(
            text,
            "POST /api/v1/votes HTTP/1.1\r\nhost: vote.example.org\r\ncontent-type: application/x-ndjson\r\n\
             {MINIMAL}authorization: Bearer {key}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        requests.push(text.as_bytes());
        first = end;
    }
    (requests, expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_a_hundred_is_an_earlier_vote_again() {
        let (requests, expected) = single(0..1_000, &|voter| format!("<{voter}>"), "");
        assert_eq!((requests.len(), expected.new, expected.again), (1_000, 990, 10));
        assert_eq!(expected.totals.iter().sum::<u64>(), 990);
        assert!(expected.totals[0] > expected.totals[3] && expected.totals[3] > 0);
        let of = |i| requests.bytes(requests.range(i, 1));
        assert_eq!((0..999).filter(|i| of(*i) == of(999)).count(), 1);
        assert_eq!(requests.bytes(requests.range(0, 1_000)).len(), requests.bytes.len());
        let text = String::from_utf8_lossy(of(7));
        assert!(text.contains(&format!("Bearer <{}>\r\n", name(7))) && text.ends_with("\"]}"), "{text}");
    }

    #[test]
    fn batches_hold_the_same_votes() {
        let (requests, expected) = batches(0..2_500, 1_000, "cvk_x");
        assert_eq!(requests.len(), 3);
        assert_eq!(expected, single(0..2_500, &|_| String::new(), "").1);
        let text = String::from_utf8_lossy(requests.bytes(requests.range(2, 1)));
        assert_eq!(text.lines().filter(|line| line.starts_with('{')).count(), 500);
    }
}
