//! Membership of a group: which process does what is Kafka's to say.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance, StreamConsumer};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::TopicPartitionList;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{Address, KafkaOpenError, Quiet};
use canvass_election::ids::{PartitionId, Topic};

/// A member that is not heard of for so long has its share given to others: the shortest that brokers allow as they
/// are set.
const SESSION: Duration = Duration::from_secs(6);
/// A member whose program does not move for so long leaves by itself.
const PATIENCE: Duration = Duration::from_secs(30);

/// What members share among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// The partitions of the log, to fold them.
    Tallies,
    /// The results, to publish them: one member does, the others are ready.
    Boards,
}

/// A member's share: each partition with a number that grows whenever it is given anew. The results are given as
/// [`PartitionId::CONTROL`].
pub type Assigned = BTreeMap<PartitionId, u64>;

/// A member of a group, until it is dropped.
pub struct Member {
    assigned: watch::Receiver<Assigned>,
    polling: JoinHandle<()>,
}

impl Member {
    /// Joins a group. `name` is this process's own and stays the same when it starts again: coming back in time, it
    /// has its share again and nobody else is troubled.
    ///
    /// # Errors
    /// If Kafka's client does not take the settings.
    pub fn join(address: &Address, group: Group, name: &str) -> Result<Self, KafkaOpenError> {
        let settings = |error: KafkaError| KafkaOpenError::Settings(error.to_string());
        let (group, topics) = match group {
            Group::Tallies => ("tallies", [Topic::Votes, Topic::Returns].map(|t| address.topic(t)).to_vec()),
            Group::Boards => ("boards", vec![address.named("results")]),
        };
        let mut config = address.client();
        config
            .set("group.id", address.named(group))
            .set("group.instance.id", name)
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", SESSION.as_millis().to_string())
            .set("heartbeat.interval.ms", (SESSION / 4).as_millis().to_string())
            .set("max.poll.interval.ms", PATIENCE.as_millis().to_string())
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "latest");
        let (sender, assigned) = watch::channel(Assigned::new());
        let shares = Shares { address: address.clone(), assigned: sender, next: 1.into() };
        let consumer: StreamConsumer<Shares> = config.create_with_context(shares).map_err(settings)?;
        let names: Vec<_> = topics.iter().map(String::as_str).collect();
        consumer.subscribe(&names).map_err(settings)?;
        let polling = tokio::spawn(async move {
            loop {
                // Nothing is read here: partitions are paused as soon as they are given.
                if let Err(error) = consumer.recv().await {
                    tracing::debug!(%error, "the group's coordinator cannot be reached at the moment");
                    if matches!(&error, KafkaError::MessageConsumption(code) if *code == rdkafka::error::RDKafkaErrorCode::Fatal)
                    {
                        tracing::error!(%error, "another process has this member's name");
                        consumer.context().assigned.send_replace(Assigned::new());
                        return;
                    }
                }
            }
        });
        Ok(Member { assigned, polling })
    }

    /// This member's share as it changes.
    #[must_use]
    pub fn assigned(&self) -> watch::Receiver<Assigned> {
        self.assigned.clone()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.polling.abort();
    }
}

/// Keeps a member's share.
struct Shares {
    address: Address,
    assigned: watch::Sender<Assigned>,
    next: std::sync::atomic::AtomicU64,
}

impl Shares {
    fn partitions(&self, places: &TopicPartitionList) -> Vec<PartitionId> {
        let known = [Topic::Votes, Topic::Returns].map(|topic| (self.address.topic(topic), topic));
        let id = |(name, partition): &(String, i32)| {
            let index = u16::try_from(*partition).ok()?;
            let topic = known.iter().find(|(known, _)| known == name).map(|(_, topic)| *topic);
            Some(topic.map_or(PartitionId::CONTROL, |topic| PartitionId { topic, index }))
        };
        places.to_topic_map().keys().filter_map(id).collect()
    }
}

impl ClientContext for Shares {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        Quiet.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        Quiet.error(error, reason);
    }
}

impl ConsumerContext for Shares {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(places) = rebalance {
            let gone = self.partitions(places);
            self.assigned.send_modify(|assigned| assigned.retain(|id, _| !gone.contains(id)));
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let Rebalance::Assign(places) = rebalance else { return };
        if let Err(error) = consumer.pause(places) {
            tracing::debug!(%error, "partitions could not be paused");
        }
        let number = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let given = self.partitions(places);
        self.assigned.send_modify(|assigned| assigned.extend(given.into_iter().map(|id| (id, number))));
    }
}
