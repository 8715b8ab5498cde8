//! What the processes of a cluster tell each other beside the log: partials, results and verdicts, each a topic.
//!
//! Whatever is told there follows from the log. Partials and results have one writer a partition, which Kafka's
//! transactions see to: who begins to write shuts out whoever wrote before, so that a process that slept through its
//! own replacement cannot put something old on top of something new.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{DeliveryFuture, FutureRecord, Producer};
use rdkafka::topic_partition_list::{Offset as Place, TopicPartitionList};

use super::topics::{self, Keep, Wanted};
use super::{Address, KafkaOpenError, Partitions, Quiet, Sender, TIMEOUT, sending};
use crate::ReadError;

/// How long a transaction may be open before Kafka ends it: while it is, nobody reads what comes behind it.
const TRANSACTION: Duration = Duration::from_secs(10);
/// Deliveries that are awaited together.
const AT_ONCE: usize = 4_096;

/// A topic of the exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// What each partition of the log adds up to: as many partitions as the log has, compacted by key.
    Partials,
    /// What the board has published, in order: one partition, and everything is kept.
    Results,
    /// What records did of which somebody waits to hear: as many partitions as the log has, kept for an hour.
    Verdicts,
    /// What gateways ask the owners of partitions: as many partitions as the log has, kept for an hour.
    Questions,
}

impl Subject {
    fn name(self) -> &'static str {
        match self {
            Subject::Partials => "partials",
            Subject::Results => "results",
            Subject::Verdicts => "verdicts",
            Subject::Questions => "questions",
        }
    }
}

/// The topics of a cluster, beside those of the log.
#[derive(Clone)]
pub struct Exchange {
    address: Address,
    sender: Sender,
    /// How many partitions the log has.
    partitions: u16,
}

/// Something to tell.
#[derive(Debug, Clone)]
pub struct Said {
    /// What it is about: of one key, compaction keeps the last.
    pub key: Vec<u8>,
    /// What is said.
    pub value: Vec<u8>,
}

/// Where a follower begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// With all that was said.
    Start,
    /// With what is said from now on.
    Now,
}

/// What a follower hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// Something that was said.
    Said {
        /// The partition.
        partition: u16,
        /// Its key.
        key: Bytes,
        /// What was said.
        value: Bytes,
    },
    /// All that had been said at some moment since the beginning has been heard. Told once.
    All,
}

/// Why something was not published.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PublishError {
    /// Somebody else has begun to write here since.
    #[error("another process writes here now")]
    Fenced,
    /// It could not be published now and may be tried again.
    #[error("Kafka cannot be written: {0}")]
    Io(Arc<KafkaError>),
}

impl PublishError {
    fn of(error: KafkaError) -> Self {
        use RDKafkaErrorCode as Code;
        let fatal = matches!(&error, KafkaError::Transaction(fault) if fault.is_fatal());
        let fenced = matches!(
            error.rdkafka_error_code(),
            Some(Code::ProducerFenced | Code::InvalidProducerEpoch | Code::Fenced | Code::Fatal)
        );
        if fatal || fenced { Self::Fenced } else { Self::Io(Arc::new(error)) }
    }
}

impl Exchange {
    /// Makes the topics that are missing.
    ///
    /// # Errors
    /// If Kafka does not answer, or a topic is not what it must be.
    pub async fn open(address: &Address, partitions: Partitions) -> Result<Self, KafkaOpenError> {
        let settings = |error: KafkaError| KafkaOpenError::Settings(error.to_string());
        let sender: Sender = rdkafka::config::FromClientConfigAndContext::from_config_and_context(
            &sending(&address.client()),
            Quiet,
        )
        .map_err(settings)?;
        let partitions = partitions.votes.saturating_add(partitions.returns);
        let exchange = Exchange { address: address.clone(), sender, partitions };
        let wanted = [
            (Subject::Partials, Keep::Newest),
            (Subject::Results, Keep::All),
            (Subject::Verdicts, Keep::Hour),
            (Subject::Questions, Keep::Hour),
        ];
        let wanted = wanted.map(|(subject, keep)| Wanted {
            name: exchange.topic(subject),
            partitions: exchange.count(subject),
            keep,
        });
        topics::ensure(address, &exchange.sender, wanted.into()).await?;
        Ok(exchange)
    }

    /// Where the cluster's topics are.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    fn topic(&self, subject: Subject) -> String {
        self.address.named(subject.name())
    }

    fn count(&self, subject: Subject) -> u16 {
        if subject == Subject::Results { 1 } else { self.partitions }
    }

    /// Becomes the one writer of a partition; whoever was it before is shut out.
    ///
    /// # Errors
    /// If Kafka does not answer.
    pub async fn publisher(&self, subject: Subject, partition: u16) -> Result<Publisher, PublishError> {
        let id = self.address.named(&format!("{}-{partition}", subject.name()));
        let mut config: ClientConfig = sending(&self.address.client());
        config
            .set("transactional.id", id)
            .set("transaction.timeout.ms", TRANSACTION.as_millis().to_string())
            .set("message.timeout.ms", TIMEOUT.as_millis().to_string())
            .set("linger.ms", "0");
        let topic = self.topic(subject);
        blocking(move || {
            let sender: Sender = config.create_with_context(Quiet)?;
            sender.init_transactions(TRANSACTION)?;
            Ok(Publisher { sender, topic, partition: partition.into() })
        })
        .await
    }

    /// Hears what is said, in each partition in its order; of what a writer did not end, nothing. With `only`, one
    /// partition.
    ///
    /// # Errors
    /// If the topic cannot be read.
    pub fn follow(&self, subject: Subject, only: Option<u16>, from: From) -> Result<Follower, ReadError> {
        let mut config = self.address.client();
        config
            .set("group.id", self.address.named("nobody"))
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", if from == From::Start { "error" } else { "latest" })
            .set("isolation.level", "read_committed")
            .set("check.crcs", "true")
            .set("fetch.queue.backoff.ms", "5")
            .set("fetch.wait.max.ms", "100");
        let consumer: StreamConsumer<Quiet> = config.create_with_context(Quiet).map_err(io::Error::other)?;
        let topic = self.topic(subject);
        let mut places = TopicPartitionList::new();
        let place = if from == From::Start { Place::Beginning } else { Place::End };
        let chosen = (0..self.count(subject)).filter(|partition| only.is_none_or(|only| only == *partition));
        for partition in chosen {
            places.add_partition_offset(&topic, partition.into(), place).map_err(io::Error::other)?;
        }
        let behind = places.count();
        consumer.assign(&places).map_err(io::Error::other)?;
        Ok(Follower { consumer, at_end: vec![false; usize::from(self.count(subject))], behind })
    }

    /// Says something that nobody's count depends on, and does not wait until it is stored.
    pub fn mention(&self, subject: Subject, partition: u16, value: &[u8]) {
        let topic = self.topic(subject);
        let record = FutureRecord::<(), [u8]>::to(&topic).partition(partition.into()).payload(value);
        if let Err((error, _)) = self.sender.send_result(record) {
            tracing::debug!(%error, "Kafka's client takes nothing more at the moment");
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, KafkaError> + Send + 'static,
) -> Result<T, PublishError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or(Err(KafkaError::Canceled)).map_err(PublishError::of)
}

/// The one writer of a partition, until another begins.
pub struct Publisher {
    sender: Sender,
    topic: String,
    partition: i32,
}

impl Publisher {
    /// Publishes all of it or nothing: readers hear it once it is whole.
    ///
    /// # Errors
    /// If somebody else writes here by now, which is for good; or if Kafka cannot be written at the moment. Then it
    /// may be published all the same, and is to be published again.
    pub async fn publish(&self, said: &[Said]) -> Result<(), PublishError> {
        let sender = self.sender.clone();
        if let Err(error) = sender.begin_transaction() {
            // The last one may have been left open, where Kafka did not answer.
            self.end(move || sender.abort_transaction(TRANSACTION)).await?;
            return Err(PublishError::of(error));
        }
        let sent = self.send(said).await;
        match sent {
            Ok(()) => self.end(move || commit(&sender)).await,
            Err(error) => {
                self.end(move || sender.abort_transaction(TRANSACTION)).await?;
                Err(error)
            }
        }
    }

    async fn send(&self, said: &[Said]) -> Result<(), PublishError> {
        for some in said.chunks(AT_ONCE) {
            let sent: Result<Vec<DeliveryFuture>, _> = some
                .iter()
                .map(|Said { key, value }| {
                    let record = FutureRecord::<[u8], [u8]>::to(&self.topic).partition(self.partition);
                    let sent = self.sender.send_result(record.key(key).payload(value));
                    sent.map_err(|(error, _)| PublishError::of(error))
                })
                .collect();
            for delivery in sent? {
                match delivery.await {
                    Ok(Ok(_)) => {}
                    Ok(Err((error, _))) => return Err(PublishError::of(error)),
                    Err(_) => return Err(PublishError::of(KafkaError::Canceled)),
                }
            }
        }
        Ok(())
    }

    async fn end(
        &self,
        work: impl FnOnce() -> Result<(), KafkaError> + Send + 'static,
    ) -> Result<(), PublishError> {
        blocking(work).await
    }
}

/// Ends a transaction, and gives it up where it cannot be ended.
fn commit(sender: &Sender) -> Result<(), KafkaError> {
    let until = Instant::now() + TRANSACTION;
    loop {
        match sender.commit_transaction(TIMEOUT) {
            Err(KafkaError::Transaction(fault)) if fault.is_retriable() && Instant::now() < until => {}
            Err(KafkaError::Transaction(fault)) if fault.txn_requires_abort() => {
                sender.abort_transaction(TRANSACTION)?;
                return Err(KafkaError::Transaction(fault));
            }
            ended => return ended,
        }
    }
}

/// Hears what is said on a topic.
pub struct Follower {
    consumer: StreamConsumer<Quiet>,
    /// The partitions whose end was seen once.
    at_end: Vec<bool>,
    /// How many were not.
    behind: usize,
}

impl Follower {
    /// Waits for what comes next.
    ///
    /// # Errors
    /// If the topic cannot be read and waiting does not help.
    pub async fn next(&mut self) -> Result<Heard, ReadError> {
        loop {
            match self.consumer.recv().await {
                Ok(message) => {
                    let bytes = |part: Option<&[u8]>| Bytes::copy_from_slice(part.unwrap_or_default());
                    return Ok(Heard::Said {
                        partition: u16::try_from(message.partition()).unwrap_or(u16::MAX),
                        key: bytes(message.key()),
                        value: bytes(message.payload()),
                    });
                }
                Err(KafkaError::PartitionEOF(partition)) => {
                    let seen = usize::try_from(partition).ok().and_then(|i| self.at_end.get_mut(i));
                    if seen.is_some_and(|seen| !std::mem::replace(seen, true)) {
                        self.behind -= 1;
                        if self.behind == 0 {
                            return Ok(Heard::All);
                        }
                    }
                }
                Err(error) if super::reader::is_lasting(&error) => return Err(io::Error::other(error).into()),
                // Kafka's client goes on by itself as soon as a broker answers.
                Err(error) => tracing::debug!(%error, "Kafka cannot be read at the moment"),
            }
        }
    }
}
