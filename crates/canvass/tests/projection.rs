//! Projections of a server: published with the results, kept under their numbers, computed again from the log alone.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod support;

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};
use support::{Server, add_key, eventually, fails, get, log_key, post, run, verified};

const COUNTIES: u64 = 30;

/// An election with a baseline beside it, in this folder.
fn write(folder: &Path) -> String {
    let mut text = String::from(
        "id = \"e\"\nname = \"E\"\nis_test = true\n[[units]]\nid = \"state\"\nname = \"State\"\n",
    );
    let mut csv = String::from("unit,votes:ann,votes:bob,before:ann,before:bob\n");
    for n in 0..COUNTIES {
        let _ = write!(text, "[[units]]\nid = \"c{n}\"\nname = \"County {n}\"\nparent = \"state\"\n");
        let _ = writeln!(csv, "c{n},{},{},{},{}", 500 + 7 * n, 480 + 3 * n, 490 + 6 * n, 470 + 5 * n);
    }
    text += "[[contests]]\nid = \"mayor\"\nname = \"Mayor\"\nkind = \"single-choice\"\ncounting = \"returns\"\n\
             baseline = \"mayor.csv\"\nselections = [{id=\"ann\",name=\"Ann\"},{id=\"bob\",name=\"Bob\"}]\n";
    let file = folder.join("election.toml");
    std::fs::write(&file, text).unwrap();
    std::fs::write(folder.join("mayor.csv"), csv).unwrap();
    file.to_str().unwrap().to_owned()
}

fn report(server: &Server, key: &str, county: u64) {
    let votes = json!({ "ann": 505 + 7 * county, "bob": 470 + 3 * county });
    let body = json!({ "contest": "mayor", "unit": format!("c{county}"), "count_type": "total",
                       "counts": { "votes": votes } });
    let answer = post(&server.address, "/api/v1/returns", Some(key), None, &body);
    assert_eq!(answer.status, 201, "{}", answer.body);
}

fn number(document: &Value) -> String {
    format!("{}:{}", document["epoch"], document["seq"])
}

const RESULTS: &str = "/api/v1/results?contest=mayor&by=total";

#[test]
fn a_projection_is_published_kept_and_computed_again() {
    let folder = tempfile::tempdir().unwrap();
    let (file, data) = (write(folder.path()), folder.path().join("data"));
    assert!(run(&["check", &file]).contains("(1 with a baseline)"));
    let key = add_key(&data, "desk", &["source", "desk"]);
    let mut server = Server::start(&data, &["--election", &file, "--tick-ms", "20"]);
    let nothing = eventually("the first projection abstains", || {
        Some(get(&server.address, RESULTS)).filter(|r| r["projection"]["not_yet"].is_string())
    });
    assert_eq!(nothing["projection"]["not_yet"], "too-little");
    (0..12).for_each(|county| report(&server, &key, county));
    let some = eventually("a projection that stands on twelve counties", || {
        let now = get(&server.address, RESULTS);
        let basis =
            get(&server.address, &format!("{RESULTS}&at={}", now["projection"]["snapshot"].as_str()?));
        (basis["units_reporting"] == 12 && now["units_reporting"] == 12).then_some(now)
    });
    let projection = &some["projection"];
    let chance = projection["selections"]["ann"]["chance"].as_u64().unwrap();
    assert!((1..=999).contains(&chance), "{projection}");
    assert!(projection["votes"]["middle"].as_u64() > projection["votes"]["counted"].as_u64());
    let at = number(&some);
    let again = |server: &Server| get(&server.address, &format!("{RESULTS}&at={at}"));
    assert_eq!(again(&server), some, "kept under its number");
    assert_eq!(get(&server.address, &format!("/api/v1/snapshots/{at}?contest=mayor&by=total")), some);
    let report = verified(&server.url(), &log_key(&data), &[]);
    assert_eq!(report["differences"], json!([]), "{report}");
    server.kill();
    server.restart();
    assert_eq!(again(&server), some, "made again after a crash");
    eventually("the page shows it", || {
        let page = support::raw(&server.address, "GET", "/contests/mayor", &[], b"").body;
        (page.contains("Projection") && page.contains("of 1,000 draws")).then_some(())
    });
    server.stop();
    let folder = data.to_str().unwrap();
    let computed: Value = serde_json::from_str(&run(&["forecast", "--data", folder, "--at", &at])).unwrap();
    assert_eq!(&computed, projection, "computed by another process, from the log and the baseline alone");
    assert!(
        fails(&["forecast", "--data", folder, "--at", "1:1"]).contains("nothing was published under 1:1")
    );
}

#[test]
fn a_baseline_that_does_not_fit_is_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path());
    std::fs::write(folder.path().join("mayor.csv"), "unit,votes:ann,votes:bop\nc0,1,2\nc99,1,2\n").unwrap();
    let told = fails(&["check", &file]);
    assert!(told.contains("has no selection `bop`; did you mean `bob`?"), "{told}");
    std::fs::remove_file(folder.path().join("mayor.csv")).unwrap();
    assert!(fails(&["check", &file]).contains("the baseline of the contest `mayor`"));
}
