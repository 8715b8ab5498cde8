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
use crate::snapshot::{self, Snapshot};

/// How soon something is tried again that Kafka did not do.
const PAUSE: Duration = Duration::from_secs(1);
/// So many of a partition's last batches are answered by its new owner as well: the one before may not have come to it.
const ANSWERED_AGAIN: u64 = 256;

impl<L: Log> Process<L> {
    /// Folds whatever partitions are this process's share, until told to stop.
    pub(super) async fn own(self: Arc<Self>, member: Member) -> Result<(), String> {
        let (mut assigned, mut stopped) = (member.assigned(), self.stopped.clone());
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
            let stop = async { drop(stopped.wait_for(|stop| *stop).await) };
            tokio::select! {
                () = stop => break,
                changed = assigned.changed() => {
                    changed.map_err(|_| "the group of tallies cannot be joined any more")?;
                }
            }
        }
        for (_, bound) in working.into_values() {
            bound.ended().await;
        }
        Ok(())
    }

    /// Folds one partition for as long as it is this process's.
    async fn own_one(self: Arc<Self>, id: PartitionId) -> Result<(), String> {
        loop {
            match Arc::clone(&self).tally(id).await {
                Ok(()) => return Ok(()),
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

    /// Folds one partition until told to stop, and then writes a snapshot.
    async fn tally(self: Arc<Self>, id: PartitionId) -> Result<(), Trouble> {
        let place = place_of(&self.definition, id);
        // From here on nobody else writes this partition's partials.
        let publisher = self.exchange.publisher(Subject::Partials, place).await?;
        let told = self.told(place).await?;
        let end = self.log.end(id).await.map_err(|e| e.to_string())?;
        let from = Offset(end.0.saturating_sub(ANSWERED_AGAIN));
        let audience = Audience::Gateways { exchange: self.exchange.clone(), place, from };
        let snapshot = self.snapshot(id).await?;
        let begun = snapshot.as_ref().map_or(0, |snapshot| snapshot.tally.end().0);
        let partition = Arc::new(Partition::outgoing(id, snapshot, told));
        let (snapshots, stop) = (Some(Arc::clone(&self.snapshots)), self.stopped.clone());
        let folding = Arc::clone(&partition).run(Arc::clone(&self.log), audience, snapshots, None, stop);
        let folding = Bound(self.tasks.spawn(folding));
        let telling = async {
            partition.reached(end).await;
            let (begun, end, told) = (begun, end.0, told.0);
            tracing::info!(partition = %id, begun, end, told, "the partition has been folded");
            self.owned.lock().insert(id, Arc::clone(&partition));
            let answering = Arc::clone(&self).answer(Arc::clone(&partition), place);
            let _answering = Bound(self.tasks.spawn(answering));
            self.tell(&partition, &publisher).await
        };
        let mut stop = self.stopped.clone();
        let stopped = async move { drop(stop.wait_for(|stop| *stop).await) };
        tokio::select! {
            ended = telling => ended.map(|never| match never {}),
            () = stopped => {
                folding.ended().await;
                Ok(())
            }
        }
    }

    /// The snapshot of a partition, if there is one and it is of this log.
    async fn snapshot(&self, id: PartitionId) -> Result<Option<Snapshot>, String> {
        let folder = self.snapshots.folder.clone();
        let loaded = tokio::task::spawn_blocking(move || snapshot::load(&folder, id)).await;
        match loaded.map_err(|e| e.to_string())? {
            Some(found) => snapshot::of_log(&*self.log, found).await.map_err(|e| e.to_string()),
            None => Ok(None),
        }
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
