//! What every projection must hold, whatever the baseline and whatever is in.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use canvass_forecast::{
    Area, AreaDraws, Baseline, BaselineError, Factor, Model, Past, ProjectError, Projection, Range, Seen,
    Unit, project,
};
use proptest::prelude::*;

const DRAWS: usize = 400;
const STATES: usize = 3;

fn unit() -> impl Strategy<Value = Unit> {
    let votes =
        prop_oneof![9 => [20_u64..200_000, 20_u64..200_000], 1 => Just([0, 0]), 1 => [0_u64..3, 0_u64..3]];
    let before = proptest::option::of([0_u64..200_000, 0_u64..200_000]);
    (votes, before, 0..STATES, -5.0..5.0_f64).prop_map(|(votes, before, state, covariate)| Unit {
        area: 1 + state,
        votes,
        before,
        covariates: vec![covariate],
        levels: vec![state],
    })
}

fn baseline() -> impl Strategy<Value = Baseline> {
    proptest::collection::vec(unit(), 1..40).prop_map(|units| {
        let mut areas = vec![Area { parent: None, seats: 0 }];
        areas.extend((1_u32..).take(STATES).map(|seats| Area { parent: Some(0), seats }));
        Baseline {
            areas,
            units,
            covariates: vec!["income".to_owned()],
            factors: vec![Factor { name: "state".to_owned(), levels: STATES }],
            local: Some(0),
        }
    })
}

fn seen() -> impl Strategy<Value = Seen> {
    let votes = [0_u64..150_000, 0_u64..150_000];
    prop_oneof![
        2 => Just(Seen::Nothing),
        2 => votes.clone().prop_map(Seen::Final),
        1 => (votes, proptest::option::of(0.0..1.0_f64)).prop_map(|(votes, fraction)| Seen::Part { votes, fraction }),
    ]
}

fn night() -> impl Strategy<Value = (Baseline, Vec<Seen>)> {
    baseline().prop_flat_map(|baseline| {
        let units = baseline.units.len();
        let mask = prop_oneof![
            6 => proptest::collection::vec(seen(), units),
            1 => Just(vec![Seen::Nothing; units]),
            1 => proptest::collection::vec([0_u64..9, 0_u64..9].prop_map(Seen::Final), units),
        ];
        (Just(baseline), mask)
    })
}

fn run(baseline: &Baseline, seen: &[Seen]) -> Projection {
    project(&Model::default(), baseline, seen, 7, DRAWS).unwrap()
}

fn ranges(projection: &Projection) -> Vec<Range> {
    (0..projection.areas.len())
        .flat_map(|area| {
            let summary = projection.summary(area);
            [summary.votes, summary.margin]
        })
        .collect()
}

fn holds([low, high]: [f64; 2], [inner_low, inner_high]: [f64; 2]) -> bool {
    low <= inner_low && inner_low <= inner_high && inner_high <= high
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn every_number_is_one_and_intervals_nest((baseline, seen) in night()) {
        let projection = run(&baseline, &seen);
        for range in ranges(&projection) {
            let numbers = [range.middle, range.nearly_all[0], range.nearly_all[1]];
            prop_assert!(numbers.iter().all(|n| n.is_finite()), "{range:?}");
            prop_assert!(holds(range.nearly_all, range.most) && holds(range.most, range.half), "{range:?}");
            prop_assert!(holds(range.half, [range.middle; 2]), "{range:?}");
        }
        prop_assert!(projection.residuals.iter().flatten().all(|r| r.is_finite()));
        prop_assert!(projection.expected.iter().flatten().flatten().all(|e| e.is_finite()));
        for area in 0..baseline.areas.len() {
            let summary = projection.summary(area);
            prop_assert!(summary.open == 0 || summary.chance > 0.0 && summary.chance < 1.0);
        }
    }

    #[test]
    fn areas_add_up_in_every_draw_and_never_lose_what_is_counted((baseline, seen) in night()) {
        let projection = run(&baseline, &seen);
        for draw in 0..DRAWS {
            let sum = |of: fn(&AreaDraws) -> &Vec<f64>| -> f64 {
                projection.areas[1..].iter().map(|area| of(area)[draw]).sum()
            };
            prop_assert_eq!(sum(|area| &area.votes), projection.areas[0].votes[draw]);
            prop_assert_eq!(sum(|area| &area.lead), projection.areas[0].lead[draw]);
            let seats: u32 = (1..=STATES).map(|state| {
                if projection.areas[state].lead[draw] > 0.0 { baseline.areas[state].seats } else { 0 }
            }).sum();
            prop_assert_eq!(seats, projection.seats[draw]);
        }
        for (area, (votes, lead)) in projection.areas.iter().zip(&projection.counted) {
            for (all, ends) in area.votes.iter().zip(&area.lead) {
                prop_assert!(all >= votes && all.fract() == 0.0 && ends.fract() == 0.0);
                prop_assert!((ends - lead).abs() <= all - votes, "{} of {} from {} of {}", ends, all, lead, votes);
            }
        }
    }

    #[test]
    fn what_is_final_collapses_to_the_count((baseline, seen) in night()) {
        let finals: Vec<Seen> = seen.iter().map(|seen| Seen::Final(seen.votes())).collect();
        let projection = run(&baseline, &finals);
        for (place, (area, (votes, lead))) in projection.areas.iter().zip(&projection.counted).enumerate() {
            prop_assert!(area.votes.iter().all(|v| v == votes) && area.lead.iter().all(|l| l == lead));
            let chance = if *lead > 0.0 { 1.0 } else if *lead < 0.0 { 0.0 } else { 0.5 };
            prop_assert_eq!(projection.summary(place).chance, chance);
        }
    }

    #[test]
    fn swapping_the_candidates_mirrors_every_draw((baseline, seen) in night()) {
        let swapped: Vec<Seen> = seen.iter().map(|seen| seen.swapped()).collect();
        let (one, other) = (run(&baseline, &seen), run(&baseline.swapped(), &swapped));
        for (a, b) in one.areas.iter().zip(&other.areas) {
            prop_assert_eq!(&a.votes, &b.votes);
            prop_assert!(a.lead.iter().zip(&b.lead).all(|(a, b)| *a == -*b));
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes((baseline, seen) in night()) {
        prop_assert_eq!(run(&baseline, &seen), run(&baseline, &seen));
    }
}

/// Units that are large, so that whole votes are as good as any number.
fn large() -> impl Strategy<Value = (Baseline, Vec<Seen>, usize)> {
    (baseline(), any::<u64>())
        .prop_flat_map(|(mut baseline, odd)| {
            for unit in &mut baseline.units {
                unit.votes = [unit.votes[0] * 100 + 100_000, unit.votes[1] * 100 + 100_000];
            }
            let units = baseline.units.len();
            let swing = proptest::collection::vec((0.85..1.15_f64, 0.85..1.15_f64, 0..2_u8), units);
            (Just(baseline), swing, Just(usize::try_from(odd % units as u64).unwrap()))
        })
        .prop_map(|(baseline, swing, new)| {
            let times = |votes: u64, factor: f64| whole(votes as f64 * factor);
            let seen = baseline.units.iter().zip(swing).map(|(unit, (a, b, is_in))| match is_in {
                0 => Seen::Nothing,
                _ => Seen::Final([times(unit.votes[0], a), times(unit.votes[1], b)]),
            });
            let mut seen: Vec<Seen> = seen.collect();
            seen[new] = Seen::Nothing;
            (baseline, seen, new)
        })
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some millions")]
fn whole(value: f64) -> u64 {
    value.round() as u64
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    // That the posterior itself does not widen is tested with the fit. Here the draws are another sample each time, whose
    // quantiles differ by a percent or so.
    #[test]
    fn a_unit_exactly_as_predicted_widens_no_interval_beyond_the_noise_of_the_draws((baseline, seen, new) in large()) {
        let run = |seen: &[Seen]| project(&Model::default(), &baseline, seen, 7, 20_000).unwrap();
        let before = run(&seen);
        let [votes, margin] = before.expected[new].unwrap();
        let mut with = seen.clone();
        with[new] = Seen::Final([whole(votes * (1.0 + margin) / 2.0), whole(votes * (1.0 - margin) / 2.0)]);
        let after = run(&with);
        for area in 0..baseline.areas.len() {
            let (old, now) = (before.summary(area), after.summary(area));
            let width = |range: Range| range.most[1] - range.most[0];
            let (old, now) = (width(old.margin), width(now.margin));
            prop_assert!(now <= old * 1.05 + 1e-6, "area {area}: {old} to {now}");
        }
    }
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let unit = Unit { area: 0, votes: [1, 2], before: None, covariates: vec![], levels: vec![] };
    let good =
        Baseline { areas: vec![Area { parent: None, seats: 0 }], units: vec![unit], ..Baseline::default() };
    let run = |baseline: &Baseline, seen: &[Seen], draws| {
        project(&Model::default(), baseline, seen, 1, draws).map(|_| ())
    };
    assert_eq!(run(&good, &[Seen::Nothing], 100), Ok(()));
    assert_eq!(run(&good, &[], 100), Err(ProjectError::Length { seen: 0, units: 1 }));
    assert_eq!(run(&good, &[Seen::Nothing], 1), Err(ProjectError::Draws(1)));
    let faulty = |change: fn(&mut Baseline)| {
        let mut baseline = good.clone();
        change(&mut baseline);
        baseline.check().unwrap_err()
    };
    assert_eq!(faulty(|b| b.units.clear()), BaselineError::Empty);
    assert_eq!(faulty(|b| b.areas[0].parent = Some(0)), BaselineError::Parent(0));
    assert_eq!(faulty(|b| b.local = Some(0)), BaselineError::Local);
    let of_unit = |what| BaselineError::Unit { unit: 0, what };
    assert_eq!(faulty(|b| b.units[0].area = 1), of_unit("its area is not there"));
    assert_eq!(faulty(|b| b.units[0].votes = [u64::MAX, 0]), of_unit("more votes than people"));
    assert_eq!(
        faulty(|b| b.units[0].levels = vec![0]),
        of_unit("it needs one value for each covariate and one level for each factor")
    );
    let many = |b: &mut Baseline| b.factors = vec![Factor { name: "a".to_owned(), levels: 3_000 }];
    assert_eq!(faulty(many), BaselineError::TooMany { what: "columns", count: 3_000, most: 2_000 });
}

/// A past in which every unit moved by `swing` and nothing else.
fn past(swing: f64) -> Past {
    let unit = |i: u64| Unit {
        area: 0,
        votes: [50_000 + 700 * (i % 13), 50_000 - 700 * (i % 11)],
        before: None,
        covariates: vec![],
        levels: vec![usize::try_from(i % 4).unwrap()],
    };
    let baseline = Baseline {
        areas: vec![Area { parent: None, seats: 0 }],
        units: (0..300).map(unit).collect(),
        factors: vec![Factor { name: "state".to_owned(), levels: 4 }],
        ..Baseline::default()
    };
    let moved = |[a, b]: [u64; 2]| {
        let half = (a + b) as f64 * swing / 2.0;
        [whole(a as f64 + half), whole(b as f64 - half)]
    };
    let finals = baseline.units.iter().map(|unit| moved(unit.votes)).collect();
    Past { baseline, finals }
}

#[test]
fn a_past_that_moved_together_teaches_a_narrow_spread_around_a_wide_swing() {
    let calm = Model::learn(&[past(0.02)]).unwrap();
    let stormy = Model::learn(&[past(0.30)]).unwrap();
    let nation = |model: &Model| model.groups["nation"].margin + model.groups["state"].margin;
    assert!(nation(&stormy) > 3.0 * nation(&calm), "{calm}{stormy}");
    assert!(calm.unit_margin.of(100_000.0) < 1e-4, "{calm}");
    assert_eq!(Model::learn(&[]).unwrap(), Model::default());
    assert_ne!(calm.to_string(), stormy.to_string());
}
