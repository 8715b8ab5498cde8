use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;

use super::*;

/// The broker of these tests: that of `KAFKA_BOOTSTRAP`, or one that is started and ends with this process.
fn brokers() -> &'static str {
    static BROKERS: OnceLock<String> = OnceLock::new();
    BROKERS.get_or_init(|| {
        if let Ok(running) = std::env::var("KAFKA_BOOTSTRAP") {
            return running;
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/kafka");
        let started = Command::new(script)
            .arg("start")
            .env("KAFKA_OWNER", std::process::id().to_string())
            .stderr(Stdio::inherit())
            .output()
            .expect("scripts/kafka runs");
        assert!(started.status.success(), "scripts/kafka starts a broker");
        String::from_utf8(started.stdout).expect("an address").trim().to_owned()
    })
}

/// An address under which nothing is yet.
fn fresh() -> Address {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    let text = format!("{}/test-{now}-{}", brokers(), NEXT.fetch_add(1, Ordering::Relaxed));
    text.parse().unwrap()
}

const EIGHT: Partitions = Partitions { votes: 8, returns: 8 };

async fn open(address: &Address) -> KafkaLog {
    KafkaLog::open(address, Some(EIGHT)).await.unwrap()
}

crate::log_conformance!(async || (open(&fresh()).await, ()));

#[tokio::test]
async fn opened_again_it_is_the_same() {
    let address = fresh();
    crate::conformance::a_reopened_log_is_the_same(async || open(&address).await).await;
}

#[tokio::test]
async fn topics_keep_the_partitions_they_were_made_with() {
    let address = fresh();
    let none = KafkaLog::open(&address, None).await.unwrap_err();
    assert!(matches!(&none, KafkaOpenError::NoTopics { topic, .. } if *topic == address.topic(Topic::Votes)));
    let given = Partitions { votes: 4, returns: 2 };
    KafkaLog::open(&address, Some(given)).await.unwrap();
    KafkaLog::open(&address, None).await.unwrap();
    let other = KafkaLog::open(&address, Some(EIGHT)).await.unwrap_err();
    assert!(matches!(other, KafkaOpenError::OtherPartitions { there, given: EIGHT } if there == given));
}

async fn put(log: &KafkaLog, bytes: &[u8], header: Option<&[u8]>) {
    let topic = log.cluster.topic(Topic::Votes).to_owned();
    let headers = header.map(|value| OwnedHeaders::new().insert(Header { key: HEADER, value: Some(value) }));
    let foreign = FutureRecord::<(), [u8]>::to(&topic).partition(0).payload(bytes);
    let foreign = FutureRecord { headers, ..foreign };
    log.cluster.sender.send_result(foreign).unwrap().await.unwrap().unwrap();
}

#[tokio::test]
async fn a_record_of_somebody_else_is_a_batch_of_nothing_and_a_dead_letter() {
    let address = fresh();
    let log = open(&address).await;
    let id = PartitionId::votes(0);
    assert_eq!(log.dead_letters().await.unwrap(), Vec::new());
    put(&log, b"hello", None).await;
    put(&log, b"", None).await;
    let batch = Batch { count: 1, bytes: Bytes::from_static(b"ours") };
    assert_eq!(log.append(id, batch.clone()).await.unwrap(), Offset(2));
    for _ in 0..2 {
        // Whoever reads it, now or in another process, reads the same.
        let log = open(&address).await;
        let nothing = Batch { count: 0, bytes: Bytes::new() };
        for (offset, batch) in [(0, &nothing), (1, &nothing), (2, &batch)] {
            assert_eq!(log.entry(id, Offset(offset)).await.unwrap().unwrap().batch, *batch);
        }
        log.close().await;
        let letters = log.dead_letters().await.unwrap();
        let letters: Vec<_> = letters.iter().map(|l| (l.name().to_string(), &l.bytes[..])).collect();
        assert_eq!(letters, [("votes-0-0-0".to_owned(), &b"hello"[..]), ("votes-0-1-0".to_owned(), b"")]);
    }
}

#[tokio::test]
async fn a_record_of_a_newer_version_is_not_left_out() {
    let log = open(&fresh()).await;
    put(&log, b"ours", Some(&[VERSION + 1, 1, 0, 0, 0])).await;
    let error = log.entry(PartitionId::votes(0), Offset(0)).await.unwrap_err();
    assert!(matches!(error, ReadError::Corrupt { at: 0, what: "a newer Canvass wrote it", .. }), "{error}");
}

#[tokio::test]
async fn nobody_answers_where_no_broker_is() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let free = listener.local_addr().unwrap();
    drop(listener);
    let address: Address = format!("{free}/nobody").parse().unwrap();
    let error = KafkaLog::open(&address, Some(EIGHT)).await.unwrap_err();
    assert!(matches!(error, KafkaOpenError::Unreachable { .. }), "{error}");
}

#[test]
fn addresses_are_read_strictly() {
    for good in ["127.0.0.1:9092/night", "a:1,b:2/2024.nc_general-1", "[::1]:9092/x"] {
        assert_eq!(good.parse::<Address>().unwrap().to_string(), good);
    }
    for bad in ["", "a:1", "a/x", "a:0/x", ":1/x", "a:1,/x", "a:1/", "a:1/x y", "u:p@a:1/x", "kafka://a:1/x"]
    {
        assert!(bad.parse::<Address>().is_err(), "{bad}");
    }
}

#[test]
fn settings_say_how_to_speak_to_brokers_and_nothing_else() {
    let address: Address = "a:1/x".parse().unwrap();
    let text = "# TLS\nsecurity.protocol = SASL_SSL\n\nsasl.password=a=b\nssl.ca.location=/ca.pem\n";
    let config = address.clone().with_settings(text).unwrap();
    assert!(!format!("{config:?}").contains("a=b"), "passwords are not shown");
    let client = config.client();
    let keys: BTreeSet<_> = client.config_map().keys().map(|key| (*key).to_owned()).collect();
    assert!(keys.contains("security.protocol") && keys.contains("ssl.ca.location"));
    assert_eq!(client.get("sasl.password"), Some("a=b"));
    let line = |line, key: &str| Err(AddressError::Setting { line, key: key.to_owned() });
    assert_eq!(address.clone().with_settings("\nacks=1"), line(2, "acks"));
    assert_eq!(address.with_settings("nonsense"), Err(AddressError::Line(1)));
}
