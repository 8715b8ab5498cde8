//! The real night of 2020 in North Carolina: nothing odd in it as it was, and each planted slip found.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::fs::File;
use std::path::PathBuf;

use canvass_forecast::{DRAWS, Finding, Kind, Model, Seen, project, screen};
use canvass_loadgen::bench::forecast::{Night, counties};
use canvass_protocol::interchange::nc;
use flate2::read::MultiGzDecoder;

/// The real data; a test that cannot read them fails, since they are part of what must be shown.
fn data(name: &str) -> MultiGzDecoder<File> {
    let folder = std::env::var_os("CANVASS_TEST_DATA").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"),
        PathBuf::from,
    );
    let path = folder.join(name);
    let file = File::open(&path).unwrap_or_else(|e| {
        panic!("{} is needed ({e}); set CANVASS_TEST_DATA to its folder", path.display())
    });
    MultiGzDecoder::new(file)
}

fn night() -> Night {
    let counties = counties::read(data("us-president/counties_2008_2020.csv.gz")).unwrap();
    let feed = nc::read(data("nc2020/NC_precincts_timeseries_2020.csv.gz")).unwrap();
    Night::new(&feed, &counties).unwrap()
}

fn found(night: &Night, model: &Model, seen: &[Seen]) -> (Vec<Finding>, Vec<Seen>) {
    let screened = screen(model, &night.baseline, seen).unwrap();
    (screened.findings, screened.believed)
}

fn place(night: &Night, name: &str) -> usize {
    night.names.iter().position(|county| county == name).unwrap()
}

/// What becomes of a county's numbers.
type Slip = fn([u64; 2]) -> [u64; 2];

/// Half of the counties are final as they ended, in an order that has nothing to do with how they voted.
fn half(night: &Night, planted: usize) -> Vec<Seen> {
    let finals = night.finals();
    let seen = finals.into_iter().enumerate();
    seen.map(|(place, seen)| if place % 2 == 0 || place == planted { seen } else { Seen::Nothing }).collect()
}

#[test]
fn nothing_in_the_night_as_it_was_is_odd_and_it_is_never_called_wrongly() {
    let night = night();
    assert_eq!((night.names.len(), night.snapshots.len()), (100, 69));
    let model = Model::learn(&night.past[..1]).unwrap();
    let moments = night.moments(&model, 1_000).unwrap();
    for moment in &moments {
        assert_eq!(moment.findings, [], "{:?}", moment.time);
        assert_ne!(moment.case.call(), Some(false), "a wrong call at {:?}: {:?}", moment.time, moment.case);
    }
    let covered = moments.iter().filter(|m| m.case.within(0.99) == Some(true)).count();
    assert!(covered >= 60, "{covered} of 69 within 99 %");
    let last = &moments[68];
    assert!(last.case.within(0.5) == Some(true) && last.chance < 0.1, "{last:?}");
    assert_eq!(found(&night, &model, &night.finals()).0, []);
}

#[test]
fn each_slip_planted_in_the_night_is_found_and_the_fit_is_not_moved() {
    let night = night();
    let model = Model::learn(&night.past[..1]).unwrap();
    let early = &night.snapshots[1].1;
    let middle = |seen: &[Seen]| {
        let range = project(&model, &night.baseline, seen, 1, DRAWS).unwrap().summary(0).margin;
        (range.middle, range.most)
    };
    let slips: [(&str, &str, Kind, Slip); 4] = [
        ("the wrong way round", "Orange County", Kind::Swapped, |[a, b]| [b, a]),
        ("twice", "Buncombe County", Kind::Votes, |[a, b]| [2 * a, 2 * b]),
        ("a digit too many", "Randolph County", Kind::Votes, |[a, b]| [10 * a, 10 * b]),
        ("a digit too few", "Wake County", Kind::Votes, |[a, b]| [a / 10, b / 10]),
    ];
    for (name, county, kind, slip) in slips {
        let unit = place(&night, county);
        let clean = half(&night, unit);
        let mut seen = clean.clone();
        seen[unit] = seen[unit].map(slip);
        let (findings, believed) = found(&night, &model, &seen);
        assert_eq!(findings.iter().map(|f| (f.unit, f.kind)).collect::<Vec<_>>(), [(unit, kind)], "{name}");
        assert_eq!(believed[unit], Seen::Nothing);
        // The county itself is projected instead of known, which moves the state by what is left unknown of it.
        let ((_, [low, high]), (now, _)) = (middle(&clean), middle(&believed));
        let room = 0.01;
        assert!(low - room <= now && now <= high + room, "{name}: {now} is not within {low} to {high}");
    }
    // A county that still has what it reported first, and calls it all: the one that had least.
    let share = |unit: &usize| {
        let [now, end] = [early[*unit], night.finals()[*unit]].map(|s| s.votes().iter().sum::<u64>());
        (now > 0).then(|| now * 1_000 / end)
    };
    let unit = (0..100).filter(|unit| share(unit).is_some()).min_by_key(share).unwrap();
    let mut seen = half(&night, unit);
    seen[unit] = Seen::Final(early[unit].votes());
    let (findings, _) = found(&night, &model, &seen);
    assert_eq!(findings.iter().map(|f| (f.unit, f.kind)).collect::<Vec<_>>(), [(unit, Kind::Votes)]);
}
