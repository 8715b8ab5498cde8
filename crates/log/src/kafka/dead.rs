//! Dead letters: what lies in the log's topics and is no record of Canvass. It cannot be counted and must not stop the
//! count, so every reader takes it for a batch of nothing; it is told of on a topic of its own, `PREFIX.dead`.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use canvass_election::ids::{Offset, PartitionId, RecordId};
use rdkafka::consumer::Consumer;
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{FutureRecord, Producer};
use rdkafka::topic_partition_list::{Offset as Place, TopicPartitionList};

use super::{Cluster, KafkaLog, TIMEOUT};
use crate::ReadError;

/// The header of a dead letter that says why it is one.
const REASON: &str = "reason";

/// Something in the log that is no record of Canvass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Where it lies.
    pub partition: PartitionId,
    /// Its place there.
    pub offset: Offset,
    /// Why it cannot be counted.
    pub reason: String,
    /// What it holds.
    pub bytes: Bytes,
}

impl DeadLetter {
    /// Its name: that of the record which stands where nothing does.
    #[must_use]
    pub fn name(&self) -> RecordId {
        RecordId { partition: self.partition, offset: self.offset, position: 0 }
    }
}

impl Cluster {
    /// Tells of a record that is none of ours, once in the life of this process; compaction keeps one of all.
    pub(super) fn bury(&self, name: RecordId, reason: &str, bytes: &[u8]) {
        let mut buried = self.buried.lock().unwrap_or_else(PoisonError::into_inner);
        if !buried.insert((name.partition, name.offset)) {
            return;
        }
        tracing::warn!(letter = %name, reason, "something in the log is left out; `canvass dlq list` shows it");
        let headers = OwnedHeaders::new().insert(Header { key: REASON, value: Some(reason) });
        let key = name.to_string();
        let letter = FutureRecord::to(&self.dead).partition(0).key(&key).payload(bytes).headers(headers);
        if self.sender.send_result(letter).is_err() {
            // Whoever reads it next tells of it.
            buried.remove(&(name.partition, name.offset));
        }
    }
}

impl KafkaLog {
    /// Everything in the log that readers found to be no record of Canvass, in the order of its names.
    ///
    /// # Errors
    /// If Kafka does not answer.
    pub async fn dead_letters(&self) -> Result<Vec<DeadLetter>, ReadError> {
        let cluster = Arc::clone(&self.cluster);
        let end = tokio::task::spawn_blocking(move || {
            cluster.sender.client().fetch_watermarks(&cluster.dead, 0, TIMEOUT)
        });
        let (begin, end) = end.await.map_err(io::Error::other)?.map_err(io::Error::other)?;
        let mut letters = BTreeMap::new();
        if begin == end {
            return Ok(Vec::new());
        }
        let consumer = self.cluster.consumers.take().map_err(io::Error::other)?;
        let mut places = TopicPartitionList::with_capacity(1);
        let place = places.add_partition_offset(&self.cluster.dead, 0, Place::Offset(begin));
        place.and_then(|()| consumer.assign(&places)).map_err(io::Error::other)?;
        loop {
            let message = tokio::time::timeout(TIMEOUT, consumer.recv()).await;
            let message =
                message.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "Kafka does not answer"))?;
            let message = message.map_err(io::Error::other)?;
            letters.extend(letter(&message).map(|letter| ((letter.partition, letter.offset), letter)));
            if message.offset() + 1 >= end {
                break;
            }
        }
        self.cluster.consumers.put_back(consumer);
        Ok(letters.into_values().collect())
    }
}

/// The dead letter in a message; none in what somebody else put there.
fn letter(message: &BorrowedMessage<'_>) -> Option<DeadLetter> {
    let name: RecordId = std::str::from_utf8(message.key()?).ok()?.parse().ok()?;
    let reason = message.headers()?.iter().find(|header| header.key == REASON)?.value?;
    Some(DeadLetter {
        partition: name.partition,
        offset: name.offset,
        reason: String::from_utf8_lossy(reason).into_owned(),
        bytes: Bytes::copy_from_slice(message.payload().unwrap_or_default()),
    })
}
