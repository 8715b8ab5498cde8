//! `canvass verify` and `canvass proof` as an auditor uses them: on a running server, on what was kept of it, and on
//! what somebody made of that.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod support;

use std::path::Path;

use canvass_loadgen::bench::ingest;
use serde_json::{Value, json};
use support::tls::{self, behind_tls};
use support::{POLL, Server, add_key, eventually, fails, get, log_key, post, run, verified};

fn start(folder: &Path) -> Server {
    let file = folder.join("election.toml");
    std::fs::write(&file, POLL).unwrap();
    Server::start(&folder.join("data"), &["--election", file.to_str().unwrap(), "--tick-ms", "50"])
}

/// Casts a vote and returns its record.
fn vote(server: &Server, voter: usize) -> String {
    receipt(server, voter)["receipt"]["record"].as_str().unwrap().to_owned()
}

/// Casts a vote and returns what is answered.
fn receipt(server: &Server, voter: usize) -> Value {
    let body = json!({ "contest": "song", "selections": ["x"], "voter": format!("voter {voter}") });
    let answer = post(&server.address, "/api/v1/vote", None, None, &body);
    assert_eq!(answer.status, 201, "{}", answer.body);
    answer.json()
}

/// Waits until so many votes are published; a check is about what is published when it begins.
fn published(server: &Server, votes: u64) {
    eventually("the votes are published", || {
        let results = get(&server.address, "/api/v1/results?by=total");
        (results["counts"]["total"] == votes).then_some(())
    });
}

#[test]
fn what_was_kept_is_checked_again_and_tells_on_what_came_later() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path());
    let key = log_key(&folder.path().join("data"));
    (0..50).for_each(|voter| drop(vote(&server, voter)));
    published(&server, 50);
    let kept = folder.path().join("kept");
    let kept = kept.to_str().unwrap();
    let report = verified(&server.url(), &key, &["--keep", kept]);
    assert_eq!((&report["voters"], &report["key_on_first_use"]), (&json!(50), &json!(false)));
    // The log goes on as the kept checkpoint says.
    (50..60).for_each(|voter| drop(vote(&server, voter)));
    published(&server, 60);
    let since = format!("{kept}/checkpoint");
    let later = verified(&server.url(), &key, &["--since", &since]);
    assert_eq!(later["voters"], 60);
    // Without a pinned key the server's own word is taken, and that is said.
    let report: Value = serde_json::from_str(&run(&["verify", &server.url()])).unwrap();
    assert_eq!((&report["key"], &report["key_on_first_use"]), (&json!(key), &json!(true)));
    server.stop();
    // Offline, the copy is as good as the server was.
    assert_eq!(verified(kept, &key, &[])["voters"], 50);
    let results = format!("{kept}/api/v1/results@contest=song&unit=hall&by=unit");
    let published = std::fs::read_to_string(&results).unwrap();
    std::fs::write(&results, published.replace(r#""ballots":50"#, r#""ballots":51"#)).unwrap();
    let said = fails(&["verify", kept, "--key", &key]);
    assert!(said.contains("/counts/ballots is published as 51, the log gives 50"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_count_is_verified_while_votes_come_in() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path());
    let key = log_key(&folder.path().join("data"));
    let (client, url) = (server.client(), server.url());
    let voting = tokio::spawn(async move {
        for round in 0.. {
            let options = ingest::Options {
                contest: "song".to_owned(),
                voters: 1_000,
                retry_percent: 10,
                double_percent: 5,
                connections: 4,
                in_flight: 200,
                batch: 20,
                seed: 7,
                run: format!("round {round}"),
                signer: None,
            };
            ingest::run(&client, &options).await.unwrap();
        }
    });
    let verifying = tokio::task::spawn_blocking(move || {
        let voters = || verified(&url, &key, &[])["voters"].as_u64().unwrap();
        let first = voters();
        eventually("more votes are verified", || {
            let later = voters();
            assert!(later >= first, "{first}, then {later}");
            (later > first).then_some(())
        });
        // The server is kept for as long as it is asked.
        drop(server);
    });
    verifying.await.unwrap();
    voting.abort();
}

/// Two regions with two wards each, whose returns go to two partitions, and votes by every policy.
const BUSY: &str = r#"
id = "busy"
name = "Busy"
partitions = { votes = 3, returns = 2 }
units = [
  { id = "land", name = "Land" },
  { id = "east", name = "East", parent = "land" }, { id = "west", name = "West", parent = "land" },
  { id = "e1", name = "E1", parent = "east" }, { id = "e2", name = "E2", parent = "east" },
  { id = "w1", name = "W1", parent = "west" }, { id = "w2", name = "W2", parent = "west" },
]
[[contests]]
id = "mayor"
name = "Mayor"
kind = "single-choice"
counting = "returns"
count_types = ["election-day", "absentee"]
selections = [{ id = "ash", name = "Ash" }, { id = "elm", name = "Elm" }]
[[contests]]
id = "judge"
name = "Judge of the east"
kind = "single-choice"
unit = "east"
counting = "returns"
selections = [{ id = "fir", name = "Fir" }, { id = "oak", name = "Oak" }]
[[contests]]
id = "replace"
name = "Replaceable"
kind = "single-choice"
counting = "votes"
eligibility = "open"
policy = "replace"
selections = [{ id = "x", name = "X" }, { id = "y", name = "Y" }]
[[contests]]
id = "several"
name = "Several"
kind = "audience-poll"
counting = "votes"
eligibility = "open"
policy = "up_to(3)"
selections = [{ id = "x", name = "X" }, { id = "y", name = "Y" }]
"#;

/// A desk and a source in one, who do all there is to do.
struct Desk<'a> {
    server: &'a Server,
    key: String,
    sent: std::cell::Cell<u32>,
}

impl Desk<'_> {
    /// Posts a body, and returns the record that was made.
    fn post(&self, path: &str, body: Value) -> String {
        self.sent.set(self.sent.get() + 1);
        let key = format!("key {}", self.sent.get());
        let answer = post(&self.server.address, path, Some(&self.key), Some(&key), &body);
        assert!(matches!(answer.status, 200..=202), "{path} {body}: {} {}", answer.status, answer.body);
        answer.json()["receipt"]["record"].as_str().unwrap().to_owned()
    }

    /// Posts what is refused.
    fn refused(&self, path: &str, code: &str) {
        let answer =
            post(&self.server.address, path, Some(&self.key), None, &json!({ "reason": "so it is" }));
        assert_eq!(answer.code(), code, "{path}: {}", answer.body);
    }

    fn returns(&self, (contest, unit, count_type): (&str, &str, &str), votes: Value) -> String {
        let counts = json!({ "votes": votes });
        let body = json!({ "contest": contest, "unit": unit, "count_type": count_type, "counts": counts });
        self.post("/api/v1/returns", body)
    }

    fn act(&self, path: &str) -> String {
        self.post(path, json!({ "reason": "so it is" }))
    }
}

/// What happens on a busy night, all of it.
fn night(desk: &Desk<'_>, second: &Desk<'_>) {
    let mayor = |unit, count_type, ash, elm| {
        desk.returns(("mayor", unit, count_type), json!({ "ash": ash, "elm": elm }))
    };
    for (unit, ash) in [("e1", 310), ("e2", 420), ("w1", 530), ("w2", 640)] {
        mayor(unit, "election-day", ash, 500);
        mayor(unit, "absentee", ash / 3, 77);
    }
    desk.returns(("judge", "e1", "total"), json!({ "fir": 3, "oak": 4 }));
    let stands = mayor("e1", "election-day", 311, 500);
    let counts = json!({ "votes": { "ash": 300, "elm": 511 } });
    desk.post(
        &format!("/api/v1/returns/{stands}/corrections"),
        json!({ "reason": "swapped", "counts": counts }),
    );
    // A lower count is held, and released; another is held, and rejected; a third, further down, is held for good.
    let held = mayor("w1", "absentee", 1, 1);
    desk.act(&format!("/api/v1/returns/{held}/release"));
    let held = mayor("w2", "absentee", 1, 1);
    desk.act(&format!("/api/v1/returns/{held}/reject"));
    let lead = json!({ "reason": "a wide lead", "winners": ["ash"] });
    let dropped = desk.post("/api/v1/contests/mayor/call", lead.clone());
    desk.act(&format!("/api/v1/calls/{dropped}/drop"));
    let proposal = desk.post("/api/v1/contests/mayor/call", lead.clone());
    desk.refused(&format!("/api/v1/calls/{proposal}/confirm"), "same-person");
    second.act(&format!("/api/v1/calls/{proposal}/confirm"));
    let proposal = desk.act("/api/v1/contests/mayor/uncall");
    second.act(&format!("/api/v1/calls/{proposal}/confirm"));
    let proposal = desk.post("/api/v1/contests/mayor/call", lead);
    second.act(&format!("/api/v1/calls/{proposal}/confirm"));
    mayor("w2", "absentee", 2, 1);
    let recount = json!({ "contest": "mayor", "unit": "east", "reason": "close" });
    let open = desk.post("/api/v1/recounts", recount.clone());
    let counts = json!({ "votes": { "ash": 299, "elm": 512 } });
    let counted = json!({ "contest": "mayor", "unit": "e1", "count_type": "election-day", "counts": counts });
    desk.post(&format!("/api/v1/recounts/{open}/returns"), counted);
    desk.act(&format!("/api/v1/recounts/{open}/close"));
    desk.act("/api/v1/contests/judge/close");
    desk.act("/api/v1/contests/judge/certify");
    desk.post("/api/v1/recounts", json!({ "contest": "mayor", "unit": "w2", "reason": "closer" }));
    for voter in 0..40 {
        let name = format!("voter {}", voter % 15);
        for contest in ["replace", "several"] {
            let choice = if voter % 2 == 0 { "x" } else { "y" };
            let body = json!({ "contest": contest, "selections": [choice], "voter": name });
            let key = format!("{contest} {voter}");
            post(&desk.server.address, "/api/v1/vote", None, Some(&key), &body);
        }
    }
}

#[test]
fn everything_that_can_happen_on_a_night_is_verified() {
    let folder = tempfile::tempdir().unwrap();
    let (file, data) = (folder.path().join("election.toml"), folder.path().join("data"));
    std::fs::write(&file, BUSY).unwrap();
    let key = add_key(&data, "desk", &["source", "desk"]);
    let mut server = Server::start(&data, &["--election", file.to_str().unwrap(), "--tick-ms", "50"]);
    let desk = |key| Desk { server: &server, key, sent: std::cell::Cell::new(0) };
    night(&desk(key), &desk(add_key(&data, "second desk", &["desk"])));
    let log = log_key(&data);
    eventually("the last votes are published", || {
        let results = get(&server.address, "/api/v1/results?contest=several");
        (results["counts"]["total"] == 40).then_some(())
    });
    let report = verified(&server.url(), &log, &[]);
    assert_eq!((&report["corrections"], &report["held"]), (&json!(1), &json!(3)));
    // Seven units and three, and two districts of votes.
    assert_eq!(report["documents"], 7 + 3 + 2);
    server.restart();
    assert_eq!(verified(&server.url(), &log, &[])["outcomes"], report["outcomes"]);
}

#[test]
fn a_server_behind_tls_is_verified_where_its_certificate_is_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path());
    (0..5).for_each(|voter| drop(vote(&server, voter)));
    published(&server, 5);
    let url = format!("https://localhost:{}/", behind_tls(server.address.clone()));
    let verify = |roots: &str| {
        support::command().args(["verify", &url]).env("SSL_CERT_FILE", tls::file(roots)).output().unwrap()
    };
    let trusted = verify("ca.pem");
    assert!(trusted.status.success(), "{}", String::from_utf8_lossy(&trusted.stderr));
    assert!(String::from_utf8_lossy(&trusted.stdout).contains(r#""voters":5"#));
    let other = verify("other.pem");
    assert!(!other.status.success());
    assert!(String::from_utf8_lossy(&other.stderr).contains("certificate"), "{other:?}");
}

#[test]
fn a_log_begun_anew_with_the_same_key_is_found_by_who_kept_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path());
    let data = folder.path().join("data");
    let key = log_key(&data);
    (0..5).for_each(|voter| drop(vote(&server, voter)));
    published(&server, 5);
    let kept = folder.path().join("kept");
    let kept = kept.to_str().unwrap();
    verified(&server.url(), &key, &["--keep", kept]);
    server.stop();
    for part in ["journal", "proof", "snapshots"] {
        std::fs::remove_dir_all(data.join(part)).unwrap();
    }
    let server = start(folder.path());
    vote(&server, 0);
    published(&server, 1);
    // Whoever comes late sees nothing wrong.
    assert_eq!(verified(&server.url(), &key, &[])["voters"], 1);
    let since = format!("{kept}/checkpoint");
    let said = fails(&["verify", &server.url(), "--key", &key, "--since", &since]);
    assert!(said.contains("the log was rewritten") || said.contains("the log was rolled back"), "{said}");
    assert!(said.contains("the checkpoint that was kept"), "{said}");
}

#[test]
fn one_record_is_proven_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path());
    let key = log_key(&folder.path().join("data"));
    let (first, record) = (vote(&server, 1), vote(&server, 2));
    let url = server.url();
    let proven = run(&["proof", &record, "--url", &url, "--key", &key]);
    let proven: Value = serde_json::from_str(&proven).unwrap();
    assert_eq!(proven["record"], json!(record));
    assert_eq!(proven["says"], json!("a vote for “X” in “Song”"));
    assert_eq!(proven["key_on_first_use"], json!(false));
    assert!(run(&["proof", &first, "--server", &url]).contains(r#""key_on_first_use":true"#));
    assert!(run(&["proof", "returns-0-0-0", "--url", &url]).contains("election-defined"));
    // A receipt is checked with what it promises, whole or only the promise; a promise of another record is found.
    let (own, next) = (receipt(&server, 3), receipt(&server, 4));
    let mut mixed = own.clone();
    mixed["receipt"]["promise"] = next["receipt"]["promise"].clone();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let promise = file("promise", own["receipt"]["promise"].as_str().unwrap());
    for receipt in [&file("receipt.json", &own.to_string()), &promise] {
        let said: Value =
            serde_json::from_str(&run(&["proof", receipt, "--url", &url, "--key", &key])).unwrap();
        assert_eq!((&said["record"], &said["promise_kept"]), (&own["receipt"]["record"], &json!(true)));
    }
    let (mixed, nothing) = (file("mixed.json", &mixed.to_string()), file("nothing", "hello"));
    let other = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    for (args, words) in [
        (vec!["proof", "votes-0-99999-0", "--url", &url], "there is no such record"),
        (vec!["proof", "my-vote", "--url", &url], "is not a record such as"),
        (vec!["proof", &mixed, "--url", &url], "its promise is of another record than the one it names"),
        (vec!["proof", &nothing, "--url", &url], "holds no receipt"),
        (vec!["proof", &record, "--url", &url, "--key", other], "is not proven"),
        (vec!["proof", &record, "--url", &url, "--key", "no key"], "no key of the form name+id+key"),
        (vec!["verify", &url, "--key", other], "is not signed by the key PeterNeumann"),
        (vec!["verify", &url, "--witness", &key], "its kind must be 4"),
        (vec!["verify", &url, "--quorum", "1"], "--witness"),
        (vec!["verify", "/no/such/folder"], "neither a folder nor a server"),
        (vec!["verify", folder.path().to_str().unwrap()], "/api/v1/proof is not there"),
    ] {
        let said = fails(&args);
        assert!(said.contains(words), "{args:?}: {said}");
    }
}
