//! Bad input of every kind: each is answered with the code of its problem, and nothing is changed by it.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod support;

use std::path::Path;

use serde_json::{Value, json};
use support::{Server, add_key, eventually, fails, get, post, raw, token};

const ELECTION: &str = r#"
id = "spring"
name = "Spring election"
is_test = true
[partitions]
votes = 2
[[units]]
id = "state"
name = "State"
[[units]]
id = "north"
name = "North"
parent = "state"
registered = 1000
[[units]]
id = "south"
name = "South"
parent = "state"
[[contests]]
id = "mayor"
name = "Mayor"
kind = "single-choice"
counting = "returns"
count_types = ["election-day", "early"]
selections = [{ id = "a", name = "Ann" }, { id = "b", name = "Bob" }]
[[contests]]
id = "song"
name = "Song"
kind = "n-of-m"
choices = 2
counting = "votes"
eligibility = "open"
selections = [{ id = "x", name = "X" }, { id = "y", name = "Y" }, { id = "z", name = "Z" }]
[[contests]]
id = "bridge"
name = "Bridge"
kind = "ballot-measure"
counting = "votes"
eligibility = "token"
selections = [{ id = "yes", name = "Yes" }, { id = "no", name = "No" }]
[[contests]]
id = "early"
name = "Too early"
kind = "audience-poll"
counting = "votes"
eligibility = "open"
opens = "2199-01-01T00:00:00Z"
selections = [{ id = "x", name = "X" }, { id = "y", name = "Y" }]
[[contests]]
id = "late"
name = "Too late"
kind = "audience-poll"
counting = "votes"
eligibility = "open"
closes = "2020-01-01T00:00:00Z"
selections = [{ id = "x", name = "X" }, { id = "y", name = "Y" }]
[[contests]]
id = "again"
name = "Change your mind"
kind = "audience-poll"
counting = "votes"
policy = "replace"
eligibility = "open"
selections = [{ id = "x", name = "X" }, { id = "y", name = "Y" }]
"#;

fn write_election(folder: &Path) -> String {
    let file = folder.join("election.toml");
    std::fs::write(&file, ELECTION).unwrap();
    file.to_str().unwrap().to_owned()
}

/// Headers and a body, with the status and the code that answer them.
type Sent<'a> = (&'a [(&'a str, &'a str)], Vec<u8>, u16, &'a str);

/// The results of every contest, without where they stand.
fn all_results(address: &str) -> Vec<Value> {
    let contests = ["mayor", "song", "bridge", "early", "late", "again"];
    contests.iter().map(|c| get(address, &format!("/api/v1/results?contest={c}"))).collect()
}

#[test]
fn a_vote_that_is_wrong_is_refused_with_its_code() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = Server::start(&data, &["--election", &write_election(folder.path())]);
    let at = server.address.as_str();
    let before = all_results(at);
    let expired = "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl";
    let foreign = token(&data, "autumn", "ann");
    let vote = |contest: &str, selections: Value| json!({"contest": contest, "selections": selections, "voter": "v"});
    let no_voter = json!({"contest": "bridge", "selections": ["yes"]});
    let rows: Vec<(Option<&str>, Value, u16, &str)> = vec![
        (None, vote("mayors", json!(["a"])), 404, "unknown-contest"),
        (None, vote("mayor", json!(["a"])), 422, "wrong-counting"),
        (None, vote("song", json!(["w"])), 422, "unknown-selection"),
        (None, vote("song", json!([])), 422, "bad-choices"),
        (None, vote("song", json!(["x", "y", "z"])), 422, "bad-choices"),
        (None, vote("song", json!(["x", "x"])), 422, "bad-choices"),
        (None, vote("song", json!("x")), 422, "bad-body"),
        (None, vote("song", json!([7])), 422, "bad-body"),
        (
            None,
            json!({"contest": "song", "selections": ["x"], "voter": "v", "colour": "red"}),
            422,
            "bad-body",
        ),
        (None, json!({"contest": "song", "selections": ["x"], "voter": ""}), 422, "bad-body"),
        (None, json!({"contest": "song", "selections": ["x"]}), 401, "token-missing"),
        (None, json!(["song"]), 422, "bad-body"),
        (None, vote("bridge", json!(["yes"])), 401, "token-missing"),
        (None, no_voter.clone(), 401, "token-missing"),
        (Some("nonsense"), no_voter.clone(), 401, "token-invalid"),
        (Some(expired), no_voter.clone(), 401, "token-invalid"),
        (Some(&foreign), no_voter, 403, "token-foreign"),
        (Some("cvk_unknown"), vote("song", json!(["x"])), 401, "key-invalid"),
        (None, vote("early", json!(["x"])), 409, "not-open"),
        (None, vote("late", json!(["x"])), 409, "closed"),
    ];
    for (bearer, body, status, code) in rows {
        let answer = post(at, "/api/v1/vote", bearer, Some("k"), &body);
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{body}: {}", answer.body);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert!(!answer.json()["trace_id"].as_str().unwrap().is_empty());
        if let Some(bearer) = bearer {
            assert!(!answer.body.contains(bearer), "a secret must not be in an error");
        }
    }
    let replace = post(at, "/api/v1/vote", None, None, &vote("again", json!(["x"])));
    assert_eq!((replace.status, replace.code().as_str()), (400, "idempotency-key-required"));
    let json_type = [("content-type", "application/json")];
    let bodies: [Sent<'_>; 6] = [
        (&json_type, b"vote!".to_vec(), 400, "bad-json"),
        (&json_type, b"{".to_vec(), 400, "bad-json"),
        (&json_type, vec![0xff; 10], 400, "bad-json"),
        (&json_type, vec![b' '; 1 << 20], 413, "body-too-large"),
        (&[("content-type", "text/plain")], b"{}".to_vec(), 415, "unsupported-media-type"),
        (&[("authorization", "Basic abc")], b"{}".to_vec(), 400, "bad-header"),
    ];
    for (headers, body, status, code) in bodies {
        let answer = raw(at, "POST", "/api/v1/vote", headers, &body);
        assert_eq!((answer.status, answer.code().as_str()), (status, code));
    }
    let get_of_post = raw(at, "DELETE", "/api/v1/vote", &[], b"");
    assert_eq!((get_of_post.status, get_of_post.code().as_str()), (405, "method-not-allowed"));
    assert_eq!(raw(at, "GET", "/api/v1/nothing", &[], b"").code(), "not-found");
    std::thread::sleep(std::time::Duration::from_millis(600));
    assert_eq!(all_results(at), before, "nothing was changed");
}

#[test]
fn an_expired_token_says_so() {
    use std::time::{SystemTime, UNIX_EPOCH};
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = Server::start(&data, &["--election", &write_election(folder.path())]);
    let data_arg = data.to_str().unwrap();
    let issue =
        ["token", "issue", "--data", data_arg, "--audience", "spring", "--voter", "ann", "--hours", "0"];
    let token = support::run(&issue);
    let begun = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let body = json!({"contest": "bridge", "selections": ["yes"]});
    eventually("the next second", || {
        (SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() > begun).then_some(())
    });
    let answer = post(&server.address, "/api/v1/vote", Some(token.trim()), Some("k"), &body);
    assert_eq!((answer.status, answer.code().as_str()), (401, "token-expired"));
}

#[test]
fn a_return_that_is_wrong_is_refused_with_its_code() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = Server::start(&data, &["--election", &write_election(folder.path())]);
    let at = server.address.as_str();
    let source = add_key(&data, "county", &["source"]);
    let desk = add_key(&data, "desk", &["desk"]);
    let before = all_results(at);
    let counts = json!({"votes": {"a": 1, "b": 2}});
    let report = |contest: &str, unit: &str, count_type: &str, counts: &Value| json!({"contest": contest, "unit": unit, "count_type": count_type, "counts": counts});
    let rows = [
        (report("mayors", "north", "early", &counts), 404, "unknown-contest"),
        (report("song", "north", "early", &counts), 422, "wrong-counting"),
        (report("mayor", "east", "early", &counts), 404, "unknown-unit"),
        (report("mayor", "state", "early", &counts), 404, "unknown-unit"),
        (report("mayor", "north", "absentee", &counts), 422, "unknown-count-type"),
        (report("mayor", "north", "early", &json!({"votes": {"a": 1}})), 422, "bad-counts"),
        (
            report("mayor", "north", "early", &json!({"votes": {"a": 1, "b": 2, "c": 3}})),
            422,
            "unknown-selection",
        ),
        (report("mayor", "north", "early", &json!({"votes": {"a": -1, "b": 2}})), 422, "bad-body"),
        (report("mayor", "north", "early", &json!({"votes": {"a": 1.5, "b": 2}})), 422, "bad-body"),
        (report("mayor", "north", "early", &json!({"votes": {"a": 1e30, "b": 2}})), 422, "bad-body"),
        (report("mayor", "north", "early", &json!({"votes": {"a": u64::MAX, "b": 2}})), 422, "bad-counts"),
        (
            report(
                "mayor",
                "north",
                "early",
                &json!({"votes": {"a": 600_000_000_000_u64, "b": 600_000_000_000_u64}}),
            ),
            422,
            "bad-counts",
        ),
    ];
    for (body, status, code) in rows {
        let answer = post(at, "/api/v1/returns", Some(&source), None, &body);
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{body}: {}", answer.body);
    }
    let good = report("mayor", "north", "early", &counts);
    assert_eq!(post(at, "/api/v1/returns", None, None, &good).code(), "key-missing");
    assert_eq!(post(at, "/api/v1/returns", Some("cvk_0"), None, &good).code(), "key-invalid");
    assert_eq!(post(at, "/api/v1/returns", Some(&desk), None, &good).code(), "forbidden");
    let reason = json!({"reason": "because"});
    let acts = [
        ("/api/v1/contests/mayor/close", &source, 403, "forbidden"),
        ("/api/v1/contests/mayors/close", &desk, 404, "unknown-contest"),
        ("/api/v1/contests/mayor/open", &desk, 404, "not-found"),
        ("/api/v1/contests/mayor/uncall", &desk, 409, "not-called"),
        ("/api/v1/returns/returns-0-99-0/release", &desk, 409, "not-held"),
        ("/api/v1/returns/returns-9-1-0/release", &desk, 404, "unknown-record"),
        ("/api/v1/returns/nonsense/release", &desk, 404, "unknown-record"),
        ("/api/v1/recounts/returns-0-99-0/close", &desk, 409, "no-such-recount"),
    ];
    for (path, key, status, code) in acts {
        let answer = post(at, path, Some(key), None, &reason);
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{path}: {}", answer.body);
    }
    let silent = post(at, "/api/v1/contests/mayor/close", Some(&desk), None, &json!({"reason": " "}));
    assert_eq!(silent.code(), "bad-body");
    let correction = json!({"reason": "typing error", "counts": counts});
    let unknown = post(at, "/api/v1/returns/returns-0-99-0/corrections", Some(&desk), None, &correction);
    assert_eq!(unknown.code(), "unknown-record");
    std::thread::sleep(std::time::Duration::from_millis(600));
    assert_eq!(all_results(at), before, "nothing was changed");
}

#[test]
fn a_retry_gets_the_same_receipt_and_a_second_vote_a_refusal() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut server = Server::start(&data, &["--election", &write_election(folder.path())]);
    let at = server.address.clone();
    let vote = |key, selections: Value| {
        let body = json!({"contest": "song", "selections": selections, "voter": "ann"});
        post(&at, "/api/v1/vote", None, Some(key), &body)
    };
    let first = vote("k1", json!(["x", "y"]));
    assert_eq!(first.status, 201);
    let again = vote("k1", json!(["y", "x"]));
    assert_eq!(
        (again.status, &again.body),
        (200, &first.body),
        "the same vote in another order is the same vote"
    );
    let other = vote("k1", json!(["z"]));
    assert_eq!((other.status, other.code().as_str()), (422, "key-reused"));
    let second = vote("k2", json!(["z"]));
    assert_eq!((second.status, second.code().as_str()), (409, "already-voted"));
    let record = first.json()["receipt"]["record"].clone();
    assert_eq!(second.json()["record"], record, "the refusal names the vote that counts");
    server.restart();
    let again = vote("k1", json!(["x", "y"]));
    assert_eq!((again.status, &again.body), (200, &first.body), "a restart forgets no receipt");
    assert_eq!(vote("k2", json!(["z"])).code(), "already-voted");
    let desk = add_key(&data, "desk", &["desk"]);
    let close = post(&at, "/api/v1/contests/song/close", Some(&desk), None, &json!({"reason": "time is up"}));
    assert_eq!(close.status, 201, "{}", close.body);
    eventually("the contest is closed", || {
        let body = json!({"contest": "song", "selections": ["x"], "voter": "bob"});
        (post(&at, "/api/v1/vote", None, Some("k"), &body).code() == "closed").then_some(())
    });
    assert_eq!(vote("k1", json!(["x", "y"])).body, first.body, "a late retry is still answered");
    let results = eventually("the closing is published", || {
        let results = get(&at, "/api/v1/results?contest=song");
        results.get("closed").is_some().then_some(results)
    });
    assert_eq!(results["selections"]["x"]["votes"], 1);
    assert_eq!(results["counts"]["ballots"], 1);
    assert_eq!(results["status"], "unofficial-complete");
}

#[test]
fn a_voter_is_shown_to_themselves_and_to_auditors_only() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = Server::start(&data, &["--election", &write_election(folder.path())]);
    let at = server.address.as_str();
    let (ann, bob) = (token(&data, "spring", "ann"), token(&data, "spring", "bob"));
    let auditor = add_key(&data, "audit", &["auditor"]);
    let source = add_key(&data, "source", &["source"]);
    let cast =
        post(at, "/api/v1/vote", Some(&ann), None, &json!({"contest": "bridge", "selections": ["yes"]}));
    assert_eq!(cast.status, 201, "{}", cast.body);
    let look = |bearer: &str| {
        let bearer = format!("Bearer {bearer}");
        raw(at, "GET", "/api/v1/votes/ann?contest=bridge", &[("authorization", &bearer)], b"")
    };
    for bearer in [&ann, &auditor] {
        let found = look(bearer).json();
        assert_eq!(found["votes"][0]["selections"], json!(["yes"]));
        assert_eq!(found["votes"][0]["record"], cast.json()["receipt"]["record"]);
    }
    assert_eq!(look(&bob).code(), "forbidden");
    assert_eq!(look(&source).code(), "forbidden");
    assert_eq!(raw(at, "GET", "/api/v1/votes/ann", &[], b"").code(), "key-missing");
    let journal = std::fs::read(data.join("journal/00000000000000000000.seg")).unwrap();
    assert!(!journal.windows(5).any(|w| w == b"\"ann\""), "the log holds no voter's name");
}

#[test]
fn a_folder_keeps_its_election() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let file = write_election(folder.path());
    Server::start(&data, &["--election", &file]).stop();
    let changed = |old: &str, new: &str| {
        std::fs::write(&file, ELECTION.replacen(old, new, 1)).unwrap();
        fails(&["serve", "--listen", "127.0.0.1:0", "--data", data.to_str().unwrap(), "--election", &file])
    };
    let message = changed("votes = 2", "votes = 4");
    assert!(
        message.contains("partitions") && message.contains("2 and 1") && message.contains("4 and 1"),
        "{message}"
    );
    let message = changed("name = \"Mayor\"", "name = \"Major\"");
    assert!(message.contains("differ in contests"), "{message}");
    let message = changed("is_test", "is_tset");
    assert!(message.contains("did you mean `is_test`"), "{message}");
    // Without a definition, the folder's own is counted on.
    let server = Server::start(&data, &[]);
    assert_eq!(get(&server.address, "/api/v1/election")["id"], "spring");
    let message = fails(&["serve", "--listen", "127.0.0.1:0", "--data", data.to_str().unwrap()]);
    assert!(
        message.contains("another process") || message.contains("in use") || message.contains("lock"),
        "{message}"
    );
    let empty = folder.path().join("empty");
    let message = fails(&["serve", "--listen", "127.0.0.1:0", "--data", empty.to_str().unwrap()]);
    assert!(message.contains("--election"), "{message}");
}

#[test]
fn options_are_flags_before_variables_before_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("canvass.toml");
    let with = |content: &str, variables: &[(&str, &str)], flags: &[&str]| {
        std::fs::write(&config, content).unwrap();
        let mut command = support::command();
        command.envs(variables.iter().copied());
        command.args(["serve", "--config", config.to_str().unwrap()]).args(flags);
        let output = command.output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    // Each election file that does not exist is named in the error, which tells where the value came from.
    let data = format!("data = \"{}\"\n", folder.path().join("d").display());
    let file = format!("{data}election = \"from-file\"\n");
    assert!(with(&file, &[], &[]).contains("from-file"));
    assert!(with(&file, &[("CANVASS_ELECTION", "from-variable")], &[]).contains("from-variable"));
    let both = with(&file, &[("CANVASS_ELECTION", "from-variable")], &["--election", "from-flag"]);
    assert!(both.contains("from-flag"), "{both}");
    assert!(with("elections = \"x\"\n", &[], &[]).contains("did you mean `election`"));
    assert!(with("", &[("CANVASS_LISTNE", "x")], &[]).contains("did you mean `CANVASS_LISTEN`"));
    assert!(with("tick_ms = 1\n", &[], &[]).contains("10..=60000"));
}
