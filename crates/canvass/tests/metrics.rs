//! What `/metrics` says of a server that was used, read by Prometheus' own client library for Python.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use canvass_loadgen::bench::ingest;
use serde_json::{Value, json};
use support::{Server, add_key, eventually, post, raw};

const ELECTION: &str = r#"
id = "evening"
name = "Evening"
is_test = true
partitions = { votes = 2, returns = 1 }
[[units]]
id = "town"
name = "Town"
[[units]]
id = "ward"
name = "Ward"
parent = "town"
[[contests]]
id = "mayor"
name = "Mayor"
kind = "single-choice"
counting = "returns"
selections = [{ id = "ash", name = "Ash" }, { id = "birch", name = "Birch" }]
[[contests]]
id = "song"
name = "Song"
kind = "audience-poll"
counting = "votes"
eligibility = "open"
selections = [{ id = "x", name = "X" }, { id = "y", name = "Y" }]
"#;

/// Reads the page as strictly as its format says: one JSON object for every family, with its samples.
const READER: &str = "
import json, sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families
for family in text_string_to_metric_families(sys.stdin.read()):
    samples = [[s.name, s.labels, s.value] for s in family.samples]
    print(json.dumps({'name': family.name, 'type': family.type, 'unit': family.unit, 'help': family.documentation, 'samples': samples}))
";

/// The families of a page by name.
struct Page(BTreeMap<String, Value>);

impl Page {
    fn read(text: &str) -> Self {
        let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/tlog/python/.venv/bin/python");
        assert!(python.exists(), "this test needs prometheus-client: run scripts/tools");
        let mut reader = Command::new(python);
        let mut reader =
            reader.args(["-c", READER]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        reader.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let read = reader.wait_with_output().unwrap();
        assert!(read.status.success(), "not OpenMetrics: {text}");
        let families = String::from_utf8(read.stdout).unwrap();
        let families = families.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        Page(families.map(|family| (family["name"].as_str().unwrap().to_owned(), family)).collect())
    }

    fn of(server: &Server, key: &str) -> Self {
        let bearer = format!("Bearer {key}");
        let answer = raw(&server.address, "GET", "/metrics", &[("authorization", &bearer)], b"");
        assert_eq!(answer.status, 200, "{}", answer.body);
        let media_type = answer.header("content-type").unwrap();
        assert_eq!(media_type, "application/openmetrics-text; version=1.0.0; charset=utf-8");
        Self::read(&answer.body)
    }

    /// The sum of a family's samples of this name that have all these labels; none where there is no such sample.
    fn sum(&self, sample: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let all = self.0.values().flat_map(|family| family["samples"].as_array().unwrap());
        let fits = |found: &&Value| {
            found[0] == sample && labels.iter().all(|(name, value)| found[1][*name] == *value)
        };
        let values: Vec<f64> = all.filter(fits).map(|found| found[2].as_f64().unwrap()).collect();
        (!values.is_empty()).then(|| values.iter().sum())
    }
}

fn start(folder: &Path) -> Server {
    let file = folder.join("election.toml");
    std::fs::write(&file, ELECTION).unwrap();
    Server::start(&folder.join("data"), &["--election", file.to_str().unwrap(), "--tick-ms", "20"])
}

/// Votes, retries and second votes of so many voters, and how many of the latter two there were.
async fn cast(server: &Server, voters: u64, batch: usize, run: &str) -> (f64, f64) {
    let options = ingest::Options {
        contest: "song".to_owned(),
        voters,
        retry_percent: 10,
        double_percent: 5,
        connections: 4,
        in_flight: 2_000,
        batch,
        seed: 7,
        run: run.to_owned(),
        signer: None,
    };
    let report = ingest::run(&server.client(), &options).await.unwrap();
    assert_eq!(report.differences, Vec::<String>::new());
    let number = |n: u64| f64::from(u32::try_from(n).unwrap());
    (number(report.retries), number(report.doubles))
}

fn report(server: &Server, key: &str, request: &str, ash: u64) -> u16 {
    let counts = json!({"votes": {"ash": ash, "birch": 95}});
    let body = json!({"contest": "mayor", "unit": "ward", "count_type": "total", "counts": counts});
    post(&server.address, "/api/v1/returns", Some(key), Some(request), &body).status
}

#[tokio::test(flavor = "multi_thread")]
async fn every_number_is_what_happened() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path());
    let data = folder.path().join("data");
    let source = add_key(&data, "ward", &["source"]);
    let monitor = add_key(&data, "prometheus", &["monitor"]);
    // One by one through the lanes, then in batches.
    let (first, second) = (cast(&server, 1_000, 1, "single").await, cast(&server, 2_000, 500, "batch").await);
    let (retries, doubles) = (first.0 + second.0, first.1 + second.1);
    let votes = 3_000.0 + retries + doubles;
    assert!(retries > 200.0 && doubles > 100.0);
    assert_eq!(report(&server, &source, "a", 120), 201);
    assert_eq!(report(&server, &source, "a", 120), 200);
    assert_eq!(report(&server, &source, "b", 20), 201, "held");
    assert_eq!(report(&server, "cvk_0", "c", 20), 401);
    let mut stream = TcpStream::connect(&server.address).unwrap();
    stream.write_all(b"GET /api/v1/events?contest=mayor HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut first = [0; 16];
    stream.read_exact(&mut first).unwrap();
    let page = eventually("everything is published", || {
        let page = Page::of(&server, &monitor);
        let (end, proven) =
            (page.sum("canvass_fold_offset", &[]), page.sum("canvass_checkpoint_offset", &[]));
        (end == proven && page.sum("canvass_log_end_offset", &[]) == end).then_some(page)
    });
    let sum = |sample: &str, labels: &[(&str, &str)]| page.sum(sample, labels);
    for (sample, labels, expected) in [
        ("canvass_votes_total", &[("outcome", "counted")][..], 3_000.0),
        ("canvass_votes_total", &[("outcome", "repeated")], retries),
        ("canvass_votes_total", &[("outcome", "already-voted")], doubles),
        ("canvass_votes_total", &[], votes),
        ("canvass_vote_duration_seconds_count", &[], votes),
        ("canvass_vote_duration_seconds_bucket", &[("le", "+Inf")], votes),
        ("canvass_voters", &[], 3_000.0),
        ("canvass_returns_total", &[("outcome", "counted")], 1.0),
        ("canvass_returns_total", &[("outcome", "repeated")], 1.0),
        ("canvass_returns_total", &[("outcome", "held")], 1.0),
        ("canvass_held_returns", &[], 1.0),
        ("canvass_http_requests_total", &[("route", "/api/v1/returns"), ("status", "401")], 1.0),
        ("canvass_http_requests_total", &[("route", "/api/v1/returns"), ("method", "POST")], 4.0),
        ("canvass_stream_clients", &[("carrier", "sse")], 1.0),
        ("canvass_fold_lag_batches", &[], 0.0),
        ("canvass_fold_lag_seconds", &[], 0.0),
        ("canvass_ingest_queue_submissions", &[], 0.0),
        ("canvass_ingest_queue_bytes", &[], 0.0),
        ("canvass_journal_failing", &[], 0.0),
        ("canvass_log_appended_records_total", &[], votes + 3.0),
        ("canvass_witness_quorum", &[], 0.0),
    ] {
        assert_eq!(sum(sample, labels), Some(expected), "{sample} {labels:?}");
    }
    // The definition stands in each partition, from before anything was counted of appends.
    assert_eq!(sum("canvass_folded_records_total", &[]), Some(votes + 6.0));
    let batches = sum("canvass_log_append_duration_seconds_count", &[]).unwrap();
    assert_eq!(Some(batches + 3.0), sum("canvass_fold_offset", &[]));
    some_of_each(&page);
    drop(stream);
    eventually("the stream's end", || {
        (Page::of(&server, &monitor).sum("canvass_stream_clients", &[("carrier", "sse")]) == Some(0.0))
            .then_some(())
    });
    server.stop();
    from_a_snapshot(folder.path(), &monitor);
}

fn some_of_each(page: &Page) {
    for positive in [
        "canvass_journal_sync_duration_seconds_count",
        "canvass_journal_written_bytes_total",
        "canvass_log_appended_bytes_total",
        "canvass_tick_lag_seconds_count",
        "canvass_published_sequence",
        "canvass_published_timestamp_seconds",
        "canvass_checkpoint_size",
        "canvass_checkpoint_timestamp_seconds",
        "canvass_connections",
        "canvass_build_info",
    ] {
        assert!(page.sum(positive, &[]).is_some_and(|n| n > 0.0), "{positive}");
    }
}

/// A server that ends well leaves snapshots, whose age the next one tells; counters begin again.
fn from_a_snapshot(folder: &Path, monitor: &str) {
    let server = start(folder);
    let page = Page::of(&server, monitor);
    let written = page.sum("canvass_snapshot_timestamp_seconds", &[("partition", "votes/1")]).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert!(Duration::from_secs_f64(written) <= now && written > now.as_secs_f64() - 300.0, "{written}");
    assert_eq!(
        page.sum("canvass_votes_total", &[("outcome", "counted")]),
        Some(0.0),
        "counted since the start"
    );
    assert_eq!(page.sum("canvass_voters", &[]), Some(3_000.0));
}

#[test]
fn strangers_read_nothing_and_make_no_new_names() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path());
    let data = folder.path().join("data");
    let monitor = add_key(&data, "prometheus", &["monitor"]);
    let desk = add_key(&data, "desk", &["desk"]);
    assert_eq!(raw(&server.address, "GET", "/metrics", &[], b"").code(), "key-missing");
    let bearer = format!("Bearer {desk}");
    let refused = raw(&server.address, "GET", "/metrics", &[("authorization", &bearer)], b"");
    assert_eq!((refused.status, refused.code().as_str()), (403, "forbidden"));
    let bearer = format!("Bearer {monitor}");
    let refused = raw(&server.address, "GET", "/api/v1/held", &[("authorization", &bearer)], b"");
    assert_eq!(refused.status, 403, "the key reads metrics and nothing else");
    for guess in 0..20 {
        let method = format!("M{guess}");
        raw(&server.address, &method, "/livez", &[], b"");
        raw(&server.address, "GET", &format!("/guess/{guess}"), &[], b"");
        raw(&server.address, "GET", &format!("/api/v1/units/{guess}/history"), &[], b"");
    }
    let page = Page::of(&server, &monitor);
    let requests = page.0["canvass_http_requests"]["samples"].as_array().unwrap();
    let rows = requests.iter().filter(|sample| sample[0] == "canvass_http_requests_total");
    assert!(rows.count() < 10, "{requests:#?}");
    assert_eq!(
        page.sum("canvass_http_requests_total", &[("route", "/{*rest}"), ("status", "404")]),
        Some(20.0)
    );
    assert_eq!(page.sum("canvass_http_requests_total", &[("method", "other")]), Some(20.0));
}

#[test]
fn the_table_of_the_guide_has_every_family_with_its_type_and_unit() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path());
    let monitor = add_key(&folder.path().join("data"), "prometheus", &["monitor"]);
    let page = eventually("a checkpoint", || {
        let page = Page::of(&server, &monitor);
        page.0.contains_key("canvass_checkpoint_size").then_some(page)
    });
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/operate.md");
    let guide = std::fs::read_to_string(guide).unwrap();
    for (name, family) in &page.0 {
        let kind = family["type"].as_str().unwrap();
        let shown = if kind == "counter" { format!("{name}_total") } else { name.clone() };
        let row = guide.lines().find(|line| line.starts_with(&format!("| `{shown}`")));
        let row = row.unwrap_or_else(|| panic!("docs/operate.md has no row for {shown}"));
        assert!(row.contains(&format!("| {kind} |")), "{row} is a {kind}");
        assert!(family["help"].as_str().unwrap().len() > 5, "{name} has a help text");
    }
}
