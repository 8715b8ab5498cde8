//! The topics of a log: made at the first start, and never changed.

use std::time::Instant;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;
use rdkafka::producer::Producer;

use super::{Address, KafkaOpenError, MAX_BATCH_BYTES, MAX_EXTRA_BYTES, Partitions, Quiet, Sender, TIMEOUT};

/// Copies of each partition, where there are so many brokers.
const REPLICAS: usize = 3;
/// Of three copies, so many must have a batch before it is acknowledged.
const IN_SYNC: usize = 2;
/// How often the cluster is asked whether it knows a topic that was made just now.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(50);

/// Makes the topics that are missing and compares those that are there.
pub(super) async fn settle(
    address: &Address,
    sender: &Sender,
    topics: &[String; 2],
    given: Option<Partitions>,
) -> Result<(), KafkaOpenError> {
    let seen = metadata(address, sender).await?;
    let there = counts(&seen, topics);
    if let Some(given) = given {
        let wanted = [given.votes, given.returns];
        let missing = topics.iter().zip(wanted).zip(there).filter(|(_, there)| there.is_none());
        let missing: Vec<_> = missing
            .map(|((name, partitions), _)| Wanted { name: name.clone(), partitions, keep: Keep::All })
            .collect();
        make(address, seen.brokers().len(), &missing).await?;
    } else if let Some((topic, _)) = topics.iter().zip(there).find(|(_, there)| there.is_none()) {
        let (brokers, topic) = (address.brokers().to_owned(), topic.clone());
        return Err(KafkaOpenError::NoTopics { brokers, topic });
    }
    let there = match await_leaders(address, sender, topics).await?[..] {
        [votes, returns] => Partitions { votes, returns },
        _ => Partitions { votes: 0, returns: 0 },
    };
    match given {
        Some(given) if given != there => Err(KafkaOpenError::OtherPartitions { there, given }),
        _ => Ok(()),
    }
}

async fn metadata(address: &Address, sender: &Sender) -> Result<Metadata, KafkaOpenError> {
    let sender = sender.clone();
    // Of all topics: a question for one that is not there may make it, with Kafka's own number of partitions.
    let asked = tokio::task::spawn_blocking(move || sender.client().fetch_metadata(None, TIMEOUT)).await;
    let asked = asked.unwrap_or(Err(KafkaError::Canceled));
    asked.map_err(|source| KafkaOpenError::Unreachable { brokers: address.brokers().to_owned(), source })
}

/// How many partitions each topic has; none where there is no such topic.
fn counts(seen: &Metadata, topics: &[String]) -> Vec<Option<u16>> {
    let count = |name: &String| {
        let topic = seen.topics().iter().find(|topic| topic.name() == name)?;
        let count = u16::try_from(topic.partitions().len()).unwrap_or(u16::MAX);
        (topic.error().is_none() && count > 0).then_some(count)
    };
    topics.iter().map(count).collect()
}

/// What a topic keeps.
#[derive(Debug, Clone, Copy)]
pub(super) enum Keep {
    /// Every record, for good.
    All,
    /// The last record of each key; all of them for a day, for readers that were away.
    Newest,
    /// Every record, for an hour.
    Hour,
}

impl Keep {
    fn settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Keep::All => &[("cleanup.policy", "delete"), ("retention.ms", "-1"), ("retention.bytes", "-1")],
            Keep::Newest => &[("cleanup.policy", "compact"), ("min.compaction.lag.ms", "86400000")],
            Keep::Hour => &[("cleanup.policy", "delete"), ("retention.ms", "3600000")],
        }
    }
}

/// A topic that is to be there.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) name: String,
    pub(super) partitions: u16,
    pub(super) keep: Keep,
}

/// Makes the topics that are missing, and waits until they have leaders.
pub(super) async fn ensure(
    address: &Address,
    sender: &Sender,
    wanted: Vec<Wanted>,
) -> Result<(), KafkaOpenError> {
    let names: Vec<_> = wanted.iter().map(|topic| topic.name.clone()).collect();
    let counts: Vec<_> = wanted.iter().map(|topic| topic.partitions).collect();
    let seen = metadata(address, sender).await?;
    let there =
        |name: &str| seen.topics().iter().any(|topic| topic.name() == name && topic.error().is_none());
    let missing: Vec<_> = wanted.into_iter().filter(|topic| !there(&topic.name)).collect();
    make(address, seen.brokers().len(), &missing).await?;
    let there = await_leaders(address, sender, &names).await?;
    match names.into_iter().zip(there).zip(counts).find(|((_, there), given)| there != given) {
        Some(((topic, there), given)) => Err(KafkaOpenError::OtherCount { topic, there, given }),
        None => Ok(()),
    }
}

async fn make(address: &Address, brokers: usize, missing: &[Wanted]) -> Result<(), KafkaOpenError> {
    let Some(first) = missing.first() else { return Ok(()) };
    let failed = |topic: &str, source| KafkaOpenError::Create { topic: topic.to_owned(), source };
    let admin: AdminClient<Quiet> =
        rdkafka::config::FromClientConfigAndContext::from_config_and_context(&address.client(), Quiet)
            .map_err(|error| KafkaOpenError::Settings(error.to_string()))?;
    let replicas = brokers.clamp(1, REPLICAS);
    let in_sync = if replicas == REPLICAS { IN_SYNC } else { 1 };
    if replicas < REPLICAS {
        tracing::warn!(brokers, replicas, "with fewer than three brokers, losing one may lose the log");
    }
    let (in_sync, largest) = (in_sync.to_string(), (MAX_BATCH_BYTES + MAX_EXTRA_BYTES).to_string());
    let replicas = i32::try_from(replicas).unwrap_or(1);
    let topics: Vec<_> = missing
        .iter()
        .map(|Wanted { name, partitions, keep }| {
            let topic = NewTopic::new(name, i32::from(*partitions), TopicReplication::Fixed(replicas));
            keep.settings()
                .iter()
                .fold(topic, |topic, (key, value)| topic.set(key, value))
                .set("min.insync.replicas", &in_sync)
                .set("max.message.bytes", &largest)
                .set("unclean.leader.election.enable", "false")
                .set("compression.type", "producer")
        })
        .collect();
    let options = AdminOptions::new().operation_timeout(Some(TIMEOUT)).request_timeout(Some(TIMEOUT));
    let made = admin.create_topics(&topics, &options).await;
    for result in made.map_err(|source| failed(&first.name, source))? {
        match result {
            // Another process that starts on the same log may have been quicker; what it made is compared below.
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => return Err(failed(&topic, KafkaError::AdminOp(code))),
        }
    }
    Ok(())
}

/// Waits until every partition of the topics has a leader, which takes a moment where they are new; tells how many
/// each has.
async fn await_leaders(
    address: &Address,
    sender: &Sender,
    topics: &[String],
) -> Result<Vec<u16>, KafkaOpenError> {
    let until = Instant::now() + TIMEOUT;
    loop {
        let seen = metadata(address, sender).await?;
        let led = seen.topics().iter().filter(|topic| topics.iter().any(|name| name == topic.name()));
        let led = led.flat_map(|topic| topic.partitions()).all(|partition| partition.leader() >= 0);
        if let (Some(there), true) = (counts(&seen, topics).into_iter().collect(), led) {
            return Ok(there);
        }
        if Instant::now() > until {
            let (brokers, source) =
                (address.brokers().to_owned(), KafkaError::AdminOp(RDKafkaErrorCode::LeaderNotAvailable));
            return Err(KafkaOpenError::Unreachable { brokers, source });
        }
        tokio::time::sleep(PAUSE).await;
    }
}
