//! A small election from its first vote to its last correction: every operation, every problem it can have, and
//! every field of every answer is seen, and fits the document.

use std::path::Path;
use std::time::Duration;

use canvass_protocol::patch;
use serde_json::{Value, json};

use crate::node::Node;
use crate::probe::Probe;
use crate::support::{Server, add_key, eventually, raw, run, token};

const ELECTION: &str = include_str!("election.toml");

/// What a full disk, too much work, a body that breaks off a moment just before a checkpoint or a witness would be
/// needed for; other tests see to all but the third.
const NOT_PROVOKED: &[&str] = &[
    "overloaded",
    "log-unavailable",
    "rate-limited",
    "not-published",
    // What a cluster alone says.
    "202",
    "#/components/schemas/Accepted/outcome=recorded",
    "#/components/schemas/AcceptedLine/outcome=recorded",
    "#/components/schemas/ProofState/quorum",
    "#/components/schemas/ProofState/witnesses/*",
    "#/components/schemas/ProofState/witnesses/*/signed",
];

/// The keys and tokens of those who take part.
struct People {
    desk: String,
    second: String,
    source: String,
    collector: String,
    auditor: String,
    monitor: String,
    ann: String,
    bob: String,
    foreign: String,
    expired: String,
}

impl People {
    fn new(data: &Path) -> Self {
        let folder = data.to_str().unwrap();
        let issue =
            ["token", "issue", "--data", folder, "--audience", "spring", "--voter", "ann", "--hours", "0"];
        People {
            desk: add_key(data, "the desk", &["desk", "source"]),
            second: add_key(data, "the desk's second", &["desk"]),
            source: add_key(data, "county board", &["source"]),
            collector: add_key(data, "hall", &["collector"]),
            auditor: add_key(data, "audit", &["auditor"]),
            monitor: add_key(data, "prometheus", &["monitor"]),
            ann: token(data, "spring", "ann"),
            bob: token(data, "spring", "bob"),
            foreign: token(data, "autumn", "ann"),
            expired: run(&issue).trim().to_owned(),
        }
    }
}

#[test]
fn every_answer_fits_the_document() {
    let folder = tempfile::tempdir().unwrap();
    let (file, data) = (folder.path().join("election.toml"), folder.path().join("data"));
    std::fs::write(&file, ELECTION).unwrap();
    std::fs::write(folder.path().join("mayor.csv"), "unit,votes:a,votes:b\nstate,110,120\n").unwrap();
    let mut node = Node::start();
    let contract = deploy(&node, &data);
    let options = ["--election", file.to_str().unwrap(), "--tick-ms", "20"];
    let rpc = node.url();
    let chain = ["--anchor-rpc", &rpc, "--anchor-contract", &contract, "--anchor-seconds", "1"];
    let server = Server::start(&data, &[&options[..], &chain].concat());
    let people = People::new(&data);
    let mut probe = Probe::new(&server.address);
    let served: Value = probe.get("200", "/api/openapi.json").json();
    assert_eq!(served, probe.document.0);
    probe.get("200", "/livez");
    probe.get("200", "/readyz");
    until(&mut probe, "/api/v1/proof", |state| state.get("checkpoint").is_some());
    anchors(&mut probe, &mut node);
    reads_of_nothing(&mut probe);
    who_may_not(&mut probe, &people);
    metrics(&mut probe, &people);
    votes(&mut probe, &people);
    // The token that was good for no time expires with its second.
    std::thread::sleep(Duration::from_millis(1_100));
    refused_votes(&mut probe, &people);
    batches_of_votes(&mut probe, &people);
    voters(&mut probe, &people);
    let standing = returns(&mut probe, &people);
    let held = holds(&mut probe, &people);
    corrections(&mut probe, &people, &standing);
    recounts(&mut probe, &people, &held);
    contests(&mut probe, &people);
    proofs(&mut probe);
    past(&mut probe);
    streams(&mut probe, &people);
    clocks(&mut probe, &people, folder.path());
    let missing = probe.not_seen();
    let provoked = |line: &&String| {
        let last = line.rsplit(' ').next().unwrap();
        !NOT_PROVOKED.contains(&last) && line.as_str() != "castVotes bad-json"
    };
    let missing: Vec<_> = missing.iter().filter(provoked).collect();
    assert!(missing.is_empty(), "no answer has shown {missing:#?}");
}

/// Reads until the answer is as it should be; the board publishes a little after a record is confirmed.
fn until(probe: &mut Probe, path: &str, done: impl Fn(&Value) -> bool) -> Value {
    eventually(path, || Some(probe.get("200", path).json()).filter(&done))
}

/// Makes a contract with the key of an account that has money on each of these chains.
fn deploy(node: &Node, data: &Path) -> String {
    std::fs::create_dir_all(data).unwrap();
    let key = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";
    std::fs::write(data.join("anchor.secret"), key).unwrap();
    let args = ["anchor", "deploy", "--data", data.to_str().unwrap(), "--anchor-rpc", &node.url()];
    let contract = run(&args).trim().to_owned();
    node.automatic(false);
    contract
}

/// An anchor on its way, and a chain that is away.
fn anchors(probe: &mut Probe, node: &mut Node) {
    for stage in ["pending", "included", "finalised"] {
        let at = |head: &Value| head["stage"] == stage;
        until(probe, "/api/v1/proof", |state| state["anchors"]["heads"].as_array().unwrap().iter().any(at));
        node.mine(if stage == "pending" { 1 } else { 3 });
    }
    node.end();
    until(probe, "/api/v1/proof", |state| state["anchors"].get("trouble").is_some());
}

fn status_is(probe: &mut Probe, path: &str, status: &str) -> Value {
    until(probe, path, |results| results["status"] == status)
}

fn reads_of_nothing(probe: &mut Probe) {
    probe.get("200", "/api/v1/election");
    status_is(probe, "/api/v1/results?contest=mayor&by=leaf", "pre-election");
    until(probe, "/api/v1/results?contest=mayor", |r| r["projection"]["not_yet"] == "too-little");
    for path in ["/api/v1/results?contest=mayor&by=leaf", "/api/v1/election", "/api/openapi.json"] {
        let etag = probe.get("200", path).header("etag").unwrap().to_owned();
        probe.send("304", ("GET", path), &[("if-none-match", &etag)], b"");
    }
    let lists = ["/api/v1/corrections", "/api/v1/units/e1/history", "/api/v1/contests/mayor/timeline"];
    for path in lists {
        let etag = probe.get("200", path).header("etag").unwrap().to_owned();
        probe.send("304", ("GET", path), &[("if-none-match", &etag)], b"");
        probe.get("400 bad-parameter", &format!("{path}?colour=red"));
    }
    for path in ["/api/v1/results", "/api/v1/snapshots/1:1", "/api/v1/events", "/api/v1/stream"] {
        probe.get("400 bad-parameter", &format!("{path}?contest=mayor&colour=red"));
        probe.get("404 unknown-contest", &format!("{path}?contest=mayors"));
        probe.get("404 unknown-unit", &format!("{path}?contest=mayor&unit=e9"));
    }
    probe.get("404 unknown-contest", "/api/v1/corrections?contest=mayors");
    probe.get("404 unknown-contest", "/api/v1/units/e1/history?contest=mayors");
    probe.get("404 unknown-unit", "/api/v1/units/e9/history");
    probe.get("400 bad-parameter", "/api/v1/units/%FF/history");
    probe.get("404 unknown-contest", "/api/v1/contests/mayors/timeline");
    probe.get("404 unknown-unit", "/api/v1/contests/mayor/timeline?unit=e9");
    probe.get("404 unknown-snapshot", "/api/v1/results?contest=mayor&at=1:1");
    probe.get("404 unknown-snapshot", "/api/v1/snapshots/1:1?contest=mayor");
    probe.get("400 bad-header", "/api/v1/stream?contest=mayor");
}

/// What every operation that needs a key says to those who have none, and to bodies that are none.
fn who_may_not(probe: &mut Probe, people: &People) {
    let keyed: Vec<(String, String, bool)> = probe
        .document
        .operations()
        .into_iter()
        .filter(|op| op.needs_key())
        .map(|op| {
            let path = op.path.replace("{record}", "returns-0-999-0").replace("{id}", "mayor");
            (op.method.to_uppercase(), path, op.value.get("requestBody").is_some())
        })
        .collect();
    assert!(keyed.len() > 12);
    let json = ("content-type", "application/json");
    for (method, path, has_body) in &keyed {
        let at = (method.as_str(), path.as_str());
        let with = |credential: &str| ("authorization".to_owned(), credential.to_owned());
        probe.send("401 key-missing", at, &[json], b"{}");
        for (expected, (name, value)) in [
            ("400 bad-header", with("Basic abc")),
            ("401 key-invalid", with("Bearer cvk_0")),
            ("403 forbidden", with(&format!("Bearer {}", people.collector))),
        ] {
            probe.send(expected, at, &[json, (&name, &value)], b"{}");
        }
        if *has_body {
            let key = format!("Bearer {}", people.desk);
            let bearer = ("authorization", key.as_str());
            probe.send("400 bad-json", at, &[json, bearer], b"{");
            probe.send("422 bad-body", at, &[json, bearer], b"{}");
            probe.send("413 body-too-large", at, &[json, bearer], &[b' '; 300_000]);
            probe.send("415 unsupported-media-type", at, &[("content-type", "text/plain"), bearer], b"{}");
        }
    }
}

/// Sends an event, sends it again, and sends another under its key; returns its record.
fn thrice(probe: &mut Probe, path: &str, bearer: &str, (body, other): (Value, Value)) -> String {
    let key = format!("{path} {body}");
    let first = probe.post("201", path, bearer, &key, &body);
    assert_eq!(probe.post("200", path, bearer, &key, &body), first);
    let reused = probe.post("422 key-reused", path, bearer, &key, &other);
    assert_eq!(reused["record"], first["receipt"]["record"]);
    first["receipt"]["record"].as_str().unwrap().to_owned()
}

fn vote(contest: &str, selection: &str, voter: &str) -> Value {
    json!({"contest": contest, "selections": [selection], "voter": voter})
}

fn votes(probe: &mut Probe, people: &People) {
    let path = "/api/v1/vote";
    thrice(probe, path, "", (vote("song", "x", "v1"), vote("song", "y", "v1")));
    let second = probe.post("409 already-voted", path, "", "k2", &vote("song", "y", "v1"));
    assert!(second["record"].is_string());
    let bridge = json!({"contest": "bridge", "selections": ["yes"]});
    probe.post("201", path, &people.ann, "k", &bridge);
    let in_body = json!({"contest": "bridge", "selections": ["no"], "token": people.bob, "key": "k"});
    probe.post("201", path, "", "", &in_body);
    probe.post("201", path, &people.collector, "k", &vote("bridge", "yes", "carl"));
    for key in ["k1", "k2"] {
        probe.post("201", path, "", key, &vote("twice", "x", "v1"));
        probe.post("201", path, "", key, &vote("again", "x", "v1"));
    }
    probe.post("409 votes-used-up", path, "", "k3", &vote("twice", "x", "v1"));
    probe.post("400 idempotency-key-required", path, "", "", &vote("again", "x", "v2"));
    let reason = json!({"reason": "the count is over"});
    probe.post("201", "/api/v1/contests/again/certify", &people.desk, "new", &reason);
    probe.post("409 certified", path, "", "k", &vote("again", "x", "v3"));
    status_is(probe, "/api/v1/results?contest=again", "certified");
}

fn refused_votes(probe: &mut Probe, people: &People) {
    let path = "/api/v1/vote";
    let nameless = json!({"contest": "bridge", "selections": ["yes"]});
    let rows = [
        ("401 token-missing", "", nameless.clone()),
        ("401 token-invalid", "nonsense", nameless.clone()),
        ("401 token-expired", &people.expired, nameless.clone()),
        ("403 token-foreign", &people.foreign, nameless),
        ("401 key-invalid", "cvk_0", vote("song", "x", "v")),
        ("403 forbidden", &people.source, vote("song", "x", "v")),
        ("404 unknown-contest", "", vote("songs", "x", "v")),
        ("409 not-open", "", vote("early", "x", "v")),
        ("409 closed", "", vote("late", "x", "v")),
        ("422 wrong-counting", "", vote("mayor", "a", "v")),
        ("422 unknown-selection", "", vote("song", "w", "v")),
        ("422 bad-choices", "", json!({"contest": "song", "selections": ["x", "y"], "voter": "v"})),
        ("422 bad-body", "", json!({"contest": "song", "selections": ["x"], "voter": ""})),
        ("422 bad-body", "", json!({"contest": "song", "selections": ["x"], "voter": "v", "colour": "red"})),
    ];
    for (expected, bearer, body) in rows {
        probe.post(expected, path, bearer, "k", &body);
    }
    let json = ("content-type", "application/json");
    let at = ("POST", path);
    probe.send("400 bad-json", at, &[json], b"vote!");
    probe.send("400 bad-header", at, &[json, ("authorization", "Basic abc")], b"{}");
    probe.send("413 body-too-large", at, &[json], &[b' '; 9_000]);
    probe.send("415 unsupported-media-type", at, &[("content-type", "text/plain")], b"{}");
}

fn batches_of_votes(probe: &mut Probe, people: &People) {
    let line = |voter: &str, selection: &str, key: &str| json!({"contest": "song", "selections": [selection], "voter": voter, "key": key});
    let lines =
        [line("v2", "y", "k"), line("v2", "y", "k"), line("v1", "y", "other"), json!({"voter": "v3"})];
    let answers = probe.batch("/api/v1/votes", &people.collector, &lines);
    let statuses: Vec<&Value> = answers.iter().map(|a| &a["status"]).collect();
    assert_eq!(json!(statuses), json!([201, 200, 409, 422]));
    let at = ("POST", "/api/v1/votes");
    let ndjson = ("content-type", "application/x-ndjson");
    probe.send("400 bad-header", at, &[ndjson, ("authorization", "Basic abc")], b"");
    probe.send("401 key-invalid", at, &[ndjson, ("authorization", "Bearer cvk_0")], b"");
    let source = format!("Bearer {}", people.source);
    probe.send("403 forbidden", at, &[ndjson, ("authorization", &source)], b"");
    probe.send("413 body-too-large", at, &[ndjson], "{}\n".repeat(10_001).as_bytes());
    probe.send("415 unsupported-media-type", at, &[("content-type", "text/plain")], b"");
}

/// A record of the first minute has a proof by now; one that the log does not have has none.
fn proofs(probe: &mut Probe) {
    let path = "/api/v1/receipts/returns-0-0-0/proof";
    assert!(probe.get("200", path).body.starts_with("c2sp.org/tlog-proof@v1\nextra "));
    for record in ["returns-0-99999-0", "returns-0-0-9", "votes-9-0-0", "record"] {
        probe.get("404 unknown-record", &format!("/api/v1/receipts/{record}/proof"));
    }
}

fn metrics(probe: &mut Probe, people: &People) {
    assert!(probe.get_as("200", "/metrics", &people.monitor).body.ends_with("# EOF\n"));
    probe.get("401 key-missing", "/metrics");
    probe.get_as("401 key-invalid", "/metrics", "cvk_nobody");
    probe.get_as("403 forbidden", "/metrics", &people.auditor);
    probe.send("400 bad-header", ("GET", "/metrics"), &[("authorization", "Basic abc")], b"");
}

fn voters(probe: &mut Probe, people: &People) {
    let (path, one) = ("/api/v1/votes/ann", "/api/v1/votes/ann?contest=bridge");
    for bearer in [&people.ann, &people.auditor] {
        assert_eq!(probe.get_as("200", path, bearer).json()["votes"][0]["selections"], json!(["yes"]));
    }
    probe.get("401 key-missing", path);
    probe.send("400 bad-header", ("GET", path), &[("authorization", "Basic abc")], b"");
    probe.get_as("400 bad-parameter", "/api/v1/votes/ann?colour=red", &people.ann);
    probe.get_as("404 unknown-contest", "/api/v1/votes/ann?contest=bridges", &people.ann);
    for (expected, bearer) in [
        ("401 key-invalid", "cvk_0"),
        ("401 token-invalid", "nonsense"),
        ("401 token-expired", &people.expired),
        ("403 token-foreign", &people.foreign),
        ("403 forbidden", &people.bob),
    ] {
        probe.get_as(expected, one, bearer);
    }
}

fn counts(a: u64, b: u64) -> Value {
    json!({"votes": {"a": a, "b": b}, "overvotes": 1, "undervotes": 2, "ballots": a + b + 3})
}

fn report(contest: &str, unit: &str, count_type: &str, counts: &Value) -> Value {
    json!({"contest": contest, "unit": unit, "count_type": count_type, "counts": counts})
}

/// States a sum, which holds the return where it is wrong.
fn with_total(mut report: Value, total: u64) -> Value {
    report["total"] = json!(total);
    report
}

/// What is wrong with a return, wherever it is sent.
fn refused_returns(probe: &mut Probe, path: &str, bearer: &str) {
    let good = counts(1, 2);
    let rows = [
        ("404 unknown-contest", report("mayors", "e1", "early", &good)),
        ("404 unknown-unit", report("mayor", "e9", "early", &good)),
        ("422 wrong-counting", report("song", "e1", "total", &good)),
        ("422 unknown-count-type", report("mayor", "e1", "total", &good)),
        (
            "422 unknown-selection",
            report("mayor", "e1", "early", &json!({"votes": {"a": 1, "b": 2, "c": 3}})),
        ),
        ("422 bad-counts", report("mayor", "e1", "early", &json!({"votes": {"a": 1}}))),
    ];
    for (expected, body) in rows {
        probe.post(expected, path, bearer, "", &body);
    }
}

/// Every unit reports; returns the record of unit e1's early count.
fn returns(probe: &mut Probe, people: &People) -> String {
    let (path, source) = ("/api/v1/returns", people.source.as_str());
    refused_returns(probe, path, source);
    let bodies =
        (report("mayor", "e1", "early", &counts(40, 30)), report("mayor", "e1", "early", &counts(41, 30)));
    let standing = thrice(probe, path, source, bodies);
    status_is(probe, "/api/v1/results?contest=mayor", "unofficial-partial");
    until(probe, "/api/v1/results?contest=mayor", |r| r["projection"]["margin"].is_object());
    let mut lines = Vec::new();
    for unit in ["e1", "e2", "w1"] {
        let early = (unit != "e1").then_some("early");
        for count_type in ["election-day", "absentee", "provisional"].into_iter().chain(early) {
            lines.push(report("mayor", unit, count_type, &counts(10, 20)));
        }
    }
    lines.push(report("mayor", "e9", "early", &counts(1, 1)));
    lines.push(with_total(report("judge", "w1", "total", &json!({"votes": {"a": 1, "b": 2, "c": 2}})), 7));
    let answers = probe.batch(path, source, &lines);
    assert!(answers[..11].iter().all(|a| a["status"] == 201 && a["outcome"] == "counted"));
    assert_eq!(answers[11]["problem"]["code"], "unknown-unit");
    assert_eq!(answers[12]["outcome"], "held");
    status_is(probe, "/api/v1/results?contest=mayor", "unofficial-complete");
    until(probe, "/api/v1/results?contest=mayor", |r| r["projection"]["not_yet"] == "complete");
    standing
}

/// Returns that break a rule, and what the desk does with them; returns one that still waits.
fn holds(probe: &mut Probe, people: &People) -> String {
    let path = "/api/v1/returns";
    let held = |probe: &mut Probe, a: u64| {
        let body = report("mayor", "e2", "early", &json!({"votes": {"a": a, "b": 1}}));
        let body = with_total(body, 7);
        let answer = probe.post("201", path, &people.source, "", &body);
        assert_eq!(answer["outcome"], "held");
        answer["receipt"]["record"].as_str().unwrap().to_owned()
    };
    let records = [1, 2, 3, 4].map(|a| held(probe, a));
    probe.get_as("200", "/api/v1/held", &people.auditor);
    let answer = |act: &str, record: &str| format!("{path}/{record}/{act}");
    let reasons = || (json!({"reason": "checked by telephone"}), json!({"reason": "another reason"}));
    thrice(probe, &answer("release", &records[1]), &people.desk, reasons());
    thrice(probe, &answer("reject", &records[2]), &people.desk, reasons());
    let body = reasons().0;
    probe.post("409 superseded", &answer("release", &records[0]), &people.desk, "", &body);
    for act in ["release", "reject"] {
        probe.post("409 not-held", &answer(act, &records[1]), &people.desk, "new", &body);
        probe.post("404 unknown-record", &answer(act, "returns-9-0-0"), &people.desk, "", &body);
    }
    let judge = report("judge", "w1", "total", &json!({"votes": {"a": 1, "b": 2, "c": 3}}));
    let judge = with_total(judge, 7);
    let judge = probe.post("201", path, &people.source, "", &judge)["receipt"]["record"].clone();
    probe.post("201", "/api/v1/contests/judge/certify", &people.desk, "new", &body);
    let certified = answer("release", judge.as_str().unwrap());
    probe.post("409 certified", &certified, &people.desk, "", &body);
    let late = report("judge", "w1", "total", &json!({"votes": {"a": 1, "b": 2, "c": 3}}));
    probe.post("409 certified", path, &people.source, "new", &late);
    records[3].clone()
}

fn corrections(probe: &mut Probe, people: &People, standing: &str) {
    let path = format!("/api/v1/returns/{standing}/corrections");
    let correct = |reason: &str, counts: &Value| json!({"reason": reason, "counts": counts});
    let bad = [
        ("422 unknown-selection", json!({"votes": {"a": 1, "b": 2, "c": 3}})),
        ("422 bad-counts", json!({"votes": {"a": 1}})),
    ];
    for (expected, counts) in bad {
        probe.post(expected, &path, &people.source, "", &correct("typing error", &counts));
    }
    let bodies = (correct("typing error", &counts(38, 30)), correct("another", &counts(38, 30)));
    let record = thrice(probe, &path, &people.source, bodies);
    let again = correct("typing error", &counts(37, 30));
    probe.post("409 not-standing", &path, &people.source, "new", &again);
    let unknown = "/api/v1/returns/returns-0-999-0/corrections";
    probe.post("404 unknown-record", unknown, &people.source, "", &again);
    let row = until(probe, "/api/v1/corrections?contest=mayor", |page| page["total"] == 1);
    assert_eq!(row["corrections"][0]["record"], record.as_str());
    assert_eq!(row["corrections"][0]["corrects"], standing);
}

fn recounts(probe: &mut Probe, people: &People, held: &str) {
    let path = "/api/v1/recounts";
    let open =
        |contest: &str, unit: &str, reason: &str| json!({"contest": contest, "unit": unit, "reason": reason});
    let rows = [
        ("404 unknown-contest", open("mayors", "e1", "close")),
        ("404 unknown-unit", open("mayor", "e9", "close")),
        ("422 wrong-counting", open("song", "state", "close")),
        ("409 certified", open("judge", "w1", "close")),
    ];
    for (expected, body) in rows {
        probe.post(expected, path, &people.desk, "", &body);
    }
    let bodies = (open("mayor", "east", "close"), open("mayor", "east", "another reason"));
    let recount = thrice(probe, path, &people.desk, bodies);
    probe.post("409 recount-open", path, &people.desk, "", &open("mayor", "e1", "close"));
    let returns = format!("{path}/{recount}/returns");
    refused_returns(probe, &returns, &people.source);
    let good = |unit: &str, a: u64| report("mayor", unit, "early", &counts(a, 30));
    probe.post("422 outside-recount", &returns, &people.source, "", &good("w1", 1));
    for (expected, record) in
        [("409 no-such-recount", "returns-0-999-0"), ("404 unknown-record", "returns-9-0-0")]
    {
        probe.post(expected, &format!("{path}/{record}/returns"), &people.source, "", &good("e1", 39));
        let close = format!("{path}/{record}/close");
        probe.post(expected, &close, &people.desk, "", &json!({"reason": "done"}));
    }
    thrice(probe, &returns, &people.source, (good("e1", 39), good("e1", 36)));
    let lines = probe.batch(&returns, &people.source, &[good("e2", 2)]);
    assert_eq!(lines[0]["outcome"], "counted");
    until(probe, "/api/v1/results?contest=mayor", |r| r["provisional"]["selections"]["a"]["votes"] == 141);
    status_is(probe, "/api/v1/results?contest=mayor", "recount");
    let record = until(probe, "/api/v1/corrections", |p| p["total"] == 1)["corrections"][0]["record"].clone();
    let correct = format!("/api/v1/returns/{}/corrections", record.as_str().unwrap());
    let body = json!({"reason": "typing error", "counts": counts(1, 1)});
    probe.post("409 recount-open", &correct, &people.source, "", &body);
    // A later number than that of the release that stands, so that only the recount is in its way.
    probe.post(
        "409 recount-open",
        &format!("/api/v1/returns/{held}/release"),
        &people.desk,
        "",
        &json!({"reason": "fine"}),
    );
    probe.post(
        "409 recount-open",
        "/api/v1/contests/mayor/certify",
        &people.desk,
        "new",
        &json!({"reason": "done"}),
    );
    let closing = (json!({"reason": "done"}), json!({"reason": "another"}));
    thrice(probe, &format!("{path}/{recount}/close"), &people.desk, closing);
    status_is(probe, "/api/v1/results?contest=mayor", "unofficial-complete");
}

fn contests(probe: &mut Probe, people: &People) {
    let act = |act: &str, id: &str| format!("/api/v1/contests/{id}/{act}");
    let desk = people.desk.as_str();
    let reasons = || (json!({"reason": "time is up"}), json!({"reason": "another reason"}));
    let call = |winner: Value, reason: &str| json!({"winners": winner, "reason": reason});
    probe.post("422 unknown-selection", &act("call", "mayor"), desk, "", &call(json!(["c"]), "clear"));
    probe.post("422 bad-choices", &act("call", "mayor"), desk, "", &call(json!(["a", "b"]), "clear"));
    probe.post("404 unknown-contest", &act("call", "mayors"), desk, "", &call(json!(["a"]), "clear"));
    calls(probe, people);
    for way in ["close", "certify", "uncall"] {
        probe.post("404 unknown-contest", &act(way, "mayors"), desk, "", &reasons().0);
    }
    thrice(probe, &act("close", "mayor"), desk, reasons());
    probe.post("409 already-closed", &act("close", "mayor"), desk, "new", &reasons().0);
    thrice(probe, &act("certify", "mayor"), desk, reasons());
    probe.post("409 certified", &act("certify", "mayor"), desk, "new", &reasons().0);
    status_is(probe, "/api/v1/results?contest=mayor&unit=east&by=leaf", "certified");
    let events = until(probe, "/api/v1/units/w1/history", |page| page["total"].as_u64() > Some(5));
    let standing = events["events"].as_array().unwrap().iter().find(|e| e["kind"] == "returned").unwrap();
    let path = format!("/api/v1/returns/{}/corrections", standing["record"].as_str().unwrap());
    let body = json!({"reason": "found in the safe", "counts": counts(11, 20)});
    probe.post("201", &path, desk, "", &body);
    status_is(probe, "/api/v1/results?contest=mayor", "correction");
    for unit in ["e1", "e2", "w1"] {
        probe.get("200", &format!("/api/v1/units/{unit}/history?limit=1000&offset=0"));
    }
}

/// A call and its end, each by two people.
fn calls(probe: &mut Probe, people: &People) {
    let act = |act: &str, id: &str| format!("/api/v1/contests/{id}/{act}");
    let answer = |act: &str, proposal: &str| format!("/api/v1/calls/{proposal}/{act}");
    let (desk, second) = (people.desk.as_str(), people.second.as_str());
    let reasons = || (json!({"reason": "looked at"}), json!({"reason": "looked at again"}));
    let call = |winner: &str| json!({"winners": [winner], "reason": "clear"});
    let (mayor, propose) = (act("call", "mayor"), |act: &str| format!("/api/v1/contests/mayor/{act}"));
    for held in probe.get_as("200", "/api/v1/held", desk).json()["held"].as_array().unwrap() {
        let path = format!("/api/v1/returns/{}/reject", held["record"].as_str().unwrap());
        probe.post("201", &path, desk, &path, &reasons().0);
    }
    let proposal = thrice(probe, &mayor, desk, (call("b"), call("a")));
    let open = probe.post("409 proposal-open", &mayor, second, "", &call("a"));
    assert_eq!(open["record"], json!(proposal));
    thrice(probe, &answer("drop", &proposal), desk, reasons());
    for way in ["drop", "confirm"] {
        probe.post("409 no-such-proposal", &answer(way, &proposal), second, "new", &reasons().0);
        probe.post("404 unknown-record", &answer(way, "returns-0-0-0"), second, "", &reasons().0);
    }
    let proposal = probe.post("201", &mayor, desk, "again", &call("a"));
    let proposal = proposal["receipt"]["record"].as_str().unwrap().to_owned();
    probe.post("403 same-person", &answer("confirm", &proposal), desk, "", &reasons().0);
    // While a return is held there is no call, neither proposed nor confirmed.
    let lower = report("mayor", "e1", "early", &counts(0, 1));
    let held = probe.post("201", "/api/v1/returns", &people.source, "lower", &lower);
    assert_eq!(held["outcome"], "held");
    let held = held["receipt"]["record"].as_str().unwrap();
    let refused = probe.post("409 hold-open", &answer("confirm", &proposal), second, "early", &reasons().0);
    assert_eq!(refused["record"], json!(held));
    probe.post("409 hold-open", &mayor, second, "", &call("a"));
    probe.post("201", &format!("/api/v1/returns/{held}/reject"), desk, "lower", &reasons().0);
    thrice(probe, &answer("confirm", &proposal), second, reasons());
    let called = until(probe, "/api/v1/results?contest=mayor", |r| r["called"]["winners"] == json!(["a"]));
    assert_eq!(called["called"]["proposed_by"], "the desk");
    assert_eq!(called["called"]["confirmed_by"], "the desk's second");
    probe.post("409 already-called", &mayor, desk, "", &call("b"));
    let end = thrice(probe, &propose("uncall"), second, reasons());
    probe.post("409 proposal-open", &propose("uncall"), desk, "", &reasons().0);
    probe.post("403 same-person", &answer("confirm", &end), second, "", &reasons().0);
    probe.post("201", &answer("confirm", &end), desk, "", &reasons().0);
    probe.post("409 not-called", &propose("uncall"), desk, "new", &reasons().0);
    probe.post(
        "409 certified",
        &act("call", "again"),
        desk,
        "",
        &json!({"winners": ["x"], "reason": "late"}),
    );
    // What is certified meanwhile is not called any more.
    let proposal =
        probe.post("201", &act("call", "twice"), desk, "", &json!({"winners": ["x"], "reason": "early"}));
    probe.post("201", &act("certify", "twice"), desk, "", &reasons().0);
    let proposal = proposal["receipt"]["record"].as_str().unwrap();
    probe.post("409 certified", &answer("confirm", proposal), second, "", &reasons().0);
}

/// Past results are those that readers saw.
fn past(probe: &mut Probe) {
    let now = probe.get("200", "/api/v1/results?contest=mayor");
    let number = format!("{}:{}", now.json()["epoch"], now.json()["seq"]);
    let path = format!("/api/v1/snapshots/{number}?contest=mayor");
    let snapshot = probe.get("200", &path);
    assert_eq!(snapshot.body, now.body);
    let etag = snapshot.header("etag").unwrap().to_owned();
    probe.send("304", ("GET", &path), &[("if-none-match", &etag)], b"");
    assert_eq!(probe.get("200", &format!("/api/v1/results?contest=mayor&at={number}")).body, now.body);
    let time = now.json()["time"].as_str().unwrap().to_owned();
    let then: Value = probe.get("200", &format!("/api/v1/results?contest=mayor&at={time}")).json();
    assert_eq!((&then["selections"], &then["watermark"]), (&now.json()["selections"], &json!({})));
    let timeline = "/api/v1/contests/mayor/timeline?unit=east&step=100ms";
    assert!(!probe.get("200", timeline).json()["points"].as_array().unwrap().is_empty());
}

/// The document that frames lead to has the same bytes as the one that is asked for.
fn follow(document: &mut Value, frame: &Value) {
    match frame["type"].as_str().unwrap() {
        "snapshot" => *document = frame["data"].clone(),
        "delta" => {
            assert_eq!(document["seq"], frame["from"]);
            patch::apply(document, frame["patch"].clone());
            assert_eq!(document["seq"], frame["to"]);
        }
        _ => {}
    }
}

fn streams(probe: &mut Probe, people: &People) {
    let mut events = probe.events("/api/v1/events?contest=bridge", None);
    let mut socket = probe.socket("/api/v1/stream?contest=bridge");
    let (mut by_events, mut by_socket) = (Value::Null, Value::Null);
    for _ in ["hello", "snapshot"] {
        follow(&mut by_events, &events.event(probe));
        follow(&mut by_socket, &socket.message(probe));
    }
    let before = by_events.clone();
    let body = json!({"contest": "bridge", "selections": ["no"], "voter": "dora"});
    probe.post("201", "/api/v1/vote", &people.collector, "k", &body);
    follow(&mut by_events, &events.event(probe));
    follow(&mut by_socket, &socket.message(probe));
    let now = probe.get("200", "/api/v1/results?contest=bridge");
    assert_eq!((by_events.to_string(), by_socket.to_string()), (now.body.clone(), now.body.clone()));
    let at = |document: &Value, seq: u64| format!("{}:{seq}", document["epoch"]);
    let kinds = |probe: &mut Probe, from: String, n: usize| -> Vec<String> {
        let mut events = probe.events("/api/v1/events?contest=bridge", Some(&from));
        (0..n).map(|_| events.event(probe)["type"].as_str().unwrap().to_owned()).collect()
    };
    let before_seq = before["seq"].as_u64().unwrap();
    assert_eq!(kinds(probe, at(&before, before_seq), 2), ["hello", "delta"]);
    assert_eq!(kinds(probe, at(&before, 999_999), 3), ["hello", "reset", "snapshot"]);
    assert_eq!(kinds(probe, "1:1".to_owned(), 3), ["hello", "reset", "snapshot"]);
}

/// The clock of a rehearsal can be set; that of an election cannot.
fn clocks(probe: &mut Probe, people: &People, folder: &Path) {
    probe.get("200", "/api/v1/clock");
    let desk = format!("Bearer {}", people.desk);
    let headers = [("content-type", "application/json"), ("authorization", desk.as_str())];
    let body = br#"{"now":"2199-01-02T01:00:00+01:00"}"#;
    let set = probe.send("200", ("PUT", "/api/v1/clock"), &headers, body).json();
    assert_eq!(set["now"], "2199-01-02T00:00:00.000Z");
    let (file, data) = (folder.join("real.toml"), folder.join("real"));
    std::fs::write(&file, ELECTION.replace("is_test = true", "is_test = false")).unwrap();
    let desk = add_key(&data, "the desk", &["desk"]);
    let real = Server::start(&data, &["--election", file.to_str().unwrap()]);
    let rehearsal = std::mem::replace(&mut probe.address, real.address.clone());
    let desk = format!("Bearer {desk}");
    let headers = [("content-type", "application/json"), ("authorization", desk.as_str())];
    probe.send("409 not-a-rehearsal", ("PUT", "/api/v1/clock"), &headers, body);
    let other = raw(&real.address, "DELETE", "/api/v1/clock", &[], b"");
    assert_eq!((other.status, other.code().as_str()), (405, "method-not-allowed"));
    let problem = &probe.document.0["components"]["schemas"]["Problem"];
    assert_eq!(probe.document.faults(problem, &other.json()), Vec::<String>::new());
    probe.address = rehearsal;
}
