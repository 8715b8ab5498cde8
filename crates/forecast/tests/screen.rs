//! Planted slips are found, and what is learned from the rest does not move.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use canvass_forecast::{Area, Baseline, Factor, Kind, Model, Seen, Unit, project, screen};

const UNITS: u64 = 100;

/// A number between -1 and 1 that looks like chance.
fn noise(unit: u64, salt: u64) -> f64 {
    let mut x = (unit + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ salt.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 31)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((x >> 40) as f64 / f64::from(1_u32 << 24)) * 2.0 - 1.0
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some thousands")]
fn votes(all: f64, margin: f64) -> [u64; 2] {
    [all * (1.0 + margin) / 2.0, all * (1.0 - margin) / 2.0].map(|votes| votes.round() as u64)
}

/// A state of counties, and how they vote tonight: three points to the first selection, five percent more votes.
fn night() -> (Baseline, Vec<[u64; 2]>) {
    let county = |unit: u64| {
        let (all, margin) = (4_000.0 + 900.0 * (unit % 37) as f64, 0.5 * noise(unit, 1));
        let last = votes(all, margin);
        let now = votes(all * 1.05 * (1.0 + 0.04 * noise(unit, 2)), margin + 0.03 + 0.02 * noise(unit, 3));
        (Unit { area: 0, votes: last, before: None, covariates: vec![], levels: vec![0] }, now)
    };
    let (units, finals) = (0..UNITS).map(county).unzip();
    let baseline = Baseline {
        areas: vec![Area { parent: None, seats: 0 }],
        units,
        factors: vec![Factor { name: "state".to_owned(), levels: 1 }],
        local: Some(0),
        ..Baseline::default()
    };
    (baseline, finals)
}

/// The first 60 counties are in, ten more report half of their votes.
fn mask(finals: &[[u64; 2]]) -> Vec<Seen> {
    let seen = |(place, votes): (usize, &[u64; 2])| match place {
        0..60 => Seen::Final(*votes),
        60..70 => Seen::Part { votes: votes.map(|v| v / 2), fraction: Some(0.5) },
        _ => Seen::Nothing,
    };
    finals.iter().enumerate().map(seen).collect()
}

fn middle(baseline: &Baseline, seen: &[Seen]) -> [f64; 3] {
    let margin = project(&Model::default(), baseline, seen, 1, 2_000).unwrap().summary(0).margin;
    [margin.most[0], margin.middle, margin.most[1]]
}

#[test]
fn a_clean_night_has_no_finding() {
    let (baseline, finals) = night();
    let seen = mask(&finals);
    for many in [0, 1, 5, 20, 100] {
        let seen: Vec<Seen> =
            seen.iter().enumerate().map(|(place, s)| if place < many { *s } else { Seen::Nothing }).collect();
        let screened = screen(&Model::default(), &baseline, &seen).unwrap();
        assert_eq!(screened.findings, [], "with {many} in");
        assert_eq!(screened.believed, seen);
    }
}

#[test]
fn each_planted_slip_is_found_and_moves_nothing() {
    let (baseline, finals) = night();
    let clean = mask(&finals);
    let lopsided = (0..60).find(|unit| noise(*unit, 1) > 0.8).unwrap();
    let lopsided = usize::try_from(lopsided).unwrap();
    let [a, b] = finals[lopsided];
    let slips: [(&str, Seen, Kind); 5] = [
        ("the wrong way round", Seen::Final([b, a]), Kind::Swapped),
        ("twice", Seen::Final([2 * a, 2 * b]), Kind::Votes),
        ("a digit too many", Seen::Final([a * 10, b * 10]), Kind::Votes),
        ("a digit too few", Seen::Final([a / 10, b / 10]), Kind::Votes),
        (
            "a digit too many in a part",
            Seen::Part { votes: [a * 5, b * 5], fraction: Some(0.5) },
            Kind::Votes,
        ),
    ];
    for (name, slip, kind) in slips {
        let mut seen = clean.clone();
        seen[lopsided] = slip;
        let screened = screen(&Model::default(), &baseline, &seen).unwrap();
        let found: Vec<(usize, Kind)> = screened.findings.iter().map(|f| (f.unit, f.kind)).collect();
        assert_eq!(found, [(lopsided, kind)], "{name}: {:?}", screened.findings);
        let mut without = clean.clone();
        without[lopsided] = Seen::Nothing;
        assert_eq!(screened.believed, without, "{name}");
        let [low, _, high] = middle(&baseline, &clean);
        let [_, now, _] = middle(&baseline, &screened.believed);
        assert!(low <= now && now <= high, "{name}: {now} is not within {low} to {high}");
    }
}

#[test]
fn many_slips_at_once_do_not_hide_each_other() {
    let (baseline, finals) = night();
    let mut seen = mask(&finals);
    let lopsided: Vec<usize> = (0..60)
        .filter(|unit| noise(*unit, 1).abs() > 0.8)
        .map(|unit| usize::try_from(unit).unwrap())
        .collect();
    assert!(lopsided.len() > 8, "{lopsided:?}");
    for unit in &lopsided {
        seen[*unit] = seen[*unit].swapped();
    }
    let screened = screen(&Model::default(), &baseline, &seen).unwrap();
    let found: Vec<usize> = screened.findings.iter().map(|finding| finding.unit).collect();
    assert_eq!(found, lopsided);
    assert!(screened.findings.iter().all(|finding| finding.kind == Kind::Swapped));
}

#[test]
fn findings_are_mirrored_with_the_selections() {
    let (baseline, finals) = night();
    let mut seen = mask(&finals);
    seen[3] = seen[3].swapped();
    seen[4] = seen[4].map(|votes| votes.map(|v| v * 3));
    let swapped: Vec<Seen> = seen.iter().map(|seen| seen.swapped()).collect();
    let one = screen(&Model::default(), &baseline, &seen).unwrap();
    let other = screen(&Model::default(), &baseline.swapped(), &swapped).unwrap();
    assert!(!one.findings.is_empty());
    for (a, b) in one.findings.iter().zip(&other.findings) {
        let side = if a.kind == Kind::Votes { 1.0 } else { -1.0 };
        assert_eq!(
            (a.unit, a.kind, a.reported, a.sigmas),
            (b.unit, b.kind, side * b.reported, side * b.sigmas)
        );
    }
}
