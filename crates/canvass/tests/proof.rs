//! The published log of the real binary, read as a stranger reads it: with nothing but addresses and the key.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use canvass_election::ids::RecordId;
use canvass_loadgen::Client;
use canvass_loadgen::bench::ingest;
use canvass_loadgen::client::Request;
use canvass_tlog::receipt::verify_receipt;
use canvass_tlog::{
    Bundle, Entry, Hash, Proof, PublicKey, SignedCheckpoint, TilePath, leaf_hash, verify_published,
};
use serde_json::{Value, json};
use support::{Server, eventually, run};

/// A poll whose definition is too long for an entry bundle.
fn election() -> String {
    let names = (0..700).map(|n| format!("{{ id = \"s{n}\", name = \"{}\" }}", "x".repeat(100)));
    let selections = names.collect::<Vec<_>>().join(", ");
    let poll = support::POLL.replace("selections = [", &format!("selections = [{selections}, "));
    poll.replace("[[units]]", "[partitions]\nvotes = 2\nreturns = 1\n[[units]]")
}

const PARTITIONS: [&str; 3] = ["returns/0", "votes/0", "votes/1"];

fn start(folder: &Path) -> Server {
    let file = folder.join("election.toml");
    std::fs::write(&file, election()).unwrap();
    Server::start(&folder.join("data"), &["--election", file.to_str().unwrap(), "--tick-ms", "50"])
}

fn pinned(folder: &Path) -> PublicKey {
    run(&["key", "log", "--data", folder.join("data").to_str().unwrap()]).trim().parse().unwrap()
}

/// Reads a log from its address.
#[derive(Clone)]
struct Reader {
    client: Client,
    key: PublicKey,
}

impl Reader {
    async fn bytes(&self, path: &str) -> Option<Vec<u8>> {
        let answer = self.client.once(&Request::get(path)).await.ok()?;
        (answer.status == 200).then(|| answer.body.to_vec())
    }

    /// The checkpoint of a log: of the log as a whole, or of a partition.
    async fn checkpoint(&self, partition: Option<&str>) -> Option<SignedCheckpoint> {
        let prefix = partition.map(|id| format!("/log/{id}")).unwrap_or_default();
        let note = self.bytes(&format!("{prefix}/checkpoint")).await?;
        let name = partition.map_or(self.key.name().to_owned(), |id| format!("{}/{id}", self.key.name()));
        Some(SignedCheckpoint::open(&note, &self.key.named(&name).unwrap()).unwrap())
    }

    /// All entries of a log, by its bundles.
    async fn entries(&self, partition: Option<&str>, size: u64) -> Vec<Vec<u8>> {
        let prefix = partition.map(|id| format!("/log/{id}")).unwrap_or_default();
        let mut entries = Vec::new();
        for path in TilePath::all(size).filter(|path| path.level.is_none()) {
            let bundle = self.bytes(&format!("{prefix}/tile/{path}")).await.unwrap();
            entries.extend(Bundle::new(&bundle).map(|entry| entry.unwrap().to_vec()));
        }
        assert_eq!(entries.len() as u64, size);
        entries
    }
}

/// The root over leaves, as RFC 6962 defines it.
fn root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => tlog_tiles::EMPTY_HASH,
        [leaf] => *leaf,
        leaves => {
            let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
            tlog_tiles::node_hash(root(left), root(right))
        }
    }
}

fn leaves(entries: &[Vec<u8>]) -> Vec<Hash> {
    entries.iter().map(|entry| leaf_hash(entry)).collect()
}

fn votes(voters: u64, run: &str) -> ingest::Options {
    ingest::Options {
        contest: "song".to_owned(),
        voters,
        retry_percent: 10,
        double_percent: 0,
        connections: 8,
        in_flight: 64,
        batch: 1,
        seed: 7,
        run: run.to_owned(),
        signer: None,
    }
}

/// The sum of the partitions' published leaves.
async fn published(reader: &Reader) -> u64 {
    let mut sum = 0;
    for id in PARTITIONS {
        sum += reader.checkpoint(Some(id)).await.map_or(0, |checkpoint| checkpoint.size());
    }
    sum
}

async fn until_published(reader: &Reader, leaves: u64) {
    for _ in 0..300 {
        if published(reader).await >= leaves {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the log was not published");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_is_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path());
    let reader = Reader { client: server.client(), key: pinned(folder.path()) };
    let report = ingest::run(&reader.client, &votes(3_000, "a")).await.unwrap();
    assert_eq!(report.differences, Vec::<String>::new());
    until_published(&reader, 3_003).await;

    let mut checkpoints = Vec::new();
    for id in PARTITIONS {
        let checkpoint = reader.checkpoint(Some(id)).await.unwrap();
        let entries = reader.entries(Some(id), checkpoint.size()).await;
        assert_eq!(root(&leaves(&entries)), checkpoint.root(), "{id}");
        // The definition is too long for a bundle, and is served by its hash.
        let Some(Entry::Long { length, sha256 }) = Entry::read(&entries[0]) else { panic!("{id}") };
        let hex: String = sha256.iter().map(|byte| format!("{byte:02x}")).collect();
        let record = reader.bytes(&format!("/log/{id}/record/{hex}")).await.unwrap();
        assert_eq!(record.len() as u64, length);
        assert!(Entry::read(&entries[0]).unwrap().is_of(&record));
        assert_eq!(reader.bytes(&format!("/log/{id}/record/{}", hex.replace('0', "1"))).await, None);
        // Tiles of hashes say the same as the bundles.
        for path in TilePath::all(checkpoint.size()).filter(|path| path.level == Some(0)) {
            let tile = reader.bytes(&format!("/log/{id}/tile/{path}")).await.unwrap();
            let first = usize::try_from(path.first()).unwrap();
            let expected = &leaves(&entries)[first..first + usize::from(path.width)];
            assert_eq!(tile, expected.iter().flat_map(|hash| hash.0).collect::<Vec<u8>>());
        }
        checkpoints.push(checkpoint);
    }
    let whole = reader.checkpoint(None).await.unwrap();
    let entries = reader.entries(None, whole.size()).await;
    assert_eq!(root(&leaves(&entries)), whole.root());
    for checkpoint in checkpoints {
        assert!(entries.iter().any(|entry| entry == checkpoint.note().as_bytes()));
    }
    for wrong in
        ["/tile/0/001", "/tile/0/0", "/log/votes/2/checkpoint", "/log/votes/00/checkpoint", "/tile/9/000"]
    {
        assert_eq!(reader.bytes(wrong).await, None, "{wrong}");
    }
    server.stop();
}

/// A receipt is verified with the record's bytes, which the log has; the proof a second later leads on from it.
#[tokio::test(flavor = "multi_thread")]
async fn receipts_are_promises_that_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = start(folder.path());
    let reader = Reader { client: server.client(), key: pinned(folder.path()) };
    let vote = |voter: u64| {
        let body = json!({"contest": "song", "selections": ["x"], "voter": format!("v{voter}")});
        support::post(&server.address, "/api/v1/vote", None, Some("k"), &body)
    };
    let first: Vec<Value> = (0..20).map(|voter| vote(voter).json()).collect();
    // Just after a checkpoint, none has the next record for a while.
    let early = (20..60).find_map(|voter| {
        let record = vote(voter).json()["receipt"]["record"].as_str().unwrap().to_owned();
        let path = format!("/api/v1/receipts/{record}/proof");
        Some(support::raw(&server.address, "GET", &path, &[], b"")).filter(|answer| answer.status == 404)
    });
    let early = early.expect("a record is not published before it is confirmed");
    assert_eq!((early.code().as_str(), early.header("retry-after")), ("not-published", Some("1")));
    let address = server.address.clone();
    server.restart();
    for (voter, said) in (0..).zip(&first) {
        let body = json!({"contest": "song", "selections": ["x"], "voter": format!("v{voter}")});
        let again = support::post(&address, "/api/v1/vote", None, Some("k"), &body);
        assert_eq!((again.status, &again.json()), (200, said), "a retry gets the same bytes");
        let record: RecordId = said["receipt"]["record"].as_str().unwrap().parse().unwrap();
        let proof = eventually("a checkpoint that has the record", || {
            let path = format!("/api/v1/receipts/{record}/proof");
            Some(support::raw(&address, "GET", &path, &[], b"")).filter(|answer| answer.status == 200)
        });
        let proof: Proof = proof.body.parse().unwrap();
        let inner: Proof = String::from_utf8(proof.extra.clone().unwrap()).unwrap().parse().unwrap();
        let partition = record.partition.to_string();
        let size = reader.checkpoint(Some(&partition)).await.unwrap().size();
        let entries = reader.entries(Some(&partition), size).await;
        let entry = &entries[usize::try_from(inner.index).unwrap()];
        let shown = verify_published(entry, &proof, &reader.key).unwrap();
        assert_eq!(shown.partition.origin(), format!("{}/{partition}", reader.key.name()));
        let promise: Proof = said["receipt"]["promise"].as_str().unwrap().parse().unwrap();
        let key = reader.key.named(&format!("{}/{partition}", reader.key.name())).unwrap();
        let promised = verify_receipt(entry, &promise, &key).unwrap();
        assert_eq!((promised.batch, promised.position), (record.offset.0, record.position.into()));
    }
}

#[test]
fn answers_hold_promises_unless_less_is_preferred() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path());
    // A single vote is answered by a lane, or by the general server where its connection is to end with it.
    let ways = [
        ("/api/v1/votes", "application/x-ndjson", "close"),
        ("/api/v1/vote", "application/json", "close"),
        ("/api/v1/vote", "application/json", "keep-alive"),
    ];
    for (n, (path, media_type, connection)) in ways.into_iter().enumerate() {
        let promise = |voter: &str, prefer: Option<&str>| {
            let voter = format!("{voter}{n}");
            let body =
                json!({"contest": "song", "selections": ["x"], "voter": voter, "key": "k"}).to_string();
            let prefer = prefer.map(|wish| format!("prefer: {wish}\r\n")).unwrap_or_default();
            let mut socket = TcpStream::connect(&server.address).unwrap();
            let length = body.len();
            let head = format!(
                "POST {path} HTTP/1.1\r\nhost: a\r\nconnection: {connection}\r\ncontent-type: {media_type}\r\n\
                 {prefer}content-length: {length}\r\n\r\n"
            );
            socket.write_all((head + &body).as_bytes()).unwrap();
            let mut answer = Vec::new();
            // The end of the answer, which does not end its connection.
            while !answer.ends_with(b"}") && !answer.ends_with(b"}\n") {
                let mut bytes = [0; 4_096];
                let n = socket.read(&mut bytes).unwrap();
                assert_ne!(n, 0, "{}", String::from_utf8_lossy(&answer));
                answer.extend_from_slice(&bytes[..n]);
            }
            let answer = String::from_utf8(answer).unwrap();
            assert!(answer.contains(r#""outcome":"counted""#), "{answer}");
            answer.contains(r#""promise":""#)
        };
        assert!(promise("a", None) && promise("b", Some("return=representation")));
        for wish in ["return=minimal", "wait=5, return=minimal"] {
            assert!(!promise(wish, Some(wish)), "{path}, new");
            assert!(!promise(wish, Some(wish)), "{path}, again");
            assert!(promise(wish, None), "{path}, again, with the promise");
        }
    }
}

/// Every checkpoint that a client saw must be a beginning of the log after three kills in the middle of a load.
#[tokio::test(flavor = "multi_thread")]
async fn no_checkpoint_is_contradicted_across_three_kills() {
    let voters = 40_000;
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path());
    let reader = Reader { client: server.client(), key: pinned(folder.path()) };
    let server = Arc::new(Mutex::new(server));
    let done = Arc::new(AtomicBool::new(false));
    let watcher = {
        let (reader, done) = (reader.clone(), Arc::clone(&done));
        tokio::spawn(async move {
            let mut seen: Vec<(Option<&str>, SignedCheckpoint)> = Vec::new();
            while !done.load(Ordering::Relaxed) {
                for id in PARTITIONS.map(Some).into_iter().chain([None]) {
                    let found = reader.checkpoint(id).await.map(|checkpoint| (id, checkpoint));
                    seen.extend(found.filter(|found| !seen.contains(found)));
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            seen
        })
    };
    let killer = {
        let (server, key) = (Arc::clone(&server), reader.key.clone());
        tokio::task::spawn_blocking(move || {
            let mut seen: Vec<(Option<&str>, SignedCheckpoint)> = Vec::new();
            for quarter in 1..=3 {
                let address = server.lock().unwrap().address.clone();
                eventually("a quarter of the votes", || {
                    let results = support::get(&address, "/api/v1/results?contest=song");
                    (results["counts"]["ballots"].as_u64()? >= voters / 4 * quarter).then_some(())
                });
                // Each kill comes when a new checkpoint has been seen.
                let last = seen.last().map_or(0, |(_, checkpoint)| checkpoint.size());
                seen.push(eventually("a new checkpoint", || {
                    let note = support::raw(&address, "GET", "/checkpoint", &[], b"").body;
                    let found = SignedCheckpoint::open(note.as_bytes(), &key).ok();
                    found.filter(|found| found.size() > last).map(|found| (None, found))
                }));
                server.lock().unwrap().restart();
            }
            seen
        })
    };
    let report = ingest::run(&reader.client, &votes(voters, "a")).await.unwrap();
    let before_kills = killer.await.unwrap();
    assert_eq!(report.differences, Vec::<String>::new());
    until_published(&reader, voters + 3).await;
    done.store(true, Ordering::Relaxed);
    let mut seen = watcher.await.unwrap();
    seen.extend(before_kills);
    for id in PARTITIONS.map(Some).into_iter().chain([None]) {
        let last = reader.checkpoint(id).await.unwrap();
        let leaves = leaves(&reader.entries(id, last.size()).await);
        for (_, checkpoint) in seen.iter().filter(|(of, _)| *of == id) {
            let size = usize::try_from(checkpoint.size()).unwrap();
            assert_eq!(root(&leaves[..size]), checkpoint.root(), "{id:?} {size}");
        }
    }
}
