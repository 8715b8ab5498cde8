use std::path::PathBuf;

use super::*;
use crate::definition::{from_value, to_value};

/// The real feed; a test that cannot read it fails, since the feed is part of what must be shown.
fn feed_text() -> String {
    let folder = std::env::var_os("CANVASS_TEST_DATA").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"),
        PathBuf::from,
    );
    let path = folder.join("nc2020/NC_precincts_timeseries_2020.csv.gz");
    let file = std::fs::File::open(&path).unwrap_or_else(|e| {
        panic!("{} is needed ({e}); set CANVASS_TEST_DATA to its folder", path.display())
    });
    let mut text = String::new();
    flate2::read::MultiGzDecoder::new(file).read_to_string(&mut text).unwrap();
    text
}

/// Sums of the real units by time and type, recounted in the plainest way; and falls by place.
fn recount(text: &str) -> (BTreeMap<(Timestamp, String), Vec<u64>>, usize) {
    let mut sums: BTreeMap<(Timestamp, String), Vec<u64>> = BTreeMap::new();
    let mut cells: BTreeMap<(String, String, String), BTreeMap<Timestamp, Vec<u64>>> = BTreeMap::new();
    for line in text.lines().skip(1) {
        let f: Vec<&str> = line.split(',').collect();
        if f[1] == "STATE" || f[2] == "COUNTY" || f[5] == "total" {
            continue;
        }
        let time = time::parse(&format!("{}Z", f[4])).unwrap();
        let votes: Vec<u64> = f[7..11].iter().map(|n| n.parse().unwrap()).collect();
        let sum = sums.entry((time, f[5].to_owned())).or_insert_with(|| vec![0; 4]);
        sum.iter_mut().zip(&votes).for_each(|(s, n)| *s += n);
        cells.entry((f[1].into(), f[2].into(), f[5].into())).or_default().insert(time, votes);
    }
    let falls = cells.values().map(|by_time| {
        let votes: Vec<_> = by_time.values().collect();
        votes.windows(2).filter(|w| w[0].iter().zip(w[1]).any(|(then, now)| now < then)).count()
    });
    (sums, falls.sum())
}

#[test]
fn the_changes_of_the_real_feed_add_up_to_its_state_rows() {
    let text = feed_text();
    let (sums, falls) = recount(&text);
    let feed = read(text.as_bytes()).unwrap();
    let mut cells: BTreeMap<Cell, Counts> = BTreeMap::new();
    let mut totals: BTreeMap<CountItemType, Counts> = BTreeMap::new();
    let mut fallen = 0;
    for snapshot in &feed.snapshots {
        for change in &snapshot.changes {
            let known = cells.insert(change.cell, change.now.clone());
            assert_eq!(known.unwrap_or_else(|| Counts::zero(4)), change.before, "{change:?}");
            let sum = totals.entry(change.cell.count_type).or_insert_with(|| Counts::zero(4));
            sum.add(&change.now);
            sum.subtract(&change.before);
            fallen += usize::from(change.is_fall());
        }
        for (word, count_type) in COUNT_TYPES {
            let counted = totals.get(&count_type).map_or(vec![0; 4], |c| c.votes.clone());
            assert_eq!(counted, snapshot.state[&count_type].votes, "{word} at {:?}", snapshot.time);
            assert_eq!(counted, sums[&(snapshot.time, word.to_owned())]);
        }
    }
    assert_eq!(sums.len(), feed.snapshots.len() * COUNT_TYPES.len());
    assert_eq!(fallen, falls);
    assert!(fallen > 0, "the real feed has falls");
}

#[test]
fn the_definition_of_the_real_feed_is_one_that_a_server_takes() {
    let text = feed_text();
    let columns = text.lines().skip(1).filter_map(|line| line.split_once(','));
    let columns = columns.filter_map(|(_, rest)| rest.split_once(','));
    let places: BTreeSet<(&str, &str)> = columns
        .filter_map(|(county, rest)| Some((county, rest.split_once(',')?.0)))
        .filter(|(county, precinct)| *county != "STATE" && *precinct != "COUNTY")
        .collect();
    let definition = read(text.as_bytes()).unwrap().definition;
    assert_eq!(from_value(&to_value(&definition)).unwrap(), definition);
    assert_eq!(definition.leaves(UnitId(0)) as usize, places.len());
    let counties: BTreeSet<&str> = places.iter().map(|(county, _)| *county).collect();
    assert_eq!(definition.children(UnitId(0)).len(), counties.len());
    let unassigned = definition.units.iter().filter(|u| u.kind == "unassigned").count();
    assert_eq!(unassigned, places.iter().filter(|(_, precinct)| *precinct == UNASSIGNED).count());
    assert!(definition.is_test);
}

const HEADER: &str = "state,county,precinct,fips,timestamp,vote_type,votes,votes_biden,votes_trump,\
                      votes_jorgensen,votes_other,margin\n";

/// Rows of a place at a time: the four types with one vote for each candidate named, and their total.
fn rows(county: &str, precinct: &str, time: &str, biden: u64, trump: u64) -> String {
    let row = |word: &str, b: u64, t: u64| {
        format!("NC,{county},{precinct},1,{time},{word},{},{b},{t},0,0,\n", b + t)
    };
    ["electionday", "early", "absentee", "provisional"]
        .into_iter()
        .map(|word| if word == "early" { row(word, biden, trump) } else { row(word, 0, 0) })
        .chain([row("total", biden, trump)])
        .collect()
}

const T1: &str = "2020-11-03T20:00:00.000";
const T2: &str = "2020-11-03T20:05:00.5";

#[test]
fn places_become_plain_unique_ids_and_roll_ups_become_nothing() {
    let places = [
        ("STATE", "STATE"),
        ("wake", "COUNTY"),
        ("wake", "county"),
        ("wake", "COUNTy"),
        ("wake", "01-07A"),
        ("wake", "01 07a"),
        ("new-hanover", "w/27"),
    ];
    let body: String = places.iter().map(|(c, p)| rows(c, p, T1, 0, 0)).collect();
    let feed = read(format!("{HEADER}{body}").as_bytes()).unwrap();
    let ids: Vec<&str> = feed.definition.units.iter().map(|u| u.id.as_str()).collect();
    let expected = [
        "nc",
        "nc-new-hanover",
        "nc-wake",
        "nc-new-hanover-w-27",
        "nc-wake-01-07a",
        "nc-wake-01-07a-2",
        "nc-wake-county",
        "nc-wake-county-2",
    ];
    assert_eq!(ids, expected);
    assert_eq!(feed.definition.units[1].name, "New Hanover County");
}

#[test]
fn only_what_changed_is_told_whatever_the_order_of_the_rows() {
    let body = [
        rows("wake", "b", T2, 4, 9),
        rows("wake", "b", T1, 5, 5),
        rows("STATE", "STATE", T2, 4, 9),
        rows("STATE", "STATE", T1, 5, 5),
        rows("wake", "a", T1, 0, 0),
        rows("wake", "a", T2, 0, 0),
    ]
    .concat();
    let feed = read(format!("{HEADER}{body}").as_bytes()).unwrap();
    assert_eq!(feed.snapshots.len(), 2);
    assert!(feed.snapshots[0].time < feed.snapshots[1].time);
    let changed: Vec<_> = feed.snapshots.iter().flat_map(|s| &s.changes).collect();
    assert_eq!(changed.len(), 2);
    assert_eq!((changed[0].before.total(), changed[0].now.votes.clone()), (0, vec![5, 5, 0, 0]));
    assert_eq!((changed[0].is_fall(), changed[1].is_fall()), (false, true));
    assert_eq!(changed[1].cell.count_type, CountItemType::Early);
}

#[test]
fn a_row_that_cannot_be_is_named_with_its_line() {
    let good = rows("STATE", "STATE", T1, 3, 4);
    let cases = [
        (good.replace("early,7,", "early,8,"), "line 3: 8 votes"),
        (good.replace("early,7,3,4,", "early,9,5,4,"), "line 6: the total"),
        (good.replace("early,7,3,4,", "early,7,3.0,4,"), "line 3: `3.0`"),
        (good.replace("early", "mail"), "line 3: `mail` is no vote type"),
        (good.replacen(T1, "yesterday", 1), "line 2: `yesterday` is no moment"),
        (format!("{good}{good}"), "says again what line"),
        (good.lines().take(4).map(|l| format!("{l}\n")).collect(), "4 vote types"),
        (format!("{good}{}", rows("wake", "a", T1, 1, 1).replace("NC,", "SC,")), "line 7: state `SC`"),
        (rows("wake", "a", T1, 1, 1), "no row of the state"),
        (String::new(), "no row of the state"),
    ];
    for (body, expected) in cases {
        let error = read(format!("{HEADER}{body}").as_bytes()).expect_err(expected).to_string();
        assert!(error.contains(expected), "expected {expected}, found {error}");
    }
    let error = read("state,county\n".as_bytes()).unwrap_err().to_string();
    assert!(error.contains("no column `votes_biden`"), "{error}");
}
