//! A log on Apache Kafka, or on any service that speaks its protocol: for those who outgrow one machine.
//!
//! Each stream of the log is a topic, `PREFIX.votes` and `PREFIX.returns`, and a batch is one Kafka record, so that
//! Kafka's offsets are the log's. Who replicates what, and who leads, is Kafka's business. `docs/log-format.md`
//! says what a record looks like.

mod address;
mod dead;
mod exchange;
mod member;
mod reader;
mod topics;

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use canvass_election::ids::{Offset, PartitionId, Topic};
use futures_util::{Stream, stream};
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::future_producer::OwnedDeliveryResult;
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer};
use tokio::sync::watch;

pub use self::address::{Address, AddressError};
pub use self::dead::DeadLetter;
pub use self::exchange::{Exchange, Follower, From, Heard, PublishError, Publisher, Said, Subject};
pub use self::member::{Assigned, Group, Member};
use self::reader::{Consumers, Reading};
use self::topics::{Keep, Wanted};
use crate::follow::Tail;
use crate::{
    AppendError, Batch, Entry, Log, MAX_BATCH_BYTES, QUEUE_BATCHES, QUEUE_BYTES, ReadError, check_size,
};

/// How long Kafka may take to store a batch before whoever sent it is told to try again, and to answer a question.
pub const TIMEOUT: Duration = Duration::from_secs(5);
/// How soon a partition is asked again that has no leader at the moment.
const LEADER_PAUSE: Duration = Duration::from_millis(100);
/// What a record may have beside its batch: its headers, and what compression adds to what it cannot compress.
const MAX_EXTRA_BYTES: usize = 1 << 20;
/// Bytes of batches that are collected for one request.
const REQUEST_BYTES: usize = 4 << 20;
/// The header that makes a record one of ours: a version, then the number of the batch's records.
const HEADER: &str = "canvass";
const VERSION: u8 = 1;

/// How many partitions each stream has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partitions {
    /// Partitions of the votes.
    pub votes: u16,
    /// Partitions of the returns.
    pub returns: u16,
}

impl fmt::Display for Partitions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} and {}", self.votes, self.returns)
    }
}

/// Why a log on Kafka could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum KafkaOpenError {
    /// A setting that Kafka's client does not take.
    #[error("the settings for Kafka: {0}")]
    Settings(String),
    /// No broker answers.
    #[error("Kafka at {brokers} does not answer: {source}")]
    Unreachable {
        /// The brokers that were asked.
        brokers: String,
        /// The fault.
        source: KafkaError,
    },
    /// There is no log yet, and it is not known how many partitions it is to have.
    #[error(
        "Kafka at {brokers} has no topic {topic}, and no definition was given; name one with --election FILE"
    )]
    NoTopics {
        /// The brokers that were asked.
        brokers: String,
        /// The topic that is missing.
        topic: String,
    },
    /// The topics have other numbers of partitions than the definition.
    #[error(
        "the topics have {there} partitions of votes and returns, the definition has {given}; a change would break \
         one-person-one-vote, so it is refused. Use the old numbers, or another prefix"
    )]
    OtherPartitions {
        /// Votes and returns, as the topics have them.
        there: Partitions,
        /// Votes and returns, as given.
        given: Partitions,
    },
    /// A topic that is derived from the log has another number of partitions.
    #[error(
        "the topic {topic} has {there} partitions, not {given}; delete it, and it is made again from the log"
    )]
    OtherCount {
        /// The topic.
        topic: String,
        /// As many as it has.
        there: u16,
        /// As many as it must have.
        given: u16,
    },
    /// A topic could not be made.
    #[error("Kafka did not make the topic {topic}: {source}")]
    Create {
        /// The topic.
        topic: String,
        /// Kafka's reason.
        source: KafkaError,
    },
}

/// What Kafka's client says of itself goes to the log of this program, where it is asked for: it tries again by
/// itself, and whoever waits is told.
struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(facility, "Kafka's client: {message}");
            }
            _ => tracing::debug!(facility, "Kafka's client: {message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, "Kafka's client: {reason}");
    }
}

impl ConsumerContext for Quiet {}

type Sender = FutureProducer<Quiet>;

/// What appends and readers share.
struct Cluster {
    topics: [String; 2],
    /// The topic of what is no record of ours.
    dead: String,
    /// What was told of there.
    buried: Mutex<BTreeSet<(PartitionId, Offset)>>,
    sender: Sender,
    consumers: Consumers,
}

impl Cluster {
    fn topic(&self, topic: Topic) -> &str {
        match topic {
            Topic::Votes => &self.topics[0],
            Topic::Returns => &self.topics[1],
        }
    }

    /// The first offset a partition has, and the one its next batch will get.
    async fn bounds(self: &Arc<Self>, partition: PartitionId) -> Result<(Offset, Offset), ReadError> {
        let deadline = Instant::now() + TIMEOUT;
        let (low, high) = loop {
            let cluster = Arc::clone(self);
            let asked = tokio::task::spawn_blocking(move || {
                let topic = cluster.topic(partition.topic);
                cluster.sender.client().fetch_watermarks(topic, partition.index.into(), TIMEOUT)
            });
            match asked.await.map_err(io::Error::other)? {
                Err(error) if is_between_leaders(&error) && Instant::now() < deadline => {
                    tokio::time::sleep(LEADER_PAUSE).await;
                }
                answer => break answer.map_err(io::Error::other)?,
            }
        };
        let offset = |n: i64| u64::try_from(n).map(Offset).map_err(io::Error::other);
        Ok((offset(low)?, offset(high)?))
    }
}

/// Whether a partition has no leader yet that knows of it: so it is right after a topic is made, or a broker is gone.
fn is_between_leaders(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::NotLeaderForPartition
                | RDKafkaErrorCode::LeaderNotAvailable
                | RDKafkaErrorCode::UnknownTopicOrPartition
        )
    )
}

/// A log on Kafka.
pub struct KafkaLog {
    cluster: Arc<Cluster>,
    /// Whether it is closed; locked while a batch takes its place, so that none slips in behind the close.
    closed: RwLock<bool>,
    tail: watch::Sender<Tail>,
}

impl fmt::Debug for KafkaLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaLog").field("topics", &self.cluster.topics).finish_non_exhaustive()
    }
}

impl KafkaLog {
    /// Opens the log at an address. Topics that are missing are made with `partitions`; where none are given, they
    /// must be there. Those that are there must have as many as given.
    ///
    /// # Errors
    /// If Kafka does not answer, or its topics are not what they must be.
    pub async fn open(address: &Address, partitions: Option<Partitions>) -> Result<Self, KafkaOpenError> {
        let config = address.client();
        let settings = |error: KafkaError| KafkaOpenError::Settings(error.to_string());
        let sender: Sender = sending(&config).create_with_context(Quiet).map_err(settings)?;
        let topics = [Topic::Votes, Topic::Returns].map(|topic| address.topic(topic));
        topics::settle(address, &sender, &topics, partitions).await?;
        let dead = address.named("dead");
        let wanted = Wanted { name: dead.clone(), partitions: 1, keep: Keep::Newest };
        topics::ensure(address, &sender, vec![wanted]).await?;
        let consumers = Consumers::new(config);
        let cluster = Arc::new(Cluster { topics, dead, buried: Mutex::default(), sender, consumers });
        Ok(Self { cluster, closed: RwLock::new(false), tail: watch::Sender::default() })
    }

    /// Hands a batch to Kafka's client, which sends batches in the order in which it gets them.
    fn send(&self, partition: PartitionId, batch: &Batch) -> Result<DeliveryFuture, AppendError> {
        check_size(batch)?;
        let closed = self.closed.read().unwrap_or_else(PoisonError::into_inner);
        if *closed {
            return Err(AppendError::Closed(batch.clone()));
        }
        let mut header = [VERSION, 0, 0, 0, 0];
        header[1..].copy_from_slice(&batch.count.to_le_bytes());
        let headers = OwnedHeaders::new_with_capacity(1).insert(Header { key: HEADER, value: Some(&header) });
        let record = FutureRecord::<(), [u8]>::to(self.cluster.topic(partition.topic))
            .partition(partition.index.into())
            .payload(&batch.bytes)
            .headers(headers);
        self.cluster.sender.send_result(record).map_err(|(error, _)| match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::QueueFull) => AppendError::Full(batch.clone()),
            _ => AppendError::Io { batch: batch.clone(), source: Arc::new(io::Error::other(error)) },
        })
    }

    fn shut(&self) {
        *self.closed.write().unwrap_or_else(PoisonError::into_inner) = true;
    }
}

/// The settings of the client that appends. It numbers what it sends, so Kafka stores each batch once and in order
/// however often it is sent, and answers when all replicas that are in sync have it.
fn sending(client: &ClientConfig) -> ClientConfig {
    let mut config = client.clone();
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("compression.type", "lz4")
        .set("linger.ms", "5")
        .set("batch.size", REQUEST_BYTES.to_string())
        .set("message.timeout.ms", TIMEOUT.as_millis().to_string())
        .set("queue.buffering.max.messages", QUEUE_BATCHES.to_string())
        .set("queue.buffering.max.kbytes", (QUEUE_BYTES >> 10).to_string());
    config
}

/// What became of a batch. One that timed out may be stored all the same: whoever sends it again is told that it is
/// a duplicate.
fn delivered(batch: Batch, result: Option<OwnedDeliveryResult>) -> Result<Offset, AppendError> {
    let failed = |batch, source: io::Error| AppendError::Io { batch, source: Arc::new(source) };
    match result {
        Some(Ok(delivery)) => match u64::try_from(delivery.offset) {
            Ok(offset) => Ok(Offset(offset)),
            Err(_) => Err(failed(batch, io::Error::other("Kafka did not say where it stored the batch"))),
        },
        Some(Err((error, _))) => Err(failed(batch, io::Error::other(error))),
        None => Err(failed(batch, io::Error::other("Kafka's client is gone"))),
    }
}

impl Log for KafkaLog {
    fn append(
        &self,
        partition: PartitionId,
        batch: Batch,
    ) -> impl Future<Output = Result<Offset, AppendError>> + Send {
        let sent = self.send(partition, &batch);
        async move { delivered(batch, sent?.await.ok()) }
    }

    fn read(
        &self,
        partition: PartitionId,
        from: Offset,
    ) -> impl Stream<Item = Result<Entry, ReadError>> + Send + 'static {
        let reading = Reading::new(Arc::clone(&self.cluster), partition, from, self.tail.subscribe());
        stream::unfold(reading, |mut reading| async move { reading.next().await.map(|item| (item, reading)) })
    }

    async fn end(&self, partition: PartitionId) -> Result<Offset, ReadError> {
        Ok(self.cluster.bounds(partition).await?.1)
    }

    async fn entry(&self, partition: PartitionId, offset: Offset) -> Result<Option<Entry>, ReadError> {
        if offset >= self.end(partition).await? {
            return Ok(None);
        }
        let mut reading = Reading::new(Arc::clone(&self.cluster), partition, offset, self.tail.subscribe());
        let read = tokio::time::timeout(TIMEOUT, reading.next()).await;
        read.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "Kafka does not answer"))?.transpose()
    }

    fn close(&self) -> impl Future<Output = ()> + Send {
        self.shut();
        async {
            let sender = self.cluster.sender.clone();
            // What waits is stored or refused within the timeout; each caller is told which.
            let flushed = tokio::task::spawn_blocking(move || sender.flush(TIMEOUT)).await;
            if !matches!(flushed, Ok(Ok(()))) {
                tracing::warn!(
                    "Kafka did not store all that was still to be stored; whoever sent it was told"
                );
            }
            self.tail.send_replace(Tail { closed: true });
        }
    }
}

impl Drop for KafkaLog {
    fn drop(&mut self) {
        self.shut();
        // Callers are told by the client what became of their batches.
        let _ = self.cluster.sender.flush(TIMEOUT);
    }
}

#[cfg(test)]
mod tests;
