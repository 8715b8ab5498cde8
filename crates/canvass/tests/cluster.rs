//! Many processes on one log on Kafka: gateways, tallies, boards and edges, and what readers see while one after the
//! other is killed.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod support;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::cluster::Cluster;
use support::{Raw, Server, eventually, fails, get, raw, soak};

/// Asks a process that may be gone at any moment.
fn ask(address: &str, method: &str, path: &str, headers: &str, body: &str) -> Option<(u16, String)> {
    let mut socket = TcpStream::connect(address).ok()?;
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{headers}");
    write!(socket, "{head}content-length: {length}\r\n\r\n{body}").ok()?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

fn vote(address: &str, voter: usize, headers: &[(&str, &str)]) -> Raw {
    let body = json!({"contest": "song", "selections": ["x"], "voter": format!("voter-{voter}")}).to_string();
    let headers = [&[("content-type", "application/json"), ("idempotency-key", "k")], headers].concat();
    raw(address, "POST", "/api/v1/vote", &headers, body.as_bytes())
}

/// Casts the votes of these voters, each until a gateway has it, and one in ten twice.
fn cast(gateways: &[Server], voters: std::ops::Range<usize>) {
    let headers = "content-type: application/json\r\nidempotency-key: k\r\n";
    let cast = |voter: usize, first: usize| {
        let body =
            json!({"contest": "song", "selections": ["x"], "voter": format!("voter-{voter}")}).to_string();
        let mut turn = first;
        eventually("a vote", || {
            let gateway = &gateways[turn % gateways.len()].address;
            turn += 1;
            let (status, said) = ask(gateway, "POST", "/api/v1/vote", headers, &body)?;
            assert!([200, 201, 202, 503].contains(&status), "{status} {said}");
            (status != 503).then_some(())
        });
    };
    std::thread::scope(|scope| {
        for part in 0..4 {
            let voters = voters.clone();
            scope.spawn(move || {
                for voter in voters.filter(|voter| voter % 4 == part) {
                    cast(voter, voter);
                    if voter % 10 == 0 {
                        cast(voter, voter + 1);
                    }
                }
            });
        }
    });
}

fn shows(edge: &Server, votes: usize) {
    eventually("the count", || {
        let results = get(&edge.address, "/api/v1/results?contest=song");
        (results["selections"]["x"]["votes"] == votes).then_some(())
    });
}

/// Watches an edge until told to stop: numbers and totals never go back, and of each number there is one document.
fn watch(address: &str, stop: &AtomicBool) -> BTreeMap<(u64, u64), String> {
    let mut seen = BTreeMap::new();
    let mut last = ((0, 0), 0);
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(20));
        let Some((200, body)) = ask(address, "GET", "/api/v1/results?contest=song", "", "") else { continue };
        let document: Value = serde_json::from_str(&body).unwrap();
        let number = (document["epoch"].as_u64().unwrap(), document["seq"].as_u64().unwrap());
        let votes = document["selections"]["x"]["votes"].as_u64().unwrap();
        assert!(last <= (number, votes) && last.1 <= votes, "{last:?}, then {number:?} with {votes}");
        last = (number, votes);
        let known = seen.entry(number).or_insert_with(|| body.clone());
        assert_eq!(*known, body, "{number:?}");
    }
    seen
}

/// Follows the contest on an edge, from a number or anew.
fn follow(edge: &Server, last: Option<&str>) -> BufReader<TcpStream> {
    let mut socket = TcpStream::connect(&edge.address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let resume = last.map_or_else(String::new, |last| format!("last-event-id: {last}\r\n"));
    write!(socket, "GET /api/v1/events?contest=song HTTP/1.1\r\nhost: edge\r\n{resume}\r\n").unwrap();
    BufReader::new(socket)
}

/// The next event of a stream: its number and its name.
fn next_event(stream: &mut BufReader<TcpStream>) -> (String, String) {
    let mut number = String::new();
    loop {
        let mut line = String::new();
        assert!(stream.read_line(&mut line).unwrap() > 0, "the stream ended");
        if let Some(id) = line.strip_prefix("id: ") {
            number = id.trim().to_owned();
        } else if let Some(name) = line.strip_prefix("event: ") {
            return (number, name.trim().to_owned());
        }
    }
}

/// Who followed one edge goes on at the other from where they were: with a delta, not from the beginning.
fn readers_move_between_edges(cluster: &Cluster, voters: &mut usize) {
    let mut first = follow(&cluster.edges[0], None);
    assert_eq!(next_event(&mut first).1, "hello");
    let (number, name) = next_event(&mut first);
    assert_eq!(name, "snapshot");
    drop(first);
    cast(&cluster.gateways, *voters..*voters + 1);
    *voters += 1;
    shows(&cluster.edges[1], *voters);
    let mut second = follow(&cluster.edges[1], Some(&number));
    let names: Vec<_> = (0..2).map(|_| next_event(&mut second).1).collect();
    assert_eq!(names, ["hello", "delta"]);
}

/// A part of a cluster that goes and comes back.
enum Lost {
    Tally,
    SleepingTally,
    ActiveBoard,
    Gateway,
    Edge,
    Kafka,
}

fn lose(cluster: &mut Cluster, lost: &Lost, voters: std::ops::Range<usize>) {
    let gateways = |cluster: &Cluster, voters| cast(&cluster.gateways, voters);
    match lost {
        Lost::Tally => {
            cluster.tallies[0].kill();
            gateways(cluster, voters.clone());
            shows(&cluster.edges[1], voters.end);
            cluster.tallies[0].restart();
        }
        Lost::SleepingTally => {
            cluster.tallies[1].signal("STOP");
            gateways(cluster, voters.clone());
            shows(&cluster.edges[1], voters.end);
            cluster.tallies[1].signal("CONT");
        }
        Lost::ActiveBoard => {
            // Whichever it is, one after the other makes it this one.
            for board in 0..2 {
                cluster.boards[board].kill();
                let some = voters.start..voters.start + (voters.len() * (board + 1)) / 2;
                gateways(cluster, some.clone());
                shows(&cluster.edges[1], some.end);
                cluster.boards[board].restart();
            }
        }
        Lost::Gateway => {
            cluster.gateways[0].kill();
            gateways(cluster, voters.clone());
            shows(&cluster.edges[1], voters.end);
            cluster.gateways[0].restart();
        }
        Lost::Kafka => {
            // Whoever votes meanwhile is refused and tries again.
            cluster.kafka.kill(1);
            std::thread::scope(|scope| {
                let cluster = &*cluster;
                scope.spawn(|| {
                    std::thread::sleep(Duration::from_secs(2));
                    cluster.kafka.restart(1);
                });
                gateways(cluster, voters.clone());
            });
            shows(&cluster.edges[1], voters.end);
        }
        Lost::Edge => {
            cluster.edges[0].kill();
            gateways(cluster, voters.clone());
            shows(&cluster.edges[1], voters.end);
            cluster.edges[0].restart();
        }
    }
}

#[test]
fn readers_see_every_vote_once_whatever_is_killed() {
    let mut cluster = Cluster::start(support::POLL, if soak() { 3 } else { 1 });
    answers_are_told(&cluster);
    let step = if soak() { 2_000 } else { 40 };
    let stop = AtomicBool::new(false);
    let edges: Vec<_> = cluster.edges.iter().map(|edge| edge.address.clone()).collect();
    let mut voters = 0;
    let seen = std::thread::scope(|scope| {
        let watching: Vec<_> = edges.iter().map(|edge| scope.spawn(|| watch(edge, &stop))).collect();
        let all = [
            (Lost::Tally, "a tally"),
            (Lost::ActiveBoard, "each board"),
            (Lost::Gateway, "a gateway"),
            (Lost::Edge, "an edge"),
            (Lost::Kafka, "a broker, for some seconds"),
            (Lost::SleepingTally, "a tally that wakes again"),
        ];
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for (lost, name) in all {
                let started = Instant::now();
                lose(&mut cluster, &lost, voters..voters + step);
                voters += step;
                cluster.edges.iter().for_each(|edge| shows(edge, voters));
                eprintln!("without {name}: all is counted after {:.1} s", started.elapsed().as_secs_f64());
            }
        }));
        stop.store(true, Ordering::Relaxed);
        let seen: Vec<_> = watching.into_iter().map(|watching| watching.join().unwrap()).collect();
        ended.unwrap();
        seen
    });
    let both = seen[0].iter().filter_map(|(number, body)| Some((body, seen[1].get(number)?)));
    let same = both.inspect(|(one, other)| assert_eq!(one, other)).count();
    assert!(same > 0, "the edges have shown something in common");
    voters_who_ask_again_change_nothing(&cluster, voters);
    readers_move_between_edges(&cluster, &mut voters);
    // A tally that is asked to end leaves snapshots, from which the others go on.
    cluster.tallies.pop().unwrap().stop();
    assert!(std::fs::read_dir(cluster.snapshots()).unwrap().count() > 0);
    cast(&cluster.gateways, voters..voters + step);
    voters += step;
    cluster.edges.iter().for_each(|edge| shows(edge, voters));
    let one = cluster.embedded();
    shows(&one, voters);
}

/// Who waits is told what a vote did; who does not is told that it is recorded.
fn answers_are_told(cluster: &Cluster) {
    let gateway = &cluster.gateways[0].address;
    let wait = [("prefer", "wait=10")];
    let answer = vote(gateway, 0, &[]);
    assert_eq!(
        (answer.status, answer.json()["outcome"].as_str()),
        (202, Some("recorded")),
        "{}",
        answer.body
    );
    let first = answer.json()["receipt"]["record"].clone();
    let again = vote(gateway, 0, &wait);
    assert_eq!((again.status, &again.json()["receipt"]["record"]), (200, &first), "{}", again.body);
    let answer = vote(gateway, 1, &wait);
    assert_eq!((answer.status, answer.json()["outcome"].as_str()), (201, Some("counted")), "{}", answer.body);
    let other = json!({"contest": "song", "selections": ["y"], "voter": "voter-0"}).to_string();
    let headers = [("content-type", "application/json"), ("idempotency-key", "other"), wait[0]];
    let second = raw(&cluster.gateways[1].address, "POST", "/api/v1/vote", &headers, other.as_bytes());
    assert_eq!((second.status, second.code().as_str()), (409, "already-voted"), "{}", second.body);
    assert_eq!(second.json()["record"], first);
    look_ups_are_answered(cluster, &first);
    let elsewhere = vote(&cluster.edges[0].address, 2, &[]);
    assert_eq!((elsewhere.status, elsewhere.code().as_str()), (421, "not-here"), "{}", elsewhere.body);
}

/// Every gateway finds out what a voter has cast, from whichever tally knows; an edge says where to ask.
fn look_ups_are_answered(cluster: &Cluster, first: &Value) {
    let bearer = format!("Bearer {}", cluster.key);
    let look_up = |server: &Server, voter: usize| {
        let path = format!("/api/v1/votes/voter-{voter}");
        raw(&server.address, "GET", &path, &[("authorization", &bearer)], b"")
    };
    for gateway in &cluster.gateways {
        let answer = look_up(gateway, 0);
        assert_eq!(answer.status, 200, "{}", answer.body);
        let found = &answer.json()["votes"][0];
        assert_eq!((&found["record"], &found["selections"]), (first, &json!(["x"])));
        // This voter's partition may not have its tally yet.
        let found = eventually("an answer", || {
            let answer = look_up(gateway, 999_999);
            assert!([200, 503].contains(&answer.status), "{}", answer.body);
            (answer.status == 200).then(|| answer.json())
        });
        assert_eq!(found["votes"], json!([]));
    }
    let answer = look_up(&cluster.edges[0], 0);
    assert_ne!(answer.status, 200, "{}", answer.body);
}

fn voters_who_ask_again_change_nothing(cluster: &Cluster, voters: usize) {
    for voter in [0, voters / 2, voters - 1] {
        let answer = vote(&cluster.gateways[0].address, voter, &[("prefer", "wait")]);
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    cluster.edges.iter().for_each(|edge| shows(edge, voters));
}

#[test]
fn options_that_do_not_go_together_say_so() {
    for (options, said) in [
        (&["--roles", "tally"][..], "--kafka"),
        (&["--roles", "tolly", "--kafka", "127.0.0.1:9/x"], "tally"),
        (
            &["--roles", "board", "--kafka", "127.0.0.1:9/x", "--witnesses", "w.toml"],
            "publishes no checkpoints",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().to_str().unwrap();
        let told = fails(&[&["serve", "--listen", "127.0.0.1:0", "--data", data], options].concat());
        assert!(told.contains(said), "{told}");
    }
}
