use super::*;

const ELECTION: &str = r#"
id = "e"
name = "E"
[[units]]
id = "state"
name = "State"
[[units]]
id = "north"
name = "North"
parent = "state"
[[units]]
id = "south"
name = "South"
parent = "state"
[[units]]
id = "n1"
name = "N1"
parent = "north"
[[units]]
id = "n2"
name = "N2"
parent = "north"
[[contests]]
id = "mayor"
name = "Mayor"
kind = "single-choice"
counting = "returns"
baseline = "mayor.csv"
selections = [{ id = "ann", name = "Ann" }, { id = "bob", name = "Bob" }]
[[contests]]
id = "north-board"
name = "Board of the north"
kind = "single-choice"
counting = "returns"
unit = "north"
selections = [{ id = "ann", name = "Ann" }, { id = "bob", name = "Bob" }]
"#;

fn definition() -> Definition {
    crate::definition::parse(ELECTION).unwrap()
}

fn read(text: &str) -> Result<ContestBaseline, String> {
    let faults = parse(text, &definition(), ContestId(0));
    faults.map_err(|faults| faults.iter().map(Fault::to_string).collect::<Vec<_>>().join("\n"))
}

#[test]
fn a_definition_names_its_baseline_and_says_so_again() {
    let definition = definition();
    assert_eq!(definition.contests[0].baseline.as_deref(), Some("mayor.csv"));
    let value = crate::definition::to_value(&definition);
    assert_eq!(crate::definition::from_value(&value).unwrap(), definition);
}

#[test]
fn a_baseline_reads_into_the_order_of_the_definition() {
    let text = "local:state,votes:bob,unit,votes:ann,before:ann,before:bob,covariate:age,group:class\n\
                x,20,south,10,1,2,40.5,town\nx,4,n2,3,3,4,-1,rural\ny,2,n1,1,5,6,0,town\n";
    let baseline = read(text).unwrap();
    assert_eq!(baseline.selections, [SelectionId(0), SelectionId(1)]);
    let units: Vec<_> =
        baseline.units.iter().map(|u| (u.unit.0, u.votes.clone(), u.levels.clone())).collect();
    let expected = [(2, vec![10, 20], vec![0, 0]), (3, vec![1, 2], vec![1, 0]), (4, vec![3, 4], vec![0, 1])];
    assert_eq!(units, expected);
    assert_eq!(baseline.units[0].before, Some(vec![1, 2]));
    assert_eq!((baseline.local, baseline.groups), (Some(0), vec![("state".into(), 2), ("class".into(), 2)]));
    assert_eq!((baseline.covariates, baseline.units[0].covariates[0]), (vec!["age".to_owned()], 40.5));
}

#[test]
fn every_fault_says_where_it_is_and_what_would_be_right() {
    let head = "unit,votes:ann,votes:bob\n";
    for (text, expected) in [
        (
            "votes:ann,votes:bob\n1,2\n".to_owned(),
            "line 1: a column `unit` with the text ids of units is missing",
        ),
        ("unit,votes:ann\nn1,1\n".to_owned(), "two selections or more"),
        ("unit,votes:anne,votes:bob\nn1,1,2\n".to_owned(), "no selection `anne`; did you mean `ann`?"),
        ("unit,votes:ann,votes:bob,before:ann\nn1,1,2,3\n".to_owned(), "`before:` names other selections"),
        ("unit,votes:ann,votes:bob,colour\nn1,1,2,3\n".to_owned(), "`colour` is no column of a baseline"),
        ("unit,votes:ann,votes:bob,local:a,local:b\nn1,1,2,3,4\n".to_owned(), "one column can be `local:`"),
        ("unit,votes:ann,votes:ann,votes:bob\nn1,1,2,3\n".to_owned(), "`votes:ann` stands there twice"),
        (format!("{head}n1,1\n"), "not CSV"),
        (format!("{head}n11,1,2\n"), "line 2, unit: there is no unit `n11`; did you mean `n1`?"),
        (format!("{head}n1,1,2\nn1,1,2\n"), "line 3, unit: `n1` stands here twice"),
        (format!("{head}n1,1,two\n"), "line 2, votes:bob: `two` is no number of votes"),
        (format!("{head}n1,1,-2\n"), "line 2, votes:bob: `-2` is no number of votes"),
        (format!("{head}n1,1,99999999999\n"), "expected a whole number up to 10000000000"),
        (format!("{head}n1,0,0\n"), "no unit has any votes"),
        (head.to_owned(), "needs a row for each unit"),
        (format!("{head}north,1,2\nn1,1,2\n"), "unit `n1`: it lies within `north`"),
        ("unit,votes:ann,votes:bob,covariate:x\nn1,1,2,nan\n".to_owned(), "covariate:x: `nan` is no number"),
    ] {
        let faults = read(&text).unwrap_err();
        assert!(faults.contains(expected), "{text}\n{faults}");
    }
    let elsewhere = parse("unit,votes:ann,votes:bob\nsouth,1,2\n", &definition(), ContestId(1)).unwrap_err();
    assert!(elsewhere[0].message.contains("not in the contest's district `north`"), "{elsewhere:?}");
}
