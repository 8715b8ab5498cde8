//! The night of 2020-11-03 in North Carolina, through the public API: at each of the feed's snapshots the count
//! equals the state's own row, however often the server is killed on the way.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use canvass_election::event::Counts;
use canvass_loadgen::replay::Replay;
use canvass_loadgen::{Client, Pace};
use canvass_protocol::interchange::nc::{self, Feed, Snapshot};
use canvass_protocol::{definition, time};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use support::cluster::Cluster;
use support::{Kafka, Server, add_key, eventually, get, log_key, run, verified};

fn feed() -> Feed {
    let folder = std::env::var_os("CANVASS_TEST_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"), PathBuf::from);
    let path = folder.join("nc2020/NC_precincts_timeseries_2020.csv.gz");
    let file = std::fs::File::open(&path).unwrap_or_else(|e| {
        panic!("{} is needed ({e}); set CANVASS_TEST_DATA to its folder", path.display())
    });
    nc::read(flate2::read::MultiGzDecoder::new(file)).unwrap()
}

/// A server in a new folder that counts the feed's election, and a client with every role it needs.
fn start(folder: &Path, feed: &Feed, more: &[&str]) -> (Server, Client) {
    let file = folder.join("election.json");
    std::fs::write(&file, definition::to_value(&feed.definition).to_string()).unwrap();
    let data = folder.join("data");
    let key = add_key(&data, "state board", &["source", "desk"]);
    let server = Server::start(&data, &[&["--election", file.to_str().unwrap()], more].concat());
    let client = server.client().bearer(&key);
    (server, client)
}

/// What differs between a result document and the state's own row.
fn differences(feed: &Feed, snapshot: &Snapshot, document: &Value) -> Vec<String> {
    let selections = &feed.definition.contests[0].selections;
    let mut found = Vec::new();
    for (count_type, counts) in &snapshot.state {
        for (selection, votes) in selections.iter().zip(&counts.votes) {
            let shown =
                document["count_types"][count_type.as_str()]["votes"][&selection.id].as_u64().unwrap_or(0);
            if shown != *votes {
                found.push(format!("{} of {}: {shown}, not {votes}", count_type.as_str(), selection.id));
            }
        }
    }
    found
}

fn shows_exactly(feed: &Feed, snapshot: &Snapshot, address: &str) {
    eventually(&format!("the count of {}", time::format(snapshot.time)), || {
        let document = get(address, "/api/v1/results?by=total");
        differences(feed, snapshot, &document).is_empty().then_some(())
    });
}

/// Every fall of a unit's count that the feed states, as the corrections log must show it.
fn falls(feed: &Feed) -> Vec<(String, String, String, Counts, Counts)> {
    let mut falls = Vec::new();
    for snapshot in &feed.snapshots {
        for change in snapshot.changes.iter().filter(|c| c.is_fall()) {
            let unit = feed.definition.units[change.cell.unit.index()].id.clone();
            let count_type = change.cell.count_type.as_str().to_owned();
            let at = time::format(snapshot.time);
            falls.push((at, unit, count_type, change.before.clone(), change.now.clone()));
        }
    }
    falls
}

fn votes_of(feed: &Feed, side: &Value) -> Vec<u64> {
    let selections = &feed.definition.contests[0].selections;
    selections.iter().map(|s| side["votes"][&s.id].as_u64().unwrap()).collect()
}

fn corrections_are_public(feed: &Feed, address: &str) {
    let log = get(address, "/api/v1/corrections");
    let rows = log["corrections"].as_array().unwrap();
    let expected = falls(feed);
    assert_eq!(rows.len(), expected.len());
    let by_place: BTreeMap<_, _> = rows
        .iter()
        .map(|r| {
            let text = |name: &str| r[name].as_str().unwrap().to_owned();
            ((text("time"), text("unit"), text("count_type")), r)
        })
        .collect();
    for (at, unit, count_type, before, now) in expected {
        let row =
            by_place.get(&(at.clone(), unit.clone(), count_type)).unwrap_or_else(|| panic!("{at} {unit}"));
        assert_eq!(votes_of(feed, &row["before"]), before.votes, "{at} {unit}");
        assert_eq!(votes_of(feed, &row["after"]), now.votes, "{at} {unit}");
        for record in ["record", "corrects"] {
            assert!(row[record].as_str().unwrap().starts_with("returns-0-"), "{row}");
        }
    }
}

fn past_is_shown_again(feed: &Feed, address: &str) {
    for snapshot in &feed.snapshots {
        let at = time::format(snapshot.time);
        let document = get(address, &format!("/api/v1/results?by=total&at={at}"));
        assert_eq!(differences(feed, snapshot, &document), Vec::<String>::new(), "at {at}");
    }
}

/// Checks all that the server publishes, with nothing but the key, and once more without the server.
fn verified_by_a_stranger(feed: &Feed, server: &Server, folder: &Path) {
    let (key, kept) = (log_key(&folder.join("data")), folder.join("kept"));
    let kept = kept.to_str().unwrap();
    for report in [verified(&server.url(), &key, &["--keep", kept]), verified(kept, &key, &[])] {
        // One contest, which has a document in each unit.
        assert_eq!(report["documents"], feed.definition.units.len());
        assert_eq!(report["corrections"], falls(feed).len());
        assert_eq!(report["outcomes"]["held"], 0);
    }
}

fn digest(data: &Path) -> String {
    run(&["digest", "--data", data.to_str().unwrap()])
}

#[tokio::test(flavor = "multi_thread")]
async fn every_snapshot_of_the_night_equals_the_states_own_row() {
    let feed = feed();
    let folder = tempfile::tempdir().unwrap();
    let (server, client) = start(folder.path(), &feed, &[]);
    let mut replay = Replay::start(&client, &feed, Pace::new(Pace::MAX)).await.unwrap();
    for snapshot in &feed.snapshots {
        replay.step().await.unwrap().unwrap();
        shows_exactly(&feed, snapshot, &server.address);
    }
    assert_eq!(replay.step().await.unwrap(), None);
    let whole = get(&server.address, "/api/v1/results?by=leaf");
    assert_eq!(whole["held"], 0, "the clean night holds nothing");
    corrections_are_public(&feed, &server.address);
    past_is_shown_again(&feed, &server.address);
    verified_by_a_stranger(&feed, &server, folder.path());
    let address = server.address.clone();
    server.stop();
    // A second night in one go, killed at random moments, has the same digest.
    let undisturbed = digest(&folder.path().join("data"));
    let second = tempfile::tempdir().unwrap();
    let (server, client) = start(second.path(), &feed, &[]);
    let server = Arc::new(Mutex::new(server));
    let seed = rand::rng().random();
    eprintln!("seed of the kills: {seed}");
    disturbed_night(&feed, &client, &server, seed, 20).await;
    let server = Arc::into_inner(server).unwrap().into_inner().unwrap();
    shows_exactly(&feed, feed.snapshots.last().unwrap(), &server.address);
    corrections_are_public(&feed, &server.address);
    past_is_shown_again(&feed, &server.address);
    verified_by_a_stranger(&feed, &server, second.path());
    server.stop();
    assert_eq!(digest(&second.path().join("data")), undisturbed, "seed {seed}");
    // Started from its snapshots, it shows the same past.
    let again = Server::start(&folder.path().join("data"), &[]);
    assert_ne!(again.address, "", "{address}");
    past_is_shown_again(&feed, &again.address);
    corrections_are_public(&feed, &again.address);
}

/// The same night with its log on Kafka, killed on the way, has the digest it has with a journal.
#[tokio::test(flavor = "multi_thread")]
async fn the_night_is_the_same_on_kafka() {
    let feed = feed();
    let kafka = Kafka::start();
    let address = kafka.address();
    let folder = tempfile::tempdir().unwrap();
    let (server, client) = start(folder.path(), &feed, &["--kafka", &address]);
    let server = Arc::new(Mutex::new(server));
    let seed = rand::rng().random();
    eprintln!("seed of the kills: {seed}");
    disturbed_night(&feed, &client, &server, seed, 5).await;
    let server = Arc::into_inner(server).unwrap().into_inner().unwrap();
    shows_exactly(&feed, feed.snapshots.last().unwrap(), &server.address);
    corrections_are_public(&feed, &server.address);
    past_is_shown_again(&feed, &server.address);
    verified_by_a_stranger(&feed, &server, folder.path());
    server.stop();
    let on_kafka = run(&["digest", "--kafka", &address]);
    let journal = tempfile::tempdir().unwrap();
    let (server, client) = start(journal.path(), &feed, &[]);
    let mut replay = Replay::start(&client, &feed, Pace::new(Pace::MAX)).await.unwrap();
    while replay.step().await.unwrap().is_some() {}
    server.stop();
    assert_eq!(on_kafka, digest(&journal.path().join("data")), "seed {seed}");
}

/// The same night through a cluster: every edge shows it as one process does, the past and the corrections as well.
#[tokio::test(flavor = "multi_thread")]
async fn the_night_is_the_same_in_a_cluster() {
    let feed = feed();
    let cluster = Cluster::start(&definition::to_value(&feed.definition).to_string(), 1);
    let client = cluster.gateways[0].client().bearer(&cluster.key);
    let mut replay = Replay::start(&client, &feed, Pace::new(Pace::MAX)).await.unwrap();
    while replay.step().await.unwrap().is_some() {}
    for edge in &cluster.edges {
        shows_exactly(&feed, feed.snapshots.last().unwrap(), &edge.address);
        corrections_are_public(&feed, &edge.address);
        past_is_shown_again(&feed, &edge.address);
    }
    let journal = tempfile::tempdir().unwrap();
    let (server, client) = start(journal.path(), &feed, &[]);
    let mut replay = Replay::start(&client, &feed, Pace::new(Pace::MAX)).await.unwrap();
    while replay.step().await.unwrap().is_some() {}
    server.stop();
    assert_eq!(run(&["digest", "--kafka", &cluster.address]), digest(&journal.path().join("data")));
}

/// Replays the night and kills the server with `kill -9` while some of the snapshots are being sent. The replay
/// finds its place again by the keys of its requests.
async fn disturbed_night(feed: &Feed, client: &Client, server: &Arc<Mutex<Server>>, seed: u64, times: usize) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut kills = std::collections::BTreeSet::new();
    while kills.len() < times {
        kills.insert(rng.random_range(0..feed.snapshots.len()));
    }
    let mut replay = Replay::start(client, feed, Pace::new(Pace::MAX)).await.unwrap();
    for i in 0..feed.snapshots.len() {
        let wait = Duration::from_micros(rng.random_range(0..6_000));
        let killer = kills.contains(&i).then(|| {
            let server = Arc::clone(server);
            tokio::task::spawn_blocking(move || {
                std::thread::sleep(wait);
                server.lock().unwrap().restart();
            })
        });
        replay.step().await.unwrap().unwrap();
        if let Some(killer) = killer {
            killer.await.unwrap();
        }
    }
}
