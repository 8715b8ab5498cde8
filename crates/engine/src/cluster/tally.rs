//! The tally: folds its share of the partitions, and tells the board what they add up to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use canvass_election::ids::{Offset, PartitionId};
use canvass_log::Log;
use canvass_log::kafka::{From, Heard, Member, PublishError, Publisher, Subject};

use super::messages::{Told, Value, heard};
use super::{Audience, Bound, Process, place_of};
use crate::partition::Partition;

/// How soon something is tried again that Kafka did not do.
const PAUSE: Duration = Duration::from_secs(1);
/// So many of a partition's last batches are answered by its new owner as well: the one before may not have come to it.
const ANSWERED_AGAIN: u64 = 256;

impl<L: Log> Process<L> {
    /// Folds whatever partitions are this process's share.
    pub(super) async fn own(self: Arc<Self>, member: Member) -> Result<(), String> {
        let mut assigned = member.assigned();
        let mut working: BTreeMap<PartitionId, (u64, Bound)> = BTreeMap::new();
        loop {
            let share = assigned.borrow_and_update().clone();
            working.retain(|id, (number, _)| {
                let stays = share.get(id) == Some(number);
                if !stays {
                    tracing::info!(partition = %id, "this partition is not this process's any more");
                    self.owned.lock().remove(id);
                }
                stays
            });
            for (id, number) in share {
                working.entry(id).or_insert_with(|| {
                    tracing::info!(partition = %id, "this partition is this process's now");
                    (number, Bound(self.tasks.spawn(Arc::clone(&self).own_one(id))))
                });
            }
            if assigned.changed().await.is_err() {
                return Err("the group of tallies cannot be joined any more".to_owned());
            }
        }
    }

    /// Folds one partition for as long as it is this process's.
    async fn own_one(self: Arc<Self>, id: PartitionId) -> Result<(), String> {
        loop {
            match Arc::clone(&self).tally(id).await {
                Err(Trouble::Fatal(reason)) => return Err(reason),
                Err(Trouble::Publish(error)) => {
                    // Whoever wrote in between may have been right to: what is there now is read anew.
                    tracing::warn!(partition = %id, %error, "the partition is folded anew");
                }
            }
            self.owned.lock().remove(&id);
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn tally(self: Arc<Self>, id: PartitionId) -> Result<std::convert::Infallible, Trouble> {
        let place = place_of(&self.definition, id);
        // From here on nobody else writes this partition's partials.
        let publisher = self.exchange.publisher(Subject::Partials, place).await?;
        let told = self.told(place).await?;
        let end = self.log.end(id).await.map_err(|e| e.to_string())?;
        let from = Offset(end.0.saturating_sub(ANSWERED_AGAIN));
        let audience = Audience::Gateways { exchange: self.exchange.clone(), place, from };
        let partition = Arc::new(Partition::outgoing(id, told));
        // Nobody tells it to stop: it ends with this task.
        let (_running, stop) = tokio::sync::watch::channel(false);
        let folding = Arc::clone(&partition).run(Arc::clone(&self.log), audience, None, None, stop);
        let _folding = Bound(self.tasks.spawn(folding));
        partition.reached(end).await;
        tracing::info!(partition = %id, batches = end.0, told = told.0, "the partition has been folded");
        self.owned.lock().insert(id, Arc::clone(&partition));
        let _answering = Bound(self.tasks.spawn(Arc::clone(&self).answer(Arc::clone(&partition), place)));
        self.tell(&partition, &publisher).await
    }

    /// How far the partition was told by whoever owned it before.
    async fn told(&self, place: u16) -> Result<Offset, Trouble> {
        let partials = self.exchange.follow(Subject::Partials, Some(place), From::Start);
        let mut partials = partials.map_err(|e| e.to_string())?;
        let mut told = Offset::default();
        loop {
            match partials.next().await.map_err(|e| e.to_string())? {
                Heard::All => return Ok(told),
                said => {
                    if let Some(Told { end, value: Value::Mark, .. }) = heard(&said)? {
                        told = told.max(end);
                    }
                }
            }
        }
    }

    /// Tells every tick what has come.
    async fn tell(
        &self,
        partition: &Partition,
        publisher: &Publisher,
    ) -> Result<std::convert::Infallible, Trouble> {
        let mut ticks = tokio::time::interval(self.tick);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let flush = partition.take_flush();
            // Half a batch is nothing that the log says; this process is about to end.
            if flush.is_empty() || partition.is_broken() {
                continue;
            }
            let messages = flush.messages()?;
            while let Err(error) = publisher.publish(&messages).await {
                if matches!(error, PublishError::Fenced) {
                    return Err(error.into());
                }
                tracing::warn!(partition = %partition.id, %error, "partials cannot be told; trying again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Why a partition is not folded on.
enum Trouble {
    Fatal(String),
    Publish(PublishError),
}

impl std::convert::From<String> for Trouble {
    fn from(reason: String) -> Self {
        Trouble::Fatal(reason)
    }
}

impl std::convert::From<PublishError> for Trouble {
    fn from(error: PublishError) -> Self {
        Trouble::Publish(error)
    }
}
