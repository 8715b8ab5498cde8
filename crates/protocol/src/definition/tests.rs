use super::*;

const GOOD: &str = r##"
id = "spring"
name = "Spring election"
is_test = true

[partitions]
votes = 2

[[parties]]
id = "river"
name = "River Party"
color = "#1a5fb4"

[[units]]
id = "north"
name = "North"
parent = "state"
registered = 900

[[units]]
id = "state"
name = "State"
kind = "state"

[[contests]]
id = "mayor"
name = "Mayor"
kind = "single-choice"
counting = "returns"
count_types = ["election-day", "early"]
[[contests.selections]]
id = "a"
name = "Ann"
party = "river"
[[contests.selections]]
id = "b"
name = "Bob"

[[contests]]
id = "song"
name = "Song"
kind = "n-of-m"
choices = 1
unit = "north"
counting = "votes"
policy = "up_to(3)"
eligibility = "open"
opens = "2026-05-01T20:00:00Z"
closes = "2026-05-01T20:00:30Z"
[[contests.selections]]
id = "x"
name = "X"
[[contests.selections]]
id = "y"
name = "Y"

[[contests]]
id = "bridge"
name = "Bridge"
kind = "ballot-measure"
threshold = "at least 3/5"
counting = "votes"
eligibility = "token"
[[contests.selections]]
id = "yes"
name = "Yes"
[[contests.selections]]
id = "no"
name = "No"
"##;

#[test]
fn a_definition_reads_back_from_its_json_form() {
    let definition = parse(GOOD).unwrap();
    assert_eq!(definition.units[0].id, "state", "a parent stands before its children");
    assert_eq!(definition.units[1].parent, Some(UnitId(0)));
    assert_eq!(definition.partitions, Partitions { votes: 2, returns: 1 });
    let value = to_value(&definition);
    assert_eq!(from_value(&value).unwrap(), definition);
    assert_eq!(parse(&value.to_string()).unwrap(), definition);
}

/// What is replaced by what, and the place and a word of each fault expected then.
type Row<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)]);

/// Replaces one piece of the good file, and names the place and a word of each fault expected then.
#[test]
fn each_fault_is_named_with_its_place() {
    let rows: &[Row<'_>] = &[
        ("is_test = true", "is_tset = true", &[("/is_tset", "did you mean `is_test`")]),
        ("votes = 2", "votes = 0", &[("/partitions/votes", "between 1 and")]),
        ("votes = 2", "votes = -2", &[("/partitions/votes", "whole number")]),
        ("color = \"#1a5fb4\"", "color = \"blue\"", &[("/parties/0/color", "#1a5fb4")]),
        ("parent = \"state\"", "parent = \"stat\"", &[("/units/0/parent", "did you mean `state`")]),
        ("parent = \"state\"", "parent = \"north\"", &[("/units", "their own ancestors")]),
        ("parent = \"state\"", "", &[("/units", "exactly one unit has no parent")]),
        (
            "id = \"north\"",
            "id = \"state\"",
            &[("/units/1/id", "used twice"), ("/contests/1/unit", "no unit `north`")],
        ),
        ("kind = \"single-choice\"", "kind = \"single\"", &[("/contests/0/kind", "single-choice")]),
        ("kind = \"single-choice\"", "kind = 4", &[("/contests/0/kind", "expected a text, found a number")]),
        (
            "count_types = [\"election-day\", \"early\"]",
            "count_types = [\"total\", \"early\"]",
            &[("/contests/0/count_types", "stands alone")],
        ),
        (
            "count_types = [\"election-day\", \"early\"]",
            "count_types = [\"erly\"]",
            &[("/contests/0/count_types", "did you mean `early`")],
        ),
        (
            "party = \"river\"",
            "party = \"rivers\"",
            &[("/contests/0/selections/0/party", "did you mean `river`")],
        ),
        ("choices = 1", "choices = 2", &[("/contests/1/choices", "one less")]),
        ("unit = \"north\"", "unit = \"south\"", &[("/contests/1/unit", "there is no unit")]),
        ("policy = \"up_to(3)\"", "policy = \"thrice\"", &[("/contests/1/policy", "up_to(3)")]),
        ("eligibility = \"open\"", "", &[("/contests/1/eligibility", "who may vote")]),
        (
            "closes = \"2026-05-01T20:00:30Z\"",
            "closes = \"2026-05-01T20:00:00Z\"",
            &[("/contests/1/closes", "later")],
        ),
        ("closes = \"2026-05-01T20:00:30Z\"", "closes = \"soon\"", &[("/contests/1/closes", "no moment")]),
        (
            "threshold = \"at least 3/5\"",
            "threshold = \"60 %\"",
            &[("/contests/2/threshold", "more than 1/2")],
        ),
        ("name = \"Spring election\"", "", &[("/name", "missing")]),
        ("id = \"spring\"", "id = \"spring/26\"", &[("/id", "no id")]),
        (
            "id = \"song\"",
            "id = \"mayor\"\nthreshold = \"at least 1/2\"\ncolour = 1",
            &[
                ("/contests/1/threshold", "ballot-measure"),
                ("/contests/1/colour", "not a key"),
                ("/contests/1/id", "used twice"),
            ],
        ),
    ];
    for (old, new, expected) in rows {
        assert!(GOOD.contains(old), "{old}");
        let faults = parse(&GOOD.replacen(old, new, 1)).expect_err(new);
        for (place, word) in *expected {
            let found = faults.iter().any(|f| f.place == *place && f.message.contains(word));
            assert!(found, "{new}: expected {place} … {word}, found {faults:#?}");
        }
        assert_eq!(faults.len(), expected.len(), "{new}: {faults:#?}");
    }
}

#[test]
fn a_file_that_cannot_be_read_names_the_line() {
    let faults = parse("id = \"a\"\nname = = 3").unwrap_err();
    assert!(faults[0].place.starts_with("line 2"), "{faults:?}");
    let faults = parse("{\n\"id\": 4,,}").unwrap_err();
    assert!(faults[0].place.starts_with("line 2"), "{faults:?}");
}
