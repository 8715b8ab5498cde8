//! What every projection of many selections must hold.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use canvass_forecast::{
    Area, Baseline, Each, Factor, Model, ProjectError, Range, Seen, Unit, project, project_each,
};
use proptest::prelude::*;

const DRAWS: usize = 300;
const STATES: usize = 3;

#[derive(Debug, Clone)]
struct Night {
    baseline: Baseline,
    last: Vec<Vec<u64>>,
    seen: Vec<Seen<Vec<u64>>>,
}

impl Night {
    fn run(&self) -> Each {
        project_each(&Model::default(), &self.baseline, &self.last, &self.seen, 7, DRAWS).unwrap()
    }
}

fn seen(selections: usize) -> impl Strategy<Value = Seen<Vec<u64>>> {
    let votes = proptest::collection::vec(prop_oneof![4 => 0_u64..90_000, 1 => Just(0)], selections);
    prop_oneof![
        2 => Just(Seen::Nothing),
        2 => votes.clone().prop_map(Seen::Final),
        1 => (votes, proptest::option::of(0.0..1.0_f64)).prop_map(|(votes, fraction)| Seen::Part { votes, fraction }),
    ]
}

fn night(selections: std::ops::Range<usize>) -> impl Strategy<Value = Night> {
    (selections, 1_usize..30).prop_flat_map(|(selections, units)| {
        let votes = prop_oneof![6 => 20_u64..100_000, 1 => Just(0)];
        let last = proptest::collection::vec(proptest::collection::vec(votes, selections), units);
        let states = proptest::collection::vec(0..STATES, units);
        let mask = prop_oneof![
            6 => proptest::collection::vec(seen(selections), units),
            1 => Just(vec![Seen::Nothing; units]),
        ];
        (last, states, mask).prop_map(|(last, states, seen)| Night {
            baseline: baseline(&states),
            last,
            seen,
        })
    })
}

fn baseline(states: &[usize]) -> Baseline {
    let unit = |state: &usize| Unit {
        area: 1 + state,
        votes: [0, 0],
        before: None,
        covariates: vec![],
        levels: vec![*state],
    };
    let mut areas = vec![Area { parent: None, seats: 0 }];
    areas.extend((1_u32..).take(STATES).map(|seats| Area { parent: Some(0), seats }));
    Baseline {
        areas,
        units: states.iter().map(unit).collect(),
        covariates: vec![],
        factors: vec![Factor { name: "state".to_owned(), levels: STATES }],
        local: Some(0),
    }
}

fn is_finite(range: &Range) -> bool {
    let Range { middle, half, most, nearly_all } = range;
    let numbers = [*middle, half[0], half[1], most[0], most[1], nearly_all[0], nearly_all[1]];
    numbers.iter().all(|n| n.is_finite()) && nearly_all[0] <= most[0] && most[1] <= nearly_all[1]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn every_draw_is_of_whole_votes_that_add_up_and_keep_what_is_counted(night in night(2..7)) {
        let each = night.run();
        for draw in 0..DRAWS {
            for selection in 0..night.last[0].len() {
                let sum: f64 = each.areas[1..].iter().map(|area| area[selection][draw]).sum();
                prop_assert_eq!(sum, each.areas[0][selection][draw]);
            }
            prop_assert!(each.seats.iter().map(|seats| seats[draw]).sum::<u32>() <= 1 + 2 + 3);
        }
        for (area, counted) in each.areas.iter().zip(&each.counted) {
            for (votes, counted) in area.iter().zip(counted) {
                prop_assert!(votes.iter().all(|v| v >= counted && v.fract() == 0.0));
            }
        }
    }

    #[test]
    fn every_number_is_one_and_shares_add_up(night in night(2..7)) {
        let each = night.run();
        prop_assert!(each.residuals.iter().flatten().all(|r| r.is_finite()));
        prop_assert!(each.expected.iter().flatten().flatten().all(|e| e.is_finite() && *e >= 0.0));
        for area in 0..each.areas.len() {
            let summary = each.summary(area);
            prop_assert!(summary.shares.iter().chain(&summary.leads).chain([&summary.votes]).all(is_finite));
            let sure = |chance: &f64| *chance == 0.0 || *chance == 1.0;
            prop_assert!(summary.open == 0 || !summary.chances.iter().any(sure), "{:?}", summary.chances);
            let all: f64 = summary.chances.iter().sum();
            prop_assert!((all - 1.0).abs() < 0.01, "{all}");
        }
    }

    #[test]
    fn what_is_final_collapses_to_the_count(mut night in night(2..7)) {
        for seen in &mut night.seen {
            *seen = match std::mem::take(seen) {
                Seen::Part { votes, .. } => Seen::Final(votes),
                Seen::Nothing => Seen::Final(vec![0; night.last[0].len()]),
                is_in @ Seen::Final(_) => is_in,
            };
        }
        let each = night.run();
        for (area, counted) in each.areas.iter().zip(&each.counted) {
            prop_assert!(area.iter().zip(counted).all(|(votes, counted)| votes.iter().all(|v| v == counted)));
        }
    }

    // Where two are even at both elections, it is the order they are given in that says who is looked at first.
    #[test]
    fn changing_two_selections_changes_their_draws_and_nothing_else(night in night(3..6)) {
        let totals: Vec<u64> =
            (0..night.last[0].len()).map(|place| night.last.iter().map(|votes| votes[place]).sum()).collect();
        prop_assume!(totals[0] != totals[1] && totals[1] != totals[2] && totals[0] != totals[2]);
        let mut swapped = night.clone();
        swapped.last.iter_mut().for_each(|votes| votes.swap(0, 2));
        for seen in &mut swapped.seen {
            *seen = std::mem::take(seen).map(|mut votes| {
                votes.swap(0, 2);
                votes
            });
        }
        let (one, other) = (night.run(), swapped.run());
        for (a, b) in one.areas.iter().zip(&other.areas) {
            prop_assert!(a[0] == b[2] && a[2] == b[0] && a[1] == b[1]);
        }
    }

    #[test]
    fn two_selections_are_a_contest_between_two(night in night(2..3)) {
        let pair = |votes: &Vec<u64>| [votes[0], votes[1]];
        let mut baseline = night.baseline.clone();
        for (unit, last) in baseline.units.iter_mut().zip(&night.last) {
            unit.votes = pair(last);
        }
        let totals = baseline.units.iter().fold([0, 0], |sum, u| [sum[0] + u.votes[0], sum[1] + u.votes[1]]);
        prop_assume!(totals[0] != totals[1]);
        let seen: Vec<Seen> = night.seen.iter().cloned().map(|seen| seen.map(|votes| pair(&votes))).collect();
        let two = project(&Model::default(), &baseline, &seen, 7, DRAWS).unwrap();
        let each = night.run();
        for (a, b) in two.areas.iter().zip(&each.areas) {
            for ((votes, lead), (first, second)) in a.votes.iter().zip(&a.lead).zip(b[0].iter().zip(&b[1])) {
                prop_assert!(*votes == first + second && *lead == first - second);
            }
        }
    }
}

#[test]
fn a_third_party_that_grew_everywhere_is_projected_to_grow_where_nothing_is_in() {
    let states: Vec<usize> = (0..60).map(|place| place % STATES).collect();
    let last = vec![vec![5_000, 4_500, 500]; 60];
    let grown = vec![4_600, 4_400, 1_000];
    let seen = (0..60).map(|place| if place < 30 { Seen::Final(grown.clone()) } else { Seen::Nothing });
    let night = Night { baseline: baseline(&states), last, seen: seen.collect() };
    let shares = night.run().summary(0).shares;
    assert!((shares[2].middle - 0.10).abs() < 0.015, "{shares:?}");
    assert!(shares[2].most[0] > 0.075 && shares[2].most[1] < 0.125, "{shares:?}");
}

#[test]
fn a_selection_that_did_not_stand_last_time_is_learned_from_tonight() {
    let states: Vec<usize> = (0..60).map(|place| place % STATES).collect();
    let last = vec![vec![5_000, 4_500, 0]; 60];
    let seen =
        (0..60).map(|place| if place < 30 { Seen::Final(vec![4_600, 4_400, 1_000]) } else { Seen::Nothing });
    let night = Night { baseline: baseline(&states), last, seen: seen.collect() };
    let shares = night.run().summary(0).shares;
    assert!((shares[2].middle - 0.10).abs() < 0.03, "{shares:?}");
}

/// FNV-1a over the bits of every draw.
fn digest(each: &Each) -> u64 {
    let draws = each.areas.iter().flatten().flatten();
    draws.flat_map(|votes| votes.to_bits().to_le_bytes()).fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

// The number was computed by another process, at another time: a change of the method changes it, and nothing else may.
#[test]
fn draws_are_the_same_bytes_in_every_process() {
    let states: Vec<usize> = (0..60).map(|place| place % STATES).collect();
    let last = (0..60).map(|place| vec![5_000 + 31 * place, 4_500 + 17 * place, 500 + 7 * place]).collect();
    let seen = (0..60_u64).map(|place| match place % 3 {
        0 => Seen::Nothing,
        1 => Seen::Part { votes: vec![2_000 + place, 1_500, 300], fraction: (place % 2 == 0).then_some(0.4) },
        _ => Seen::Final(vec![5_100 + 29 * place, 4_400 + 18 * place, 600]),
    });
    let night = Night { baseline: baseline(&states), last, seen: seen.collect() };
    assert_eq!(digest(&night.run()), 8_927_760_311_825_192_594);
}

#[test]
fn unequal_numbers_of_selections_are_refused() {
    let night = |last: Vec<u64>, seen: Vec<u64>| {
        let (baseline, seen) = (baseline(&[0]), [Seen::Final(seen)]);
        project_each(&Model::default(), &baseline, &[last], &seen, 1, DRAWS).map(|_| ())
    };
    assert_eq!(night(vec![1, 2, 3], vec![1, 2, 3]), Ok(()));
    assert_eq!(night(vec![1], vec![1]), Err(ProjectError::Selections));
    assert_eq!(night(vec![1, 2], vec![1, 2, 3]), Err(ProjectError::Selections));
    assert_eq!(night(vec![1, u64::MAX], vec![1, 2]), Err(ProjectError::Selections));
    assert_eq!(night(vec![1; 65], vec![1; 65]), Err(ProjectError::Selections));
}
