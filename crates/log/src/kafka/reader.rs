//! Reading: one partition from an offset on, by a consumer of its own.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use canvass_election::ids::{Offset, PartitionId, RecordId};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::{Offset as Place, TopicPartitionList};
use tokio::sync::watch;

use super::{Cluster, HEADER, MAX_BATCH_BYTES, MAX_EXTRA_BYTES, Quiet, VERSION};
use crate::follow::Tail;
use crate::{Batch, Entry, ReadError};

/// Consumers that are kept for the next reader; making one takes a connection to each broker.
const KEPT: usize = 8;
/// Bytes that a consumer reads ahead.
const AHEAD_BYTES: usize = 8 << 20;

/// Consumers that nobody uses at the moment.
pub(super) struct Consumers {
    config: ClientConfig,
    idle: Mutex<Vec<StreamConsumer<Quiet>>>,
}

impl Consumers {
    pub(super) fn new(mut config: ClientConfig) -> Self {
        let largest = MAX_BATCH_BYTES + MAX_EXTRA_BYTES;
        config
            // Kafka's client wants a group, which nobody joins: each consumer is told what to read.
            .set("group.id", "canvass")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("check.crcs", "true")
            .set("fetch.max.bytes", largest.to_string())
            .set("receive.message.max.bytes", (largest + MAX_EXTRA_BYTES).to_string())
            .set("queued.max.messages.kbytes", (AHEAD_BYTES >> 10).to_string())
            .set("fetch.queue.backoff.ms", "5");
        Self { config, idle: Mutex::default() }
    }

    pub(super) fn take(&self) -> Result<StreamConsumer<Quiet>, KafkaError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.map_or_else(|| self.config.create_with_context(Quiet), Ok)
    }

    pub(super) fn put_back(&self, consumer: StreamConsumer<Quiet>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < KEPT && consumer.unassign().is_ok() {
            idle.push(consumer);
        }
    }
}

/// A partition that is read.
pub(super) struct Reading {
    cluster: Arc<Cluster>,
    partition: PartitionId,
    next: Offset,
    tail: watch::Receiver<Tail>,
    consumer: Option<StreamConsumer<Quiet>>,
    /// Where to stop, once the log is closed.
    last: Option<Offset>,
    failed: bool,
}

impl Reading {
    pub(super) fn new(
        cluster: Arc<Cluster>,
        partition: PartitionId,
        from: Offset,
        tail: watch::Receiver<Tail>,
    ) -> Self {
        Self { cluster, partition, next: from, tail, consumer: None, last: None, failed: false }
    }

    /// The next entry, waited for; none at the end of a closed log, and after an error.
    pub(super) async fn next(&mut self) -> Option<Result<Entry, ReadError>> {
        while !self.failed && self.last.is_none_or(|last| self.next < last) {
            match self.step().await {
                Ok(Some(entry)) => {
                    self.next = entry.offset.next();
                    return Some(Ok(entry));
                }
                Ok(None) => {}
                Err(error) => {
                    self.failed = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }

    async fn step(&mut self) -> Result<Option<Entry>, ReadError> {
        let consumer = match self.consumer.take() {
            Some(consumer) => consumer,
            None => self.assigned().await?,
        };
        let consumer = self.consumer.insert(consumer);
        let open = self.last.is_none();
        let message = tokio::select! {
            message = consumer.recv() => Some(message),
            // A log that was dropped is closed as well.
            () = closed(&mut self.tail), if open => None,
        };
        let Some(message) = message else {
            self.last = Some(self.cluster.bounds(self.partition).await?.1);
            return Ok(None);
        };
        match message {
            Ok(message) => entry_of(&self.cluster, self.partition, self.next, &message),
            Err(error) if is_lasting(&error) => Err(io::Error::other(error).into()),
            Err(error) => {
                // Kafka's client goes on by itself as soon as a broker answers.
                tracing::debug!(partition = %self.partition, %error, "Kafka cannot be read at the moment");
                Ok(None)
            }
        }
    }

    /// A consumer that stands at the next entry, or at the end where that is not there yet.
    async fn assigned(&self) -> Result<StreamConsumer<Quiet>, ReadError> {
        let (first, end) = self.cluster.bounds(self.partition).await?;
        if self.next < first {
            return Err(self.damaged("batches were removed from the topic"));
        }
        let from = i64::try_from(self.next.min(end).0).map_err(io::Error::other)?;
        let consumer = self.cluster.consumers.take().map_err(io::Error::other)?;
        let mut places = TopicPartitionList::with_capacity(1);
        let topic = self.cluster.topic(self.partition.topic);
        places
            .add_partition_offset(topic, self.partition.index.into(), Place::Offset(from))
            .map_err(io::Error::other)?;
        consumer.assign(&places).map_err(io::Error::other)?;
        Ok(consumer)
    }

    fn damaged(&self, what: &'static str) -> ReadError {
        damaged(&self.cluster, self.partition, self.next.0, what)
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if let Some(consumer) = self.consumer.take() {
            self.cluster.consumers.put_back(consumer);
        }
    }
}

async fn closed(tail: &mut watch::Receiver<Tail>) {
    let _ = tail.wait_for(|tail| tail.closed).await;
}

fn damaged(cluster: &Cluster, partition: PartitionId, at: u64, what: &'static str) -> ReadError {
    let place = format!("{}, partition {}", cluster.topic(partition.topic), partition.index);
    ReadError::Corrupt { place, at, what }
}

/// The entry in a message; none for one before the next, which Kafka sends where its own batch began earlier.
fn entry_of(
    cluster: &Cluster,
    partition: PartitionId,
    next: Offset,
    message: &BorrowedMessage<'_>,
) -> Result<Option<Entry>, ReadError> {
    let offset = Offset(u64::try_from(message.offset()).unwrap_or(0));
    let damaged = |what| Err(damaged(cluster, partition, offset.0, what));
    if offset < next {
        return Ok(None);
    }
    if offset > next {
        return damaged("batches before it are missing");
    }
    let payload = message.payload().unwrap_or_default();
    let header = message.headers().and_then(|headers| headers.iter().find(|header| header.key == HEADER));
    let batch = match header.and_then(|header| header.value) {
        Some([VERSION, count @ ..]) => match count.try_into() {
            Ok(count) => Batch { count: u32::from_le_bytes(count), bytes: Bytes::copy_from_slice(payload) },
            Err(_) => return damaged("its header is not one of Canvass"),
        },
        // To leave out what a newer Canvass counts would be a wrong count.
        Some(_) => return damaged("a newer Canvass wrote it"),
        None => {
            let name = RecordId { partition, offset, position: 0 };
            cluster.bury(name, "it is not a record of Canvass", payload);
            Batch { count: 0, bytes: Bytes::new() }
        }
    };
    Ok(Some(Entry { partition, offset, batch }))
}

/// Whether waiting does not help.
pub(super) fn is_lasting(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::AutoOffsetReset
                | Code::OffsetOutOfRange
                | Code::UnknownTopic
                | Code::UnknownPartition
                | Code::UnknownTopicOrPartition
                | Code::TopicAuthorizationFailed
                | Code::Fatal
        )
    )
}
