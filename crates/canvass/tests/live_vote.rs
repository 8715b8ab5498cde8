//! A mass live vote with retries, second votes and kills: whoever was confirmed is counted, once. And readers who
//! are cut off at random moments end with the same bytes as everyone else.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod support;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use canvass_loadgen::bench::{ingest, stream};
use serde_json::Value;
use support::{Server, eventually, get, log_key, raw, run, soak, verified};

const ELECTION: &str = r#"
id = "final"
name = "The final"
is_test = true
[[units]]
id = "everywhere"
name = "Everywhere"
[[contests]]
id = "song"
name = "Best song"
kind = "audience-poll"
counting = "votes"
eligibility = "open"
selections = [{ id = "w", name = "W" }, { id = "x", name = "X" }, { id = "y", name = "Y" }, { id = "z", name = "Z" }]
"#;

fn start(folder: &Path) -> Server {
    let file = folder.join("election.toml");
    std::fs::write(&file, ELECTION).unwrap();
    Server::start(&folder.join("data"), &["--election", file.to_str().unwrap(), "--tick-ms", "50"])
}

fn votes(voters: u64, batch: usize, run: &str) -> ingest::Options {
    ingest::Options {
        contest: "song".to_owned(),
        voters,
        retry_percent: 10,
        double_percent: 5,
        connections: 32,
        in_flight: 32 * batch.max(1),
        batch,
        seed: 7,
        run: run.to_owned(),
        signer: None,
    }
}

fn ballots(address: &str) -> u64 {
    get(address, "/api/v1/results?contest=song")["counts"]["ballots"].as_u64().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn confirmed_votes_are_counted_exactly_once_across_three_kills() {
    let voters: u64 = if soak() { 1_000_000 } else { 40_000 };
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path());
    let client = server.client();
    let server = Arc::new(Mutex::new(server));
    let killer = {
        let server = Arc::clone(&server);
        tokio::task::spawn_blocking(move || {
            for quarter in 1..=3 {
                let address = server.lock().unwrap().address.clone();
                eventually("a quarter of the votes", || {
                    (ballots(&address) >= voters / 4 * quarter).then_some(())
                });
                server.lock().unwrap().restart();
            }
        })
    };
    let report = ingest::run(&client, &votes(voters, 1, "a")).await.unwrap();
    killer.await.unwrap();
    eprintln!("{report}");
    assert_eq!(report.differences, Vec::<String>::new());
    let server = Arc::into_inner(server).unwrap().into_inner().unwrap();
    assert_eq!(ballots(&server.address), voters);
    // A stranger, with nothing but the key, finds every record in the log and counts the same.
    let data = folder.path().join("data");
    let verified = verified(&server.url(), &log_key(&data), &[]);
    eprintln!("{verified}");
    assert_eq!(verified["voters"], voters);
    server.stop();
    // The log alone, without any snapshot, gives the same count.
    let from_log = run(&["digest", "--data", data.to_str().unwrap()]);
    let server = Server::start(&data, &[]);
    assert_eq!(ballots(&server.address), voters);
    drop(server);
    std::fs::remove_dir_all(data.join("snapshots")).unwrap();
    let server = Server::start(&data, &[]);
    assert_eq!(ballots(&server.address), voters, "a start without snapshots counts the log again");
    server.stop();
    assert_eq!(run(&["digest", "--data", data.to_str().unwrap()]), from_log);
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_are_cut_end_with_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path());
    let client = server.client();
    let readers = stream::Options {
        contest: "song".to_owned(),
        unit: None,
        by: "unit".to_owned(),
        websocket: 8,
        sse: 8,
        polling: 4,
        duration: Duration::from_secs(if soak() { 60 } else { 8 }),
        reconnect: true,
        seed: 3,
    };
    let server = Arc::new(Mutex::new(server));
    let voting = async {
        for round in 0.. {
            let options = votes(2_000, 100, &format!("round-{round}"));
            ingest::run(&client, &options).await.map_err(|e| e.to_string())?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok::<(), String>(())
    };
    let killer = {
        let server = Arc::clone(&server);
        tokio::task::spawn_blocking(move || {
            std::thread::sleep(Duration::from_secs(3));
            server.lock().unwrap().restart();
        })
    };
    let following = stream::run(&client, &readers);
    let report = tokio::select! {
        report = following => report.unwrap(),
        fault = voting => panic!("the votes ended: {fault:?}"),
    };
    killer.await.unwrap();
    eprintln!("{report}");
    assert_eq!(report.differences, Vec::<String>::new());
    assert!(report.reconnects > 20, "clients were cut");
    assert!(report.resets > 0, "the restart began a new epoch, which clients are told");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_the_same_bytes_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = start(folder.path());
    let client = server.client();
    let address = server.address.clone();
    let watcher = tokio::task::spawn_blocking(move || {
        let mut seen: Vec<(String, String)> = Vec::new();
        while seen.len() < 12 {
            let body = raw(&address, "GET", "/api/v1/results?contest=song", &[], b"").body;
            let document: Value = serde_json::from_str(&body).unwrap();
            let number = format!("{}:{}", document["epoch"], document["seq"]);
            if seen.last().is_none_or(|(last, _)| *last != number) {
                seen.push((number, body));
            }
        }
        seen
    });
    for round in 0..30 {
        ingest::run(&client, &votes(300, 50, &format!("round-{round}"))).await.unwrap();
        if watcher.is_finished() {
            break;
        }
    }
    let seen = watcher.await.unwrap();
    let same = |server: &Server| {
        for (number, body) in &seen {
            let path = format!("/api/v1/snapshots/{number}?contest=song");
            assert_eq!(raw(&server.address, "GET", &path, &[], b"").body, *body, "{number}");
        }
    };
    same(&server);
    server.restart();
    same(&server);
    // Once more, from snapshots this time.
    let data = folder.path().join("data");
    server.stop();
    same(&Server::start(&data, &[]));
    // And from the log alone: the list of publications says where to stop.
    std::fs::remove_dir_all(data.join("snapshots")).unwrap();
    same(&Server::start(&data, &[]));
}
