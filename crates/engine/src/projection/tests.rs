use std::fmt::Write as _;
use std::sync::Arc;

use canvass_election::event::{Cell, Counts};
use canvass_election::ids::{Offset, PartitionId, Timestamp};
use canvass_election::tally::{CellValue, Partial};
use canvass_election::{Definition, Merge};

use super::*;

const COUNTIES: u32 = 40;

/// Two regions with twenty counties each, and a contest of so many selections.
fn definition(selections: &[&str]) -> Arc<Definition> {
    let mut text = String::from("id = \"e\"\nname = \"E\"\n[[units]]\nid = \"state\"\nname = \"State\"\n");
    for region in ["east", "west"] {
        let _ = write!(text, "[[units]]\nid = \"{region}\"\nname = \"{region}\"\nparent = \"state\"\n");
    }
    for county in 0..COUNTIES {
        let parent = if county % 2 == 0 { "east" } else { "west" };
        let _ = write!(text, "[[units]]\nid = \"c{county}\"\nname = \"C\"\nparent = \"{parent}\"\n");
    }
    let list: Vec<String> = selections.iter().map(|s| format!("{{id=\"{s}\",name=\"{s}\"}}")).collect();
    let _ = write!(
        text,
        "[[contests]]\nid = \"mayor\"\nname = \"Mayor\"\nkind = \"single-choice\"\ncounting = \"returns\"\n\
         baseline = \"mayor.csv\"\nselections = [{}]\n",
        list.join(",")
    );
    Arc::new(canvass_protocol::definition::parse(&text).unwrap())
}

/// Votes of a county at the last election: they lean more and more to the first selection.
fn last(county: u32, selection: usize) -> u64 {
    let size = 4_000 + u64::from(county * 331 % 7_000);
    match selection {
        0 => size * (40 + u64::from(county % 17)) / 100,
        1 => size * (45 - u64::from(county % 13)) / 100,
        _ => size * 5 / 100,
    }
}

fn projector(definition: &Definition) -> Projector {
    let contest = &definition.contests[0];
    let names: Vec<String> = contest.selections.iter().map(|s| format!("votes:{}", s.id)).collect();
    let mut text = format!("unit,local:region,{}\n", names.join(","));
    for county in 0..COUNTIES {
        let votes: Vec<String> = (0..contest.selections.len()).map(|s| last(county, s).to_string()).collect();
        let _ = writeln!(text, "c{county},{},{}", county % 2, votes.join(","));
    }
    let baseline = canvass_protocol::baseline::parse(&text, definition, ContestId(0)).unwrap();
    Projector::new(definition, ContestId(0), &baseline, &text).unwrap()
}

/// Results with this many counties in; each has moved by so many points to the first selection.
fn results(definition: &Arc<Definition>, counties: u32, swing: u64) -> ContestResults {
    with_held(definition, counties, swing, 0)
}

/// The same, where so many returns of the first county are held.
fn with_held(definition: &Arc<Definition>, counties: u32, swing: u64, held: u32) -> ContestResults {
    let selections = definition.contests[0].selections.len();
    let cells = (0..counties).map(|county| {
        let mut votes: Vec<u64> = (0..selections).map(|s| last(county, s)).collect();
        let moved = votes[1] * swing / 100;
        votes[0] += moved;
        votes[1] -= moved;
        let unit = definition.unit_by_id(&format!("c{county}")).unwrap();
        let count_type = canvass_election::definition::CountItemType::Total;
        let counts = Counts { votes, ..Counts::default() };
        let held = if county == 0 { held } else { 0 };
        let value = CellValue { official: Some(counts), held, ..CellValue::default() };
        (Cell { contest: ContestId(0), unit, count_type }, value)
    });
    let mut merge = Merge::new(Arc::clone(definition));
    let (partition, end, time) = (PartitionId::CONTROL, Offset(1), Timestamp(1));
    merge.merge(&Partial { partition, end, time, cells: cells.collect(), contests: Vec::new() });
    merge.results().contests[0].as_ref().clone()
}

const AT: Seq = Seq { epoch: 7, seq: 3 };

#[test]
fn the_same_results_give_the_same_projection() {
    let definition = definition(&["ann", "bob"]);
    let results = results(&definition, 12, 3);
    let first = projector(&definition).project(&definition, &results, AT, None);
    assert_eq!(projector(&definition).project(&definition, &results, AT, None), first);
    assert!(first.areas.is_ok());
}

#[test]
fn nothing_is_certain_while_votes_are_out() {
    let definition = definition(&["ann", "bob"]);
    let projection = projector(&definition).project(&definition, &results(&definition, 39, 60), AT, None);
    let areas = projection.areas.unwrap();
    let whole = &areas[&UnitId(0)];
    let chances: Vec<u16> = whole.selections.iter().map(|s| s.chance).collect();
    assert_eq!(chances, [999, 1]);
    for area in areas.values() {
        for s in &area.selections {
            let Range { middle, half, most } = s.share;
            assert!(most[0] <= half[0] && half[0] <= middle && middle <= half[1] && half[1] <= most[1]);
            assert!(most[0] >= 0 && most[1] <= 10_000);
        }
        let sum: i64 = area.selections.iter().map(|s| s.share.middle).sum();
        assert!((sum - 10_000).abs() <= 2, "{sum}");
        assert!(area.votes.most[0] >= i64::try_from(area.counted).unwrap());
    }
    // East is all in; west is not.
    assert_eq!(areas.keys().copied().collect::<Vec<_>>(), [UnitId(0), UnitId(1), UnitId(2)]);
    assert_eq!(areas[&UnitId(1)].selections[0].chance, 1_000);
    assert_eq!(areas[&UnitId(2)].selections[0].chance, 999);
}

#[test]
fn it_abstains_before_the_first_counties_and_after_the_last() {
    let definition = definition(&["ann", "bob", "cid"]);
    let projector = projector(&definition);
    let why = |counties| projector.project(&definition, &results(&definition, counties, 0), AT, None).areas;
    assert_eq!(why(0), Err(NotYet::TooLittle));
    assert_eq!(why(2), Err(NotYet::TooLittle));
    assert!(why(8).is_ok());
    assert_eq!(why(COUNTIES), Err(NotYet::Complete));
}

#[test]
fn shares_of_several_selections_add_up() {
    let definition = definition(&["ann", "bob", "cid"]);
    let projection = projector(&definition).project(&definition, &results(&definition, 20, 2), AT, None);
    for area in projection.areas.unwrap().values() {
        assert_eq!(area.selections.len(), 3);
        let sum: i64 = area.selections.iter().map(|s| s.share.middle).sum();
        assert!((sum - 10_000).abs() < 20, "{sum}");
        let chances: u16 = area.selections.iter().map(|s| s.chance).sum();
        assert!((998..=1_003).contains(&chances), "{chances}");
    }
}

#[test]
fn a_call_is_recommended_by_two_in_a_row_and_not_while_a_return_is_held() {
    let definition = definition(&["ann", "bob"]);
    let projector = projector(&definition);
    let ann = Some(SelectionId(0));
    let clear = results(&definition, 36, 60);
    let first = projector.project(&definition, &clear, AT, None);
    assert_eq!((first.meets, first.recommended), (ann, None));
    let second = projector.project(&definition, &clear, AT, first.meets);
    assert_eq!((second.meets, second.recommended), (ann, ann));
    let early = projector.project(&definition, &results(&definition, 3, 60), AT, ann);
    assert_eq!((early.meets, early.recommended), (None, None), "a tenth of the vote is not in");
    let held = with_held(&definition, 36, 60, 1);
    assert_eq!(held.unit(UnitId(0)).held, 1);
    assert_eq!(projector.project(&definition, &held, AT, ann).meets, None);
}
