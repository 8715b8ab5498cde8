//! The small rules one by one, and records that nobody should write.

use std::sync::Arc;

use canvass_election::definition::{
    Contest, ContestKind, CountItemType, Counting, Eligibility, Partitions, Parts, Selection, Threshold,
    Unit, VotePolicy, Voting,
};
use canvass_election::event::{
    Actor, CallAnswer, CallProposal, Cell, Choices, ContestAct, Counts, HeldAnswer, MAX_COUNT,
    RecountOpening, Return, Vote,
};
use canvass_election::ids::{
    ContestId, Nullifier, Offset, PartitionId, RecordId, RequestId, SelectionId, Timestamp, UnitId,
};
use canvass_election::results::{leaders, share};
use canvass_election::tally::{Delta, Outcome, Reason};
use canvass_election::{Definition, Digest, Event, Merge, Record, Tally};
use proptest::prelude::*;

fn contest(kind: ContestKind, selections: usize, counting: Counting) -> Contest {
    let selection = |i: usize| Selection { id: i.to_string(), name: String::new(), party: None };
    let selections = (0..selections).map(selection).collect();
    Contest { id: "c".into(), name: "C".into(), kind, unit: UnitId(0), selections, counting, baseline: None }
}

fn returns() -> Counting {
    Counting::Returns { count_types: vec![CountItemType::Total] }
}

fn votes(policy: VotePolicy) -> Counting {
    Counting::Votes(Voting { opens: None, closes: None, policy, eligibility: Eligibility::Open })
}

/// An election with these parents, the first unit's being none.
fn definition(parents: &[Option<u32>], partitions: u16, contests: Vec<Contest>) -> Definition {
    let unit = |(i, parent): (usize, &Option<u32>)| {
        let parent = parent.map(UnitId);
        Unit { id: i.to_string(), name: String::new(), kind: "unit".into(), parent, registered: None }
    };
    Definition::from(Parts {
        id: "rules".into(),
        name: "Rules".into(),
        is_test: true,
        partitions: Partitions { votes: 1, returns: partitions },
        parties: Vec::new(),
        units: parents.iter().enumerate().map(unit).collect(),
        contests,
    })
}

fn counts(votes: &[u64]) -> Counts {
    Counts { votes: votes.to_vec(), ..Counts::default() }
}

fn record(offset: u64, event: Event) -> Record {
    let id = RecordId { partition: PartitionId::CONTROL, offset: Offset(offset), position: 0 };
    let mut request = [0; 16];
    request[..8].copy_from_slice(&offset.to_le_bytes());
    Record { id, time: Timestamp(0), request: RequestId(request), event }
}

fn folded(events: impl IntoIterator<Item = Event>) -> (Tally, Vec<Outcome>) {
    let mut tally = Tally::new(PartitionId::CONTROL);
    let outcomes = (0..).zip(events).map(|(i, event)| tally.apply(&record(i, event))).collect();
    (tally, outcomes)
}

fn reported(unit: u32, counts: Counts, stated_total: Option<u64>) -> Event {
    let cell = Cell { contest: ContestId(0), unit: UnitId(unit), count_type: CountItemType::Total };
    Event::ReturnReported(Return { cell, counts, stated_total, source: Actor(String::new()) })
}

fn vote(contest: u16, voter: u8, choices: &[u16]) -> Event {
    let choices = choices.iter().copied().map(SelectionId).collect();
    Event::VoteCast(Vote { contest: ContestId(contest), nullifier: Nullifier([voter; 16]), choices })
}

fn why() -> (String, Actor) {
    (String::new(), Actor(String::new()))
}

fn propose(winners: Option<&[u16]>) -> Event {
    let (reason, actor) = why();
    let winners = winners.map(|winners| winners.iter().copied().map(SelectionId).collect::<Choices>());
    let contest = ContestId(0);
    Event::CallProposed(CallProposal { contest, winners, reason, projection: None, actor })
}

/// Another person answers what the record at this offset proposed.
fn agree(offset: u64) -> CallAnswer {
    let proposal = RecordId { partition: PartitionId::CONTROL, offset: Offset(offset), position: 0 };
    CallAnswer { contest: ContestId(0), proposal, reason: String::new(), actor: Actor("another".into()) }
}

fn call(winners: &[u16]) -> Vec<Event> {
    vec![propose(Some(winners)), Event::ContestCalled(agree(1))]
}

fn open_recount(unit: u32) -> Event {
    let (reason, actor) = why();
    Event::RecountOpened(RecountOpening { contest: ContestId(0), unit: UnitId(unit), reason, actor })
}

#[test]
fn a_threshold_is_reached_exactly() {
    let threshold = |numerator, denominator, exclusive| Threshold { numerator, denominator, exclusive };
    let (at_least, more_than) = (threshold(3, 5, false), threshold(3, 5, true));
    for (votes, total, least, more) in
        [(0, 0, false, false), (59, 100, false, false), (60, 100, true, false), (61, 100, true, true)]
    {
        assert_eq!((at_least.reached(votes, total), more_than.reached(votes, total)), (least, more));
    }
    // A third cannot be written in decimals, and nothing overflows.
    assert!(threshold(1, 3, false).reached(1, 3) && !threshold(1, 3, true).reached(1, 3));
    assert!(threshold(u32::MAX, u32::MAX, false).reached(u64::MAX, u64::MAX));
    assert!(!threshold(2, 3, false).reached(u64::MAX / 3 * 2 - 1, u64::MAX));
    assert!(threshold(0, 1, false).reached(0, 1) && !threshold(0, 1, true).reached(0, 1));
}

#[test]
fn a_share_is_rounded_half_up() {
    for (votes, total, expected) in [
        (0, 0, None),
        (1, 0, None),
        (0, 7, Some(0)),
        (7, 7, Some(10_000)),
        (1, 3, Some(3_333)),
        (2, 3, Some(6_667)),
        (1, 20_000, Some(1)),
        (1, 20_001, Some(0)),
        (3, 20_000, Some(2)),
        (u64::MAX, u64::MAX, Some(10_000)),
    ] {
        assert_eq!(share(votes, total), expected, "{votes} of {total}");
    }
}

#[test]
fn leaders_are_those_who_would_win() {
    let single = contest(ContestKind::SingleChoice, 3, returns());
    let two = contest(ContestKind::NOfM { n: 2 }, 3, returns());
    let four = contest(ContestKind::NOfM { n: 4 }, 3, returns());
    let none = contest(ContestKind::NOfM { n: 0 }, 3, returns());
    let threshold = Threshold { numerator: 3, denominator: 5, exclusive: false };
    let measure = contest(ContestKind::BallotMeasure { threshold }, 2, returns());
    for (contest, votes, expected) in [
        (&single, &[0, 0, 0][..], &[][..]),
        (&single, &[], &[]),
        (&single, &[1, 3, 2], &[1]),
        (&single, &[3, 3, 2], &[0, 1]),
        (&single, &[3, 3, 3], &[0, 1, 2]),
        (&two, &[1, 3, 2], &[1, 2]),
        (&two, &[3, 2, 2], &[0]),
        (&two, &[2, 2, 1], &[0, 1]),
        (&two, &[2, 2, 2], &[]),
        (&two, &[0, 5, 0], &[1]),
        (&four, &[1, 0, 1], &[0, 2]),
        (&none, &[1, 2, 3], &[]),
        (&measure, &[0, 0], &[]),
        (&measure, &[3, 2], &[0]),
        (&measure, &[29, 21], &[1]),
        (&measure, &[0, 1], &[1]),
    ] {
        let named: Vec<u16> = leaders(contest, &counts(votes)).iter().map(|s| s.0).collect();
        assert_eq!(named, expected, "{:?} {votes:?}", contest.kind);
    }
}

#[test]
fn count_types_read_back_their_words() {
    for count_type in CountItemType::ALL {
        assert_eq!(CountItemType::parse(count_type.as_str()), Some(count_type));
    }
    for word in ["", "Total", "election_day", "total "] {
        assert_eq!(CountItemType::parse(word), None);
    }
    assert!(CountItemType::ALL.is_sorted());
}

#[test]
fn units_know_their_place() {
    //  0 ─┬─ 1 ─┬─ 3
    //     │     └─ 4 ── 5
    //     └─ 2
    let tree = definition(&[None, Some(0), Some(0), Some(1), Some(1), Some(4)], 2, Vec::new());
    let units = |of: &mut dyn Iterator<Item = UnitId>| of.map(|u| u.0).collect::<Vec<_>>();
    assert_eq!([0, 1, 2, 3, 4, 5, 6].map(|u| tree.leaves(UnitId(u))), [3, 2, 1, 1, 1, 1, 0]);
    assert_eq!(units(&mut tree.ancestry(UnitId(5))), [5, 4, 1, 0]);
    assert_eq!(units(&mut tree.ancestry(UnitId(0))), [0]);
    assert_eq!(units(&mut tree.ancestry(UnitId(6))), []);
    assert_eq!(units(&mut tree.children(UnitId(1)).iter().copied()), [3, 4]);
    let within = |unit, above| tree.is_within(UnitId(unit), UnitId(above));
    assert!(within(5, 1) && within(5, 5) && within(5, 0) && !within(1, 5) && !within(5, 2));
    assert!(!within(6, 0) && !within(6, 6) && !within(0, 6));
    // A region's units share a partition; the root, and what does not exist, have the first.
    let partitions = [0, 1, 2, 3, 4, 5, 6].map(|u| tree.returns_partition(UnitId(u)).index);
    assert_eq!(partitions, [0, 1, 0, 1, 1, 1, 0]);
}

#[test]
fn a_tree_that_is_none_has_an_end() {
    let knot = definition(&[Some(0), Some(2), Some(1), Some(7), None], 0, vec![]);
    for unit in (0..6).map(UnitId) {
        assert!(knot.ancestry(unit).count() <= 2);
        assert!(!knot.children(unit).contains(&unit));
        assert_eq!(knot.returns_partition(unit), PartitionId::CONTROL);
    }
    assert_eq!(knot.leaves(UnitId(1)), 1);
    let nothing = definition(&[], 1, vec![contest(ContestKind::SingleChoice, 1, returns())]);
    let (_, outcomes) =
        folded([Event::ElectionDefined(nothing), reported(0, counts(&[1]), None), open_recount(0)]);
    assert_eq!(outcomes[1..], [(); 2].map(|()| Outcome::Rejected(Reason::UnknownUnit)));
}

#[test]
fn more_than_ids_can_name_does_not_stop_the_fold() {
    let poll = contest(ContestKind::AudiencePoll, 1, votes(VotePolicy::One));
    for contests in [usize::from(u16::MAX) + 1, usize::from(u16::MAX) + 2] {
        let many = definition(&[None], 1, vec![poll.clone(); contests]);
        assert_eq!(many.contest_ids().count(), 1 << 16);
        let (reason, actor) = why();
        let close = Event::ContestClosed(ContestAct { contest: ContestId(u16::MAX), reason, actor });
        let (tally, outcomes) = folded([Event::ElectionDefined(many), vote(u16::MAX, 1, &[0]), close]);
        assert!(outcomes.iter().all(|o| matches!(o, Outcome::Counted(_))));
        assert_eq!(tally.partial().contests.len(), 1 << 16);
    }
    let long = contest(ContestKind::SingleChoice, (1 << 16) + 1, returns());
    assert_eq!(long.selection_by_id("nobody"), None);
    let mut all = vec![0; (1 << 16) + 1];
    all[1 << 16] = 5;
    all[usize::from(u16::MAX)] = 4;
    assert_eq!(leaders(&long, &counts(&all)), [SelectionId(u16::MAX)]);
    assert_eq!(Offset(u64::MAX).next(), Offset(u64::MAX));
}

#[test]
fn the_largest_election_adds_up() {
    let types = CountItemType::ALL.len() as u64;
    assert!(MAX_COUNT.checked_mul(1_000_000).and_then(|n| n.checked_mul(types)).is_some());
    // No return brings more than that, however many selections share it.
    let wide = contest(ContestKind::SingleChoice, 100, returns());
    let define = Event::ElectionDefined(definition(&[None], 1, vec![wide]));
    let full = counts(&[MAX_COUNT / 100; 100]);
    let mut over = full.clone();
    over.votes[0] += 1;
    let (_, outcomes) = folded([define, reported(0, over, None), reported(0, full, Some(u64::MAX))]);
    assert_eq!(outcomes[1], Outcome::Rejected(Reason::BadCounts));
    assert!(matches!(outcomes[2], Outcome::Held(_)));
    assert_eq!(counts(&[u64::MAX, u64::MAX]).total(), u64::MAX);
}

#[test]
fn a_pseudonym_of_another_contest_takes_nothing_away() {
    let narrow = contest(ContestKind::SingleChoice, 1, votes(VotePolicy::Replace));
    let wide = contest(ContestKind::NOfM { n: 3 }, 9, votes(VotePolicy::Replace));
    let define = Event::ElectionDefined(definition(&[None], 1, vec![narrow, wide]));
    let (tally, outcomes) = folded([define, vote(1, 7, &[3, 8]), vote(0, 7, &[0]), vote(1, 7, &[0])]);
    assert_eq!(outcomes[2], Outcome::Rejected(Reason::UnknownContest));
    assert!(matches!(outcomes[3], Outcome::Counted(Delta::Vote { minus: Some(_), .. })));
    assert_eq!(tally.voters(), 1);
}

#[test]
fn a_partial_of_another_election_does_not_stop_the_merge() {
    let poll = || contest(ContestKind::AudiencePoll, 1, votes(VotePolicy::One));
    let define = Event::ElectionDefined(definition(&[None], 1, vec![poll(), poll()]));
    let (tally, _) = folded([define, vote(1, 7, &[0])]);
    let mut merge = Merge::new(Arc::new(definition(&[None], 1, vec![poll()])));
    assert!(merge.merge(&tally.partial()).is_empty());
}

/// Events that differ in one thing each; none of their digests is that of another.
#[test]
fn a_digest_tells_what_was_counted() {
    let two = || contest(ContestKind::NOfM { n: 2 }, 4, returns());
    let live = |policy| contest(ContestKind::NOfM { n: 3 }, 3, votes(policy));
    let contests =
        || vec![two(), live(VotePolicy::Replace), live(VotePolicy::UpTo(3)), live(VotePolicy::UpTo(3))];
    let digest = |events: Vec<Event>| -> Digest {
        let tree = definition(&[None, Some(0), Some(0), Some(0)], 1, contests());
        folded(std::iter::once(Event::ElectionDefined(tree)).chain(events)).0.digest()
    };
    let base = counts(&[1, 2, 3, 4]);
    let (reason, actor) = why();
    let held = RecordId { partition: PartitionId::CONTROL, offset: Offset(1), position: 0 };
    let reject = Event::ReturnRejected(HeldAnswer { held, reason, actor });
    let wrong = || reported(1, base.clone(), Some(1));
    let mut digests = [
        vec![],
        vec![reported(1, base.clone(), None)],
        vec![reported(2, base.clone(), None)],
        vec![reported(1, counts(&[2, 2, 3, 4]), None)],
        vec![reported(1, Counts { ballots: Some(10), ..base.clone() }, None)],
        vec![reported(1, Counts { overvotes: 1, ..base.clone() }, None)],
        vec![reported(1, Counts { undervotes: 1, ..base.clone() }, None)],
        vec![wrong()],
        vec![wrong(), wrong()],
        vec![wrong(), reject],
        vec![propose(Some(&[1]))],
        vec![propose(Some(&[1, 2]))],
        call(&[1]),
        call(&[1, 2]),
        [call(&[1]), vec![propose(None)]].concat(),
        [call(&[1]), vec![open_recount(2)]].concat(),
        vec![open_recount(2)],
        vec![open_recount(1)],
        vec![vote(1, 1, &[0])],
        vec![vote(1, 2, &[0])],
        vec![vote(1, 1, &[1])],
        vec![vote(1, 1, &[0, 1])],
        vec![vote(1, 1, &[0]), vote(1, 2, &[0])],
        vec![vote(1, 1, &[1]), vote(1, 2, &[0])],
        vec![vote(1, 1, &[0]), vote(1, 2, &[1])],
        vec![vote(2, 1, &[0])],
        vec![vote(2, 1, &[0]), vote(2, 1, &[0])],
        vec![vote(3, 1, &[0])],
    ]
    .map(&digest)
    .to_vec();
    let all = digests.len();
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), all);
    assert_eq!(digest(vec![]).to_string().len(), 64);
}

fn any_counts() -> impl Strategy<Value = Counts> {
    let number = 0..MAX_COUNT;
    (prop::collection::vec(number.clone(), 3), number.clone(), number.clone(), prop::option::of(number))
        .prop_map(|(votes, overvotes, undervotes, ballots)| Counts { votes, overvotes, undervotes, ballots })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_added_can_be_taken_away(sum in any_counts(), more in any_counts()) {
        let mut moved = sum.clone();
        moved.add(&more);
        prop_assert_eq!(moved.total(), sum.total() + more.total());
        prop_assert!(!moved.falls_below(&sum) && !moved.falls_below(&more));
        moved.subtract(&more);
        // Whether any of the parts knew its ballots is not seen in a sum: 0 stands for none.
        moved.ballots = moved.ballots.filter(|n| *n > 0 || sum.ballots.is_some());
        prop_assert_eq!(moved, sum);
    }

    #[test]
    fn leaders_have_more_than_the_others(votes in prop::collection::vec(0u64..6, 1..7), n in 1u16..4) {
        let contest = contest(ContestKind::NOfM { n }, votes.len(), returns());
        let named: Vec<usize> = leaders(&contest, &counts(&votes)).iter().map(|s| s.index()).collect();
        // A selection leads when fewer than n others have as many votes; a single seat may be shared.
        let leads = |i: &usize| {
            let rivals = votes.iter().enumerate().filter(|(j, v)| j != i && **v >= votes[*i]).count();
            let ahead = votes.iter().filter(|v| **v > votes[*i]).count();
            votes[*i] > 0 && if n == 1 { ahead == 0 } else { rivals < usize::from(n) }
        };
        let mut expected: Vec<usize> = (0..votes.len()).filter(leads).collect();
        expected.sort_by_key(|i| std::cmp::Reverse(votes[*i]));
        prop_assert_eq!(named, expected);
    }

    #[test]
    fn a_share_is_the_nearest_that_can_be_told(votes in 0u64..2_000_000, rest in 0u64..2_000_000) {
        let total = votes + rest;
        prop_assert_eq!(share(votes, total).is_none(), total == 0);
        let share = share(votes, total).unwrap_or(0);
        // |share / 10000 - votes / total| is at most half a unit.
        let (left, right) = (i128::from(share) * i128::from(total), i128::from(votes) * 10_000);
        prop_assert!(2 * (left - right) <= i128::from(total) && 2 * (right - left) <= i128::from(total));
    }
}
