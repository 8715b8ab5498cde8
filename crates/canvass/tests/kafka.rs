//! A server whose log is on Kafka, while Kafka is down and when it is back.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod support;

use std::path::Path;
use std::time::Instant;

use canvass_election::event::Vote;
use canvass_election::ids::{ContestId, Nullifier, PartitionId, RequestId, SelectionId, Timestamp};
use canvass_engine::votes_partition;
use canvass_protocol::record::{BatchBuilder, Drafts};
use rdkafka::config::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::{Value, json};
use support::{Kafka, Raw, Server, eventually, fails, get, post, run};

fn vote(address: &str, voter: usize) -> Raw {
    let body = json!({"contest": "song", "selections": ["x"], "voter": format!("voter-{voter}")});
    post(address, "/api/v1/vote", None, Some("k"), &body)
}

fn shows(address: &str, votes: usize) {
    eventually("the count", || {
        let results = get(address, "/api/v1/results?contest=song");
        (results["selections"]["x"]["votes"] == votes).then_some(())
    });
}

fn definition(folder: &Path) -> String {
    let file = folder.join("election.toml");
    std::fs::write(&file, support::POLL).unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn while_kafka_is_down_votes_are_refused_and_it_goes_on_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let kafka = Kafka::start_own(1);
    let address = kafka.address();
    let data = folder.path().join("data");
    let options = ["--election", &definition(folder.path()), "--kafka", &address];
    let mut server = Server::start(&data, &options);
    let at = server.address.clone();
    assert!((0..20).all(|voter| vote(&at, voter).status == 201));
    shows(&at, 20);
    kafka.kill(1);
    let before = server.resident_kib();
    // Each waits until Kafka's client gives up.
    let refused: Vec<_> = std::thread::scope(|scope| {
        let votes: Vec<_> = (20..220)
            .map(|voter| {
                scope.spawn({
                    let at = &at;
                    move || vote(at, voter)
                })
            })
            .collect();
        votes.into_iter().map(|vote| vote.join().unwrap()).collect()
    });
    for answer in refused {
        assert_eq!((answer.status, answer.code().as_str()), (503, "log-unavailable"), "{}", answer.body);
        assert!(answer.header("retry-after").is_some());
    }
    let grown = server.resident_kib().saturating_sub(before);
    assert!(grown < 32 << 10, "{grown} KiB more than before Kafka was down");
    // What was counted is still shown.
    shows(&at, 20);
    kafka.restart(1);
    // A vote that was refused may be in the log all the same; sent again, it gets its receipt and counts once.
    for voter in 20..220 {
        eventually("a vote", || [200, 201].contains(&vote(&at, voter).status).then_some(()));
    }
    shows(&at, 220);
    server.restart();
    shows(&at, 220);
    assert_eq!(vote(&at, 0).status, 200, "a retry gets the first receipt");
    // Nobody else can use the folder meanwhile.
    let said =
        fails(&["serve", "--listen", "127.0.0.1:0", "--data", data.to_str().unwrap(), "--kafka", &address]);
    assert!(said.contains("is in use by another process"), "{said}");
}

/// Casts one voter's vote until it is confirmed, and says how often it was refused.
fn persist(address: &str, voter: usize) -> usize {
    let mut refused = 0;
    eventually("a vote", || {
        let answer = vote(address, voter);
        match answer.status {
            200 | 201 => Some(()),
            status => {
                assert_eq!(status, 503, "{}", answer.body);
                refused += 1;
                None
            }
        }
    });
    refused
}

#[test]
fn any_one_of_three_brokers_can_go() {
    let folder = tempfile::tempdir().unwrap();
    let kafka = Kafka::start_own(3);
    let address = kafka.address();
    let options = ["--election", &definition(folder.path()), "--kafka", &address];
    let server = Server::start(&folder.path().join("data"), &options);
    let at = &server.address;
    let mut voters = 0..;
    // Each in turn takes a minute: the long proof does it.
    let killed = if support::soak() { 1..=3 } else { 1..=1 };
    for broker in killed {
        let before: Vec<_> = voters.by_ref().take(40).collect();
        assert_eq!(before.iter().map(|voter| persist(at, *voter)).sum::<usize>(), 0, "all brokers are there");
        kafka.kill(broker);
        let started = Instant::now();
        let during: Vec<_> = voters.by_ref().take(40).collect();
        let refused: Vec<_> = std::thread::scope(|scope| {
            let votes: Vec<_> = during.iter().map(|voter| scope.spawn(move || persist(at, *voter))).collect();
            votes.into_iter().map(|vote| vote.join().unwrap()).collect()
        });
        eprintln!(
            "broker {broker} killed: all is confirmed after {:.1} s, {} refusals meanwhile",
            started.elapsed().as_secs_f64(),
            refused.iter().sum::<usize>()
        );
        shows(at, *during.last().unwrap() + 1);
        kafka.restart(broker);
    }
}

#[test]
fn options_that_are_wrong_say_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let serve = |more: &[&str]| fails(&[&["serve", "--data", data.to_str().unwrap()], more].concat());
    assert!(serve(&["--kafka", "127.0.0.1/x"]).contains("write HOST:PORT[,HOST:PORT]/PREFIX"));
    let settings = folder.path().join("kafka.properties");
    std::fs::write(&settings, "acks=0").unwrap();
    let said = serve(&["--kafka", "127.0.0.1:9/x", "--kafka-settings", settings.to_str().unwrap()]);
    assert!(said.contains("\"acks\" cannot be set"), "{said}");
    std::fs::write(&settings, "ssl.ca.location=/nowhere.pem\nsecurity.protocol=SSL").unwrap();
    let said = serve(&["--kafka", "127.0.0.1:9/x", "--kafka-settings", settings.to_str().unwrap()]);
    assert!(said.contains("ssl.ca.location failed"), "{said}");
}

/// Puts bytes into a topic as a program does that is none of Canvass.
async fn put(address: &str, topic: &str, bytes: &[u8]) {
    let (brokers, prefix) = address.split_once('/').unwrap();
    let producer: FutureProducer = ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    let topic = format!("{prefix}.{topic}");
    let record = FutureRecord::<(), [u8]>::to(&topic).partition(0).payload(bytes);
    producer.send_result(record).unwrap().await.unwrap().unwrap();
}

/// A batch of one vote, without the header that Canvass gives it.
fn stray() -> Vec<u8> {
    let mut drafts = Drafts::default();
    let choices = [SelectionId(0)].into_iter().collect();
    // Of a voter whose votes belong into the first partition.
    let nullifier =
        (0..=255).map(|n| Nullifier([n; 16])).find(|n| votes_partition(n, 8) == PartitionId::votes(0));
    let vote = Vote { contest: ContestId(0), nullifier: nullifier.unwrap(), choices };
    drafts.push_vote(RequestId([7; 16]), &vote);
    let mut batch = BatchBuilder::new(1, Timestamp(1_700_000_000_000));
    batch.push(&drafts);
    batch.finish().1.to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_record_stops_nothing_and_is_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let kafka = Kafka::start_own(1);
    let address = kafka.address();
    let options = ["--election", &definition(folder.path()), "--kafka", &address];
    let mut server = Server::start(&folder.path().join("data"), &options);
    let at = server.address.clone();
    assert!((0..5).all(|voter| vote(&at, voter).status == 201));
    put(&address, "votes", b"a greeting").await;
    put(&address, "votes", &stray()).await;
    put(&address, "returns", b"").await;
    assert!((5..20).all(|voter| vote(&at, voter).status == 201));
    shows(&at, 20);
    let dlq = |args: &[&str]| run(&[&["dlq"], args, &["--kafka", &address]].concat());
    let letters = eventually("the dead letters", || {
        let lines = dlq(&["list"]);
        let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        (lines.len() == 3).then_some(lines)
    });
    let of = |replayable: bool| letters.iter().filter(move |letter| letter["replayable"] == replayable);
    assert!(of(false).any(|letter| letter["begins"] == "a greeting"));
    let name = of(true).next().unwrap()["letter"].as_str().unwrap();
    let greeting = of(false).find(|letter| letter["size"] == 10).unwrap()["letter"].as_str().unwrap();
    let said = fails(&["dlq", "replay", greeting, "--kafka", &address]);
    assert!(said.contains("holds no batch of Canvass"), "{said}");
    let said = fails(&["dlq", "replay", "votes-0-999999-0", "--kafka", &address]);
    assert!(said.contains("there is no dead letter"), "{said}");
    // Twice is once.
    for _ in 0..2 {
        dlq(&["replay", name]);
    }
    shows(&at, 21);
    // The next process reads the same log, and an auditor finds every number as it is published.
    server.restart();
    shows(&at, 21);
    let key = support::log_key(&folder.path().join("data"));
    assert_eq!(support::verified(&server.url(), &key, &[])["voters"], 21);
}
